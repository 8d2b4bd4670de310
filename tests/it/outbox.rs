//! The outbox as a table: what a claim takes, what a settlement leaves, and what operators see.

use std::collections::HashSet;

use chrono::{DateTime, Duration};
use schema::clock::Timestamp;
use schema::id;
use schema::store::outbox::claim::{self, Batch, ClaimRequest, Claimed, ClaimedEvent};
use schema::store::outbox::queries::{self, DeadFilter, Status};
use schema::store::outbox::settle::{Failure, Fate, Rejection, Settlement, settle};
use schema::store::outbox::slot::Slot;
use schema::store::outbox::{groups_of, lease, measure};
use schema::store::{Conn, Store};
use tests::outbox::request;
use tests::postgres::{self, Database};
use uuid::Uuid;

const TENANT: &str = "t-001";

fn now() -> Timestamp {
    DateTime::from_timestamp(1_770_888_735, 0).expect("a time")
}

fn seconds(n: i64) -> Duration {
    Duration::seconds(n)
}

/// A row as scripts from outside insert it, `at` seconds after [`now`].
async fn insert(db: &Database, event_type: &str, device: &str, session: Option<&str>, at: i64) -> Uuid {
    let id = id::new_id();
    let sql = "INSERT INTO sync_outbox (id, tenant_id, farm_id, barn_id, device_id, session_id, event_type, occurred_at, trace_id,
        payload_json, status, attempt_count, created_at, updated_at)
        VALUES ($1, 't-001', 'f-001', 'b-001', $2, $3, $4, $5, 'tr', '{\"metric_value\": 1}', 'pending', 0, $5, $5)";
    db.client
        .execute(sql, &[&id, &device, &session, &event_type, &(now() + seconds(at))])
        .await
        .expect("the row can be inserted");
    id
}

async fn reading(db: &Database, device: &str, at: i64) -> Uuid {
    insert(db, "telemetry.ingested", device, None, at).await
}

async fn claim_with(store: &Store, request: ClaimRequest<'_>) -> Claimed {
    store.run("claim", async |conn| claim::claim(conn, &request).await).await.expect("the database works")
}

async fn claim_at(db: &Database, at: Timestamp) -> Option<Batch> {
    claim_with(&db.store, request("edge-a", &groups_of(0, 1), at)).await.batch
}

async fn claim_now(db: &Database) -> Option<Batch> {
    claim_at(db, now()).await
}

fn ids(batch: Option<&Batch>) -> Vec<Uuid> {
    batch.map(|batch| batch.events.iter().map(|event| event.id).collect()).unwrap_or_default()
}

async fn settle_with(db: &Database, batch: &Batch, settlement: Settlement<'_>) -> usize {
    let work = async |conn: &mut _| settle(conn, TENANT, batch.id, &settlement, now()).await;
    db.store.run("settle", work).await.expect("the database works").acked.len()
}

async fn ack(db: &Database, batch: &Batch) -> usize {
    let settlement =
        Settlement { acked: batch.events.iter().collect(), is_last: true, ..Settlement::default() };
    settle_with(db, batch, settlement).await
}

async fn give_back(db: &Database, batch: &Batch) {
    let failure = Some(Failure { code: "CLOUD_REQUEST_FAILED", message: "no route\0 to host" });
    let returned = batch.events.iter().collect();
    settle_with(db, batch, Settlement { returned, failure, is_last: true, ..Settlement::default() }).await;
}

fn rejection(event: &ClaimedEvent, fate: Fate) -> Rejection {
    Rejection {
        id: event.id,
        lane_group: event.lane_group,
        attempt_count: event.attempt_count,
        code: "CLOUD_EVENT_REJECTED",
        message: "broker is down".to_owned(),
        is_counted: true,
        fate,
    }
}

/// Has the rows of a batch say that they are on the line.
async fn mark(db: &Database, batch: &Batch) -> u64 {
    let events: Vec<&ClaimedEvent> = batch.events.iter().collect();
    let work = async |conn: &mut _| lease::mark_sent(conn, batch, &events, now()).await;
    db.store.run("mark", work).await.expect("the database works")
}

