//! TLS on both sides: whom to believe, and what to show.

use std::{
    env,
    error::Error,
    fs,
    path::Path,
    sync::{Arc, OnceLock},
};

use tokio_rustls::rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::upstream::describe;

/// What connections start from, read once for the whole process and not before somebody asks.
pub(crate) fn client() -> Result<Arc<ClientConfig>, String> {
    static CONFIG: OnceLock<Result<Arc<ClientConfig>, String>> = OnceLock::new();
    CONFIG
        .get_or_init(|| believe(roots()?).map_err(|error| describe(&*error)))
        .clone()
}

/// What callers are shown: the certificate and the key in these files, which must belong together.
pub(crate) fn server(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, String> {
    let read = |file| fs::read(file).map_err(|error| at(file, &error));
    let certificates = CertificateDer::pem_slice_iter(&read(certificate)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| at(certificate, &error))?;
    let secret = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| at(key, &error))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_no_client_auth())
        .and_then(|builder| builder.with_single_cert(certificates, secret))
        .map_err(|error| at(certificate, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn at(file: &Path, problem: &(dyn Error + 'static)) -> String {
    format!("{}: {}", file.display(), describe(problem))
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
