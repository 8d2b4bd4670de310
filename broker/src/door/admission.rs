//! From the first byte of a connection to its session: CONNECT, login, takeover, CONNACK.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, timeout_at};

use crate::credits::{Cost, Credits};
use crate::door::caller::Caller;
use crate::door::codec::{self, BadConnect, Connect, ConnectCode, Kind, Will};
use crate::door::sessions::{Client, Seat};
use crate::door::transport::Transport;
use crate::door::{Phase, Shared};
use crate::gatekeeper::{CredentialId, Identity, Login, Scope, Shown};
use crate::stats::Refusal;
use crate::tls::ClientChain;

/// Bytes a CONNECT may have; its will is kept as long as the connection.
const CONNECT_BYTES_MAX: usize = 16 << 10;

/// A client that was let in.
pub(crate) struct Admitted<S> {
    pub(crate) transport: Transport<S>,
    pub(crate) seat: Seat,
    /// Where a device may act; `None` when anonymous.
    pub(crate) scope: Option<Scope>,
    pub(crate) keep_alive_seconds: u16,
    pub(crate) will: Option<HeldWill>,
}

/// A last will and the credit that is reserved for it, so that it can go out at once when its time comes.
pub(crate) struct HeldWill {
    pub(crate) will: Will,
    cost: Cost,
    credits: Arc<Credits>,
}

impl HeldWill {
    /// The will, and its credit, which belongs to the caller from now on.
    pub(crate) fn release(mut self) -> (Will, Cost) {
        let will = Will {
            topic: std::mem::take(&mut self.will.topic),
            payload: std::mem::take(&mut self.will.payload),
            ..self.will
        };
        (will, std::mem::take(&mut self.cost))
    }
}

impl Drop for HeldWill {
    fn drop(&mut self) {
        self.credits.give_back(self.cost);
    }
}

