//! Children of sessions that do not come.

use actors::chore::Chore;
use actors::gauges::Measured;
use actors::session::Reply;
use actors::session::order::{Command, Order};
use actors::session::upkeep::SessionUpkeep;
use actors::supervisor::Supervised;
use chrono::Duration;
use engine::config::{Config, Secret};
use engine::parts::Parts;
use engine::tree::sessions;
use schema::clock::Clock;
use schema::clock::watch::{ClockWatch, Known};
use schema::id;
use schema::store::session::CHILDREN_WAITING_MAX;
use tests::postgres::Database;

/// Sessions at work over a database, without anything around them.
struct Scale {
    db: Database,
    parts: Parts,
    tree: Supervised,
}

impl Scale {
    async fn new() -> Self {
        let db = Database::fresh().await;
        let mut config = Config::default();
        config.database.url = Some(Secret::from(db.url.clone()));
        config.media.upload_secret = Some(Secret::from("secret".to_owned()));
        let parts = Parts::new(&config).expect("the URL can be read");
        let tree = Supervised::start(vec![sessions(&config, &parts)]).await.expect("the sessions start");
        Self { db, parts, tree }
    }

    async fn ask(&self, session_id: &str, command: Command) -> Option<Reply> {
        let now = self.parts.clock.now();
        let order = Order {
            event_id: id::new_id().to_string(),
            occurred_at: now,
            trace_id: "tr".to_owned(),
            station_id: Some("st".to_owned()),
            ..Order::own("t-001", session_id, command, now)
        };
        self.parts.sessions.ask(order).await.and_then(Result::ok)
    }

    async fn create(&self, session_id: &str) -> Option<Reply> {
        let command = Command::Create {
            farm_id: "f".to_owned(),
            barn_id: "b".to_owned(),
            device_id: "d".to_owned(),
            station_id: "st".to_owned(),
            batch_id: None,
        };
        self.ask(session_id, command).await
    }

    async fn upkeep(&self, clock: Clock) {
        let watch = ClockWatch::new(clock.clone());
        watch.remember(Known { known_at: Some(clock.now()), leapt_at: None });
        let mut chore = SessionUpkeep {
            store: self.db.store.clone(),
            watch,
            sessions: self.parts.sessions.clone(),
            finalize_wait: Duration::hours(24),
            idle_cancel: None,
            gauges: Measured::new("session"),
        };
        chore.run().await.expect("the database works");
    }
}

const WEIGHT: Command = Command::Weight { weight_kg: 1.5 };

#[tokio::test(flavor = "multi_thread")]
async fn children_of_a_session_that_never_comes_become_dead_letters_that_can_be_applied() {
    let scale = Scale::new().await;
    scale.ask("s-1", WEIGHT).await;
    scale.ask("s-2", WEIGHT).await;
    scale.create("s-2").await;
    let now = Clock::system().now();
    scale.upkeep(Clock::manual(now + Duration::days(29))).await;
    assert_eq!(scale.db.count("SELECT count(*) FROM session_weights").await, 2);
    scale.upkeep(Clock::manual(now + Duration::days(31))).await;
    // Orders of the upkeep carry its clock; the session itself has the engine's, by which nothing is old yet.
    assert_eq!(scale.db.count("SELECT count(*) FROM session_weights").await, 2);
    scale.db.execute("UPDATE session_weights SET created_at = now() - interval '31 days'").await;
    scale.upkeep(Clock::system()).await;
    assert_eq!(scale.db.count("SELECT count(*) FROM session_weights").await, 1, "that of the session stays");
    let letters =
        "SELECT count(*) FROM dead_letters WHERE reason = 'CHILD_WITHOUT_SESSION' AND redriven_at IS NULL";
    assert_eq!(scale.db.count(letters).await, 1);

    scale.create("s-1").await;
    let redriven = scale.parts.sessions.redrive(&scale.db.store, None, None).await;
    assert_eq!(redriven.expect("the database works"), 1);
    assert_eq!(
        scale.db.count("SELECT count(*) FROM session_weights WHERE session_id = 's-1' AND is_bound").await,
        1
    );
    assert_eq!(scale.db.count(letters).await, 0);
    scale.tree.shut_down(std::time::Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_not_there_has_so_many_children_and_one_create_binds_them() {
    let scale = Scale::new().await;
    scale
        .db
        .execute(&format!(
            "INSERT INTO session_weights (id, tenant_id, session_id, station_id, weight_kg, occurred_at, event_id, created_at)
             SELECT gen_random_uuid(), 't-001', 's-1', 'st', 1, now(), 'e-' || i, now() FROM generate_series(1, {CHILDREN_WAITING_MAX}) AS i"
        ))
        .await;
    scale.ask("s-1", WEIGHT).await;
    assert_eq!(scale.db.count("SELECT count(*) FROM session_weights").await, CHILDREN_WAITING_MAX);
    let letters =
        "SELECT count(*) FROM dead_letters WHERE reason = 'TOO_MANY_WITHOUT_SESSION' AND redriven_at IS NULL";
    assert_eq!(scale.db.count(letters).await, 1);

    assert!(scale.create("s-1").await.is_some());
    let bound = "SELECT count(*) FROM session_weights WHERE is_bound";
    assert_eq!(scale.db.count(bound).await, CHILDREN_WAITING_MAX);
    let redriven = scale.parts.sessions.redrive(&scale.db.store, None, None).await;
    assert_eq!(redriven.expect("the database works"), 1);
    assert_eq!(scale.db.count(bound).await, CHILDREN_WAITING_MAX + 1);
    assert_eq!(scale.db.count("SELECT count(*) FROM sync_outbox").await, CHILDREN_WAITING_MAX + 2);
    scale.tree.shut_down(std::time::Duration::from_secs(5)).await;
}
