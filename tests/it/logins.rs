//! Guessers at both ports, and those whose passwords are right meanwhile.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use loadtest::mqtt::{self, Login};
use tests::barn::admit;
use tests::descriptors;
use tests::device::{TENANT, login};
use tests::engine::Engine;
use tests::http::{Answer, exchange};
use tests::postgres::Database;
use tests::settings::Settings;
use tests::wait::until;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

const DEVICE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const HTTP_GUESSER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const MQTT_GUESSER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// Three of them have half of the places before a login: an address has no more than a third of what the others leave.
const MQTT_GUESSERS: [Ipv4Addr; 3] = [MQTT_GUESSER, Ipv4Addr::new(127, 0, 0, 4), Ipv4Addr::new(127, 0, 0, 6)];

/// An engine that knows devices `d-0` to `d-9`, of which each has the password `secret`.
async fn engine() -> (Database, Engine) {
    descriptors::make_room(8192);
    let db = Database::fresh().await;
    admit(&db).await;
    for number in 0..10 {
        let name = format!("d-{number}");
        db.set_password(TENANT, &name, &name, "secret").await;
    }
    let settings = Settings::of(&db.url)
        .set("broker.allow_anonymous", "false")
        .set("auth.jwt_secrets", "a secret of the tests that is long enough");
    let engine = Engine::start(settings).await;
    (db, engine)
}

async fn connect(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((from, 0)))?;
    socket.connect(to).await
}

/// Asks for a token.
async fn ask(from: Ipv4Addr, http: SocketAddr, user: &str, password: &str) -> std::io::Result<Answer> {
    let basic = STANDARD.encode(format!("{user}:{password}"));
    let head = format!("POST /api/v1/ingress/device-token HTTP/1.1\r\nauthorization: Basic {basic}");
    exchange(&mut connect(from, http).await?, &head, "").await
}

/// Logs in over MQTT.
async fn log_in(from: Ipv4Addr, at: SocketAddr, user: &str, password: &str) -> anyhow::Result<TcpStream> {
    let mut stream = connect(from, at).await?;
    let (name, password) = (Some(user.to_owned()), Some(password.to_owned()));
    mqtt::introduce(&mut stream, &Login { user: name, password, ..login(user) }).await?;
    Ok(stream)
}

