//! Whom to believe on the other side of TLS.

use std::{
    env,
    error::Error,
    sync::{Arc, OnceLock},
};

use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use crate::upstream::describe;

/// What connections start from, read once for the whole process and not before somebody asks.
pub(crate) fn client() -> Result<Arc<ClientConfig>, String> {
    static CONFIG: OnceLock<Result<Arc<ClientConfig>, String>> = OnceLock::new();
    CONFIG
        .get_or_init(|| believe(roots()?).map_err(|error| describe(&*error)))
        .clone()
}

fn believe(roots: RootCertStore) -> Result<Arc<ClientConfig>, Box<dyn Error>> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The machine's certificates, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name; on a machine without any, Mozilla's.
fn roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        if env::var_os("SSL_CERT_FILE").is_some() || env::var_os("SSL_CERT_DIR").is_some() {
            return Err(
                "tls: SSL_CERT_FILE or SSL_CERT_DIR is set, and there is no certificate".into(),
            );
        }
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Ok(roots)
}