async fn release(db: &Database, holder: &str) -> u64 {
    let groups = groups_of(0, 1);
    let work = async |conn: &mut _| lease::release_mine(conn, holder, &groups).await;
    db.store.run("release", work).await.expect("the database works")
}

async fn attempts(db: &Database, id: Uuid) -> i64 {
    db.count(&format!("SELECT attempt_count::bigint FROM sync_outbox WHERE id = '{id}'")).await
}

async fn reject(db: &Database, batch: &Batch, position: usize, fate: Fate) {
    let event = &batch.events[position];
    let rejection = rejection(event, fate);
    let acked = batch.events.iter().filter(|other| other.id != event.id).collect();
    settle_with(
        db,
        batch,
        Settlement { acked, rejected: vec![rejection], is_last: true, ..Settlement::default() },
    )
    .await;
}

async fn status(db: &Database, id: Uuid) -> String {
    db.client
        .query_one("SELECT status FROM sync_outbox WHERE id = $1", &[&id])
        .await
        .expect("it is there")
        .get(0)
}

/// What was given up of these tenants.
fn dead_of(tenants: &[String]) -> DeadFilter<'_> {
    DeadFilter { tenants: Some(tenants), ..DeadFilter::default() }
}

#[tokio::test]
async fn a_row_from_an_outside_script_is_claimed_in_order_and_moves_when_acked() {
    let db = Database::fresh_at(now()).await;
    let second = reading(&db, "d-1", 2).await;
    let first = reading(&db, "d-1", 1).await;
    let batch = claim_now(&db).await.expect("a batch");
    assert_eq!(ids(Some(&batch)), [first, second]);
    assert_eq!(status(&db, first).await, "pending", "a claim writes no row");
    assert!(batch.event_text(&batch.events[0]).contains(&first.to_string()));
    assert!(claim_now(&db).await.is_none());

    assert_eq!(ack(&db, &batch).await, 2);
    assert_eq!(status(&db, first).await, "acked");
    assert_eq!(db.count("SELECT count(*) FROM ONLY sync_outbox").await, 0);
    assert_eq!(
        db.count("SELECT count(*) FROM sync_outbox WHERE acked_at IS NOT NULL AND lease_expires_at IS NULL")
            .await,
        2
    );
    assert_eq!(db.count("SELECT count(*) FROM sync_lane_groups").await, 0);
    assert_eq!(ack(&db, &batch).await, 0, "a second answer finds nothing to settle");
}

#[tokio::test]
async fn the_table_of_a_day_is_made_when_it_is_missing() {
    let db = Database::fresh_at(now() - Duration::days(40)).await;
    reading(&db, "d-1", 0).await;
    let batch = claim_now(&db).await.expect("a batch");
    assert_eq!(ack(&db, &batch).await, 1);
    assert_eq!(db.count("SELECT count(*) FROM sync_outbox WHERE status = 'acked'").await, 1);
}

#[tokio::test]
async fn two_engines_never_share_a_lane_group_within_a_lease() {
    let db = Database::fresh_at(now()).await;
    let other = postgres::store(&db.url);
    for n in 0..200 {
        reading(&db, &format!("d-{}", n % 40), n).await;
    }
    let small = |edge: &'static str, groups: &'static [i16]| ClaimRequest {
        events_max: 20,
        window_rows: 5,
        ..request(edge, groups, now())
    };
    const UP: &[i16] = &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    const DOWN: &[i16] = &[15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0];
    let mut seen = HashSet::new();
    let mut rounds = 0;
    while seen.len() < 200 {
        let (one, two) = tokio::join!(
            claim_with(&db.store, small("edge-a", UP)),
            claim_with(&other, small("edge-b", DOWN))
        );
        let lanes = |claimed: &Claimed| -> HashSet<String> {
            claimed.batch.iter().flat_map(|batch| &batch.events).map(|event| event.lane.clone()).collect()
        };
        assert!(lanes(&one).is_disjoint(&lanes(&two)));
        for batch in [one.batch, two.batch].into_iter().flatten() {
            for id in ids(Some(&batch)) {
                assert!(seen.insert(id), "an event was claimed twice");
            }
            ack(&db, &batch).await;
        }
        rounds += 1;
        assert!(rounds < 100, "the engines are stuck at {} events", seen.len());
    }
    assert_eq!(db.count("SELECT count(*) FROM ONLY sync_outbox").await, 0);
}

