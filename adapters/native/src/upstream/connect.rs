//! How a connection to an upstream comes to be.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::Uri;
use hyper::client::conn::http1;
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use tidegate_core::{body::Body, upstream::Failure};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, pki_types::ServerName},
};
use tower_service::Service;

use super::{broken, connect, connection::Connection, describe, fair::Fair};
use crate::tls;

/// How often a silent upstream is asked whether it is still there, by TCP itself.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// The longest head of an answer, in bytes; it is also the most that is read ahead of whoever reads the body.
const HEAD: usize = 256 << 10;

/// Opens connections.
pub(super) struct Connector {
    tcp: HttpConnector,
}

impl Connector {
    pub(super) fn new() -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        Self { tcp }
    }

    /// A fresh connection to where `uri` leads. Its name, the connection itself and TLS may take so long together.
    pub(super) async fn connect(
        &self,
        uri: &Uri,
        patience: Duration,
    ) -> Result<Connection, Failure> {
        let opened = timeout(patience, self.open(uri, patience)).await;
        opened.unwrap_or_else(|_| Err(connect(&format!("no connection within {patience:?}"))))
    }

    async fn open(&self, uri: &Uri, patience: Duration) -> Result<Connection, Failure> {
        let mut tcp = self.tcp.clone();
        // It is shared out among the addresses of a name, so that the second is tried before the time is over.
        tcp.set_connect_timeout(Some(patience));
        let stream = tcp
            .call(uri.clone())
            .await
            .map_err(|error| connect(&describe(&error)))?;
        if uri.scheme_str() != Some("https") {
            return handshake(stream.into_inner()).await;
        }
        let host = uri
            .host()
            .unwrap_or_default()
            .trim_start_matches('[')
            .trim_end_matches(']');
        let name =
            ServerName::try_from(host.to_owned()).map_err(|error| connect(&describe(&error)))?;
        let config = tls().map_err(|detail| connect(&detail))?;
        let stream = TlsConnector::from(config)
            .connect(name, stream.into_inner())
            .await
            .map_err(|error| connect(&format!("tls: {}", describe(&error))))?;
        handshake(stream).await
    }
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
) -> Result<Connection, Failure> {
    let stream = TokioIo::new(Fair::new(stream));
    let (sender, driver) = http1::Builder::new()
        .max_buf_size(HEAD)
        .handshake::<_, Body>(stream)
        .await
        .map_err(|error| broken(&error))?;
    Ok(Connection::new(sender, async move {
        // What goes wrong is told to whoever waits for the answer.
        let _ = driver.with_upgrades().await;
    }))
}

/// Whom to believe, and that it is HTTP/1.1 that is spoken.
fn tls() -> Result<Arc<ClientConfig>, String> {
    static CONFIG: OnceLock<Result<Arc<ClientConfig>, String>> = OnceLock::new();
    let speaking = || {
        let mut config = ClientConfig::clone(&*tls::client()?);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    };
    CONFIG.get_or_init(speaking).clone()
}
