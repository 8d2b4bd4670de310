//! The line to the cloud: a client with its connections, used while all is well and for a bounded time.
//!
//! A connection outlives the address it was made to: a name that leads elsewhere is only asked again by a new one.

use std::sync::Arc;
use std::time::Duration;

use broker::LinkTls;
use reqwest::dns::{Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, Proxy, Url};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Seconds to wait for a connection.
const CONNECT_SECONDS_MAX: u64 = 10;
/// Idle connections that are kept.
const IDLE_CONNECTIONS_MAX: usize = 16;
/// How long an idle connection is kept: less than most gateways do, so that it is us who close it.
const IDLE_MAX: Duration = Duration::from_secs(50);
/// How long a line is used. The next one asks for the cloud's address again, and reads the certificates anew.
pub(super) const AGE_MAX: Duration = Duration::from_secs(300);

/// Why there is no line.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    /// A certificate or a key is of no use.
    #[error("prepare TLS for the cloud")]
    Tls(#[from] broker::tls::TlsError),
    /// The client cannot be made.
    #[error("make the HTTP client of the cloud")]
    Client(#[from] reqwest::Error),
}

/// A client and its connections.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) client: Client,
    made_at: Instant,
}

/// How lines are made.
#[derive(Clone)]
pub(super) struct Dialer {
    tls: LinkTls,
    proxy: Option<Proxy>,
    /// Who tells addresses; `None` means the system.
    pub(super) resolver: Option<Resolver>,
}

/// Tells where the name of the cloud leads.
#[derive(Clone)]
pub(super) struct Resolver(pub(super) Arc<dyn Resolve>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        self.0.resolve(name)
    }
}

impl Dialer {
    /// `None` when the address of the proxy is none.
    pub(super) fn new(tls: LinkTls, proxy: Option<&str>) -> Option<Self> {
        let proxy = match proxy {
            Some(address) => Some(proxy_of(address)?),
            None => None,
        };
        Some(Self { tls, proxy, resolver: None })
    }

    async fn dial(&self) -> Result<Line, LineError> {
        let mut tls = Arc::unwrap_or_clone(self.tls.read().await?);
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let builder = Client::builder()
            .use_preconfigured_tls(tls)
            .redirect(Policy::none())
            .connect_timeout(Duration::from_secs(CONNECT_SECONDS_MAX))
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_idle_timeout(IDLE_MAX)
            .user_agent("farmiq-edge");
        // Whatever the environment says, as with all settings.
        let builder = match &self.proxy {
            Some(proxy) => builder.proxy(proxy.clone()),
            None => builder.no_proxy(),
        };
        let builder = match &self.resolver {
            Some(resolver) => builder.dns_resolver(Arc::new(resolver.clone())),
            None => builder,
        };
        Ok(Line { client: builder.build()?, made_at: Instant::now() })
    }
}

/// A proxy that is asked for a way to the cloud: CONNECT for https, the request itself for http.
fn proxy_of(address: &str) -> Option<Proxy> {
    let url = Url::parse(address).ok()?;
    let is_address = matches!(url.scheme(), "http" | "https") && url.has_host();
    if is_address { Proxy::all(url).ok() } else { None }
}

/// The line that stands.
pub(super) struct Lines {
    dialer: Dialer,
    line: Mutex<Option<Line>>,
}

impl Lines {
    pub(super) fn new(dialer: Dialer) -> Self {
        Self { dialer, line: Mutex::default() }
    }

    /// The line that stands, or a new one.
    pub(super) async fn current(&self) -> Result<Line, LineError> {
        let mut line = self.line.lock().await;
        match line.as_ref().filter(|line| line.made_at.elapsed() < AGE_MAX) {
            Some(line) => Ok(line.clone()),
            None => Ok(line.insert(self.dialer.dial().await?).clone()),
        }
    }

    /// Has the next request take a new line, unless somebody has one already.
    pub(super) async fn leave(&self, left: &Line) {
        let mut line = self.line.lock().await;
        line.take_if(|line| line.made_at == left.made_at);
    }
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A proxy may have a password.
        f.debug_struct("Lines").field("tls", &self.dialer.tls).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
