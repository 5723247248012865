//! Runs the Spin component as Spin 4.1 does, where no Spin is to be had.
//!
//! The same engine and the same handler as Spin's own: instances are reused for 128 requests, 16 of them at once, live on
//! while they have work after their answers, and go after a second of idleness. What differs: there is no `spin.toml`
//! (variables come from `SPIN_VARIABLE_…` alone), `allowed_outbound_hosts` is not enforced, upstreams are reached without
//! TLS, and sockets have `TCP_NODELAY`.

mod arguments;
mod bindings;
mod instances;
mod outbound;
mod output;
mod redis;
mod server;
mod sqlite;
mod store;
mod variables;

use std::sync::Arc;

use anyhow::Context as _;
use tokio::{
    io::AsyncReadExt,
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use crate::{arguments::Arguments, instances::Instances, store::Services};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Some(arguments) = Arguments::parse(std::env::args().skip(1))? else {
        println!("{}", arguments::USAGE);
        return Ok(());
    };
    let services = Arc::new(Services::new(&arguments.state, &arguments.config)?);
    let instances =
        Instances::new(&arguments.component, &arguments.cache, services).map_err(|error| {
            anyhow::anyhow!("cannot load {}: {error:#}", arguments.component.display())
        })?;
    let listener = TcpListener::bind(&arguments.listen)
        .await
        .with_context(|| format!("cannot bind {}", arguments.listen))?;
    let address = listener.local_addr()?;
    eprintln!("listening on http://{address}");

    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = server::serve(listener, address, instances) => result,
        _ = terminate.recv() => Ok(()),
        _ = tokio::signal::ctrl_c() => Ok(()),
        () = end_of_stdin(), if arguments.until_stdin_closes => Ok(()),
    }?;
    // At once, as a killed Spin would: work after the answers is lost.
    std::process::exit(0)
}

async fn end_of_stdin() {
    let mut stdin = tokio::io::stdin();
    let mut rest = [0; 256];
    while stdin.read(&mut rest).await.is_ok_and(|read| read > 0) {}
}
