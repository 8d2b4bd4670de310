//! Thousands of lives of the senders in virtual time, each from a seed that prints itself when it fails; and the proof that the
//! model of the outbox does what the statements do.
//!
//! `FARMIQ_SIMULATION_SEEDS` says how many seeds, `FARMIQ_SIMULATION_SEED` names one.

use std::collections::BTreeMap;
use std::time::Instant;

use chrono::TimeDelta;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use schema::clock::{Clock, Timestamp};
use schema::id;
use schema::store::outbox::claim::{self, Batch, ClaimRequest, ClaimedEvent};
use schema::store::outbox::lease;
use schema::store::outbox::settle::{self, Failure, Fate, Rejection, Settlement};
use schema::wire::event::TELEMETRY_INGESTED;
use tests::postgres::Database;
use tests::simulation::outbox::{ModelOutbox, NewRow, Status};
use tests::simulation::pace::pace;
use tests::simulation::{Flaw, Life, TENANT, live};
use uuid::Uuid;

/// Seeds of a run that is asked for nothing.
const SEEDS: u64 = 300;
/// Seeds that once found something, kept for good.
const KEPT: [u64; 1] = [9];
/// A planted flaw is found within so many seeds.
const FLAW_SEEDS_MAX: u64 = 200;

#[expect(clippy::disallowed_methods, reason = "tests have no configuration but the environment")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn whatever_fails_every_event_arrives_once_and_in_the_order_of_its_lane() {
    let seeds = match number("FARMIQ_SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FARMIQ_SIMULATION_SEEDS").unwrap_or(SEEDS),
    };
    let started = Instant::now();
    let (mut lives, mut total) = (0, Life::default());
    for seed in seeds.chain(KEPT) {
        match live(seed, None) {
            Ok(Life { queued, requests, duplicates, seconds }) => {
                lives += 1;
                total.queued += queued;
                total.requests += requests;
                total.duplicates += duplicates;
                total.seconds += seconds;
            }
            Err(fault) => panic!("FARMIQ_SIMULATION_SEED={seed}: {fault}"),
        }
    }
    println!(
        "{lives} lives, {} days together, in {:?}: {total:?}",
        total.seconds / 86_400,
        started.elapsed()
    );
    assert!(total.requests > 0 && total.queued > 0, "{total:?}");
}

#[test]
fn a_seed_lives_the_same_life_twice() {
    for seed in 0..20 {
        assert_eq!(live(seed, None), live(seed, None), "{seed}");
    }
}

#[test]
fn a_planted_flaw_is_found() {
    let flaws =
        [Flaw::SettleWithoutFence, Flaw::SettleByPlace, Flaw::ClaimWithoutLease, Flaw::RejectionHoldsNothing];
    for flaw in flaws {
        let found =
            (0..FLAW_SEEDS_MAX).find_map(|seed| live(seed, Some(flaw)).err().map(|fault| (seed, fault)));
        let (seed, fault) =
            found.unwrap_or_else(|| panic!("{flaw:?} is not found in {FLAW_SEEDS_MAX} seeds"));
        println!("{flaw:?}: seed {seed}: {fault}");
    }
}

/// The model and PostgreSQL side by side.
struct Pair {
    db: Database,
    model: ModelOutbox,
    random: StdRng,
    now: Timestamp,
    /// Batches under way, as each of the two has claimed them.
    batches: Vec<(Batch, Batch)>,
}

impl Pair {
    async fn of(seed: u64) -> Self {
        let now = Clock::system().now();
        let (db, model) = (Database::fresh().await, ModelOutbox::alone());
        Self { db, model, random: StdRng::seed_from_u64(seed), now, batches: Vec::new() }
    }

