//! TLS of the engine's own listeners: certificates read from files, and read again when they change.
//!
//! Whoever takes connections hands each stream to [`Tls::accept`] in a task of its own, and keeps [`Tls::watch`] running
//! beside them. A connection that stands keeps what it was made with; the next one gets what lies in the files.

pub mod inspect;

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{Acceptor, VerifierBuilderError, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, RootCertStore, ServerConfig};
use schema::id::{DeviceId, TenantId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::LazyConfigAcceptor;
pub use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{AttributeTypeAndValue, FromDer, X509Certificate};

mod unverified;

pub use unverified::connect_unverified;

/// Seconds a client may take for its handshake. Whoever accepts clients bounds how many are on their way in.
const HANDSHAKE_SECONDS_MAX: u64 = 10;
/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Where certificates and keys lie; all are PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Our certificate, followed by what leads to its CA.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The CAs of client certificates, as many as there are; `None` asks no client for one.
    pub client_ca: Option<PathBuf>,
    /// Revocation lists of these CAs, as many as there are. A CA without one revokes nothing; a list that is overdue
    /// still counts, since a farm may be without its CA for long.
    pub client_crl: Option<PathBuf>,
}

/// What a person can do about a failure of TLS with a server, by what rustls says of it; `None` when it is something else.
#[must_use]
pub fn advice(cause: &str) -> Option<&'static str> {
    let advices = [
        (
            "CaUsedAsEndEntity",
            "the server shows a certificate of a CA; give it one of its own (CA:FALSE), signed by that CA",
        ),
        ("UnknownIssuer", "name the CA of the server's certificate as tls_ca"),
        ("not valid for name", "the server's certificate is for another name than the address has"),
        ("certificate expired", "renew the server's certificate, or set the clock of this box"),
        ("not valid yet", "set the clock of this box, or wait for the server's certificate to begin"),
        ("UnsupportedCertVersion", "give the server a certificate of version 3"),
        ("CertificateRequired", "the server asks for a certificate: name one as tls_cert and tls_key"),
        ("InvalidContentType", "the server does not speak TLS at this port"),
    ];
    advices.into_iter().find(|(name, _)| cause.contains(name)).map(|(_, advice)| advice)
}

/// Why the files are of no use.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file has not what is looked for.
    #[error("find {what} in {}, which should be a PEM file", path.display())]
    Pem {
        /// What is looked for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What was found instead.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// A file has more of something than can be read of it: the rest would be left out in silence.
    #[error(
        "read all of {}: what begins in line {line} is not {what} (nothing may stand beside the words of a BEGIN line, and a byte order mark neither)",
        path.display()
    )]
    PemLine {
        /// What should begin there.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The line, counted from one.
        line: usize,
    },
    /// Certificate and key do not fit each other, or are of a kind that is not spoken.
    #[error("use the certificate of {} with the key of {}", cert.display(), key.display())]
    Pair {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What does not fit.
        #[source]
        source: rustls::Error,
    },
    /// The system trusts nobody.
    #[error("find a CA that the system trusts: name one instead")]
    NoSystemCa,
    /// A CA is none.
    #[error("trust the certificates of {}", path.display())]
    Ca {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Why a client did not get in.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// It took too long.
    #[error("the handshake took longer than {HANDSHAKE_SECONDS_MAX} s")]
    TooSlow,
    /// It does not speak TLS, or its certificate is not accepted.
    #[error("shake hands")]
    Failed(#[from] io::Error),
    /// It resumed a session, and the certificate that began the session is not accepted any more.
    #[error("the certificate of the resumed session is not accepted any more")]
    Outdated,
}

/// A client certificate that was verified, with what leads to its CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientChain {
    /// The certificate itself comes first.
    certificates: Arc<[CertificateDer<'static>]>,
    /// When the first of them ends, as seconds of the Unix epoch.
    ends_at_seconds: i64,
}

impl ClientChain {
    fn new(certificates: &[CertificateDer<'_>]) -> Self {
        let ends_at_seconds = |certificate: &CertificateDer<'_>| {
            let parsed = X509Certificate::from_der(certificate);
            parsed.map_or(0, |(_, certificate)| certificate.validity().not_after.timestamp())
        };
        Self {
            ends_at_seconds: certificates.iter().map(ends_at_seconds).min().unwrap_or_default(),
            certificates: certificates.iter().map(|certificate| certificate.clone().into_owned()).collect(),
        }
    }

    /// Whom it names; `None` for one that names nobody, or several.
    #[must_use]
    pub fn subject(&self) -> Option<Subject> {
        self.certificates.first().and_then(subject)
    }

    /// The certificate itself, in DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        self.certificates.first().map_or(&[], AsRef::as_ref)
    }

    /// When it is over, as seconds of the Unix epoch.
    #[must_use]
    pub fn ends_at_seconds(&self) -> i64 {
        self.ends_at_seconds
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        u64::try_from(self.ends_at_seconds).map_or(true, |ends_at| ends_at < UnixTime::now().as_secs())
    }
}

