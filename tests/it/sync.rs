//! Sync as a whole: real rows, real requests, and a cloud that fails in every way it can.

use std::collections::{HashMap, HashSet};

use actors::sync::cloud::CloudSettings;
use actors::sync::sign::CloudAuth;
use actors::sync::status::CloudState;
use actors::sync::{Args, SyncHub, SyncPartition, SyncSettings};
use broker::LinkTls;
use chrono::{DateTime, TimeDelta};
use loadtest::cloud::{Auth, Mode, Plan, PretendCloud, Settings};
use ractor::{Actor, ActorRef};
use schema::clock::{Clock, Timestamp};
use tests::postgres::{self, Database};
use tests::wait::until;
use tokio::task::JoinHandle;
use tokio::time::Instant;

fn start_of_time() -> Timestamp {
    DateTime::from_timestamp(1_770_888_735, 0).expect("a time")
}

fn settings(cloud: &PretendCloud) -> SyncSettings {
    SyncSettings {
        edge_id: "barn-7".to_owned(),
        cloud: Some(CloudSettings {
            url: cloud.url(),
            auth: CloudAuth::None,
            authorization: String::new(),
            headers: Vec::new(),
            tls: LinkTls::default(),
            proxy: None,
            timeout_seconds: 30,
            handshake_seconds: 60,
        }),
        is_sending: true,
        partitions: 4,
        batch_events_max: 500,
        batch_bytes_max: 1_000_000,
        lease_seconds: 300,
        rejections_max: 3,
        backoff_seconds_max: 300,
        poll_ms: 10,
        drain_ms: 200,
    }
}

/// A database, a cloud and the senders between them, all under one clock.
struct Site {
    db: Database,
    cloud: PretendCloud,
    clock: Clock,
    hub: SyncHub,
    senders: Vec<(ActorRef<actors::sync::Msg>, JoinHandle<()>)>,
}

impl Site {
    async fn new() -> Self {
        Self::with(Settings::default(), |_| {}).await
    }

    /// Nothing is sent before [`Site::start`].
    async fn with(cloud: Settings, change: impl FnOnce(&mut SyncSettings)) -> Self {
        let clock = Clock::manual(start_of_time());
        let db = Database::fresh_at(clock.now()).await;
        let cloud =
            PretendCloud::start(Settings { clock: clock.clone(), ..cloud }).await.expect("a free port");
        let mut settings = settings(&cloud);
        change(&mut settings);
        let hub = SyncHub::new(settings, db.store.clone(), clock.clone()).expect("the settings are right");
        Self { db, cloud, clock, hub, senders: Vec::new() }
    }

    async fn start(&mut self) {
        self.senders = start(&self.hub).await;
    }

    async fn stop(&mut self) {
        for (sender, ended) in self.senders.drain(..) {
            sender.stop(None);
            ended.await.expect("a sender does not panic");
        }
    }

    /// Readings of some devices, one second apart and after those that are there, as an outside script would insert them.
    async fn readings(&self, rows: i64, devices: i64) {
        self.db
            .execute(&format!(
                "INSERT INTO sync_outbox (id, tenant_id, farm_id, barn_id, device_id, event_type, occurred_at, trace_id, payload_json,
                    status, attempt_count, created_at, updated_at)
                SELECT gen_random_uuid(), 't-001', 'f-001', 'b-001', 'd-' || (n % {devices}), 'telemetry.ingested',
                    '2026-02-12T00:00:00Z'::timestamptz + n * interval '1 s', 'tr-' || n,
                    jsonb_build_object('metric_type', 'temperature', 'metric_value', n), 'pending', 0, now(), now()
                FROM (SELECT count(*) AS before FROM sync_outbox) AS known,
                    generate_series(known.before + 1, known.before + {rows}) AS n"
            ))
            .await;
    }

    async fn count(&self, condition: &str) -> i64 {
        self.db.count(&format!("SELECT count(*) FROM sync_outbox WHERE {condition}")).await
    }

    /// Looks until so many rows meet the condition. Time passes meanwhile, a minute with every look.
    async fn until(&self, condition: &str, rows: i64) {
        let meet = async || {
            let is_met = self.count(condition).await == rows;
            if !is_met {
                self.clock.advance(TimeDelta::minutes(1));
            }
            is_met
        };
        until(condition, meet).await;
    }

    /// The same while time stands still.
    async fn until_at_once(&self, condition: &str, rows: i64) {
        until(condition, async || self.count(condition).await == rows).await;
    }

    async fn leases(&self) -> i64 {
        self.db.count("SELECT count(*) FROM sync_lane_groups").await
    }

    /// Everything is delivered once, in order, and nothing is left behind.
    async fn assert_delivered(&self, rows: i64) {
        assert_eq!(self.count("status = 'acked'").await, rows);
        assert_eq!(self.db.count("SELECT count(*) FROM ONLY sync_outbox").await, 0);
        let verdict = self.cloud.judge();
        assert_eq!(verdict.violations, []);
        assert_eq!(i64::try_from(verdict.accepted).expect("a count fits"), rows);
        assert_eq!(self.leases().await, 0);
    }
}