    async fn queue(&mut self) {
        let (id, device) =
            (Uuid::from_u128(self.random.random()), format!("d-{}", self.random.random_range(0..4)));
        let session = self.random.random_ratio(1, 3).then(|| format!("s-{}", self.random.random_range(0..2)));
        let sql = "INSERT INTO sync_outbox (id, tenant_id, farm_id, barn_id, device_id, session_id, event_type, occurred_at,
                trace_id, payload_json, next_attempt_at, created_at, updated_at)
            VALUES ($1, $2, 'f', 'b', $3, $4, $5, $6, 't', '{\"number\":1}', $6, $6, $6) RETURNING lane_group";
        let row = self
            .db
            .client
            .query_one(sql, &[&id, &TENANT, &device, &session, &TELEMETRY_INGESTED, &self.now])
            .await;
        let group = row.expect("a row can be queued").get(0);
        self.model.queue(NewRow { id, group, device, session, event_type: TELEMETRY_INGESTED }, self.now);
        self.now += TimeDelta::microseconds(1);
    }

    async fn claim(&mut self) {
        let mut groups: Vec<i16> = (0..16).collect();
        groups.rotate_left(self.random.random_range(0..16));
        groups.truncate(self.random.random_range(4..=16));
        let request = ClaimRequest {
            tenant_id: TENANT,
            groups: &groups,
            window_rows: *[1, 3, 50].choose(&mut self.random).expect("not empty"),
            batch_id: id::new_id(),
            edge_id: "edge",
            holder: ["one", "other"].choose(&mut self.random).expect("not empty"),
            now: self.now,
            lease: TimeDelta::seconds(30),
            wait_max: TimeDelta::seconds(300),
            events_max: *[1, 4, 50].choose(&mut self.random).expect("not empty"),
            bytes_max: 1_000_000,
        };
        let theirs = self
            .db
            .store
            .run("test", async |conn| claim::claim(conn, &request).await)
            .await
            .expect("a claim");
        let ours = self.model.claim(&request);
        let fences = |batch: &Option<Batch>| -> Vec<(Uuid, i32, i32)> {
            let fence = |event: &ClaimedEvent| (event.id, event.attempt_count, event.reject_count);
            batch.iter().flat_map(|batch| batch.events.iter().map(fence)).collect()
        };
        assert_eq!(
            fences(&ours.batch),
            fences(&theirs.batch),
            "claimed by model and by database: {request:?}"
        );
        assert_eq!(ours.is_window_short, theirs.is_window_short);
        self.batches.extend(ours.batch.zip(theirs.batch));
    }

    async fn settle(&mut self) {
        if self.batches.is_empty() {
            return;
        }
        let at = self.random.random_range(0..self.batches.len());
        // A batch may be settled twice, or by an engine that has lost it.
        let (ours, theirs) = if self.random.random_ratio(1, 5) {
            self.batches[at].clone()
        } else {
            self.batches.swap_remove(at)
        };
        let fates: Vec<u8> = ours.events.iter().map(|_| self.random.random_range(0..4)).collect();
        let is_last = self.random.random_ratio(4, 5);
        let has_failed = self.random.random_ratio(2, 3);
        let (now, at) = (self.now, self.now + TimeDelta::seconds(self.random.random_range(0..100)));
        let rejection = |i: usize, event: &ClaimedEvent| Rejection {
            id: event.id,
            lane_group: event.lane_group,
            attempt_count: event.attempt_count,
            code: "NO",
            message: "no".to_owned(),
            is_counted: true,
            fate: if i.is_multiple_of(3) {
                Fate::Failed { reason: "max_rejections" }
            } else {
                Fate::Retry { at }
            },
        };
        let mut outcomes = Vec::new();
        for (is_model, batch) in [(true, &ours), (false, &theirs)] {
            let fates = &fates;
            let of = |fate: u8| batch.events.iter().enumerate().filter(move |(i, _)| fates[*i] == fate);
            let settlement = Settlement {
                acked: of(0).map(|(_, event)| event).collect(),
                rejected: of(2).map(|(i, event)| rejection(i, event)).collect(),
                returned: of(1).map(|(_, event)| event).collect(),
                failure: has_failed.then_some(Failure { code: "NO", message: "no" }),
                is_last,
                change: None,
            };
            let settled = if is_model {
                self.model.settle(batch, &settlement, now)
            } else {
                let work =
                    async |conn: &mut _| settle::settle(conn, TENANT, batch.id, &settlement, now).await;
                self.db.store.run("test", work).await.expect("a settlement")
            };
            outcomes.push(settled.acked);
        }
        assert_eq!(outcomes[0], outcomes[1], "acknowledged by model and by database");
    }

    async fn renew(&mut self) {
        let Some((ours, theirs)) = self.batches.choose(&mut self.random) else { return };
        let expires_at = self.now + TimeDelta::seconds(30);
        let renewed =
            self.db.store.run("test", async |conn| lease::renew(conn, theirs, expires_at).await).await;
        assert_eq!(self.model.renew(ours, expires_at), renewed.expect("a renewal"));
    }

    async fn mark(&mut self) {
        let Some((ours, theirs)) = self.batches.choose(&mut self.random) else { return };
        let events: Vec<&ClaimedEvent> = theirs.events.iter().collect();
        let now = self.now;
        let work = async |conn: &mut _| lease::mark_sent(conn, theirs, &events, now).await;
        let marked = self.db.store.run("test", work).await.expect("a mark");
        assert_eq!(self.model.mark_sent(ours, &ours.events.iter().collect::<Vec<_>>()), marked);
    }

    async fn release(&mut self) {
        let groups: Vec<i16> = (0..16).collect();
        let theirs =
            self.db.store.run("test", async |conn| lease::release_mine(conn, "one", &groups).await).await;
        assert_eq!(self.model.release_mine("one", &groups), theirs.expect("a release"));
    }

    async fn compare(&self) {
        let rows = "SELECT id, status, attempt_count, reject_count FROM ONLY sync_outbox";
        let rows = self.db.client.query(rows, &[]).await.expect("rows");
        let state = |row: &tokio_postgres::Row| {
            let status = match row.get(1) {
                "pending" => Status::Pending,
                "sent" => Status::Sent,
                "failed" => Status::Failed,
                other => panic!("{other}"),
            };
            (row.get(0), (status, row.get(2), row.get(3)))
        };
        let theirs: BTreeMap<Uuid, (Status, i32, i32)> = rows.iter().map(state).collect();
        assert_eq!(self.model.states(), theirs, "rows of model and database");
        let leases = "SELECT lane_group FROM sync_lane_groups ORDER BY 1";
        let leases = self.db.client.query(leases, &[]).await.expect("rows");
        assert_eq!(
            self.model.leased(),
            leases.iter().map(|row| row.get(0)).collect::<Vec<i16>>(),
            "leased groups"
        );
    }
}

