//! Started by systemd, the engine tells it that it is ready, that it lives, and that it stops, in this order.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use tests::barn::admit;
use tests::engine::Engine;
use tests::postgres::Database;
use tests::settings::Settings;

/// What came so far, until `wanted` came.
fn heard(manager: &UnixDatagram, wanted: &str) -> Vec<String> {
    let mut all = Vec::new();
    while all.last().is_none_or(|last| last != wanted) {
        let mut message = [0; 256];
        let length = manager.recv(&mut message).expect("one more message");
        all.push(String::from_utf8_lossy(&message[..length]).into_owned());
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_hears_of_readiness_of_life_and_of_the_end() {
    let db = Database::fresh().await;
    admit(&db).await;
    let settings = Settings::of(&db.url);
    let path = settings.data_dir().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket takes it");
    let settings = settings
        .with_variable("NOTIFY_SOCKET", path.to_str().expect("UTF-8"))
        .with_variable("WATCHDOG_USEC", "1000000");
    let mut engine = Engine::start(settings).await;
    let before = heard(&manager, "READY=1");
    assert!(!before.iter().any(|message| message.contains("STOPPING")), "{before:?}");
    assert!(heard(&manager, "WATCHDOG=1").iter().all(|message| !message.contains("READY")));
    heard(&manager, "WATCHDOG=1");
    let ended = engine.terminate().await;
    assert_eq!(ended.code, Some(0), "{}", engine.log());
    let after = heard(&manager, "STOPPING=1\nSTATUS=stopping");
    assert!(after.iter().all(|message| !message.contains("READY")), "{after:?}");
}