#[tokio::test]
async fn a_lease_that_ran_out_is_claimed_again_and_the_late_answer_is_fenced_off() {
    let db = Database::fresh_at(now()).await;
    let id = reading(&db, "d-1", 0).await;
    let groups = groups_of(0, 1);
    let lost = claim_now(&db).await.expect("a batch");
    let theirs = request("edge-b", &groups, now() + seconds(299));
    assert!(claim_with(&db.store, theirs).await.batch.is_none());
    let theirs = request("edge-b", &groups, now() + seconds(300));
    let again = claim_with(&db.store, theirs).await.batch.expect("the lease is over");
    assert_eq!(ids(Some(&again)), [id]);
    // Whatever the late one has to say: the group is not its own any more.
    assert_eq!(mark(&db, &lost).await, 0);
    assert_eq!(ack(&db, &lost).await, 0);
    give_back(&db, &lost).await;
    reject(&db, &lost, 0, Fate::Failed { reason: "max_rejections" }).await;
    assert_eq!((status(&db, id).await.as_str(), attempts(&db, id).await), ("pending", 0));
    let renew = async |conn: &mut _| lease::renew(conn, &lost, now() + seconds(900)).await;
    assert!(!db.store.run("renew", renew).await.unwrap());
    assert_eq!(ack(&db, &again).await, 1);
}

#[tokio::test]
async fn an_answer_after_the_lease_is_settled_as_long_as_nobody_has_taken_over() {
    let db = Database::fresh_at(now()).await;
    reading(&db, "d-1", 0).await;
    let batch = claim_at(&db, now() - seconds(3_600)).await.expect("a batch");
    assert_eq!(ack(&db, &batch).await, 1);
}

#[tokio::test]
async fn only_the_groups_that_are_left_are_settled() {
    let db = Database::fresh_at(now()).await;
    for device in 0..40 {
        reading(&db, &format!("d-{device}"), device).await;
    }
    let lost = claim_now(&db).await.expect("a batch");
    let theirs = request("edge-b", &[3], now() + seconds(300));
    let taken = claim_with(&db.store, theirs).await.batch.expect("the lease is over");
    assert_eq!(ack(&db, &lost).await, 40 - taken.events.len());
    assert_eq!(db.count("SELECT count(*) FROM sync_lane_groups").await, 1);
    assert_eq!(ack(&db, &taken).await, taken.events.len());
}

#[tokio::test]
async fn a_claim_and_a_quick_answer_write_a_row_no_more_than_its_move() {
    let db = Database::fresh_at(now()).await;
    for n in 0..50 {
        reading(&db, &format!("d-{n}"), n).await;
    }
    let versions =
        "SELECT sum(hashtext(ctid::text || xmin::text || xmax::text))::bigint FROM ONLY sync_outbox";
    let before = db.count(versions).await;
    let batch = claim_now(&db).await.expect("a batch");
    assert_eq!(db.count(versions).await, before);
    let stopped =
        Settlement { returned: batch.events.iter().collect(), is_last: true, ..Settlement::default() };
    settle_with(&db, &batch, stopped).await;
    assert_eq!(db.count(versions).await, before, "what was never on the line is given back without a word");
    let batch = claim_now(&db).await.expect("a batch");
    assert_eq!(ack(&db, &batch).await, 50);
    assert_eq!(
        db.count("SELECT count(*) FROM sync_outbox WHERE attempt_count = 0 AND claimed_by = 'edge-a'").await,
        50
    );
}

