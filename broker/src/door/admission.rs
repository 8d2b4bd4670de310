//! From the first byte of a connection to its session: CONNECT, login, takeover, CONNACK.

mod login;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use uuid::Uuid;

use crate::acl;
use crate::door::admission::login::{Known, log_in};
use crate::door::caller::Caller;
use crate::door::packet::{
    self, BadConnect, ConnackProperties, Connect, ConnectCode, ConnectProperties, Kind, Malformed, Reason,
    Version, Will,
};
use crate::door::sessions::{NoSeat, Seat, Seated, Visitor, Wish};
use crate::door::shared::{Phase, Shared};
use crate::door::topics::TOPIC_ALIASES_MAX;
use crate::door::transport::Transport;
use crate::door::will::HeldWill;
use crate::gatekeeper::{Principal, Scope};
use crate::share::{Limit, Permit, Spent};
use crate::stats::Refusal;
use crate::store::{Client, Owner};

/// Bytes a CONNECT may have; its will is kept as long as the connection.
const CONNECT_BYTES_MAX: usize = 80 << 10;
/// The longest fixed header of a packet.
const HEADER_BYTES_MAX: usize = 5;
/// How long a client that comes again waits for the place of its former connection, which has a second for its goodbye.
const FORMER_PLACE_MAX: Duration = Duration::from_secs(2);
/// How often it is looked whether a former connection of a client has given up its place.
const PLACE_LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A client that was let in.
pub(crate) struct Admitted<S> {
    pub(crate) transport: Transport<S>,
    pub(crate) seat: Seat,
    pub(crate) place: Permit<Owner>,
    pub(crate) version: Version,
    pub(crate) principal: Principal,
    /// Where a device may act.
    pub(crate) scope: Option<Scope>,
    pub(crate) keep_alive_seconds: u16,
    pub(crate) will: Option<HeldWill>,
    pub(crate) properties: ConnectProperties,
}

