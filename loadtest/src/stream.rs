//! The stream below MQTT: TCP, or TLS on it.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use anyhow::{Context, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{self, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The name the certificate of a broker must have: this program measures what runs beside it.
const SERVER_NAME: &str = "localhost";

/// How a client encrypts, and whom it trusts.
#[derive(Clone, Debug)]
pub struct Tls(Arc<ClientConfig>);

impl Tls {
    /// A client that trusts the CAs of a PEM text, and shows a certificate with its key if it has one.
    ///
    /// # Errors
    /// When the texts hold no certificates or do not fit each other.
    pub fn trusting(ca: &[u8], own: Option<(&[u8], &[u8])>) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca) {
            roots.add(certificate.context("read the CA")?).context("trust the CA")?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .context("choose versions of TLS")?
            .with_root_certificates(roots);
        let config = match own {
            Some((chain, key)) => {
                let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
                let key = PrivateKeyDer::from_pem_slice(key).context("read the private key")?;
                builder
                    .with_client_auth_cert(chain.context("read the own certificate")?, key)
                    .context("use the own certificate")?
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Self(Arc::new(config)))
    }

    /// A client that trusts the CAs in a file.
    ///
    /// # Errors
    /// When the file cannot be read or holds none.
    pub fn trusting_file(ca: &Path) -> Result<Self> {
        let pem = std::fs::read(ca).with_context(|| format!("read {}", ca.display()))?;
        Self::trusting(&pem, None)
    }
}

/// A connection to a broker.
#[derive(Debug)]
pub enum Stream {
    /// In the clear.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Connects, with TLS when it is asked for.
    ///
    /// # Errors
    /// When nobody listens there or the handshake fails.
    pub async fn open(broker: &str, tls: Option<&Tls>) -> Result<Self> {
        let stream = TcpStream::connect(broker).await.with_context(|| format!("connect to {broker}"))?;
        Self::over(stream, broker, tls).await
    }

    /// Connects from one of this machine's addresses: each has ports of its own.
    ///
    /// # Errors
    /// When nobody listens there, the address is none of this machine's, or the handshake fails.
    pub async fn open_from(from: SocketAddr, broker: &str, tls: Option<&Tls>) -> Result<Self> {
        let address = broker.parse().with_context(|| format!("{broker} is no address"))?;
        let socket = TcpSocket::new_v4().context("make a socket")?;
        socket.bind(from).with_context(|| format!("bind to {from}"))?;
        let stream = socket.connect(address).await.with_context(|| format!("connect to {broker}"))?;
        Self::over(stream, broker, tls).await
    }

    async fn over(stream: TcpStream, broker: &str, tls: Option<&Tls>) -> Result<Self> {
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        let Some(Tls(config)) = tls else { return Ok(Self::Plain(stream)) };
        let name = ServerName::try_from(SERVER_NAME).context("name the server")?;
        let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await;
        Ok(Self::Tls(Box::new(stream.with_context(|| format!("shake hands with {broker}"))?)))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