#[tokio::test]
async fn a_request_that_lasts_shows_in_its_rows_and_counts_once() {
    let db = Database::fresh_at(now()).await;
    let id = reading(&db, "d-1", 0).await;
    let batch = claim_now(&db).await.expect("a batch");
    // The answer to the first mark was lost.
    assert_eq!((mark(&db, &batch).await, mark(&db, &batch).await), (1, 0));
    let work = async |conn: &mut _| queries::list(conn, Status::Sent, 10, None).await;
    let listed = db.store.run("list", work).await.expect("the database works");
    let entry = listed.first().expect("it is on the line");
    assert_eq!((entry.id, entry.attempt_count, entry.claimed_by.as_deref()), (id, 1, Some("edge-a")));
    assert_eq!(entry.lease_expires_at, Some(now() + seconds(300)));
    let renew = async |conn: &mut _| lease::renew(conn, &batch, now() + seconds(600)).await;
    assert!(db.store.run("renew", renew).await.unwrap());
    let until =
        "SELECT count(*) FROM sync_outbox AS o JOIN sync_lane_groups USING (batch_id, lease_expires_at)";
    assert_eq!(db.count(until).await, 1, "row and group say the same");
    give_back(&db, &batch).await;
    assert_eq!((status(&db, id).await.as_str(), attempts(&db, id).await), ("pending", 1));
    let batch = claim_now(&db).await.expect("a batch");
    give_back(&db, &batch).await;
    assert_eq!(attempts(&db, id).await, 2, "one that fails at once counts as well");
    let batch = claim_now(&db).await.expect("a batch");
    mark(&db, &batch).await;
    assert_eq!(ack(&db, &batch).await, 1);
    assert_eq!((status(&db, id).await.as_str(), attempts(&db, id).await), ("acked", 3));
}

#[tokio::test]
async fn a_restarted_engine_takes_its_own_rows_back_at_once() {
    let db = Database::fresh_at(now()).await;
    let id = reading(&db, "d-1", 0).await;
    let lost = claim_now(&db).await.expect("a batch that is lost in a crash");
    mark(&db, &lost).await;
    assert!(claim_now(&db).await.is_none());
    assert_eq!(release(&db, "edge-a").await, 1);
    assert!(claim_with(&db.store, request("edge-b", &groups_of(0, 1), now())).await.batch.is_none());
    let again = claim_now(&db).await.expect("its own");
    assert_eq!(ids(Some(&again)), [id]);
    assert_eq!(again.events[0].attempt_count, 2, "the lost attempt counts");
    assert_eq!(ack(&db, &lost).await, 0);
    assert_eq!(ack(&db, &again).await, 1);
}

#[tokio::test]
async fn rows_that_were_not_on_the_line_for_long_are_free_with_their_group() {
    let db = Database::fresh_at(now()).await;
    let id = reading(&db, "d-1", 0).await;
    drop(claim_now(&db).await.expect("a batch that is lost in a crash"));
    assert_eq!(release(&db, "edge-a").await, 1);
    let theirs = claim_with(&db.store, request("edge-b", &groups_of(0, 1), now())).await.batch;
    assert_eq!(ids(theirs.as_ref()), [id]);
}

/// What programs do that claim row by row: they take the group, and write every row.
async fn claim_by_rows(db: &Database, holder: &str, at: Timestamp) -> u64 {
    let expires_at = at + seconds(300);
    let groups = "INSERT INTO sync_lane_groups AS l SELECT 't-001', g, gen_random_uuid(), $1, $2 FROM generate_series(0, 15) AS g
        ON CONFLICT (tenant_id, lane_group) DO UPDATE SET batch_id = excluded.batch_id, claimed_by = excluded.claimed_by,
            lease_expires_at = excluded.lease_expires_at WHERE l.lease_expires_at <= $3";
    let taken = db.client.execute(groups, &[&holder, &expires_at, &at]).await.expect("it may");
    if taken < 16 {
        return 0;
    }
    let rows = "UPDATE ONLY sync_outbox SET status = 'sent', attempt_count = attempt_count + 1, claimed_by = $1, lease_expires_at = $2
        WHERE status = 'pending' OR lease_expires_at <= $3";
    db.client.execute(rows, &[&holder, &expires_at, &at]).await.expect("it may")
}

