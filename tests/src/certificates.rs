//! Throw-away certificate authorities, and clients that speak TLS.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// An authority that signs for anybody.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
}

/// A certificate with its private key.
pub struct Signed {
    certificate: Certificate,
    key: KeyPair,
}

impl Authority {
    /// An authority of this name.
    ///
    /// # Panics
    /// When a key cannot be made.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.self_signed(&key).expect("a certificate can be signed");
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// A certificate for a server on this machine.
    #[must_use]
    pub fn server(&self) -> Signed {
        self.sign(CertificateParams::new(["localhost".to_owned()]).expect("a host name"))
    }

    /// A certificate of a device, whose tenant it may leave out.
    #[must_use]
    pub fn device(&self, device_id: &str, tenant_id: Option<&str>) -> Signed {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, device_id);
        if let Some(tenant_id) = tenant_id {
            params.distinguished_name.push(DnType::OrganizationName, tenant_id);
        }
        self.sign(params)
    }

    /// The certificate of the authority itself.
    #[must_use]
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    fn sign(&self, params: CertificateParams) -> Signed {
        let key = KeyPair::generate().expect("a key can be made");
        Signed { certificate: params.signed_by(&key, &self.issuer).expect("it can be signed"), key }
    }
}

impl Signed {
    /// Writes certificate and key as PEM files and says where they are.
    ///
    /// # Panics
    /// When they cannot be written.
    pub fn write(&self, directory: &Path) -> (PathBuf, PathBuf) {
        let (cert, key) = (directory.join("cert.pem"), directory.join("key.pem"));
        std::fs::write(&cert, self.certificate.pem()).expect("a file can be written");
        std::fs::write(&key, self.key.serialize_pem()).expect("a file can be written");
        (cert, key)
    }

    /// The certificate as a peer sees it.
    #[must_use]
    pub fn der(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }
}

/// An encrypted connection to a server that `authority` vouches for, in one version of TLS.
///
/// # Errors
/// When the server and the client do not come to terms.
///
/// # Panics
/// When nobody listens there.
pub async fn connect(
    address: SocketAddr,
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
    own: Option<&Signed>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.der().clone()).expect("a certificate");
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[version])
        .expect("the provider speaks it")
        .with_root_certificates(roots);
    let config = match own {
        Some(own) => {
            let key = PrivateKeyDer::try_from(own.key.serialize_der()).expect("a key");
            builder.with_client_auth_cert(vec![own.der()], key).expect("certificate and key fit")
        }
        None => builder.with_no_client_auth(),
    };
    let stream = TcpStream::connect(address).await.expect("somebody listens");
    let name = ServerName::try_from("localhost").expect("a host name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}
