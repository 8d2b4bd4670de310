//! Statements that are polled, claim work or come round with housekeeping, on a database with a history: each finds its few
//! rows by an index.

use chrono::Duration;
use schema::clock::{Clock, Timestamp};
use schema::id;
use tests::plan::plan;
use tests::postgres::Database;
use tokio_postgres::types::ToSql;

/// The history: much that is over, and a little that is asked for.
async fn fill(db: &Database) {
    db.execute(
        "INSERT INTO sync_outbox (id, tenant_id, farm_id, barn_id, device_id, event_type, occurred_at, payload_json)
         SELECT gen_random_uuid(), 't-001', 'f', 'b', 'd-' || i % 50, 'telemetry.ingested', now() - i * interval '1 second', '{}'
         FROM generate_series(1, 20000) AS i;
         UPDATE sync_outbox SET status = 'failed', failed_at = now(), reject_count = 1
         WHERE ctid IN (SELECT ctid FROM ONLY sync_outbox LIMIT 20);
         INSERT INTO device_events (id, tenant_id, farm_id, barn_id, device_id, event_id, event_type, occurred_at, ingested_at)
         SELECT gen_random_uuid(), 't-001', 'f', 'b', 'd-' || i % 50, i::text, 'door.opened', now() - i * interval '1 second', now()
         FROM generate_series(1, 20000) AS i;
         INSERT INTO telemetry_raw (id, tenant_id, farm_id, barn_id, device_id, event_id, metric_type, metric_value, occurred_at, ingested_at)
         SELECT gen_random_uuid(), 't-001', 'f', 'b', 'd-' || i % 50, i::text, 'm', 1, now() - i * interval '1 second', now()
         FROM generate_series(1, 20000) AS i;
         INSERT INTO session_weights (id, tenant_id, session_id, weight_kg, occurred_at, event_id, is_bound, created_at)
         SELECT gen_random_uuid(), 't-001', 's-' || i, 1, now(), i::text, i > 10, now() - interval '40 days' FROM generate_series(1, 20000) AS i;
         INSERT INTO session_media_bindings (id, tenant_id, session_id, media_object_id, occurred_at, event_id, is_bound, created_at)
         SELECT gen_random_uuid(), 't-001', 's-' || i, i::text, now(), i::text, i > 10, now() - interval '40 days' FROM generate_series(1, 20000) AS i;
         INSERT INTO weight_sessions (id, tenant_id, farm_id, barn_id, device_id, session_id, station_id, batch_id, start_at, end_at,
             status, created_event_id, finalized_event_id, created_at, updated_at)
         SELECT gen_random_uuid(), 't-001', 'f', 'b-' || i % 4, 'd', 's-' || i + 20, 'st', 'batch-' || i % 10,
             now() - i * interval '1 minute', now(), 'finalized', 'e', 'e', now(), now()
         FROM generate_series(1, 20000) AS i;
         INSERT INTO weight_sessions (id, tenant_id, farm_id, barn_id, device_id, session_id, station_id, start_at, created_event_id,
             created_at, updated_at)
         SELECT gen_random_uuid(), 't-001', 'f', 'b-1', 'd', 'open-' || i, 'st', now() - i * interval '1 day', 'e', now(),
             now() + interval '1 hour'
         FROM generate_series(1, 10) AS i;
         INSERT INTO session_marks (id, tenant_id, session_id, kind, reason, author, created_at)
         SELECT gen_random_uuid(), 't-001', 's-' || i, 'excluded', 'r', 'me', now() FROM generate_series(1, 5000) AS i;
         INSERT INTO inference_results (id, tenant_id, farm_id, barn_id, device_id, session_id, confidence, model_version, occurred_at,
             created_at, event_id)
         SELECT gen_random_uuid(), 't-001', 'f', 'b', 'd-' || i % 4, 's-' || i, 0.5, 'v', now() - i * interval '1 minute', now(), gen_random_uuid()
         FROM generate_series(1, 20000) AS i;
         INSERT INTO media_uploads (media_id, tenant_id, farm_id, barn_id, device_id, bucket, object_key, content_type, status, expires_at, created_at)
         SELECT gen_random_uuid(), 't-001', 'f', 'b', 'd', 'b', 'k-' || i, 'image/jpeg', CASE WHEN i > 10 THEN 'completed' ELSE 'presigned' END,
             now() - interval '1 hour', now() FROM generate_series(1, 20000) AS i;
         INSERT INTO inference_jobs (id, tenant_id, farm_id, barn_id, device_id, media_id, object_key, model_version, status, next_attempt_at, created_at, updated_at)
         SELECT gen_random_uuid(), 't-001', 'f', 'b', 'd', gen_random_uuid(), 'k', 'v', CASE WHEN i > 10 THEN 'completed' ELSE 'pending' END,
             now(), now(), now() FROM generate_series(1, 20000) AS i;
         INSERT INTO dead_letters (id, tenant_id, source, reason, event_type, event_id, body_json, first_seen_at, dead_at, redriven_at)
         SELECT gen_random_uuid(), 't-001', 'session', 'r', 't', i::text, '{}', now(), now() - i * interval '1 second', CASE WHEN i > 10 THEN now() END
         FROM generate_series(1, 20000) AS i;
         INSERT INTO session_parked (tenant_id, event_id, session_id, occurred_at, received_at, expires_at, body_json)
         SELECT 't-001', i::text, 's-' || i, now(), now(), now() + (i - 10) * interval '1 minute', '{}' FROM generate_series(1, 20000) AS i;
         INSERT INTO ingress_dedupe (tenant_id, event_id, first_seen_at, expires_at, topic, hash)
         SELECT 't-001', i::text, now(), now() + (i - 10) * interval '1 minute', 't', 'h' FROM generate_series(1, 20000) AS i;
         INSERT INTO discarded_events (id, tenant_id, source, event_type, body_json, reason, discarded_at)
         SELECT gen_random_uuid(), 't-001', 'outbox', 't', '{}', 'r', now() - i * interval '1 minute' FROM generate_series(1, 20000) AS i",
    )
    .await;
    db.execute("VACUUM ANALYZE").await;
}

