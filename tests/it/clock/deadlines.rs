//! Deadlines that only a wrong clock can have set, in the store: they count as passed.

use chrono::Duration;
use schema::clock::Clock;
use schema::clock::Timestamp;
use schema::store::media::{self, Due};
use schema::store::outbox::claim;
use schema::store::outbox::groups_of;
use schema::store::session;
use schema::store::sync_state;
use schema::{id, store};
use tests::outbox::{LEASE, request};
use tests::postgres::Database;

fn now() -> Timestamp {
    Clock::system().now()
}

async fn claimed(db: &Database) -> usize {
    let groups = groups_of(0, 1);
    let request = request("me", &groups, now());
    let claimed = db.store.run("claim", async |conn| claim::claim(conn, &request).await).await;
    claimed.expect("the database works").batch.map_or(0, |batch| batch.events.len())
}

/// A database with one waiting event, to which `change` was done under a wrong clock.
async fn with_event(change: &str) -> Database {
    let db = Database::fresh().await;
    db.execute(
        "INSERT INTO sync_outbox (id, tenant_id, farm_id, barn_id, device_id, event_type, occurred_at, trace_id, payload_json)
         VALUES (gen_random_uuid(), 't-001', 'f-001', 'b-001', 'd-1', 'telemetry.ingested', now(), 'tr', '{\"metric_value\": 1}')",
    )
    .await;
    db.execute(change).await;
    db
}

#[tokio::test]
async fn an_event_is_claimed_whatever_a_wrong_clock_has_left() {
    let leased =
        "INSERT INTO sync_lane_groups SELECT 't-001', n, gen_random_uuid(), 'former', now() + interval";
    let (sent, rejected) = (
        "UPDATE sync_outbox SET status = 'sent', claimed_by = 'former', lease_expires_at = now() + interval",
        "UPDATE sync_outbox SET reject_count = 1, next_attempt_at = now() + interval",
    );
    let groups = "FROM generate_series(0, 15) AS n";
    for (change, of) in [(leased, groups), (sent, ""), (rejected, "")] {
        let far = with_event(&format!("{change} '1 day' {of}")).await;
        assert_eq!(claimed(&far).await, 1, "{change}");
        let near = with_event(&format!("{change} '200 seconds' {of}")).await;
        assert_eq!(claimed(&near).await, 0, "{change}");
    }
}

#[tokio::test]
async fn a_tenant_is_due_behind_leases_that_nobody_can_hold() {
    let change = "INSERT INTO sync_lane_groups SELECT 't-001', n, gen_random_uuid(), 'former', now() + interval '1 year'
        FROM generate_series(0, 15) AS n";
    let db = with_event(change).await;
    let groups = groups_of(0, 1);
    let work = async |conn: &mut _| claim::due_tenants(conn, &groups, now(), LEASE).await;
    assert_eq!(db.store.run("due", work).await.expect("they can be read").len(), 1);
}

#[tokio::test]
async fn a_pause_of_years_is_none_and_does_not_outlive_the_next_one() {
    let db = with_event("INSERT INTO sync_state (tenant_id, paused_until, updated_at) VALUES ('t-001', now() + interval '10 years', now())").await;
    let summary = async || {
        let work = async |conn: &mut _| sync_state::summary(conn, None, now(), LEASE).await;
        db.store.run("summary", work).await.expect("it can be read").paused_until
    };
    assert_eq!(summary().await, None);
    let paused_until = now() + Duration::seconds(60);
    let change = sync_state::Change::Failure {
        batch_id: id::new_id(),
        code: "CLOUD_REQUEST_FAILED",
        message: "no",
        failures_before: 0,
        paused_until,
        pause_max: LEASE,
    };
    let settlement = store::outbox::settle::Settlement { change: Some(change), ..Default::default() };
    let settle = async |conn: &mut _| {
        store::outbox::settle::settle(conn, "t-001", id::new_id(), &settlement, now()).await
    };
    db.store.run("settle", settle).await.expect("it is settled");
    assert_eq!(summary().await, Some(paused_until));
}

#[tokio::test]
async fn an_upload_is_looked_at_whatever_a_wrong_clock_has_left() {
    let due = async |db: &Database| {
        let due = Due {
            now: now(),
            grace: Duration::seconds(30),
            look_again: Duration::seconds(10),
            offer_max: Duration::minutes(15),
            uploads_max: 10,
        };
        let claimed = db.store.run("due", async |conn| media::claim_due(conn, due).await).await;
        claimed.expect("they can be read").len()
    };
    for (status, expires, uploaded, next_look, expected) in [
        ("presigned", "10 minutes", "null", "null", 0),
        ("presigned", "1 year", "null", "null", 1),
        ("presigned", "-1 minute", "null", "now() + interval '5 seconds'", 0),
        ("presigned", "-1 minute", "null", "now() + interval '1 year'", 1),
        ("uploaded", "10 minutes", "now()", "null", 0),
        ("uploaded", "10 minutes", "now() + interval '1 year'", "null", 1),
    ] {
        let db = Database::fresh().await;
        db.execute(&format!(
            "INSERT INTO media_uploads (media_id, tenant_id, farm_id, barn_id, device_id, bucket, object_key, content_type,
                status, expires_at, uploaded_at, next_look_at, created_at)
             VALUES (gen_random_uuid(), 't-001', 'f-001', 'b-001', 'd-1', 'b', 'k', 'image/jpeg', '{status}',
                now() + interval '{expires}', {uploaded}, {next_look}, now())"
        ))
        .await;
        assert_eq!(due(&db).await, expected, "{status} {expires} {uploaded} {next_look}");
    }
}

#[tokio::test]
async fn a_finalize_that_was_parked_far_ahead_waits_as_long_as_any_other() {
    let db = Database::fresh().await;
    db.execute(
        "INSERT INTO session_parked (tenant_id, event_id, session_id, occurred_at, received_at, expires_at, body_json)
         SELECT 't-001', n::text, 's', now(), now(), now() + n * interval '1 hour', '{}' FROM unnest(ARRAY[5, 87600]) AS n",
    )
    .await;
    let wait = Duration::hours(24);
    let work = async |conn: &mut _| session::redate_parked(conn, now(), wait).await;
    assert_eq!(db.store.run("redate", work).await.expect("it is written"), 1);
    let within = "SELECT count(*) FROM session_parked WHERE expires_at < now() + interval '25 hours'";
    assert_eq!(db.count(within).await, 2);
}
