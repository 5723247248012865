//! Variables: `SPIN_VARIABLE_<NAME>` of the environment.

use wasmtime::component::Accessor;

use crate::{
    bindings::spin::variables::variables::{Error, Host, HostWithStore},
    store::{Data, Spin},
};

impl Host for Data {}

impl<T: Send> HostWithStore<T> for Spin {
    async fn get(_: &Accessor<T, Self>, name: String) -> Result<String, Error> {
        let valid = name.starts_with(|first: char| first.is_ascii_lowercase())
            && name
                .chars()
                .all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_')
            && !name.contains("__")
            && !name.ends_with('_');
        if !valid {
            return Err(Error::InvalidName(name));
        }
        std::env::var(format!("SPIN_VARIABLE_{}", name.to_uppercase()))
            .map_err(|_| Error::Undefined(name))
    }
}
