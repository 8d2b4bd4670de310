//! Who is let in and what others are told, without a door and without a socket.

use std::net::SocketAddr;

use async_trait::async_trait;
use schema::id::{DeviceId, TenantId};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::watch;

use super::*;
use crate::door::doubles::Bench;
use crate::door::settings::DoorSettings;
use crate::gatekeeper::{CredentialId, Gatekeeper, Identity, Login, Shown};
use crate::guesses::Source;
use crate::share::Budget;

/// A device by the name `d`, one that is not enabled by any other, and nobody without a name.
struct Names;

#[async_trait]
impl Gatekeeper for Names {
    async fn login(&self, shown: Shown<'_>) -> Login {
        match shown.username {
            None => Login::Anonymous,
            Some("wrong") => Login::Refused,
            Some("away") => Login::Unavailable,
            Some(name) => Login::Device { identity: identity(name), credential: None },
        }
    }

    fn scope(&self, identity: &Identity) -> Option<Scope> {
        (identity.device_id.as_str() == "d").then(Scope::default)
    }

    fn generation(&self) -> u64 {
        0
    }

    async fn still_accepts(&self, credentials: &[CredentialId]) -> Option<Vec<bool>> {
        Some(vec![true; credentials.len()])
    }

    fn stalled_for(&self) -> Duration {
        Duration::ZERO
    }
}

fn identity(name: &str) -> Identity {
    Identity { tenant_id: TenantId::new("t").unwrap(), device_id: DeviceId::new(name).unwrap() }
}

/// What stands between a client and its session.
struct Entrance {
    _bench: Bench,
    shared: Arc<Shared>,
    _phase: watch::Sender<Phase>,
}

impl Entrance {
    fn new() -> Self {
        Self::with(DoorSettings { allow_anonymous: true, ..DoorSettings::default() }, true)
    }

    fn with(settings: DoorSettings, keeps_sessions: bool) -> Self {
        let bench = Bench::new();
        let (shared, phase) = bench.share(settings, keeps_sessions, Arc::new(Names));
        Self { _bench: bench, shared, _phase: phase }
    }

    /// Has a client that sent these bytes admitted, or says what it was told instead.
    async fn admit(&self, sent: &[u8]) -> Result<Admitted<DuplexStream>, Vec<u8>> {
        let (mut client, server) = duplex(128 << 10);
        client.write_all(sent).await.unwrap();
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let place = self.shared.room.come_in(Source::of(peer.ip())).unwrap();
        let deadline = Instant::now() + self.shared.settings.connect_timeout;
        let caller = Caller::new(peer, deadline, place);
        if let Some(admitted) = admit(&self.shared, Transport::new(server), caller).await {
            return Ok(admitted);
        }
        let mut told = Vec::new();
        client.read_to_end(&mut told).await.unwrap();
        Err(told)
    }

    /// The CONNACK of a client that is let in.
    async fn welcome(&self, sent: &[u8]) -> Vec<u8> {
        self.let_in(sent).await.transport.outbox.tail().to_vec()
    }

    async fn let_in(&self, sent: &[u8]) -> Admitted<DuplexStream> {
        self.admit(sent).await.unwrap_or_else(|told| panic!("refused: {told:02x?}"))
    }

    async fn refusal(&self, sent: &[u8]) -> Vec<u8> {
        self.admit(sent).await.err().expect("it is not let in")
    }

    fn refused(&self, refusal: Refusal) -> u64 {
        self.shared.stats.refused(refusal)
    }
}

/// A CONNECT of this version with a user name, or none.
struct Hello<'a> {
    level: u8,
    is_clean: bool,
    keep_alive_seconds: u16,
    properties: &'a [u8],
    client_id: &'a str,
    will_bytes: Option<usize>,
    user: Option<&'a str>,
}

impl Default for Hello<'_> {
    fn default() -> Self {
        Self {
            level: 4,
            is_clean: true,
            keep_alive_seconds: 30,
            properties: b"",
            client_id: "c",
            will_bytes: None,
            user: None,
        }
    }
}

impl Hello<'_> {
    fn packet(&self) -> Vec<u8> {
        let text = |text: &str| [&u16::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat();
        let will_flag = u8::from(self.will_bytes.is_some()) << 2;
        let flags = u8::from(self.user.is_some()) << 7 | will_flag | u8::from(self.is_clean) << 1;
        let mut body = [text("MQTT"), vec![self.level, flags]].concat();
        body.extend(self.keep_alive_seconds.to_be_bytes());
        if self.level == 5 {
            body.push(u8::try_from(self.properties.len()).unwrap());
            body.extend(self.properties);
        }
        body.extend(text(self.client_id));
        if let Some(bytes) = self.will_bytes {
            body.extend(if self.level == 5 { vec![0] } else { Vec::new() });
            body.extend([text("w"), text(&"x".repeat(bytes))].concat());
        }
        body.extend(self.user.map(text).unwrap_or_default());
        let mut packet = vec![0x10];
        let mut left = body.len();
        while left > 0x7f {
            packet.push((left & 0x7f) as u8 | 0x80);
            left >>= 7;
        }
        packet.push(left as u8);
        [packet, body].concat()
    }
}