#[tokio::test]
async fn a_program_that_claims_row_by_row_and_one_that_claims_groups_keep_each_other_out() {
    let db = Database::fresh_at(now()).await;
    let id = reading(&db, "d-1", 0).await;
    let groups = groups_of(0, 1);
    let mine = async |at| claim_with(&db.store, request("edge-a", &groups, at)).await.batch;
    let lost = mine(now()).await.expect("a batch");
    assert_eq!(claim_by_rows(&db, "old", now() + seconds(299)).await, 0, "a group is leased");
    db.execute("DELETE FROM sync_lane_groups WHERE claimed_by = 'old'").await;
    assert_eq!(claim_by_rows(&db, "old", now() + seconds(300)).await, 1);
    assert_eq!(ack(&db, &lost).await, 0, "it was taken over");
    assert!(mine(now() + seconds(599)).await.is_none());
    // Somebody deletes the lease of the group, but the rows say whose they are.
    db.execute("DELETE FROM sync_lane_groups").await;
    assert!(mine(now() + seconds(599)).await.is_none());
    let again = mine(now() + seconds(600)).await.expect("its leases are over");
    assert_eq!((ids(Some(&again)), again.events[0].attempt_count), (vec![id], 2));
    // What the old one would settle now has another number.
    let late = "UPDATE ONLY sync_outbox SET status = 'pending' WHERE attempt_count = 1";
    assert_eq!(db.client.execute(late, &[]).await.expect("it may"), 0);
    assert_eq!(ack(&db, &again).await, 1);
}

#[tokio::test]
async fn a_renewed_lease_lasts_longer_and_its_rows_are_still_settled() {
    let db = Database::fresh_at(now()).await;
    reading(&db, "d-1", 0).await;
    let batch = claim_now(&db).await.expect("a batch");
    let renew = async |conn: &mut _| lease::renew(conn, &batch, now() + seconds(600)).await;
    assert!(db.store.run("renew", renew).await.unwrap());
    assert!(claim_at(&db, now() + seconds(400)).await.is_none());
    assert_eq!(ack(&db, &batch).await, 1);
    assert!(!db.store.run("renew", renew).await.unwrap());
}

#[tokio::test]
async fn the_end_of_a_session_waits_for_its_beginning() {
    let db = Database::fresh_at(now()).await;
    let created = insert(&db, "weighvision.session.created", "wv", Some("s-1"), 0).await;
    let weight = insert(&db, "weighvision.weight.recorded", "wv", Some("s-1"), 1).await;
    let finalized = insert(&db, "weighvision.session.finalized", "wv", Some("s-1"), 2).await;
    let late = insert(&db, "weighvision.weight.recorded", "wv", Some("s-1"), 3).await;
    let batch = claim_now(&db).await.expect("a batch");
    assert_eq!(ids(Some(&batch)), [created, weight]);
    ack(&db, &batch).await;
    assert_eq!(ids(claim_now(&db).await.as_ref()), [finalized, late]);
}

#[tokio::test]
async fn a_failed_beginning_holds_its_session_until_it_is_redriven() {
    let db = Database::fresh_at(now()).await;
    let created = insert(&db, "weighvision.session.created", "wv", Some("s-1"), 0).await;
    let other = insert(&db, "weighvision.weight.recorded", "wv", Some("s-2"), 0).await;
    let batch = claim_now(&db).await.expect("a batch");
    let position = batch.events.iter().position(|event| event.id == created).expect("it is in the batch");
    reject(&db, &batch, position, Fate::Failed { reason: "max_rejections" }).await;
    assert_eq!(status(&db, other).await, "acked");
    let finalized = insert(&db, "weighvision.session.finalized", "wv", Some("s-1"), 2).await;
    assert!(claim_now(&db).await.is_none());
    let counts = async |conn: &mut _| queries::counts(conn, None).await;
    assert_eq!(db.store.run("counts", counts).await.unwrap().lanes_held, 1);

    let foreign = ["t-002".to_owned()];
    let redrive = async |tenants: Option<&[String]>| {
        db.store
            .run("redrive", async |conn| queries::redrive(conn, None, tenants, now()).await)
            .await
            .unwrap()
    };
    assert_eq!(redrive(Some(&foreign)).await, 0);
    assert_eq!(redrive(None).await, 1);
    let batch = claim_now(&db).await.expect("a batch");
    assert_eq!(ids(Some(&batch)), [created]);
    ack(&db, &batch).await;
    assert_eq!(ids(claim_now(&db).await.as_ref()), [finalized]);
}