/// Whom a verified client certificate names: the device by its common name, the tenant by its organization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The device.
    pub device_id: DeviceId,
    /// Its tenant; a certificate may leave it out.
    pub tenant_id: Option<TenantId>,
}

/// The TLS side of a listener.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    current: RwLock<Current>,
    /// Counts the times that files were taken up.
    taken_up: watch::Sender<u64>,
    /// The contents last looked at, good or not.
    seen: tokio::sync::Mutex<Contents>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be read, or they do not make a listener.
    pub async fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let contents = Contents::read(&files).await?;
        let current = contents.current(&files)?;
        Ok(Self {
            files,
            current: RwLock::new(current),
            taken_up: watch::Sender::new(0),
            seen: contents.into(),
        })
    }

    /// Makes an encrypted stream of a plain one, and says which certificate the client showed, if any. One that no CA of
    /// ours vouches for, or that is revoked, ends the handshake.
    ///
    /// # Errors
    /// When the client takes too long, or breaks the rules.
    pub async fn accept<S>(&self, stream: S) -> Result<(TlsStream<S>, Option<ClientChain>), HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let handshake = async {
            let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
            // No turns are taken here: a client could keep one by saying no more, and the work is done between two waits.
            hello.into_stream(self.current().config).await
        };
        let ended = timeout(Duration::from_secs(HANDSHAKE_SECONDS_MAX), handshake).await;
        let stream = ended.map_err(|_| HandshakeError::TooSlow)??;
        let (_, session) = stream.get_ref();
        let chain = session.peer_certificates().map(ClientChain::new);
        // A resumed handshake shows no certificate, so nothing in it was judged today.
        let is_resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        if is_resumed && chain.as_ref().is_some_and(|chain| !self.still_trusts(chain)) {
            return Err(HandshakeError::Outdated);
        }
        Ok((stream, chain))
    }

    /// Whether a certificate that was accepted would be accepted now: its CA may have gone, and it may have been revoked
    /// or have expired since.
    #[must_use]
    pub fn still_trusts(&self, chain: &ClientChain) -> bool {
        let (Some(verifier), Some((own, issuers))) =
            (self.current().verifier, chain.certificates.split_first())
        else {
            return false;
        };
        verifier.verify_client_cert(own, issuers, UnixTime::now()).is_ok()
    }

    /// Changes whenever files were taken up.
    #[must_use]
    pub fn taken_up(&self) -> watch::Receiver<u64> {
        self.taken_up.subscribe()
    }

    /// Looks at the files twice a second, for ever. Files that are of no use leave those before them in force, and are
    /// complained about once.
    pub async fn watch(&self) -> Infallible {
        loop {
            sleep(LOOK_EVERY).await;
            match self.look_again().await {
                Ok(true) => tracing::info!(cert = %self.files.cert.display(), "certificate files read again"),
                Ok(false) => {}
                Err(error) => {
                    let cause = schema::store::cause(&error);
                    tracing::error!(%error, cause, "new certificate files are not used, the ones before stay");
                }
            }
        }
    }

    /// Takes up the files if they have changed since they were last looked at; says whether they had.
    async fn look_again(&self) -> Result<bool, TlsError> {
        let mut seen = self.seen.lock().await;
        let contents = Contents::read(&self.files).await;
        let contents = match contents {
            Ok(contents) if contents == *seen => return Ok(false),
            Ok(contents) => contents,
            // While a file is being replaced it may be away.
            Err(_) if *seen == Contents::default() => return Ok(false),
            Err(error) => {
                *seen = Contents::default();
                return Err(error);
            }
        };
        let current = contents.current(&self.files);
        *seen = contents;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = current?;
        self.taken_up.send_modify(|times| *times += 1);
        Ok(true)
    }

    fn current(&self) -> Current {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the files make.
#[derive(Clone, Debug)]
struct Current {
    config: Arc<ServerConfig>,
    /// Judges client certificates, when they are asked for.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

/// What lies in the files; empty when one of them cannot be read.
#[derive(Default, PartialEq, Eq)]
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
    client_crl: Option<Vec<u8>>,
}

/// A private key is nobody's to read.
impl std::fmt::Debug for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contents").finish_non_exhaustive()
    }
}