/// The value of a property of a CONNACK whose values all have this many bytes.
fn property(connack: &[u8], id: u8, bytes: usize) -> Option<Vec<u8>> {
    let at = connack[5..].iter().position(|byte| *byte == id)? + 6;
    Some(connack[at..at + bytes].to_vec())
}

#[tokio::test(start_paused = true)]
async fn a_client_is_let_in_as_who_it_is() {
    let entrance = Entrance::new();
    let admitted = entrance.let_in(&Hello { user: Some("d"), ..Hello::default() }.packet()).await;
    assert_eq!(admitted.principal, Principal::Device(identity("d")));
    assert_eq!((admitted.version, admitted.keep_alive_seconds), (Version::V4, 30));
    assert!(admitted.scope.is_some());
    let admitted = entrance.let_in(&Hello::default().packet()).await;
    assert_eq!((admitted.principal, admitted.scope), (Principal::Anonymous, None));
    assert_eq!(
        entrance.welcome(&Hello { client_id: "b", ..Hello::default() }.packet()).await,
        b"\x20\x02\0\0"
    );
}

#[tokio::test(start_paused = true)]
async fn whoever_may_not_come_in_is_told_why_in_the_words_of_its_version() {
    let entrance = Entrance::new();
    let told = [
        ("wrong", b"\x20\x02\0\x05".as_slice(), 0x87),
        ("stranger", b"\x20\x02\0\x05".as_slice(), 0x87),
        ("away", b"".as_slice(), 0x88),
    ];
    for (user, in_v4, in_v5) in told {
        let hello = Hello { user: Some(user), ..Hello::default() };
        assert_eq!(entrance.refusal(&hello.packet()).await, in_v4, "{user}");
        let answer = entrance.refusal(&Hello { level: 5, ..hello }.packet()).await;
        assert_eq!((answer[0], answer[3]), (0x20, in_v5), "{user}");
    }
    assert_eq!(entrance.refused(Refusal::Credential), 2);
    assert_eq!(entrance.refused(Refusal::Revoked), 2);
    assert_eq!(entrance.refused(Refusal::Unavailable), 2);
    let closed = Entrance::with(DoorSettings::default(), true);
    assert_eq!(
        closed.refusal(&Hello::default().packet()).await,
        b"\x20\x02\0\x05",
        "nobody without a credential"
    );
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_a_credential_is_told_late() {
    let entrance = Entrance::new();
    let wrong = Hello { user: Some("wrong"), ..Hello::default() }.packet();
    for waits in [1, 2, 4] {
        let asked_at = Instant::now();
        entrance.refusal(&wrong).await;
        assert_eq!(asked_at.elapsed().as_secs(), waits);
    }
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_or_something_else_is_not_waited_for() {
    let entrance = Entrance::new();
    let connect_timeout = entrance.shared.settings.connect_timeout;
    for sent in [b"".as_slice(), b"\x10", b"\x10\x7f\0\x04MQTT"] {
        let came_at = Instant::now();
        assert_eq!(entrance.refusal(sent).await, b"", "{sent:02x?}");
        assert_eq!(came_at.elapsed().as_secs(), connect_timeout.as_secs(), "{sent:02x?}");
    }
    let too_large = [b"\x10".as_slice(), &[0xff, 0xff, 0x7f]].concat();
    for sent in [b"\xc0\0".as_slice(), b"GET / HTTP/1.1\r\n", &too_large] {
        let came_at = Instant::now();
        assert_eq!(entrance.refusal(sent).await, b"", "{sent:02x?}");
        assert!(came_at.elapsed().is_zero(), "{sent:02x?}");
    }
    assert_eq!(entrance.refused(Refusal::Malformed), 6);
}

#[tokio::test(start_paused = true)]
async fn a_client_of_version_5_is_told_what_it_gets_instead_of_what_it_asked_for() {
    let settings = DoorSettings { session_expiry_seconds_max: 7, ..DoorSettings::default() };
    let entrance = Entrance::with(DoorSettings { allow_anonymous: true, ..settings }, true);
    let lasting = b"\x11\0\0\xff\xff";
    let hello =
        Hello { level: 5, keep_alive_seconds: 0, properties: lasting, client_id: "", ..Hello::default() };
    let connack = entrance.welcome(&hello.packet()).await;
    assert_eq!(property(&connack, 0x11, 4).as_deref(), Some([0, 0, 0, 7].as_slice()), "its session");
    assert_eq!(property(&connack, 0x13, 2).as_deref(), Some([0, 60].as_slice()), "its keep-alive");
    let name = property(&connack, 0x12, 2 + 5).expect("a name");
    assert_eq!(&name[2..], b"edge-");
    let small = Hello { level: 5, properties: b"\x27\0\0\0\x05", ..Hello::default() };
    assert_eq!(entrance.refusal(&small.packet()).await, b"", "it does not take its CONNACK");
    assert_eq!(entrance.refused(Refusal::Protocol), 1);
}

#[tokio::test(start_paused = true)]
async fn where_no_sessions_are_kept_a_device_is_let_in_and_a_tool_goes_elsewhere() {
    let settings = DoorSettings { allow_anonymous: true, ..DoorSettings::default() };
    let entrance = Entrance::with(settings, false);
    let lasting = Hello { is_clean: false, ..Hello::default() };
    assert_eq!(entrance.refusal(&lasting.packet()).await, b"\x20\x02\0\x03");
    let hello = Hello { level: 5, properties: b"\x11\0\0\0\x09", ..Hello::default() };
    assert_eq!(entrance.refusal(&hello.packet()).await[3], 0x9c);
    assert_eq!(entrance.refused(Refusal::Standby), 2);
    let device = Hello { user: Some("d"), is_clean: false, ..Hello::default() };
    let admitted = entrance.let_in(&device.packet()).await;
    assert_eq!(admitted.seat.session().expiry_seconds(), 0, "its session ends with its connection");
}

#[tokio::test(start_paused = true)]
async fn who_has_its_part_of_the_places_is_refused_and_others_are_not() {
    let settings = DoorSettings { connections_max: 3, allow_anonymous: true, ..DoorSettings::default() };
    let entrance = Entrance::with(settings, true);
    let device = |client_id| Hello { client_id, user: Some("d"), ..Hello::default() };
    let _first = entrance.let_in(&device("1").packet()).await;
    assert_eq!(entrance.refusal(&device("2").packet()).await, b"", "3.1.1 has no word for it");
    let answer = entrance.refusal(&Hello { level: 5, ..device("2") }.packet()).await;
    assert_eq!(answer[3], Reason::QUOTA_EXCEEDED.0);
    assert_eq!((entrance.refused(Refusal::Quota), entrance.shared.stats.spent(Budget::Connections)), (2, 2));
    entrance.let_in(&Hello::default().packet()).await;
}

#[tokio::test(start_paused = true)]
async fn wills_of_one_device_leave_room_for_those_of_others() {
    let entrance = Entrance::new();
    let greedy =
        |client_id| Hello { client_id, user: Some("d"), will_bytes: Some(60_000), ..Hello::default() };
    let names: Vec<String> = (0..300).map(|number| number.to_string()).collect();
    let mut held = Vec::new();
    let told = loop {
        match entrance.admit(&greedy(&names[held.len()]).packet()).await {
            Ok(admitted) => held.push(admitted),
            Err(told) => break told,
        }
    };
    assert_eq!(told, b"\x20\x02\0\x03");
    let wills = &entrance.shared.inflow.wills;
    assert!(wills.taken() <= (wills.taken() + wills.free()) / 3, "{wills:?}");
    assert_eq!(entrance.shared.stats.spent(Budget::Wills), 1);
    let other = Hello { will_bytes: Some(60_000), ..Hello::default() };
    assert!(entrance.let_in(&other.packet()).await.will.is_some());
    drop(held);
    assert_eq!(wills.taken(), 0);
}

#[test]
fn tls_and_http_at_a_plain_port_are_told_by_their_first_bytes() {
    let check = |bytes: &[u8], expected: Option<&str>| {
        let told = other_protocol(bytes);
        assert_eq!(told.is_some(), expected.is_some(), "{bytes:?}");
        assert!(told.unwrap_or_default().contains(expected.unwrap_or_default()), "{told:?}");
    };
    check(b"\x16\x03\x01\x02\0\x01\0", Some("a TLS handshake"));
    check(b"GET /mqtt HTTP/1.1\r\n", Some("HTTP"));
    check(b"PRI * HTTP/2.0\r\n", Some("HTTP"));
    check(b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0", None);
    check(b"", None);
    check(b"\x16", None);
}
