//! The life of a job in the store: who gets it, for how long, and what a late worker can still do.

use chrono::TimeDelta;
use schema::clock::Timestamp;
use schema::store::dead_letter::{OpenLetters, Source};
use schema::store::inference::claim::{self, Again, Claim, Lease};
use schema::store::inference::{Job, NewResult, queue};
use serde_json::json;

use super::*;

const LEASE: Lease<'_> = Lease { holder: "worker", length: TimeDelta::seconds(60) };

async fn claimed(db: &Database, now: Timestamp) -> Option<Claim> {
    db.store.run("claim", async |conn| claim::claim(conn, LEASE, now).await).await.expect("jobs are claimed")
}

async fn put_off(db: &Database, claim: &Claim, again: Again, now: Timestamp) -> bool {
    let work = async |conn: &mut _| claim::put_off(conn, claim, "no luck", again, now).await;
    db.store.run("put_off", work).await.expect("the job is put off")
}

async fn jobs(db: &Database, sessions: &[Option<&str>]) -> Vec<Uuid> {
    let mut ids = Vec::new();
    for session_id in sessions {
        ids.push(put_job_of(db, id::new_id(), *session_id).await);
    }
    ids
}

#[tokio::test]
async fn jobs_of_open_sessions_go_first_and_the_others_in_their_order() {
    let db = Database::fresh().await;
    open_session(&db, "open").await;
    let ids = jobs(&db, &[None, Some("elsewhere"), Some("open")]).await;
    let now = Clock::system().now();
    let mut order = Vec::new();
    while let Some(claim) = claimed(&db, now).await {
        order.push(claim.job.id);
    }
    assert_eq!(order, [ids[2], ids[0], ids[1]]);
}

#[tokio::test]
async fn workers_side_by_side_never_get_the_same_job() {
    let db = Database::fresh().await;
    jobs(&db, &[None; 40]).await;
    let now = Clock::system().now();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let store = db.store.clone();
        workers.spawn(async move {
            let mut ids = Vec::new();
            let claim = async || store.run("claim", async |conn| claim::claim(conn, LEASE, now).await).await;
            while let Some(claim) = claim().await.unwrap() {
                ids.push(claim.job.id);
            }
            ids
        });
    }
    let mut ids = workers.join_all().await.concat();
    // A worker that finds every row locked at the moment ends early; whatever it left is claimed by now.
    assert_eq!(ids.len(), 40);
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 40);
}

#[tokio::test]
async fn a_job_whose_lease_ran_out_belongs_to_the_next_claim() {
    let db = Database::fresh().await;
    jobs(&db, &[None]).await;
    let now = Clock::system().now();
    let first = claimed(&db, now).await.unwrap();
    let expired = async |now| {
        db.store
            .run("e", async |conn| claim::expired(conn, now, LEASE.length).await)
            .await
            .expect("jobs are claimed")
    };
    assert!(expired(now + TimeDelta::seconds(59)).await.is_empty());
    let late = now + TimeDelta::seconds(61);
    assert_eq!(expired(late).await.len(), 1);
    assert!(put_off(&db, &first, Again { at: late, is_counted: true }, late).await);
    let second = claimed(&db, late).await.unwrap();
    assert_eq!((first.attempt, second.attempt), (1, 2));
    // The first worker comes back after all.
    assert!(!put_off(&db, &first, Again { at: late, is_counted: true }, late).await);
    assert!(!completed(&db, &first, late).await);
    assert!(completed(&db, &second, late).await);
    assert!(!completed(&db, &second, late).await);
    assert_eq!(db.count("SELECT count(*) FROM inference_results").await, 1);
    assert_eq!(db.count("SELECT count(*) FROM ONLY sync_outbox").await, 1);
}

async fn completed(db: &Database, claim: &Claim, now: Timestamp) -> bool {
    let result = NewResult {
        predicted_weight_kg: Some(2.0),
        confidence: 0.5,
        model_version: "v1".into(),
        metadata: json!({}),
    };
    let event = |job: &Job| schema::store::outbox::put::NewEvent {
        id: job.id,
        tenant_id: job.tenant_id.clone(),
        farm_id: job.farm_id.clone(),
        barn_id: job.barn_id.clone(),
        device_id: job.device_id.clone(),
        station_id: None,
        session_id: None,
        event_type: "inference.completed",
        occurred_at: now,
        order_at: None,
        trace_id: "trace-1".into(),
        payload: json!({}),
    };
    let work = async |conn: &mut _| claim::complete(conn, claim, &result, event, now).await;
    db.store.run("complete", work).await.expect("the job is completed")
}

#[tokio::test]
async fn a_result_belongs_to_the_session_that_its_image_has_got_since() {
    let db = Database::fresh().await;
    let images = tempfile::tempdir().unwrap();
    open_session(&db, "s-1").await;
    let image = put_image(&db, images.path(), b"bytes", Some("s-1")).await;
    put_job_of(&db, image, None).await;
    let now = Clock::system().now();
    let claim = claimed(&db, now).await.unwrap();
    assert!(completed(&db, &claim, now).await);
    let attached = "SELECT count(*) FROM weight_sessions AS s
        JOIN inference_results AS r ON r.id::text = s.inference_result_id AND r.session_id = s.session_id";
    assert_eq!(db.count(attached).await, 1);
}

#[tokio::test]
async fn an_attempt_that_the_job_had_no_part_in_does_not_count() {
    let db = Database::fresh().await;
    jobs(&db, &[None]).await;
    let now = Clock::system().now();
    for _ in 0..3 {
        let claim = claimed(&db, now).await.unwrap();
        assert_eq!(claim.attempt, 1);
        assert!(put_off(&db, &claim, Again { at: now, is_counted: false }, now).await);
    }
}

#[tokio::test]
async fn a_job_that_is_given_up_leaves_a_dead_letter_and_can_be_redriven() {
    let db = Database::fresh().await;
    let id = jobs(&db, &[None]).await[0];
    let now = Clock::system().now();
    let claim = claimed(&db, now).await.unwrap();
    let give_up = async |conn: &mut _| claim::give_up(conn, &claim, "IMAGE_UNDECODABLE", "broken", now).await;
    assert!(db.store.run("give_up", give_up).await.unwrap());
    let letters =
        "SELECT count(*) FROM dead_letters WHERE source = 'inference' AND reason = 'IMAGE_UNDECODABLE'";
    assert_eq!(db.count(letters).await, 1);
    assert!(claimed(&db, now + TimeDelta::hours(1)).await.is_none());
    let open = async |conn: &mut _| OpenLetters::new(Source::Inference, None, None).next(conn).await;
    let open = db.store.run("open", open).await.unwrap();
    let redrive = async || {
        let work = async |conn: &mut _| claim::redrive(conn, &open[0], now).await;
        db.store.run("redrive", work).await.unwrap().map(|job| job.id)
    };
    assert_eq!(redrive().await, Some(id));
    assert_eq!(redrive().await, None, "the letter is closed");
    assert_eq!(claimed(&db, now).await.unwrap().attempt, 1);
}

#[tokio::test]
async fn the_queue_is_what_is_not_done() {
    let db = Database::fresh().await;
    jobs(&db, &[None, None]).await;
    let now = Clock::system().now();
    let measure = async || db.store.run("queue", async |conn| queue(conn).await).await.unwrap();
    assert_eq!(measure().await.0, 2);
    let claim = claimed(&db, now).await.unwrap();
    assert_eq!(measure().await.0, 2);
    assert!(completed(&db, &claim, now).await);
    let (depth, oldest_at) = measure().await;
    assert_eq!((depth, oldest_at.is_some()), (1, true));
}