/// Why a client was not let in.
enum Refused {
    /// It is told so, in the form of its version.
    Answer(Version, ConnectCode, Refusal),
    /// It is told nothing: one of 3.1.1 would take a code for its own fault, or for no refusal at all.
    Unanswered(Refusal),
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
        Ok(welcome) => {
            put_connack(shared, &mut transport, &welcome);
            let packet_bytes_max = welcome.properties.packet_bytes_max;
            if packet_bytes_max.is_some_and(|max| transport.outbox.len() > max.get() as usize) {
                if shared.refuse(Refusal::Protocol) {
                    tracing::info!(peer = %caller.peer, "client refused: it does not take its CONNACK");
                }
                return None;
            }
            let Welcome {
                seat, place, version, visitor, scope, keep_alive_seconds, will, properties, ..
            } = welcome;
            let principal = visitor.principal;
            Some(Admitted {
                transport,
                seat,
                place,
                version,
                principal,
                scope,
                keep_alive_seconds,
                will,
                properties,
            })
        }
        Err(Refused::Answer(version, code, refusal)) => {
            if shared.refuse(refusal) {
                tracing::info!(peer = %caller.peer, reason = refusal.as_str(), "client refused");
            }
            tokio::select! {
                () = sleep_until(caller.told_at) => {}
                _ = phase.wait_for(|phase| *phase != Phase::Open) => {}
            }
            let properties = ConnackProperties::default();
            packet::put_connack(transport.outbox.tail(), version, code, false, &properties);
            let _ = timeout_at(Instant::now() + shared.settings.connect_timeout, transport.flush()).await;
            None
        }
        Err(Refused::Unanswered(refusal)) => {
            if shared.refuse(refusal) {
                tracing::info!(peer = %caller.peer, reason = refusal.as_str(), "connection closed without an answer");
            }
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
    place: Permit<Owner>,
    is_present: bool,
    version: Version,
    visitor: Visitor,
    scope: Option<Scope>,
    keep_alive_seconds: u16,
    /// The keep-alive the client is told, when it asked for another.
    server_keep_alive_seconds: Option<u16>,
    /// The seconds the session lasts, when the client asked for more.
    session_expiry_seconds: Option<u32>,
    /// The name the client is told, when it gave none.
    assigned_client_id: Option<Arc<str>>,
    will: Option<HeldWill>,
    properties: ConnectProperties,
}

fn put_connack<S: AsyncRead + AsyncWrite>(shared: &Shared, transport: &mut Transport<S>, welcome: &Welcome) {
    let settings = &shared.settings;
    let packet_bytes_max = settings.message_bytes_max + HEADER_BYTES_MAX;
    let properties = ConnackProperties {
        session_expiry_seconds: welcome.session_expiry_seconds,
        receive_max: u16::try_from(settings.inflight_max).ok(),
        packet_bytes_max: u32::try_from(packet_bytes_max).ok(),
        assigned_client_id: welcome.assigned_client_id.as_deref(),
        topic_alias_max: TOPIC_ALIASES_MAX,
        server_keep_alive_seconds: welcome.server_keep_alive_seconds,
    };
    let Welcome { version, is_present, .. } = welcome;
    packet::put_connack(transport.outbox.tail(), *version, ConnectCode::Accepted, *is_present, &properties);
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
    let Connect { version, client_id, clean_start, keep_alive_seconds, username, password, will, properties } =
        connect;
    if properties.authentication_method.is_some() {
        let code = ConnectCode::Refused(Reason::BAD_AUTHENTICATION_METHOD);
        return Err(Refused::Answer(version, code, Refusal::Protocol));
    }
    let (client_id, assigned_client_id) = name(version, client_id, clean_start)?;
    let Known { principal, scope, credential, rechecks } =
        log_in(shared, caller, version, username.as_deref(), password.as_deref()).await?;
    if let Some(will) = &will {
        check_will(version, &principal, scope.as_ref(), will)?;
    }
    let client = Client { owner: Owner::of(&principal), client_id };
    let will = match will {
        Some(will) => Some(hold(shared, version, &client.owner, will)?),
        None => None,
    };
    let expiry_max = shared.settings.session_expiry_seconds_max;
    let asked_expiry = match version {
        Version::V4 if clean_start => 0,
        Version::V4 => expiry_max,
        Version::V5 => properties.session_expiry_seconds,
    };
    let given_expiry = match &principal {
        _ if shared.keeps_sessions => asked_expiry.min(expiry_max),
        Principal::Device(_) => 0,
        Principal::Anonymous | Principal::Operator(_) if asked_expiry > 0 => return Err(elsewhere(version)),
        Principal::Anonymous | Principal::Operator(_) => 0,
    };
    let wish = Wish { is_clean: clean_start, expiry_seconds: given_expiry };
    let visitor = Visitor { principal, chain: caller.chain.take(), credential };
    let (seated, place) = sit(shared, version, &client, &visitor, wish, deadline).await?;
    if !shared.judge.admits(&visitor, rechecks).await {
        return Err(Refused::Answer(version, ConnectCode::NotAuthorized, Refusal::Revoked));
    }
    if timeout_at(deadline, shared.hub.journal.reaches(seated.ended)).await.is_err() {
        return Err(unavailable(version));
    }
    let keep_alive_max = shared.settings.keep_alive_seconds_max;
    let is_told = version == Version::V5 && !(1..=keep_alive_max).contains(&keep_alive_seconds);
    Ok(Welcome {
        seat: seated.seat,
        place,
        is_present: seated.is_present,
        version,
        visitor,
        scope,
        keep_alive_seconds: if is_told { keep_alive_max } else { keep_alive_seconds },
        server_keep_alive_seconds: is_told.then_some(keep_alive_max),
        session_expiry_seconds: (asked_expiry > given_expiry).then_some(given_expiry),
        assigned_client_id,
        will,
        properties,
    })
}

async fn read_connect<S>(transport: &mut Transport<S>) -> Result<Connect, Refused>
where
    S: AsyncRead + AsyncWrite,
{
    loop {
        if let Some(spoken) = other_protocol(&transport.inbox) {
            return Err(Refused::Malformed(spoken));
        }
        let header =
            packet::header(&transport.inbox, None).map_err(|_| Refused::Malformed("fixed header"))?;
        if let Some(header) = header {
            if header.kind != Kind::Connect {
                return Err(Refused::Malformed("the first packet is no CONNECT"));
            }
            if header.body_bytes > CONNECT_BYTES_MAX {
                return Err(Refused::Malformed("CONNECT is too large"));
            }
            if transport.inbox.len() >= header.frame_bytes() {
                let connect = packet::connect(&transport.inbox[header.header_bytes..header.frame_bytes()]);
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

/// What speaks here instead of MQTT, for the line in the log: no CONNECT begins so.
fn other_protocol(first_bytes: &[u8]) -> Option<&'static str> {
    const METHODS: [&[u8]; 6] = [b"GET ", b"PUT ", b"POST", b"HEAD", b"OPTI", b"PRI "];
    match first_bytes {
        [0x16, 3, ..] => {
            Some("a TLS handshake at a port that speaks plain MQTT: it belongs to broker.listen_tls")
        }
        _ if METHODS.iter().any(|method| first_bytes.starts_with(method)) => {
            Some("HTTP at a port that speaks MQTT: WebSockets belong to broker.listen_ws")
        }
        _ => None,
    }
}

impl From<BadConnect> for Refused {
    fn from(bad: BadConnect) -> Self {
        match bad {
            BadConnect::Version(form) => Self::Answer(form, ConnectCode::Version, Refusal::Protocol),
            BadConnect::Malformed(Version::V4, Malformed { rule, .. }) => Self::Malformed(rule),
            BadConnect::Malformed(Version::V5, Malformed { reason, .. }) => {
                Self::Answer(Version::V5, ConnectCode::Refused(reason), Refusal::Malformed)
            }
        }
    }
}

/// The name the client gave itself, or one of ours. A client of version 5 is told ours, and may use it again. For one of
/// 3.1.1 that wants no lasting session it opens with a NUL, which no client can send.
fn name(version: Version, given: String, clean_start: bool) -> Result<(Arc<str>, Option<Arc<str>>), Refused> {
    static NAMED: AtomicU64 = AtomicU64::new(0);
    match (given.as_str(), version) {
        ("", Version::V5) => {
            let assigned: Arc<str> = Arc::from(format!("edge-{}", Uuid::new_v4().simple()));
            Ok((Arc::clone(&assigned), Some(assigned)))
        }
        ("", Version::V4) if clean_start => {
            Ok((Arc::from(format!("\0{}", NAMED.fetch_add(1, Ordering::Relaxed))), None))
        }
        ("", Version::V4) => Err(Refused::Answer(version, ConnectCode::ClientId, Refusal::ClientId)),
        (name, _) => Ok((Arc::from(name), None)),
    }
}

/// Keeps a last will. A client that cannot have one is told so, since it would rely on it.
fn hold(shared: &Shared, version: Version, owner: &Owner, will: Will) -> Result<HeldWill, Refused> {
    HeldWill::hold(&shared.inflow.wills, owner, will).map_err(|spent| {
        shared.stats.count_spent(spent);
        Refused::Answer(version, ConnectCode::Refused(spent.into()), Refusal::Quota)
    })
}

/// Takes a place among those who are logged in, and the seat at the session. A client that comes again takes its seat first,
/// since its former connection has a place that it may need.
async fn sit(
    shared: &Arc<Shared>,
    version: Version,
    client: &Client,
    visitor: &Visitor,
    wish: Wish,
    deadline: Instant,
) -> Result<(Seated, Permit<Owner>), Refused> {
    let full = |spent: Spent| {
        shared.stats.count_spent(spent);
        let refusal = match spent.limit {
            Limit::Share => Refusal::Quota,
            Limit::Total => Refusal::Full,
        };
        match version {
            Version::V4 => Refused::Unanswered(refusal),
            Version::V5 => Refused::Answer(version, ConnectCode::Refused(spent.into()), refusal),
        }
    };
    let is_again = shared.sessions.is_seated(client);
    let place = if is_again { None } else { Some(shared.room.take_place(&client.owner).map_err(full)?) };
    let seated = match shared.sessions.sit(client, visitor, wish, deadline).await {
        Ok(seated) => seated,
        Err(NoSeat::Occupied) => return Err(unavailable(version)),
        Err(NoSeat::TooMany) => {
            let code = ConnectCode::Refused(Reason::QUOTA_EXCEEDED);
            return Err(Refused::Answer(version, code, Refusal::Sessions));
        }
    };
    let place = match place {
        Some(place) => place,
        None => take_place_again(shared, &client.owner, deadline).await.map_err(full)?,
    };
    Ok((seated, place))
}

/// Takes a place; waits for the one of the former connection, which has it until its stream is closed.
async fn take_place_again(shared: &Shared, owner: &Owner, deadline: Instant) -> Result<Permit<Owner>, Spent> {
    let deadline = deadline.min(Instant::now() + FORMER_PLACE_MAX);
    loop {
        match shared.room.take_place(owner) {
            Err(_) if Instant::now() < deadline => sleep(PLACE_LOOK_INTERVAL).await,
            outcome => return outcome,
        }
    }
}

/// Who only reads has no last will. A client of version 5 hears at once that its will is outside its scope; for one of
/// 3.1.1, which has no words for that, the will is refused and recorded when its time comes.
fn check_will(
    version: Version,
    principal: &Principal,
    scope: Option<&Scope>,
    will: &Will,
) -> Result<(), Refused> {
    let is_allowed = match (principal, scope, version) {
        (Principal::Anonymous | Principal::Device(_), _, Version::V4) => true,
        (Principal::Anonymous, _, Version::V5) => acl::anonymous_may_use(&will.topic),
        (Principal::Device(identity), Some(scope), Version::V5) => {
            acl::may_publish_to(scope, identity, &will.topic)
        }
        (Principal::Device(_), None, Version::V5) | (Principal::Operator(_), ..) => false,
    };
    if is_allowed {
        return Ok(());
    }
    Err(Refused::Answer(version, ConnectCode::NotAuthorized, Refusal::Acl))
}

/// A subscriber would lose its session here without being told so. A device loses nothing: what it publishes is stored.
fn elsewhere(version: Version) -> Refused {
    Refused::Answer(version, ConnectCode::Refused(Reason::USE_ANOTHER_SERVER), Refusal::Standby)
}

/// Nobody can let the client in now.
fn unavailable(version: Version) -> Refused {
    match version {
        Version::V4 => Refused::Unanswered(Refusal::Unavailable),
        Version::V5 => Refused::Answer(version, ConnectCode::Unavailable, Refusal::Unavailable),
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