async fn start(hub: &SyncHub) -> Vec<(ActorRef<actors::sync::Msg>, JoinHandle<()>)> {
    let mut senders = Vec::new();
    for partition in 0..hub.partitions() {
        let args = Args { hub: hub.clone(), partition };
        senders.push(SyncPartition::spawn(None, SyncPartition, args).await.expect("it starts"));
    }
    senders
}

#[tokio::test]
async fn everything_arrives_once_and_in_order() {
    let mut site = Site::new().await;
    site.readings(3_000, 50).await;
    site.db
        .execute(
            "INSERT INTO sync_outbox (id, tenant_id, farm_id, barn_id, device_id, station_id, session_id, event_type, occurred_at, order_at, trace_id, payload_json)
            SELECT gen_random_uuid(), 't-001', 'f-001', 'b-001', 'wv-1', 'st-1', 's-' || s, e.event_type,
                '2026-02-12T00:00:00Z'::timestamptz + s * interval '1 min' + e.turn * interval '1 s', NULL, 'tr', '{\"final_weight_kg\": 1.5}'
            FROM generate_series(1, 100) AS s, (VALUES (1, 'weighvision.session.created'), (2, 'weighvision.weight.recorded'),
                (3, 'weighvision.session.finalized'), (4, 'weighvision.session.amended')) AS e (turn, event_type)",
        )
        .await;
    site.start().await;
    site.until_at_once("status = 'acked'", 3_400).await;
    site.stop().await;
    site.assert_delivered(3_400).await;
    assert_eq!(site.cloud.judge().duplicated, 0);
    let view = site.hub.view();
    assert_eq!((view.state, view.last_success_at), (CloudState::Up, Some(site.clock.now())));
}

#[tokio::test]
async fn a_tenant_of_any_alphabet_is_sent() {
    let mut site = Site::new().await;
    site.readings(10, 2).await;
    site.db.execute("UPDATE sync_outbox SET tenant_id = 'โรงเรือน-ü'").await;
    site.start().await;
    site.until_at_once("status = 'acked'", 10).await;
    site.stop().await;
    site.assert_delivered(10).await;
}

#[tokio::test]
async fn two_engines_share_the_work_without_sending_anything_twice() {
    let mut site = Site::with(Settings::default(), |settings| settings.batch_events_max = 50).await;
    site.readings(4_000, 100).await;
    let other = SyncSettings { edge_id: "barn-8".to_owned(), batch_events_max: 50, ..settings(&site.cloud) };
    let other = SyncHub::new(other, postgres::store(&site.db.url), site.clock.clone())
        .expect("the settings are right");
    site.start().await;
    let others = start(&other).await;
    site.until_at_once("status = 'acked'", 4_000).await;
    site.senders.extend(others);
    site.stop().await;
    site.assert_delivered(4_000).await;
    assert_eq!(site.cloud.judge().duplicated, 0);
    let engines = site.db.count("SELECT count(DISTINCT claimed_by) FROM sync_outbox").await;
    assert_eq!(engines, 2);
}

#[tokio::test]
async fn one_poison_among_ten_thousand_ends_failed_alone() {
    let mut site = Site::new().await;
    site.readings(10_000, 100).await;
    let row = site
        .db
        .client
        .query_one("SELECT id::text, device_id FROM sync_outbox WHERE trace_id = 'tr-5000'", &[])
        .await
        .unwrap();
    let (poison, device): (String, String) = (row.get(0), row.get(1));
    site.cloud.mode(Mode::Poison { ids: HashSet::from([poison.clone()]) }).await;
    site.start().await;
    site.until_at_once(&format!("status <> 'acked' AND device_id <> '{device}'"), 0).await;
    site.until("status = 'acked'", 9_999).await;
    site.stop().await;
    let row = site
        .db
        .client
        .query_one("SELECT status, reject_count, last_error_code, dlq_reason FROM ONLY sync_outbox", &[])
        .await
        .unwrap();
    assert_eq!(
        (row.get::<_, &str>(0), row.get::<_, i32>(1), row.get::<_, &str>(2), row.get::<_, &str>(3)),
        ("failed", 3, "CLOUD_BATCH_REJECTED", "max_rejections")
    );
    assert_eq!(site.cloud.judge().violations, []);
    assert_eq!(site.leases().await, 0);
}