/// The settings under which the outbox is read.
const BY_INDEX: &str = "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off;
    SET enable_mergejoin = off; SET enable_sort = off";

#[tokio::test]
async fn what_comes_round_again_finds_its_rows_by_an_index() {
    let mut db = Database::fresh().await;
    fill(&db).await;
    let now = Clock::system().now();
    let month_ago = now - Duration::days(30);
    let (none, all): (Option<&str>, Option<Vec<String>>) = (None, None);
    let no_time: Option<Timestamp> = None;
    let present = vec!["t-001".to_owned()];
    let ids = vec![id::new_id()];
    let every: Option<Vec<id::Uuid>> = None;
    let no_id: Option<id::Uuid> = None;
    let soon = now + Duration::seconds(10);
    let farthest = now + Duration::days(1);
    type Params<'a> = Vec<&'a (dyn ToSql + Sync)>;
    // The statement, its parameters, an index that it must use, and the pages it may look at.
    let polled: Vec<(&str, Params<'_>, &str, i64)> = vec![
        ("session_forsaken", vec![&month_ago, &500_i64], "session_weights_waiting", 200),
        ("session_expired_finalizes", vec![&now, &500_i64], "session_parked_expiry", 40),
        ("session_idle", vec![&now, &500_i64], "weight_sessions_open", 10),
        (
            "media_claim_due",
            vec![&now, &now, &soon, &50_i64, &farthest, &farthest, &farthest],
            "media_uploads_open",
            400,
        ),
        ("inference_oldest_job", vec![], "inference_jobs_open", 10),
        ("inference_claim", vec![&now, &"me", &soon, &farthest], "inference_jobs_due", 60),
        ("inference_expired", vec![&now, &farthest], "inference_jobs_due", 60),
        ("retention_delete_dead_letters", vec![&month_ago, &2000_i64], "dead_letters_redriven", 10),
        ("retention_delete_discarded_events", vec![&month_ago, &2000_i64], "discarded_events_time", 10),
        ("dedupe_delete_expired", vec![&now, &month_ago, &5000_i64], "ingress_dedupe_expires", 100),
    ];
    for (name, params, index, pages_max) in polled {
        check(&mut db, name, &params, index, pages_max).await;
    }
    db.execute(BY_INDEX).await;
    let of_outbox: Vec<(&str, Params<'_>, &str, i64)> = vec![
        ("redrive", vec![&now, &every, &all, &5000_i64], "sync_outbox_held", 600),
        ("discard_events", vec![&ids, &all, &"r", &now], "sync_outbox_held", 100),
        ("list_failed", vec![&all, &100_i64], "sync_outbox_held", 100),
        (
            "dead_letters_newest",
            vec![&all, &100_i64, &present, &none, &none, &none, &none, &no_time, &no_time, &no_time, &no_id],
            "sync_outbox_held",
            500,
        ),
        ("in_flight", vec![&present, &50_i64], "sync_outbox_order", 3000),
        ("outbox_oldest_pending", vec![&present, &16_i64], "sync_outbox_order", 1000),
    ];
    for (name, params, index, pages_max) in of_outbox {
        check(&mut db, name, &params, index, pages_max).await;
    }
    db.execute("RESET ALL").await;
    let (noon, id) = (Some(now - Duration::hours(3)), Some(id::new_id()));
    for name in ["events", "readings"] {
        let mut params: Params<'_> = vec![&"t-001", &none, &no_time, &no_time, &100_i64];
        if name == "events" {
            params.push(&none);
        }
        params.extend([&noon as &(dyn ToSql + Sync), &id]);
        let found = plan(&mut db.client, name, &params).await;
        assert!(found.scanned.is_empty() && found.pages < 400, "{name}: {found:?}");
    }
}