impl Contents {
    async fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self {
            cert: read(&files.cert).await?,
            key: read(&files.key).await?,
            client_ca: read_if_named(files.client_ca.as_deref()).await?,
            client_crl: read_if_named(files.client_crl.as_deref()).await?,
        })
    }

    fn current(&self, files: &TlsFiles) -> Result<Current, TlsError> {
        let chain = certificates(&self.cert, &files.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|source| TlsError::Pem {
            what: "a private key",
            path: files.key.clone(),
            source,
        })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .expect("the provider speaks both versions");
        let verifier = self.verifier(files, provider)?;
        let builder = match &verifier {
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
            None => builder.with_no_client_auth(),
        };
        let config = builder.with_single_cert(chain, key).map_err(|source| TlsError::Pair {
            cert: files.cert.clone(),
            key: files.key.clone(),
            source,
        })?;
        Ok(Current { config: Arc::new(config), verifier })
    }

    fn verifier(
        &self,
        files: &TlsFiles,
        provider: Arc<CryptoProvider>,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
        let (Some(pem), Some(path)) = (&self.client_ca, &files.client_ca) else { return Ok(None) };
        let crls = match (&self.client_crl, &files.client_crl) {
            (Some(pem), Some(path)) => revocation_lists(pem, path)?,
            (None, _) | (_, None) => Vec::new(),
        };
        // Who must show a certificate is decided where it is known what is asked for.
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(pem, path)?), provider)
            .with_crls(crls)
            .allow_unknown_revocation_status()
            .allow_unauthenticated()
            .build()
            .map_err(|source: VerifierBuilderError| ca_error(path, source))?;
        Ok(Some(verifier))
    }
}

async fn read_if_named(path: Option<&Path>) -> Result<Option<Vec<u8>>, TlsError> {
    match path {
        Some(path) => Ok(Some(read(path).await?)),
        None => Ok(None),
    }
}

pub(crate) async fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let contents = tokio::fs::read(path).await;
    contents.map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

pub(crate) fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    sections(pem, path, "a certificate", "CERTIFICATE")
}

fn revocation_lists(pem: &[u8], path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    sections(pem, path, "a revocation list", "X509 CRL")
}