#[tokio::test]
async fn the_model_does_what_the_statements_do() {
    for seed in 0..8 {
        println!("seed {seed}");
        let mut pair = Pair::of(seed).await;
        for _ in 0..60 {
            match pair.random.random_range(0..11) {
                0..4 => {
                    for _ in 0..pair.random.random_range(1..6) {
                        pair.queue().await;
                    }
                }
                4..6 => pair.claim().await,
                6..8 => pair.settle().await,
                8 => pair.renew().await,
                9 => pair.mark().await,
                _ if pair.random.random_ratio(1, 3) => pair.release().await,
                _ => pair.now += TimeDelta::seconds(pair.random.random_range(0..45)),
            }
            pair.compare().await;
        }
    }
}

#[test]
fn what_trickles_in_travels_together_and_whoever_has_nothing_to_send_rests() {
    let idle = pace(0, 600);
    println!("idle for ten minutes: {idle:?}");
    assert!(idle.requests == 0 && idle.looks < 4 * (600 / 10 + 10), "{idle:?}");
    for (per_second, events_per_request_min) in [(2, 1), (10, 2), (200, 35), (1_000, 150)] {
        let found = pace(per_second, 60);
        println!("{per_second} events/s for a minute: {found:?}");
        assert!(found.events >= found.requests * events_per_request_min, "{found:?}");
        assert!(found.slowest_seconds < 1.5, "{found:?}");
        assert!(found.looks <= 4 * 60 * 2, "each sender looks twice a second at most: {found:?}");
    }
}