#[tokio::test]
async fn no_outage_however_long_leads_to_a_dead_letter() {
    let outages = [
        Mode::Refuse,
        Mode::Unavailable,
        Mode::Unauthorized,
        Mode::Forbidden,
        Mode::NotFound,
        Mode::Throttled { retry_after: Some("2".to_owned()) },
        Mode::Captive,
        Mode::Redirect,
        Mode::LoseAnswer,
        // Refuses even an empty batch: the configuration is at fault.
        Mode::Poison { ids: HashSet::new() },
    ];
    let mut site = Site::new().await;
    site.readings(200, 20).await;
    site.start().await;
    for outage in outages {
        site.readings(20, 20).await;
        site.cloud.mode(outage.clone()).await;
        // Every sender tries at least three times, a day apart.
        for _ in 0..3 {
            site.clock.advance(TimeDelta::days(1));
            assert!(site.hub.trigger().await, "{outage:?}");
        }
        assert_eq!(site.count("reject_count > 0 OR status = 'failed'").await, 0, "{outage:?}");
        assert_eq!(site.hub.view().state, CloudState::Down, "{outage:?}");
        assert!(site.count("last_error_code IS NOT NULL AND status <> 'acked'").await > 0, "{outage:?}");
    }
    site.cloud.mode(Mode::Ok).await;
    site.until("status = 'acked'", 400).await;
    site.stop().await;
    site.assert_delivered(400).await;
}

#[tokio::test]
async fn a_request_under_way_is_given_back_when_the_engine_stops() {
    let mut site = Site::new().await;
    site.readings(100, 10).await;
    site.cloud.mode(Mode::Hang).await;
    site.start().await;
    site.until_at_once("status = 'sent'", 100).await;
    site.stop().await;
    assert_eq!(
        site.count("status = 'pending' AND claimed_by IS NULL AND lease_expires_at IS NULL").await,
        100
    );
    assert_eq!(site.leases().await, 0);
}

#[tokio::test]
async fn a_request_under_way_is_finished_when_there_is_time() {
    let mut site = Site::with(Settings::default(), |settings| settings.drain_ms = 20_000).await;
    site.readings(100, 10).await;
    site.cloud.mode(Mode::Slow { latency_ms: 3_000 }).await;
    site.start().await;
    site.until_at_once("status = 'sent'", 100).await;
    site.stop().await;
    site.assert_delivered(100).await;
}

#[tokio::test]
async fn what_a_killed_engine_had_on_the_line_goes_again_at_its_next_start() {
    let mut site = Site::new().await;
    site.readings(100, 10).await;
    site.cloud.mode(Mode::Hang).await;
    site.start().await;
    site.until_at_once("status = 'sent'", 100).await;
    for (sender, ended) in site.senders.drain(..) {
        sender.kill();
        ended.await.expect("a kill is no panic");
    }
    assert!(site.leases().await > 0);
    site.cloud.mode(Mode::Ok).await;
    site.start().await;
    site.until_at_once("status = 'acked'", 100).await;
    site.stop().await;
    site.assert_delivered(100).await;
}

#[tokio::test]
async fn what_the_cloud_took_without_saying_so_is_acked_as_a_duplicate() {
    let mut site = Site::new().await;
    site.readings(100, 10).await;
    site.cloud.mode(Plan { requests: Some(4), ..Mode::LoseAnswer.into() }).await;
    site.start().await;
    site.until("status = 'acked'", 100).await;
    site.stop().await;
    site.assert_delivered(100).await;
    assert!(site.cloud.judge().duplicated > 0);
}

#[tokio::test]
async fn a_pause_ends_when_an_operator_asks_for_an_attempt() {
    let mut site = Site::new().await;
    site.readings(100, 10).await;
    site.cloud.mode(Mode::Unavailable).await;
    site.start().await;
    // The first partition to fail pauses the tenant; the others have their turn when the pause is over.
    site.until("status = 'pending' AND last_error_code = 'CLOUD_REQUEST_FAILED'", 100).await;
    let paused =
        "SELECT count(*) FROM sync_state WHERE paused_until IS NOT NULL AND consecutive_failures > 0";
    assert_eq!(site.db.count(paused).await, 1);
    site.cloud.mode(Mode::Ok).await;
    assert!(site.hub.trigger().await);
    assert_eq!(site.count("status = 'acked'").await, 100);
    assert_eq!(site.db.count(paused).await, 0);
    site.stop().await;
}