/// All sections of one kind; there must be one at least, and as many as there are BEGIN lines.
fn sections<T: PemObject>(
    pem: &[u8],
    path: &Path,
    what: &'static str,
    label: &str,
) -> Result<Vec<T>, TlsError> {
    let error = |source| TlsError::Pem { what, path: path.to_owned(), source };
    let begins = begin_lines(pem, label);
    let found: Result<Vec<T>, _> = T::pem_slice_iter(pem).collect();
    let found = found.map_err(error)?;
    let odd = begins.iter().find(|begin| !begin.is_plain).or(begins.last());
    match odd {
        Some(odd) if found.len() < begins.len() => {
            Err(TlsError::PemLine { what, path: path.to_owned(), line: odd.line })
        }
        _ if found.is_empty() => Err(error(rustls::pki_types::pem::Error::NoItemsFound)),
        _ => Ok(found),
    }
}

/// A line in which a person sees a section begin.
struct BeginLine {
    /// Counted from one.
    line: usize,
    /// It has nothing beside the words, so that it is read as a BEGIN line.
    is_plain: bool,
}

fn begin_lines(pem: &[u8], label: &str) -> Vec<BeginLine> {
    let text = String::from_utf8_lossy(pem);
    let plain = format!("-----BEGIN {label}-----");
    let ending = format!("{label}-----");
    let lines = text.split('\n').zip(1..).map(|(line, number)| (line.trim_end(), number));
    lines
        .filter(|(line, _)| line.contains("-----BEGIN ") && line.ends_with(&ending))
        .map(|(line, number)| BeginLine { line: number, is_plain: line == plain })
        .collect()
}

pub(crate) fn roots(pem: &[u8], path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, path)? {
        roots.add(certificate).map_err(|source| ca_error(path, source))?;
    }
    Ok(roots)
}

fn ca_error(path: &Path, source: impl std::error::Error + Send + Sync + 'static) -> TlsError {
    TlsError::Ca { path: path.to_owned(), source: Box::new(source) }
}

/// Whom a certificate names; one that names nobody, or several, is as good as none.
fn subject(certificate: &CertificateDer<'_>) -> Option<Subject> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let name = certificate.subject();
    let found = only(name.iter_common_name()).zip(only(name.iter_organization()));
    let subject = found.and_then(|(device, tenant)| {
        let device_id = DeviceId::new(device?).ok()?;
        let tenant_id = match tenant {
            Some(tenant) => Some(TenantId::new(tenant).ok()?),
            None => None,
        };
        Some(Subject { device_id, tenant_id })
    });
    if subject.is_none() {
        tracing::warn!("a client certificate names no device: its CN must be the device, its O the tenant");
    }
    subject
}

/// The one value of an attribute, or that there is none; `None` when there are several, or it is no text.
#[expect(clippy::option_option, reason = "no value and no usable value are two things")]
fn only<'a>(mut values: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>) -> Option<Option<&'a str>> {
    let Some(first) = values.next() else { return Some(None) };
    if values.next().is_some() {
        return None;
    }
    Some(Some(first.as_str().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTION: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";

    #[test]
    fn a_section_that_would_be_skipped_is_an_error_that_names_its_line() {
        let check = |pem: String, expected: Result<usize, Option<usize>>| {
            let read = certificates(pem.as_bytes(), Path::new("ca.pem"));
            let line = |error| if let TlsError::PemLine { line, .. } = error { Some(line) } else { None };
            let read = read.map(|found| found.len()).map_err(line);
            assert_eq!(read, expected, "{pem:?}");
        };
        check(SECTION.repeat(2), Ok(2));
        check(SECTION.replace('\n', "\r\n"), Ok(1));
        check(format!("# our CA\n{SECTION}"), Ok(1));
        check(format!("\u{feff}{SECTION}{SECTION}"), Err(Some(1)));
        check(format!("{SECTION}\u{feff}{SECTION}"), Err(Some(4)));
        check(format!("{SECTION}{}", SECTION.replace("CERTIFICATE", "TRUSTED CERTIFICATE")), Err(Some(4)));
        check("-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n".to_owned(), Err(None));
    }
}