#[tokio::test]
async fn a_rejection_counts_once_however_often_its_settlement_is_made() {
    for (is_last, is_slow) in [(true, false), (false, false), (true, true), (false, true)] {
        let db = Database::fresh_at(now()).await;
        reading(&db, "d-1", 0).await;
        let batch = claim_now(&db).await.expect("a batch");
        if is_slow {
            mark(&db, &batch).await;
        }
        // Committed, and the answer of the database was lost: it is made again.
        for _ in 0..2 {
            let rejected = vec![rejection(&batch.events[0], Fate::Retry { at: now() + seconds(10) })];
            settle_with(&db, &batch, Settlement { rejected, is_last, ..Settlement::default() }).await;
        }
        let counts = "SELECT (reject_count * 10 + attempt_count)::bigint FROM ONLY sync_outbox";
        assert_eq!(db.count(counts).await, 11, "{is_last} {is_slow}");
    }
}

#[tokio::test]
async fn a_rejected_row_waits_with_its_lane_and_then_travels_with_its_like() {
    let db = Database::fresh_at(now()).await;
    let rejected = reading(&db, "d-1", 0).await;
    let batch = claim_now(&db).await.expect("a batch");
    reject(&db, &batch, 0, Fate::Retry { at: now() + seconds(10) }).await;
    let behind = reading(&db, "d-1", 1).await;
    let other = reading(&db, "d-2", 2).await;
    let batch = claim_now(&db).await.expect("a batch");
    assert_eq!(ids(Some(&batch)), [other]);
    give_back(&db, &batch).await;
    let mut order = Vec::new();
    while let Some(batch) = claim_at(&db, now() + seconds(10)).await {
        let ids = ids(Some(&batch));
        assert!(!ids.contains(&rejected) || ids == [rejected], "a rejected row travels among its like");
        order.extend(ids);
        ack(&db, &batch).await;
    }
    let position = |id| order.iter().position(|found| *found == id);
    assert!(position(rejected).is_some() && position(other).is_some());
    assert!(position(rejected) < position(behind));
    assert_eq!(db.count("SELECT count(*) FROM ONLY sync_outbox").await, 0);
    assert_eq!(
        db.count("SELECT count(*) FROM sync_outbox WHERE reject_count = 1 AND last_error_message = 'broker is down'").await,
        1
    );
}

#[tokio::test]
async fn an_incomplete_row_fails_before_it_is_sent() {
    let db = Database::fresh_at(now()).await;
    let good = reading(&db, "d-1", 0).await;
    let bad = reading(&db, "d-1", 1).await;
    db.execute(&format!("UPDATE sync_outbox SET farm_id = '' WHERE id = '{bad}'")).await;
    let behind = reading(&db, "d-1", 2).await;
    let batch = claim_now(&db).await.expect("a batch");
    assert_eq!(ids(Some(&batch)), [good, behind]);
    let row = db.client.query_one("SELECT status, last_error_code, last_error_message, failed_at IS NOT NULL, lane_group FROM sync_outbox WHERE id = $1", &[&bad]).await.unwrap();
    assert_eq!(
        (row.get::<_, &str>(0), row.get::<_, &str>(1), row.get::<_, &str>(2), row.get::<_, bool>(3)),
        ("failed", "EVENT_INCOMPLETE", "Missing farm_id", true)
    );
    ack(&db, &batch).await;
    let only_bad = claim_with(&db.store, request("edge-a", &groups_of(0, 1), now())).await;
    assert!(only_bad.batch.is_none());
}

#[tokio::test]
async fn a_batch_of_incomplete_rows_leaves_no_lease() {
    let db = Database::fresh_at(now()).await;
    reading(&db, "d-1", 0).await;
    db.execute("UPDATE sync_outbox SET barn_id = NULL").await;
    let claimed = claim_with(&db.store, request("edge-a", &groups_of(0, 1), now())).await;
    assert_eq!((claimed.batch.is_none(), claimed.incomplete), (true, 1));
    assert_eq!(db.count("SELECT count(*) FROM sync_lane_groups").await, 0);
}

#[tokio::test]
async fn a_row_that_somebody_holds_locked_stops_its_lane_alone() {
    let db = Database::fresh_at(now()).await;
    let locked = reading(&db, "d-1", 0).await;
    let behind = reading(&db, "d-1", 1).await;
    let other = reading(&db, "d-2", 2).await;
    db.execute(&format!("BEGIN; SELECT FROM sync_outbox WHERE id = '{locked}' FOR UPDATE")).await;
    let batch = claim_now(&db).await.expect("a batch");
    assert_eq!(ids(Some(&batch)), [other]);
    db.execute("COMMIT").await;
    ack(&db, &batch).await;
    assert_eq!(ids(claim_now(&db).await.as_ref()), [locked, behind]);
}

