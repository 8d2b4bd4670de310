//! TLS of the port: what encrypts it, and who a client with a certificate is.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use actors::allowlist::Allowlist;
use broker::tls::{ClientChain, HandshakeError, Tls, TlsError, TlsFiles, TlsStream};
use schema::store::StoreError;
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::auth::ClientCertificate;
use crate::config::Http;

/// How often a certificate is judged again whose files do not change: it may be over.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// What encrypts the port. Cloning shares it.
#[derive(Clone)]
pub struct Encryption {
    tls: Arc<Tls>,
    /// Knows the tenant of a device whose certificate leaves it out.
    allowlist: Allowlist,
}

/// A client that agreed on encryption.
pub(super) struct Greeted {
    /// Its connection.
    pub stream: TlsStream<TcpStream>,
    /// The device its certificate names, if any.
    pub certificate: Option<ClientCertificate>,
    /// The certificate itself.
    pub chain: Option<ClientChain>,
}

/// Why a client was not let in.
#[derive(Debug, thiserror::Error)]
pub(super) enum GreetError {
    /// TLS did not come about.
    #[error("agree on encryption")]
    Handshake(#[from] HandshakeError),
    /// Nobody can tell now who the client is; it should come back later.
    #[error("look up the tenant of a client certificate")]
    Lookup(#[from] StoreError),
}

impl Encryption {
    /// Reads the files that are configured; `None` when the port is to speak in the clear.
    ///
    /// # Errors
    /// When they are of no use.
    pub async fn open(http: &Http, allowlist: Allowlist) -> Result<Option<Self>, TlsError> {
        let Some(files) = files(http) else { return Ok(None) };
        Ok(Some(Self { tls: Arc::new(Tls::open(files).await?), allowlist }))
    }

    /// Takes up changed files, for ever.
    pub(super) async fn watch(&self) -> Infallible {
        self.tls.watch().await
    }

    /// Encrypts a connection and finds out who is at the other end.
    pub(super) async fn greet(&self, stream: TcpStream) -> Result<Greeted, GreetError> {
        let (stream, chain) = self.tls.accept(stream).await?;
        let identity = match chain.as_ref().and_then(ClientChain::subject) {
            Some(subject) => self.allowlist.identity(&subject).await?,
            None => None,
        };
        let certificate = identity.zip(chain.as_ref()).map(|(identity, chain)| ClientCertificate {
            identity,
            sha256: Sha256::digest(chain.certificate()).into(),
            ends_at_seconds: chain.ends_at_seconds(),
        });
        Ok(Greeted { stream, certificate, chain })
    }

    /// Waits until a client's certificate is not trusted any more; for ever, when it has shown none.
    pub(super) async fn distrusts(&self, chain: Option<&ClientChain>) {
        let Some(chain) = chain else { return std::future::pending().await };
        let mut taken_up = self.tls.taken_up();
        while self.tls.still_trusts(chain) {
            tokio::select! {
                changed = taken_up.changed() => changed.expect("the sender is as old as the files"),
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }
}

/// The files that encrypt the port.
pub(crate) fn files(http: &Http) -> Option<TlsFiles> {
    let (cert, key) = (http.tls_cert.clone()?, http.tls_key.clone()?);
    Some(TlsFiles { cert, key, client_ca: http.client_ca.clone(), client_crl: http.client_crl.clone() })
}
