//! TLS of the link: whom it trusts at the other end, and what it shows of itself.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};

use crate::tls::{TlsError, certificates, read, roots};

/// How a link is encrypted; all files are PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkTls {
    /// The CAs of the broker's certificate; `None` means those of the system.
    pub ca: Option<PathBuf>,
    /// Our own certificate and its key, for a broker that asks for one.
    pub own: Option<(PathBuf, PathBuf)>,
}

impl LinkTls {
    /// Reads the files and makes of them what a connection is encrypted with.
    ///
    /// # Errors
    /// When one cannot be read or is of no use, or the system names no CA.
    pub async fn read(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let roots = match &self.ca {
            Some(path) => roots(&read(path).await?, path)?,
            None => system_roots().await?,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .expect("the provider speaks both versions")
            .with_root_certificates(roots);
        let Some((cert, key)) = &self.own else { return Ok(Arc::new(builder.with_no_client_auth())) };
        let chain = certificates(&read(cert).await?, cert)?;
        let pem = read(key).await?;
        let private = PrivateKeyDer::from_pem_slice(&pem).map_err(|source| TlsError::Pem {
            what: "a private key",
            path: key.clone(),
            source,
        })?;
        let config = builder.with_client_auth_cert(chain, private);
        let error = |source| TlsError::Pair { cert: cert.clone(), key: key.clone(), source };
        config.map(Arc::new).map_err(error)
    }
}

/// The CAs that the system trusts.
async fn system_roots() -> Result<RootCertStore, TlsError> {
    let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await;
    let found = found.expect("reading files does not panic");
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() { Err(TlsError::NoSystemCa) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_that_are_of_no_use_are_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ca.pem");
        let tls = LinkTls { ca: Some(path.clone()), own: None };
        assert!(matches!(tls.read().await, Err(TlsError::Read { path: named, .. }) if named == path));
        std::fs::write(&path, "no certificate").expect("a file");
        assert!(matches!(tls.read().await, Err(TlsError::Pem { path: named, .. }) if named == path));
    }
}
