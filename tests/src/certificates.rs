//! Throw-away certificate authorities, and clients that speak TLS.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use schema::clock::Clock;
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
    serial: SerialNumber,
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
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
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
        self.sign(of_device(device_id, tenant_id))
    }

    /// A certificate of a device that expires so many seconds from now.
    #[must_use]
    pub fn device_for_seconds(&self, device_id: &str, tenant_id: Option<&str>, seconds: u64) -> Signed {
        let mut params = of_device(device_id, tenant_id);
        let now = Clock::system().now().timestamp().unsigned_abs();
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(now + seconds);
        self.sign(params)
    }

    /// The certificate of the authority itself.
    #[must_use]
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// A revocation list of these certificates; it is overdue, as on a farm that has been cut off for long.
    ///
    /// # Panics
    /// When it cannot be signed.
    #[must_use]
    pub fn revocation_list(&self, revoked: &[&Signed]) -> String {
        let revoked_certs = revoked.iter().map(|signed| RevokedCertParams {
            serial_number: signed.serial.clone(),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2026, 1, 2),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).expect("it can be signed").pem().expect("it can be written")
    }

    fn sign(&self, mut params: CertificateParams) -> Signed {
        let key = KeyPair::generate().expect("a key can be made");
        let serial = SerialNumber::from(rand::random::<u64>() >> 1);
        params.serial_number = Some(serial.clone());
        Signed { certificate: params.signed_by(&key, &self.issuer).expect("it can be signed"), key, serial }
    }
}

fn of_device(device_id: &str, tenant_id: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, device_id);
    if let Some(tenant_id) = tenant_id {
        params.distinguished_name.push(DnType::OrganizationName, tenant_id);
    }
    params
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

    /// Certificate and key as PEM texts.
    #[must_use]
    pub fn pem(&self) -> (String, String) {
        (self.certificate.pem(), self.key.serialize_pem())
    }

    /// Its private key.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).expect("it was just made")
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
    let config = client(authority, version, own);
    connect_again(address, &config).await
}

/// What a client remembers from one connection to the next, its sessions among it.
///
/// # Panics
/// When the certificate is of no use.
#[must_use]
pub fn client(
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
    own: Option<&Signed>,
) -> Arc<ClientConfig> {
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
    Arc::new(config)
}

/// An encrypted connection of a client that may have been there before, and then resumes its session.
///
/// # Errors
/// When the server and the client do not come to terms.
///
/// # Panics
/// When nobody listens there.
pub async fn connect_again(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await.expect("somebody listens");
    let name = ServerName::try_from("localhost").expect("a host name");
    TlsConnector::from(Arc::clone(config)).connect(name, stream).await
}

/// Serves HTTP to whoever speaks TLS, with this certificate, until it is dropped.
///
/// # Panics
/// When the certificate is of no use.
pub async fn accept_tls(listener: tokio::net::TcpListener, signed: &Signed, router: axum::Router) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider speaks them")
        .with_no_client_auth()
        .with_single_cert(vec![signed.der()], signed.private_key())
        .expect("certificate and key fit");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let mut serving = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, router) = (acceptor.clone(), router.clone());
        serving.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = hyper_util::service::TowerToHyperService::new(router);
            let stream = hyper_util::rt::TokioIo::new(stream);
            drop(hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await);
        });
    }
}
