//! The stream below MQTT: TCP, TLS on it, and a WebSocket on either.

mod websocket;

use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use anyhow::{Context, Result, bail, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{self, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use websocket::WebSocket;

/// The name the certificate of a broker must have, unless another is given: most are measured on their own machine.
const SERVER_NAME: &str = "localhost";

/// How a client encrypts, and whom it trusts.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
    roots: Arc<RootCertStore>,
    name: ServerName<'static>,
}

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
        ensure!(!roots.is_empty(), "there is no certificate of a CA");
        Self::with_roots(Arc::new(roots), SERVER_NAME, own)
    }

    /// A client that trusts the CAs in a file.
    ///
    /// # Errors
    /// When the file cannot be read or holds none.
    pub fn trusting_file(ca: &Path) -> Result<Self> {
        let pem = std::fs::read(ca).with_context(|| format!("read {}", ca.display()))?;
        Self::trusting(&pem, None).with_context(|| format!("use {}", ca.display()))
    }

    /// A client that trusts whom the system trusts.
    ///
    /// # Errors
    /// When the system trusts nobody.
    pub fn trusting_system() -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        ensure!(!roots.is_empty(), "this system trusts no CA: name one");
        Self::with_roots(Arc::new(roots), SERVER_NAME, None)
    }

    /// The same client, for a server whose certificate has this name.
    ///
    /// # Errors
    /// When it is no name a certificate could have.
    pub fn named(mut self, name: &str) -> Result<Self> {
        self.name = server_name(name)?;
        Ok(self)
    }

    /// The same client with a certificate to show, both as PEM texts.
    ///
    /// # Errors
    /// When they are no certificate and key that fit each other.
    pub fn showing(&self, chain: &[u8], key: &[u8]) -> Result<Self> {
        let with = Self::with_roots(Arc::clone(&self.roots), SERVER_NAME, Some((chain, key)))?;
        Ok(Self { name: self.name.clone(), ..with })
    }

    fn with_roots(roots: Arc<RootCertStore>, name: &str, own: Option<(&[u8], &[u8])>) -> Result<Self> {
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .context("choose versions of TLS")?
            .with_root_certificates(Arc::clone(&roots));
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
        Ok(Self { config: Arc::new(config), roots, name: server_name(name)? })
    }
}

fn server_name(name: &str) -> Result<ServerName<'static>> {
    ServerName::try_from(name.to_owned()).with_context(|| format!("{name:?} is no name of a server"))
}

/// Where a broker listens and how it is spoken to there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `host:port`.
    pub address: String,
    /// Whether the connection is encrypted; `None` leaves it to whether there is something to encrypt with.
    pub is_encrypted: Option<bool>,
    /// The path of a WebSocket.
    pub websocket_path: Option<String>,
}

impl Target {
    /// Reads `host:port`, or a URL: `mqtt://`, `mqtts://`, `ws://` or `wss://`, then a host, a port unless it is the
    /// usual one, and for WebSockets a path unless it is `/mqtt`.
    ///
    /// # Errors
    /// When the text is neither.
    pub fn parse(text: &str) -> Result<Self> {
        let Some((scheme, rest)) = text.split_once("://") else {
            ensure!(text.contains(':'), "{text:?} is no host:port and no URL");
            return Ok(Self { address: text.to_owned(), is_encrypted: None, websocket_path: None });
        };
        let (is_encrypted, is_websocket, port) = match scheme {
            "mqtt" | "tcp" => (false, false, 1883),
            "mqtts" | "ssl" => (true, false, 8883),
            "ws" => (false, true, 80),
            "wss" => (true, true, 443),
            _ => bail!("{scheme}:// is none of mqtt://, mqtts://, ws://, wss://"),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        ensure!(!authority.is_empty(), "{text:?} names no host");
        ensure!(!authority.contains('@'), "a login is given beside the URL, not in it");
        ensure!(is_websocket || matches!(path, "" | "/"), "{scheme}:// has no path");
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address = if has_port { authority.to_owned() } else { format!("{authority}:{port}") };
        let path = if matches!(path, "" | "/") { "/mqtt" } else { path };
        Ok(Self {
            address,
            is_encrypted: Some(is_encrypted),
            websocket_path: is_websocket.then(|| path.to_owned()),
        })
    }

    /// The host without its port.
    #[must_use]
    pub fn host(&self) -> &str {
        let host = self.address.rsplit_once(':').map_or(self.address.as_str(), |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

/// A connection to a broker.
#[derive(Debug)]
pub enum Stream {
    /// In the clear.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
    /// In a WebSocket.
    WebSocket(Box<WebSocket>),
}

impl Stream {
    /// Connects to a [`Target`], with TLS when it is asked for.
    ///
    /// # Errors
    /// When nobody listens there or the handshake fails.
    pub async fn open(broker: &str, tls: Option<&Tls>) -> Result<Self> {
        let target = Target::parse(broker)?;
        let stream =
            TcpStream::connect(&target.address).await.with_context(|| format!("connect to {broker}"))?;
        let tls = match (target.is_encrypted, tls) {
            (Some(true), None) => bail!("{broker} is encrypted, and no CA is named"),
            (Some(false), _) => None,
            (_, tls) => tls,
        };
        let stream = Self::over(stream, broker, tls).await?;
        let Some(path) = &target.websocket_path else { return Ok(stream) };
        let socket = WebSocket::open(stream, &target.address, path).await;
        Ok(Self::WebSocket(Box::new(socket.with_context(|| format!("open a WebSocket to {broker}"))?)))
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

    pub(crate) async fn over(stream: TcpStream, broker: &str, tls: Option<&Tls>) -> Result<Self> {
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        let Some(tls) = tls else { return Ok(Self::Plain(stream)) };
        let stream = TlsConnector::from(Arc::clone(&tls.config)).connect(tls.name.clone(), stream).await;
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
            Self::WebSocket(stream) => Pin::new(stream).poll_read(context, buffer),
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
            Self::WebSocket(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
            Self::WebSocket(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            Self::WebSocket(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_an_address_or_a_url() {
        let check = |text: &str, address: &str, is_encrypted: Option<bool>, path: Option<&str>| {
            let target = Target::parse(text).unwrap();
            let found = (target.address.as_str(), target.is_encrypted, target.websocket_path.as_deref());
            assert_eq!(found, (address, is_encrypted, path), "{text}");
        };
        check("127.0.0.1:1883", "127.0.0.1:1883", None, None);
        check("mqtt://barn", "barn:1883", Some(false), None);
        check("mqtts://barn/", "barn:8883", Some(true), None);
        check("mqtts://[::1]:1", "[::1]:1", Some(true), None);
        check("ws://barn:8083", "barn:8083", Some(false), Some("/mqtt"));
        check("wss://barn/x/y", "barn:443", Some(true), Some("/x/y"));
        for bad in ["barn", "http://barn", "mqtt://", "mqtt://u:p@barn", "mqtt://barn/x"] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Target::parse("mqtts://[::1]:1").unwrap().host(), "::1");
    }
}