#[tokio::test]
async fn a_cloud_that_answers_a_greeting_is_sent_to_at_once_unless_it_asked_for_the_pause() {
    const PAUSED: &str = "SELECT count(*) FROM sync_state WHERE paused_until IS NOT NULL";
    let away = ("CLOUD_REQUEST_FAILED", Mode::Unavailable);
    let busy = ("CLOUD_THROTTLED", Mode::Throttled { retry_after: Some("300".to_owned()) });
    for (code, trouble) in [away, busy] {
        // One batch: a sender that comes to its rows when their tenant pauses already does not try them.
        let one_batch = |settings: &mut SyncSettings| {
            (settings.partitions, settings.batch_events_max) = (1, 2_000);
        };
        let mut site = Site::with(Settings::default(), one_batch).await;
        site.readings(100, 10).await;
        site.cloud.mode(trouble).await;
        site.start().await;
        // Time stands still from here on: no pause ends by itself.
        site.until_at_once(&format!("status = 'pending' AND last_error_code = '{code}'"), 100).await;
        assert!(!site.hub.diagnose().await.is_ok);
        assert_eq!(site.db.count(PAUSED).await, 1, "{code}: a failed greeting ends no pause");
        site.cloud.mode(Mode::Ok).await;
        assert!(site.hub.diagnose().await.is_ok);
        if code == "CLOUD_THROTTLED" {
            assert_eq!(site.db.count(PAUSED).await, 1, "the cloud asked for it");
            assert_eq!(site.count("status = 'acked'").await, 0);
        } else {
            site.until_at_once("status = 'acked'", 100).await;
        }
        site.stop().await;
    }
}

#[tokio::test]
async fn a_batch_that_is_taken_after_an_outage_ends_the_pauses_of_other_tenants() {
    let mut site = Site::new().await;
    site.readings(50, 5).await;
    let move_half =
        "UPDATE sync_outbox SET tenant_id = 't-002' WHERE (payload_json->>'metric_value')::int % 2 = 0";
    site.db.execute(move_half).await;
    site.cloud.mode(Mode::Unavailable).await;
    site.start().await;
    // A sender that comes to its rows when their tenant pauses already does not try them.
    let pausing = "SELECT count(*) FROM sync_state WHERE paused_until IS NOT NULL";
    until("both tenants pause, and nothing is under way", async || {
        site.db.count(pausing).await == 2 && site.leases().await == 0
    })
    .await;
    site.cloud.mode(Mode::Ok).await;
    // One tenant may go; the other would still wait for minutes.
    site.db.execute("UPDATE sync_state SET paused_until = NULL WHERE tenant_id = 't-001'").await;
    site.until_at_once("status = 'acked'", 50).await;
    site.stop().await;
}

#[tokio::test]
async fn rejections_by_name_are_told_apart() {
    let mut site = Site::new().await;
    site.readings(100, 100).await;
    let rows = site.db.client.query("SELECT trace_id, id::text FROM sync_outbox", &[]).await.unwrap();
    let ids: HashMap<String, String> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let errors = [("tr-10", "Missing farm_id"), ("tr-20", "broker is down")];
    let errors = errors.map(|(trace, text)| (ids[trace].clone(), text.to_owned()));
    site.cloud.mode(Mode::RejectIds { ids: HashMap::from(errors), marks: true }).await;
    site.start().await;
    site.until_at_once("status = 'acked'", 98).await;
    site.until_at_once("status = 'pending' AND reject_count = 1 AND last_error_code = 'CLOUD_EVENT_REJECTED' AND last_error_message = 'broker is down'", 1).await;
    assert_eq!(site.count("status = 'failed' AND reject_count = 1 AND last_error_message = 'Missing farm_id' AND trace_id = 'tr-10'").await, 1);
    // The cloud had marked the event before it rejected it, and calls it a duplicate from now on.
    site.cloud.mode(Mode::Ok).await;
    site.until("status = 'acked'", 99).await;
    assert_eq!(site.cloud.judge().duplicated, 1);
    site.stop().await;
}

#[tokio::test]
async fn a_cloud_that_does_not_say_what_it_rejects_is_asked_in_halves() {
    let mut site = Site::new().await;
    site.readings(64, 64).await;
    site.cloud.mode(Mode::RejectWithoutIds).await;
    site.start().await;
    site.until_at_once("reject_count = 1 AND last_error_code = 'CLOUD_BATCH_REJECTED'", 64).await;
    site.cloud.mode(Mode::Ok).await;
    site.until("status = 'acked'", 64).await;
    site.stop().await;
    assert_eq!(site.leases().await, 0);
}

