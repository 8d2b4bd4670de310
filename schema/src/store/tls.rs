//! TLS to PostgreSQL, as libpq does it: what is checked of the server's certificate, by whose word, and what we show of us.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256, Sha384, Sha512};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::{self, ChannelBinding, MakeTlsConnect, TlsConnect};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What begins a certificate in a PEM file.
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";

/// What is checked of the server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checks {
    /// Nothing: what is sent is hidden from those who listen, not from those who step in between.
    Nothing,
    /// That one of the CAs vouches for it.
    Chain,
    /// Also that it names the host.
    ChainAndName,
}

/// How connections are encrypted; all files are PEM. They are read for each connection, so that changed ones are taken up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tls {
    /// What is checked.
    pub(super) checks: Checks,
    /// The CAs of the server's certificate; `None` means those of the system.
    pub(super) ca: Option<PathBuf>,
    /// Our own certificate and its key, for a server that asks for one.
    pub(super) own: Option<(PathBuf, PathBuf)>,
}

/// Why a connection cannot be encrypted.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error("read {} as PEM", path.display())]
    Pem { path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("{}: {begun} certificates begin, {read} can be read: is there something before a BEGIN line?", path.display())]
    Certificates { path: PathBuf, begun: usize, read: usize },
    #[error("{}: a certificate is not to be used as a CA", path.display())]
    Ca { path: PathBuf, source: rustls::Error },
    #[error("read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the system trusts no CA: name one with sslrootcert")]
    NoSystemCa,
    #[error("{} and {} are no pair", cert.display(), key.display())]
    Pair { cert: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("`{0}` cannot be the name of a certificate")]
    Name(String),
    #[error("encrypt the connection")]
    Handshake(#[source] io::Error),
}

impl Tls {
    /// Reads the files.
    fn config(&self) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (authorities, roots) = self.trusted()?;
        let algorithms = provider.signature_verification_algorithms;
        let verifier = Verifier { checks: self.checks, authorities, roots, algorithms };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .expect("the provider speaks both versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let Some((cert, key)) = &self.own else { return Ok(builder.with_no_client_auth()) };
        let private = PrivateKeyDer::from_pem_file(key);
        let private = private.map_err(|source| TlsError::Pem { path: key.clone(), source })?;
        let error = |source| TlsError::Pair { cert: cert.clone(), key: key.clone(), source };
        builder.with_client_auth_cert(certificates(cert)?, private).map_err(error)
    }

    /// Who may vouch for the server: the certificates of the file as they are, and as roots. Of the system's CAs those are
    /// passed over that are of no use; ours must all be of use.
    fn trusted(&self) -> Result<(Vec<CertificateDer<'static>>, RootCertStore), TlsError> {
        let mut roots = RootCertStore::empty();
        if self.checks == Checks::Nothing {
            return Ok((Vec::new(), roots));
        }
        let Some(path) = &self.ca else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            return if roots.is_empty() { Err(TlsError::NoSystemCa) } else { Ok((Vec::new(), roots)) };
        };
        let authorities = certificates(path)?;
        for authority in &authorities {
            let error = |source| TlsError::Ca { path: path.clone(), source };
            roots.add(authority.clone()).map_err(error)?;
        }
        Ok((authorities, roots))
    }
}

/// The certificates of a file. One that is skipped would lock somebody out in silence.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })?;
    let error = |source| TlsError::Pem { path: path.to_owned(), source };
    let found: Vec<_> = CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(error)?;
    let begun = String::from_utf8_lossy(&text).matches(BEGIN).count();
    if found.is_empty() || found.len() != begun {
        return Err(TlsError::Certificates { path: path.to_owned(), begun, read: found.len() });
    }
    Ok(found)
}

/// Judges the server's certificate.
#[derive(Debug)]
struct Verifier {
    checks: Checks,
    authorities: Vec<CertificateDer<'static>>,
    roots: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.checks == Checks::Nothing {
            return Ok(ServerCertVerified::assertion());
        }
        let certificate = ParsedCertificate::try_from(end_entity)?;
        // A certificate that is named as a CA itself needs nobody to vouch for it.
        if !self.authorities.iter().any(|authority| authority.as_ref() == end_entity.as_ref()) {
            let algorithms = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(
                &certificate,
                &self.roots,
                intermediates,
                now,
                algorithms,
            )?;
        }
        if self.checks == Checks::ChainAndName {
            verify_server_name(&certificate, name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // Whose key it is was not asked, so what it has signed says nothing.
        if self.checks == Checks::Nothing {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if self.checks == Checks::Nothing {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl MakeTlsConnect<Socket> for Tls {
    type Stream = Encrypted;
    type TlsConnect = Handshake;
    type Error = TlsError;

    fn make_tls_connect(&mut self, host: &str) -> Result<Handshake, TlsError> {
        Ok(Handshake { tls: self.clone(), host: host.to_owned() })
    }
}

/// What encrypts one connection.
pub(super) struct Handshake {
    tls: Tls,
    host: String,
}

impl TlsConnect<Socket> for Handshake {
    type Stream = Encrypted;
    type Error = TlsError;
    type Future = Pin<Box<dyn Future<Output = Result<Encrypted, TlsError>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            let Self { tls, host } = self;
            let config = tokio::task::spawn_blocking(move || tls.config()).await;
            let config = config.expect("reading files does not panic")?;
            let name = ServerName::try_from(host.clone()).map_err(|_| TlsError::Name(host))?;
            let connecting = TlsConnector::from(Arc::new(config)).connect(name, socket);
            Ok(Encrypted(connecting.await.map_err(TlsError::Handshake)?))
        })
    }
}

/// An encrypted connection.
pub(super) struct Encrypted(TlsStream<Socket>);

impl tls::TlsStream for Encrypted {
    fn channel_binding(&self) -> ChannelBinding {
        let certificate = self.0.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let digest = certificate.and_then(|certificate| end_point_digest(certificate));
        digest.map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// The digest of a certificate that binds a login to its connection (RFC 5929, `tls-server-end-point`): by the hash of its
/// signature, or SHA-256 where that is MD5 or SHA-1. `None` when the signature names no hash that is known here.
fn end_point_digest(certificate: &[u8]) -> Option<Vec<u8>> {
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    const ECDSA_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01];
    const ECDSA_SHA2: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
    let (body, _) = der(certificate)?;
    let (_to_be_signed, rest) = der(body)?;
    let (algorithm, _) = der(rest)?;
    let (oid, _) = der(algorithm)?;
    let (&last, family) = oid.split_last()?;
    match (family, last) {
        (RSA, 4 | 5 | 11) | (ECDSA_SHA2, 2) => Some(Sha256::digest(certificate).to_vec()),
        (RSA, 12) | (ECDSA_SHA2, 3) => Some(Sha384::digest(certificate).to_vec()),
        (RSA, 13) | (ECDSA_SHA2, 4) => Some(Sha512::digest(certificate).to_vec()),
        _ if oid == ECDSA_SHA1 => Some(Sha256::digest(certificate).to_vec()),
        _ => None,
    }
}

/// The content of the first DER element, and what follows it.
fn der(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = bytes.get(1..)?.split_first()?;
    let long = usize::from(first & 0x7f);
    let (length, rest) = match first {
        0..0x80 => (usize::from(first), rest),
        _ if long <= 4 => {
            let (length, rest) = rest.split_at_checked(long)?;
            (length.iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}