/// Why a client was not let in.
enum Refused {
    /// It is told so.
    Answer(ConnectCode, Refusal),
    /// It broke the protocol before there was anything to answer.
    Malformed(&'static str),
    /// It went away, or the door closes.
    Gone,
}

/// Lets a client in, or tells it why not and closes.
pub(crate) async fn admit<S>(
    shared: &Arc<Shared>,
    mut transport: Transport<S>,
    mut caller: Caller,
) -> Option<Admitted<S>>
where
    S: AsyncRead + AsyncWrite,
{
    let mut phase = shared.phase.clone();
    let outcome = tokio::select! {
        outcome = welcome(shared, &mut transport, &mut caller) => outcome,
        _ = phase.wait_for(|phase| *phase != Phase::Open) => Err(Refused::Gone),
    };
    match outcome {
        Ok(Welcome { seat, scope, keep_alive_seconds, will }) => {
            codec::put_connack(&mut transport.outbox, ConnectCode::Accepted);
            Some(Admitted { transport, seat, scope, keep_alive_seconds, will })
        }
        Err(Refused::Answer(code, refusal)) => {
            if shared.refuse(refusal) {
                tracing::info!(peer = %caller.peer, reason = refusal.as_str(), "client refused");
            }
            tokio::select! {
                () = sleep(caller.penalty) => {}
                _ = phase.wait_for(|phase| *phase != Phase::Open) => {}
            }
            codec::put_connack(&mut transport.outbox, code);
            let _ = timeout_at(Instant::now() + shared.settings.connect_timeout, transport.flush()).await;
            None
        }
        Err(Refused::Malformed(rule)) => {
            if shared.refuse(Refusal::Malformed) {
                tracing::info!(peer = %caller.peer, rule, "connection closed before its login");
            }
            None
        }
        Err(Refused::Gone) => None,
    }
}

struct Welcome {
    seat: Seat,
    scope: Option<Scope>,
    keep_alive_seconds: u16,
    will: Option<HeldWill>,
}

async fn welcome<S>(
    shared: &Arc<Shared>,
    transport: &mut Transport<S>,
    caller: &mut Caller,
) -> Result<Welcome, Refused>
where
    S: AsyncRead + AsyncWrite,
{
    let deadline = caller.deadline;
    let connect = match timeout_at(deadline, read_connect(transport)).await {
        Ok(connect) => connect?,
        Err(_) => return Err(Refused::Malformed("no CONNECT in time")),
    };
    let client_id = client_id(&connect)?;
    if shared.gatekeeper.stalled_for() > shared.settings.stall_max {
        return Err(unavailable());
    }
    let subject = caller.chain.as_ref().and_then(ClientChain::subject);
    let shown = Shown {
        certificate: subject.as_ref(),
        username: connect.username.as_deref(),
        password: connect.password.as_deref(),
    };
    let login = timeout_at(deadline, shared.gatekeeper.login(shown)).await.map_err(|_| unavailable())?;
    let identified = identify(shared, login);
    match &identified {
        Ok(_) => caller.was_right(&shared.protection, connect.username.as_deref()),
        Err(Refused::Answer(_, Refusal::Credential)) => {
            caller.was_wrong(&shared.protection, connect.username.as_deref());
        }
        Err(Refused::Answer(..) | Refused::Malformed(_) | Refused::Gone) => {}
    }
    let (identity, scope, credential) = identified?;
    let client = Client { identity, client_id };
    let will = match connect.will {
        Some(will) => Some(timeout_at(deadline, hold(shared, will)).await.map_err(|_| unavailable())?),
        None => None,
    };
    let seat = shared
        .sessions
        .sit(&client, caller.chain.take(), credential, deadline)
        .await
        .ok_or_else(unavailable)?;
    Ok(Welcome { seat, scope, keep_alive_seconds: connect.keep_alive_seconds, will })
}

async fn read_connect<S>(transport: &mut Transport<S>) -> Result<Connect, Refused>
where
    S: AsyncRead + AsyncWrite,
{
    loop {
        let header = codec::header(&transport.inbox).map_err(|_| Refused::Malformed("fixed header"))?;
        if let Some(header) = header {
            if header.kind != Kind::Connect {
                return Err(Refused::Malformed("the first packet is no CONNECT"));
            }
            if header.body_bytes > CONNECT_BYTES_MAX {
                return Err(Refused::Malformed("CONNECT is too large"));
            }
            if transport.inbox.len() >= header.frame_bytes() {
                let connect = codec::connect(&transport.inbox[header.header_bytes..header.frame_bytes()]);
                transport.inbox.advance(header.frame_bytes());
                return connect.map_err(Refused::from);
            }
        }
        match transport.read().await {
            Ok(true) => {}
            Ok(false) | Err(_) => return Err(Refused::Gone),
        }
    }
}

impl From<BadConnect> for Refused {
    fn from(bad: BadConnect) -> Self {
        match bad {
            BadConnect::Version => Self::Answer(ConnectCode::Version, Refusal::Protocol),
            BadConnect::Malformed(_) => Self::Malformed("CONNECT"),
        }
    }
}

/// The name the client gave itself, or one of ours when it gave none and wants no lasting session. Ours opens with a
/// NUL, which no client can send.
fn client_id(connect: &Connect) -> Result<Arc<str>, Refused> {
    static NAMED: AtomicU64 = AtomicU64::new(0);
    match connect.client_id.as_str() {
        "" if connect.clean_session => Ok(Arc::from(format!("\0{}", NAMED.fetch_add(1, Ordering::Relaxed)))),
        "" => Err(Refused::Answer(ConnectCode::ClientId, Refusal::ClientId)),
        name => Ok(Arc::from(name)),
    }
}

/// A device, where it may act, and its password.
type Who = (Option<Identity>, Option<Scope>, Option<CredentialId>);

fn identify(shared: &Shared, login: Login) -> Result<Who, Refused> {
    match login {
        Login::Anonymous if shared.settings.allow_anonymous => Ok((None, None, None)),
        Login::Anonymous | Login::Refused | Login::Operator(_) => Err(not_authorized(Refusal::Credential)),
        Login::Device { identity, credential } => match shared.gatekeeper.scope(&identity) {
            Some(scope) => Ok((Some(identity), Some(scope), credential)),
            None => Err(not_authorized(Refusal::Revoked)),
        },
        Login::Unavailable => Err(unavailable()),
    }
}

async fn hold(shared: &Shared, will: Will) -> HeldWill {
    let cost = Cost::of_will(will.topic.len() + will.payload.len());
    shared.credits.take(cost).await;
    HeldWill { will, cost, credits: Arc::clone(&shared.credits) }
}

fn unavailable() -> Refused {
    Refused::Answer(ConnectCode::Unavailable, Refusal::Unavailable)
}

fn not_authorized(refusal: Refusal) -> Refused {
    Refused::Answer(ConnectCode::NotAuthorized, refusal)
}