#[tokio::test]
async fn a_cloud_that_cannot_count_is_no_reason_to_give_an_event_up() {
    let mut site = Site::new().await;
    site.readings(64, 64).await;
    site.cloud.mode(Mode::CountMismatch).await;
    site.start().await;
    for _ in 0..5 {
        site.clock.advance(TimeDelta::days(1));
        assert!(site.hub.trigger().await);
    }
    assert_eq!(site.count("status = 'pending' AND reject_count = 0").await, 64);
    site.cloud.mode(Mode::Ok).await;
    site.until("status = 'acked'", 64).await;
    site.stop().await;
}

#[tokio::test]
async fn a_batch_too_large_for_the_cloud_goes_in_parts() {
    let mut site = Site::new().await;
    site.readings(500, 20).await;
    site.cloud.mode(Mode::TooLarge { bytes_max: 5_000 }).await;
    site.start().await;
    site.until_at_once("status = 'acked'", 500).await;
    site.stop().await;
    site.assert_delivered(500).await;
    assert_eq!(site.count("reject_count > 0").await, 0);
}

#[tokio::test]
async fn requests_are_signed_and_a_wrong_key_is_told() {
    let signed = Settings { auth: Auth::Hmac(vec!["secret".to_owned()]), ..Settings::default() };
    let hmac = |key: &str| CloudAuth::Hmac(key.to_owned());
    let with = |settings: &mut SyncSettings, auth| settings.cloud.as_mut().expect("it is set").auth = auth;

    let mut site = Site::with(signed.clone(), |settings| with(settings, hmac("secret"))).await;
    site.readings(100, 10).await;
    site.start().await;
    site.until_at_once("status = 'acked'", 100).await;
    let diagnosis = site.hub.diagnose().await;
    assert_eq!((diagnosis.is_ok, diagnosis.status), (true, Some(200)), "{}", diagnosis.message);
    site.stop().await;

    let mut site = Site::with(signed, |settings| with(settings, hmac("wrong"))).await;
    site.readings(100, 10).await;
    site.start().await;
    site.until("status = 'pending' AND last_error_code = 'CLOUD_AUTH_FAILED'", 100).await;
    let diagnosis = site.hub.diagnose().await;
    assert_eq!((diagnosis.is_ok, diagnosis.status), (false, Some(401)), "{}", diagnosis.message);
    site.stop().await;

    let keyed = Settings { auth: Auth::ApiKey("key".to_owned()), ..Settings::default() };
    let mut site = Site::with(keyed, |settings| with(settings, CloudAuth::ApiKey("key".to_owned()))).await;
    site.readings(100, 10).await;
    site.start().await;
    site.until_at_once("status = 'acked'", 100).await;
    site.stop().await;
}

#[tokio::test]
async fn without_a_cloud_rows_are_kept() {
    for switch_off in [
        |settings: &mut SyncSettings| settings.cloud = None,
        |settings: &mut SyncSettings| settings.is_sending = false,
    ] {
        let mut site = Site::with(Settings::default(), switch_off).await;
        site.readings(10, 1).await;
        site.start().await;
        assert!(site.hub.trigger().await);
        site.hub.wake();
        assert_eq!(site.hub.view().state, CloudState::Disabled);
        assert!(!site.hub.diagnose().await.is_ok);
        site.hub.stop_by(Instant::now());
        site.stop().await;
        assert_eq!(site.count("status = 'pending' AND attempt_count = 0").await, 10);
        assert_eq!(site.cloud.judge().received_batches, 0);
    }
}

#[tokio::test]
async fn an_idle_cloud_is_greeted() {
    let mut site = Site::new().await;
    site.start().await;
    until("the cloud is up", async || site.hub.view().state == CloudState::Up).await;
    site.stop().await;
}

#[tokio::test]
async fn tenants_take_turns_and_pause_apart() {
    let mut site = Site::with(Settings::default(), |settings| settings.batch_events_max = 10).await;
    site.readings(300, 10).await;
    site.db.execute("UPDATE sync_outbox SET tenant_id = 't-00' || (1 + abs(hashtext(device_id)) % 3)").await;
    site.start().await;
    site.until_at_once("status = 'acked'", 300).await;
    site.stop().await;
    site.assert_delivered(300).await;
    assert_eq!(
        site.db.count("SELECT count(*) FROM sync_state WHERE last_acked_event_id IS NOT NULL").await,
        site.db.count("SELECT count(DISTINCT tenant_id) FROM sync_outbox").await
    );
}