/// How many wrong credentials were found wrong so far.
async fn judged(engine: &Engine) -> f64 {
    engine.metric("auth_refused", "reason=\"credential\"").await
        + engine.metric("auth_refused", "reason=\"bad_login\"").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_password_waits_for_no_guesses_of_other_addresses() {
    const GUESSES: usize = 300;
    let (_db, mut engine) = engine().await;
    let (http, mqtt) = (engine.settings.http, engine.settings.mqtt);
    let mut guessers = JoinSet::new();
    for number in 0..GUESSES {
        let name = format!("d-{}", number % 5);
        guessers.spawn(async move { drop(log_in(MQTT_GUESSER, mqtt, &name, "guess").await) });
    }
    for number in 0..40 {
        let name = format!("d-{}", number % 5);
        guessers.spawn(async move { drop(ask(HTTP_GUESSER, http, &name, "guess").await) });
    }
    until("the guesses are under way", async || judged(&engine).await > 0.0).await;
    log_in(DEVICE, mqtt, "d-7", "secret").await.expect("it is let in");
    assert_eq!(ask(DEVICE, http, "d-8", "secret").await.expect("an answer").status, 200);
    // Also behind the address of the guesser.
    log_in(MQTT_GUESSER, mqtt, "d-9", "secret").await.expect("it is let in");
    let judged = judged(&engine).await;
    assert!(judged < GUESSES as f64, "{judged} guesses were hashed first");
    guessers.shutdown().await;
    assert_eq!(engine.terminate().await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guess_waits_for_its_answer_whichever_port_it_comes_by() {
    let (_db, engine) = engine().await;
    let (http, mqtt) = (engine.settings.http, engine.settings.mqtt);
    let started = Instant::now();
    assert_eq!(ask(HTTP_GUESSER, http, "d-1", "guess").await.expect("an answer").status, 401);
    assert!(started.elapsed() >= Duration::from_secs(1));
    let started = Instant::now();
    assert!(log_in(MQTT_GUESSER, mqtt, "d-1", "guess").await.is_err());
    assert!(started.elapsed() >= Duration::from_secs(2), "the guess at the other port counts");
    let started = Instant::now();
    assert_eq!(ask(HTTP_GUESSER, http, "nobody", "guess").await.expect("an answer").status, 401);
    assert!(started.elapsed() >= Duration::from_secs(1), "a name that nobody has waits as well");
    let token = ask(DEVICE, http, "d-1", "secret").await.expect("an answer");
    assert_eq!(token.status, 200);
    assert!(token.head.contains("\r\ncache-control: no-store\r\n"), "{token:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_logins_over_http_are_told_to_come_again() {
    let (_db, engine) = engine().await;
    let http = engine.settings.http;
    let mut guessers = JoinSet::new();
    for _ in 0..200 {
        guessers.spawn(async move { ask(HTTP_GUESSER, http, "d-1", "guess").await });
    }
    let mut answers = Vec::new();
    while let Some(answer) = guessers.join_next().await {
        answers.push(answer.expect("it does not panic").expect("an answer"));
    }
    let busy = answers.iter().find(|answer| answer.status == 429).expect("some find no room");
    assert!(busy.head.contains("\r\nretry-after: 1\r\n") && busy.body.contains("RATE_LIMITED"), "{busy:?}");
    assert!(answers.iter().all(|answer| matches!(answer.status, 401 | 429)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_a_few_lines_of_a_flood_and_they_name_the_peer() {
    let (_db, engine) = engine().await;
    for _ in 0..30 {
        let mut stream = connect(HTTP_GUESSER, engine.settings.http).await.expect("somebody listens");
        let answer =
            exchange(&mut stream, "GET /api/v1/telemetry/readings HTTP/1.1\r\nauthorization: Bearer x", "");
        assert_eq!(answer.await.expect("an answer").status, 401);
    }
    let log = engine.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("\"request answered\"")).collect();
    assert_eq!(lines.len(), 10, "{lines:#?}");
    assert!(lines.iter().all(|line| line.contains("\"peer\":\"127.0.0.2:")), "{lines:#?}");
}

/// 250 guessers over HTTP and 500 over MQTT for a minute, each coming again as soon as it is answered, half of them with
/// names of devices. Meanwhile devices log in that nobody knows yet, from elsewhere and from the addresses of guessers.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute; measured on a release build"]
async fn right_logins_among_250_guessers_over_http_and_500_over_mqtt() {
    const MINUTE: Duration = Duration::from_secs(60);
    const NEWCOMERS: usize = 500;
    let (db, mut engine) = engine().await;
    for number in 0..NEWCOMERS {
        let name = format!("new-{number}");
        db.allow_device(TENANT, &name, "f-001", "b-001").await;
        db.set_password(TENANT, &name, &name, "secret").await;
    }
    let (http, mqtt) = (engine.settings.http, engine.settings.mqtt);
    let (ends_at, before) = (Instant::now() + MINUTE, engine.resident_bytes());
    let mut guessers = JoinSet::new();
    let name = |number: usize| {
        if number.is_multiple_of(2) { format!("d-{}", number % 10) } else { format!("u{number}") }
    };
    for number in 0..250 {
        let name = name(number);
        guessers.spawn(async move { while ask(HTTP_GUESSER, http, &name, "guess").await.is_ok() {} });
    }
    for number in 0..500 {
        let name = name(number);
        let from = MQTT_GUESSERS[number % MQTT_GUESSERS.len()];
        guessers.spawn(async move {
            loop {
                drop(log_in(from, mqtt, &name, "guess").await);
            }
        });
    }
    let mut took = [const { Vec::new() }; 3];
    let (mut number, mut resident_max) = (0, before);
    while Instant::now() < ends_at && number + 3 <= NEWCOMERS {
        for (position, from) in [DEVICE, MQTT_GUESSER, HTTP_GUESSER].into_iter().enumerate() {
            let (name, started) = (format!("new-{number}"), Instant::now());
            number += 1;
            if from == HTTP_GUESSER {
                let answer = ask(DEVICE, http, &name, "secret").await.expect("an answer");
                assert_eq!(answer.status, 200, "{answer:?}");
            } else {
                drop(log_in(from, mqtt, &name, "secret").await.expect("it is let in"));
            }
            took[position].push(started.elapsed());
        }
        resident_max = resident_max.max(engine.resident_bytes());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let judged = judged(&engine).await;
    for (what, took) in
        ["MQTT, elsewhere", "MQTT, a guesser's address", "HTTP, elsewhere"].iter().zip(&mut took)
    {
        took.sort_unstable();
        let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
        let (count, median, slow, slowest) = (took.len(), at(50), at(99), at(100));
        println!("{what}: {count} first logins, p50 {median:?}, p99 {slow:?}, slowest {slowest:?}");
        assert!(slow <= Duration::from_secs(1), "{what}: {slow:?}");
    }
    let growth = (resident_max - before) >> 20;
    println!("{judged} guesses judged, resident {} MiB before and at most {growth} MiB more", before >> 20);
    assert!(growth <= 50, "{growth} MiB");
    guessers.shutdown().await;
    assert_eq!(engine.terminate().await.code, Some(0));
}