#[tokio::test]
async fn a_batch_keeps_to_its_bytes_and_a_larger_event_travels_alone() {
    let db = Database::fresh_at(now()).await;
    for n in 0..4 {
        reading(&db, "d-1", n).await;
    }
    let groups = groups_of(0, 1);
    let limited = |bytes_max| ClaimRequest { bytes_max, ..request("edge-a", &groups, now()) };
    let batch = claim_with(&db.store, limited(900)).await.batch.expect("a batch");
    assert_eq!(batch.events.len(), 2);
    assert!(batch.text.len() < 900);
    ack(&db, &batch).await;
    assert_eq!(db.count("SELECT count(*) FROM sync_outbox WHERE status = 'pending'").await, 2);
    let alone = claim_with(&db.store, limited(10)).await.batch.expect("a batch");
    assert_eq!(alone.events.len(), 1);
}

#[tokio::test]
async fn lanes_of_higher_priority_go_first_in_their_own_order() {
    let db = Database::fresh_at(now()).await;
    let low = reading(&db, "d-low", 0).await;
    let usual = reading(&db, "d-1", 1).await;
    let urgent_head = reading(&db, "d-2", 2).await;
    let urgent = reading(&db, "d-2", 3).await;
    let most_urgent = reading(&db, "d-3", 4).await;
    db.execute(&format!("UPDATE sync_outbox SET priority = CASE id WHEN '{low}' THEN -1 WHEN '{urgent}' THEN 5 ELSE 9 END WHERE id IN ('{low}', '{urgent}', '{most_urgent}')")).await;
    let mut order = Vec::new();
    while let Some(batch) = claim_now(&db).await {
        order.extend(ids(Some(&batch)));
        ack(&db, &batch).await;
    }
    assert_eq!(order, [most_urgent, urgent_head, urgent, usual, low]);
}