#[tokio::test]
async fn a_page_of_weighings_or_results_is_found_by_an_index_wherever_it_lies() {
    let mut db = Database::fresh().await;
    fill(&db).await;
    let now = Clock::system().now();
    let (none, no_time): (Option<&str>, Option<Timestamp>) = (None, None);
    let (week_ago, id) = (Some(now - Duration::days(7)), Some(id::new_id()));
    let (barn, batch, created) = (Some("b-1"), Some("batch-1"), Some("created"));
    let of_sessions = [
        ("sessions", none, none, none, "weight_sessions_by_time"),
        ("sessions_of_barn", barn, none, none, "weight_sessions_by_barn"),
        ("sessions_of_batch", none, batch, none, "weight_sessions_by_batch"),
        ("sessions_of_status", none, none, created, "weight_sessions_by_status"),
    ];
    for (name, barn, batch, status, index) in of_sessions {
        let params: [&(dyn ToSql + Sync); 12] = [
            &"t-001", &no_time, &no_time, &week_ago, &id, &100_i64, &barn, &none, &batch, &false, &status,
            &"me",
        ];
        let found = plan(&mut db.client, name, &params).await;
        assert!(found.scanned.is_empty() && found.pages < 1500, "{name}: {found:?}");
        assert!(found.indexes.iter().any(|used| used == index), "{name}: {found:?}");
    }
    let (device, session) = (Some("d-1"), Some("s-100"));
    let of_results = [
        ("inference_results", none, none, "inference_results_time"),
        ("inference_results_of_device", none, device, "inference_results_device"),
        ("inference_results_of_session", session, none, "inference_results_session"),
    ];
    for (name, session, device, index) in of_results {
        let params: [&(dyn ToSql + Sync); 8] =
            [&"t-001", &session, &device, &no_time, &no_time, &week_ago, &id, &100_i64];
        let found = plan(&mut db.client, name, &params).await;
        assert!(found.scanned.is_empty() && found.pages < 400, "{name}: {found:?}");
        assert!(found.indexes.iter().any(|used| used == index), "{name}: {found:?}");
    }
}

async fn check(db: &mut Database, name: &str, params: &[&(dyn ToSql + Sync)], index: &str, pages_max: i64) {
    let found = plan(&mut db.client, name, params).await;
    assert!(found.indexes.iter().any(|used| used == index), "{name} does not use {index}: {found:?}");
    assert!(found.pages <= pages_max, "{name} reads {} pages: {found:?}", found.pages);
}

#[tokio::test]
async fn rows_whose_sender_was_lost_are_found_among_many_and_wherever_they_lie() {
    let db = Database::fresh().await;
    fill(&db).await;
    let now = Clock::system().now();
    let stuck = |place: &str| {
        format!(
            "UPDATE sync_outbox SET status = 'sent', lease_expires_at = now() - interval '1 hour'
             WHERE id = (SELECT id FROM ONLY sync_outbox WHERE status = 'pending' ORDER BY occurred_at {place} LIMIT 1)"
        )
    };
    let unclaim = async || {
        let work =
            async |conn: &mut _| schema::store::outbox::queries::unclaim_stuck(conn, now, None, now).await;
        db.store.run("test", work).await.expect("it works")
    };
    let listed = async || {
        use schema::store::outbox::queries::{Status, list};
        let work = async |conn: &mut _| list(conn, Status::Sent, 100, None).await;
        db.store.run("test", work).await.expect("it works").len()
    };
    assert_eq!((listed().await, unclaim().await), (0, 0));
    // At the head of its group, where a claim takes it; and at the very end, where no claim has been.
    for place in ["ASC", "DESC"] {
        db.execute(&stuck(place)).await;
        assert_eq!((listed().await, unclaim().await), (1, 1), "{place}");
    }
    assert_eq!((listed().await, unclaim().await), (0, 0));
}