#[tokio::test]
async fn operators_see_counts_lists_and_dead_rows_of_their_tenants() {
    let db = Database::fresh_at(now()).await;
    let first = reading(&db, "d-1", 0).await;
    let second = reading(&db, "d-2", 1).await;
    let third = reading(&db, "d-3", 2).await;
    let batch =
        claim_with(&db.store, ClaimRequest { events_max: 1, ..request("edge-a", &groups_of(0, 1), now()) })
            .await
            .batch
            .expect("a batch");
    let sent = batch.events[0].id;
    reject(&db, &batch, 0, Fate::Failed { reason: "max_rejections" }).await;
    let waiting: Vec<Uuid> = [first, second, third].into_iter().filter(|id| *id != sent).collect();
    db.execute(&format!("INSERT INTO dead_letters (id, tenant_id, source, reason, event_type, body_json, first_seen_at, dead_at)
        VALUES ('{}', 't-001', 'session', 'SESSION_UNKNOWN', 'x', '{{}}', '2026-01-01', '2026-01-02')", id::new_id())).await;

    let mine = [TENANT.to_owned()];
    let foreign = ["t-002".to_owned()];
    db.store
        .run("look", async |conn| {
            let counts = queries::counts(conn, Some(&mine)).await?;
            assert_eq!((counts.pending, counts.claimed, counts.sent, counts.failed), (2, 0, 0, 1));
            assert!(counts.oldest_pending_at.is_some());
            assert_eq!(queries::counts(conn, Some(&foreign)).await?, queries::Counts::default());
            let listed = queries::list(conn, Status::Pending, 100, None).await?;
            assert_eq!(listed.iter().map(|entry| entry.id).collect::<Vec<_>>(), waiting);
            assert_eq!(queries::list(conn, Status::Pending, 1, None).await?.len(), 1);
            assert!(queries::list(conn, Status::Pending, 100, Some(&foreign)).await?.is_empty());
            assert_eq!(queries::list(conn, Status::Failed, 100, Some(&mine)).await?[0].id, sent);
            assert!(queries::list(conn, Status::Sent, 100, None).await?.is_empty());
            assert!(queries::list(conn, Status::Acked, 100, None).await?.is_empty());
            let dead = queries::dead(conn, &dead_of(&mine), None, 100).await?;
            assert_eq!(
                dead.iter().map(|dead| dead.source.as_str()).collect::<Vec<_>>(),
                ["outbox", "session"]
            );
            assert!(queries::dead(conn, &dead_of(&foreign), None, 100).await?.is_empty());
            Ok(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn stuck_rows_are_unclaimed_when_their_lease_ended_long_enough_ago() {
    let db = Database::fresh_at(now()).await;
    let id = reading(&db, "d-1", 0).await;
    let lost = claim_now(&db).await.expect("a batch that is lost");
    mark(&db, &lost).await;
    let unclaim = async |before: Timestamp| {
        let work = async |conn: &mut Conn| queries::unclaim_stuck(conn, before, None, now()).await;
        db.store.run("unclaim", work).await.unwrap()
    };
    assert_eq!(unclaim(now() + seconds(300)).await, 0);
    assert_eq!(unclaim(now() + seconds(301)).await, 1);
    assert_eq!(status(&db, id).await, "pending");
    assert_eq!(ids(claim_now(&db).await.as_ref()), [id]);
}

#[tokio::test]
async fn tenants_with_due_rows_are_found() {
    let db = Database::fresh_at(now()).await;
    let due = async || {
        let work = async |conn: &mut _| claim::due_tenants(conn, &groups_of(0, 1), now(), seconds(300)).await;
        let tenants = db.store.run("due", work).await.unwrap();
        tenants.into_iter().map(|tenant| tenant.tenant_id).collect::<Vec<_>>()
    };
    assert!(due().await.is_empty());
    reading(&db, "d-1", 0).await;
    db.execute("INSERT INTO sync_outbox (id, tenant_id, event_type, payload_json) SELECT gen_random_uuid(), 't-' || n, 'x', '{}' FROM generate_series(2, 4) n").await;
    assert_eq!(due().await, ["t-001", "t-2", "t-3", "t-4"]);
    drop(claim_now(&db).await.expect("a batch"));
    assert_eq!(due().await, ["t-2", "t-3", "t-4"]);
}

#[tokio::test]
async fn a_claim_reads_no_more_pages_when_the_backlog_is_a_hundred_times_as_long() {
    let db = Database::fresh_at(now()).await;
    let groups = groups_of(0, 4);
    let fill = async |rows: i64| {
        db.execute(&format!("INSERT INTO sync_outbox (id, tenant_id, farm_id, barn_id, device_id, event_type, occurred_at, trace_id, payload_json)
            SELECT gen_random_uuid(), 't-001', 'f', 'b', 'd-' || (n % 100), 'telemetry.ingested', '2026-02-12'::timestamptz + n * interval '1 ms', 'tr', '{{\"metric_value\": 1}}'
            FROM generate_series(1, {rows}) AS n")).await;
    };
    let pages = async || {
        let look = ClaimRequest { window_rows: 125, ..request("edge-a", &groups, now()) };
        db.store.run("look", async |conn| measure::pages_of_a_claim(conn, &look).await).await.unwrap()
    };
    fill(1_000).await;
    let few = pages().await;
    fill(99_000).await;
    let many = pages().await;
    eprintln!(
        "pages read to find and to take a batch: {few:?} with 1,000 rows waiting, {many:?} with 100,000"
    );
    // 500 rows lie on 500 pages at most, and are read twice.
    assert!(many.0 < few.0 + 600 && many.1 < 600, "{few:?} pages became {many:?}");
}

#[tokio::test]
async fn two_living_engines_of_one_name_hold_leases_under_different_ones() {
    let db = Database::fresh().await;
    let (first, second) = (tests::postgres::store(&db.url), tests::postgres::store(&db.url));
    let of_first = Slot::take(&first, "barn-7").await.expect("a name is free");
    let of_second = Slot::take(&second, "barn-7").await.expect("a name is free");
    assert_eq!((&*of_first.name(), &*of_second.name()), ("barn-7", "barn-7#1"));
    assert!(of_first.is_held());
    drop(of_first);
    while Slot::take(&second, "barn-7").await.expect("a name is free").name().as_ref() != "barn-7" {
        // The server takes a moment to notice that the connection is gone.
    }
}
