//! The built program under a wall clock that is wrong, and put right while it runs. Whatever the clock does, what was
//! acknowledged is kept, nothing is given up, and sending goes on within its longest wait.

use chrono::{Duration, Utc};
use http_body_util::Full;
use hyper::Request;
use loadtest::cloud::{Auth, Mode, PretendCloud, Settings as CloudSettings};
use loadtest::device::{Place, Station, Weighing};
use loadtest::mqtt::Publish;
use rand::SeedableRng;
use rand::rngs::StdRng;
use schema::clock::Clock;
use serde_json::{Value, json};
use tests::barn::admit;
use tests::device::{Device, TENANT, new_event_id, reading};
use tests::engine::Engine;
use tests::faketime::FakeTime;
use tests::postgres::Database;
use tests::settings::Settings;
use tests::wait::until;

mod aggregates;
mod deadlines;

/// What the engine says once when it does not believe its clock.
const DOUBT: &str = "nothing that waits is given up while the clock is not believed";
/// Readings of one visit.
const READINGS: i64 = 20;
/// What a strict cloud and its engine share.
const SECRET: &str = "a secret of thirty-two bytes or so";

/// A barn whose engine lives by a clock that the test sets.
struct House {
    db: Database,
    cloud: PretendCloud,
    clock: FakeTime,
    engine: Engine,
    /// Times everything was sent.
    visits: i64,
}

impl House {
    /// A barn that starts with a clock that is off by so much.
    async fn off_by(offset: Duration) -> Self {
        Self::start(offset, CloudSettings::default()).await
    }

    async fn start(offset: Duration, cloud: CloudSettings) -> Self {
        let db = Database::fresh().await;
        admit(&db).await;
        let is_strict = matches!(cloud.auth, Auth::Hmac(_));
        let cloud = PretendCloud::start(CloudSettings { tolerates_late: true, ..cloud }).await;
        let cloud = cloud.expect("a free port");
        let clock = FakeTime::off_by(offset);
        let settings = clock.of(Settings::of(&db.url));
        let base = format!("http://{}", settings.http);
        let settings = settings
            .set("cloud.url", &cloud.url())
            .set("outbox.backoff_seconds_max", "2")
            .set("session.idle_cancel_hours", "1")
            .set("media.public_base_url", &base)
            .set("retention.free_disk_gb_min", "0")
            .set("inference.enabled", "false");
        let settings = match is_strict {
            true => settings.set("cloud.auth_mode", "hmac").set("cloud.hmac_secret", SECRET),
            false => settings,
        };
        let engine = Engine::start(settings).await;
        Self { db, cloud, clock, engine, visits: 0 }
    }

    /// Readings, a session that stays open, a finalize whose session does not come, and an image: all acknowledged.
    async fn visit(&mut self) {
        self.visits += 1;
        let mut device = Device::connect(self.engine.settings.mqtt, "d-1").await;
        device.put_all((0..READINGS).map(|_| reading("d-1", &new_event_id()))).await;
        let mut station = Device::connect(self.engine.settings.mqtt, "wv-001").await;
        let is_end = |message: &Publish| message.topic.ends_with("weighvision.session.finalized");
        let is_of_session = |message: &Publish| message.topic.contains("/session/");
        let open = weighing(&format!("open-{}", self.visits)).into_iter();
        station.put_all(open.filter(|message| is_of_session(message) && !is_end(message))).await;
        station.put_all(weighing(&format!("lost-{}", self.visits)).into_iter().filter(is_end)).await;
        self.put_image().await;
    }

    async fn put_image(&self) {
        let image = tests::picture::jpeg("left");
        let mut wish = json!({"tenant_id": TENANT, "farm_id": "f-001", "barn_id": "b-001", "device_id": "wv-001",
            "content_type": "image/jpeg", "filename": "left.jpg"});
        let presigned = self.post("media/images/presign", &wish).await;
        let url = presigned["upload_url"].as_str().expect("a URL");
        let (_, path) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).expect("a path");
        let request =
            Request::put(format!("/{path}")).header("host", "edge").header("content-type", "image/jpeg");
        let request = request.body(Full::from(image.clone())).expect("a request");
        let base = format!("http://{}", self.engine.settings.http);
        let (status, _) = loadtest::http::call(&base, request).await.expect("the engine answers");
        assert_eq!(status, 200);
        wish["object_key"] = presigned["object_key"].clone();
        wish["mime_type"] = json!("image/jpeg");
        wish["size_bytes"] = json!(image.len());
        self.post("media/images/complete", &wish).await;
    }

    /// Has retention make a pass: whatever the clock says, everything is young.
    async fn pass(&self) {
        let report = self.post("janitor/run", &json!({})).await;
        assert_eq!(report["data"]["deleted_files"], 0, "{report}");
    }

    async fn post(&self, call: &str, body: &Value) -> Value {
        let request = Request::post(format!("/api/v1/{call}"))
            .header("host", "edge")
            .header("content-type", "application/json")
            .header("x-tenant-id", TENANT)
            .body(Full::from(body.to_string()))
            .expect("a request");
        let base = format!("http://{}", self.engine.settings.http);
        let (status, body) = loadtest::http::call(&base, request).await.expect("the engine answers");
        let body = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(status, 200, "{body}");
        body
    }

    /// Waits until the cloud has everything, and checks that everything is here as well.
    async fn check(&self) {
        until("everything is sent", async || {
            self.db.count("SELECT count(*) FROM ONLY sync_outbox").await == 0
        })
        .await;
        let visits = self.visits;
        for (query, expected) in [
            ("SELECT count(*) FROM telemetry_raw", READINGS * visits),
            ("SELECT count(*) FROM weight_sessions WHERE status = 'created'", visits),
            ("SELECT count(*) FROM session_weights WHERE is_bound", visits),
            ("SELECT count(*) FROM session_parked", visits),
            ("SELECT count(*) FROM media_objects", visits),
            ("SELECT count(*) FROM dead_letters", 0),
        ] {
            assert_eq!(self.db.count(query).await, expected, "{query}");
        }
        let paths =
            self.db.client.query("SELECT path FROM media_objects", &[]).await.expect("they can be read");
        let root = self.engine.settings.config().media.root;
        for path in paths {
            assert!(root.join(path.get::<_, &str>(0)).exists(), "an image is gone");
        }
        // What the cloud has acknowledged may go from here by the clock that it was acknowledged under.
        let verdict = self.cloud.judge();
        let ingested = verdict.by_event_type.get("telemetry.ingested").copied().unwrap_or_default();
        assert_eq!(i64::try_from(ingested).expect("a count fits"), READINGS * visits);
        assert_eq!(verdict.violations, []);
    }

    /// Waits until the upkeep of sessions has made a whole round.
    async fn upkeep(&self) {
        let rounds = async || self.engine.metric("db_query_duration_seconds_count", "session_gauges").await;
        let before = rounds().await;
        until("the upkeep has its turn", async || rounds().await >= before + 2.0).await;
    }

    async fn logged(&self, text: &str) {
        until(text, async || self.engine.log().contains(text)).await;
    }

    /// Waits until every reading is in a minute's bucket.
    async fn aggregated(&self) {
        let sum = "SELECT coalesce(sum(count), 0)::bigint FROM telemetry_agg WHERE \"window\" = '1m'";
        until("every minute is aggregated", async || self.db.count(sum).await >= READINGS * self.visits)
            .await;
    }

    async fn end(mut self) {
        assert_eq!(self.engine.terminate().await.code, Some(0));
    }
}

/// The messages of one weighing of now.
fn weighing(session: &str) -> Vec<Publish> {
    let place = Place { tenant: TENANT.into(), farm: "f-001".into(), barn: "b-001".into() };
    let station = Station { place, station: "st-01".into(), device: "wv-001".into() };
    let weighing = Weighing { session, weight_kg: 0.5, at: Clock::system().now() };
    let messages = station.weigh(weighing, &mut StdRng::from_os_rng());
    messages.into_iter().map(|message| message.publish).collect()
}

/// The box starts without a battery, at this time, and gets the right one from the network.
async fn boots_at(year: i32) {
    let begins = chrono::NaiveDate::from_ymd_opt(year, 1, 1).and_then(|day| day.and_hms_opt(0, 0, 5));
    let begins = begins.expect("a day").and_local_timezone(Utc).single().expect("a time");
    let mut house = House::off_by(begins - Clock::system().now()).await;
    house.logged(DOUBT).await;
    house.visit().await;
    house.check().await;
    house.clock.set(Duration::zero());
    house.logged("\"the clock is believed\"").await;
    house.visit().await;
    house.upkeep().await;
    house.pass().await;
    house.check().await;
    assert_eq!(house.engine.metric("engine_clock_steps", "ahead").await, 1.0);
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_that_boots_in_1970_keeps_everything_when_it_gets_the_time() {
    boots_at(1970).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_that_boots_in_2000_keeps_everything_when_it_gets_the_time() {
    boots_at(2000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_four_hundred_days_ahead_gives_nothing_up() {
    let mut house = House::off_by(Duration::zero()).await;
    house.visit().await;
    house.check().await;
    let known = "SELECT count(*) FROM engine_clock WHERE known_at IS NOT NULL";
    until("the time is kept", async || house.db.count(known).await == 1).await;
    house.engine.kill().await;
    house.clock.set(Duration::days(400));
    house.engine.start_again().await;
    house.logged(DOUBT).await;
    house.visit().await;
    house.upkeep().await;
    house.pass().await;
    house.check().await;
    // Whatever came in by this clock does not make it right.
    house.engine.kill().await;
    house.engine.start_again().await;
    until("it is not believed again", async || house.engine.log().matches(DOUBT).count() == 2).await;
    house.upkeep().await;
    house.pass().await;
    house.check().await;
    house.clock.set(Duration::zero());
    house.logged("\"the clock is believed\"").await;
    house.upkeep().await;
    house.pass().await;
    house.check().await;
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_years_ahead_for_a_moment_hold_nothing_back() {
    let auth = Auth::Hmac(vec![SECRET.to_owned()]);
    let mut house = House::start(Duration::zero(), CloudSettings { auth, ..CloudSettings::default() }).await;
    house.visit().await;
    house.check().await;
    // A cloud that checks signatures refuses what is dated so, which is a failure like any other.
    house.clock.set(Duration::days(3650));
    house.visit().await;
    let paused = "SELECT count(*) FROM sync_state WHERE paused_until > now() + interval '9 years'";
    until("the tenant pauses for years", async || house.db.count(paused).await == 1).await;
    house.upkeep().await;
    house.pass().await;
    // Leases under a name that nobody has any more.
    house.db.execute("INSERT INTO sync_lane_groups SELECT 't-001', n, gen_random_uuid(), 'former', now() + interval '10 years'
        FROM generate_series(0, 15) AS n ON CONFLICT DO NOTHING").await;
    let skew = async || house.engine.metric("sync_clock_skew_ms", "").await;
    assert!(skew().await < -1e11, "the cloud has said how far the clock is off");
    house.clock.set(Duration::zero());
    house.visit().await;
    house.upkeep().await;
    house.pass().await;
    house.check().await;
    house.aggregated().await;
    let skew = house.engine.metric("sync_clock_skew_ms", "").await;
    assert_eq!(skew, 0.0, "the cloud takes batches again");
    assert_eq!(house.engine.metric("engine_clock_steps", "ahead").await, 1.0);
    assert_eq!(house.engine.metric("engine_clock_steps", "back").await, 1.0);
    let state = house.engine.json("/api/v1/sync/state").await;
    assert_eq!(state["paused_until"], Value::Null, "{state}");
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_back_holds_nothing_back() {
    let mut house = House::off_by(Duration::zero()).await;
    house.visit().await;
    house.cloud.mode(Mode::Unavailable).await;
    house.visit().await;
    let paused = "SELECT count(*) FROM sync_state WHERE paused_until IS NOT NULL";
    until("the tenant pauses", async || house.db.count(paused).await == 1).await;
    house.clock.set(-Duration::days(1));
    house.cloud.mode(Mode::Ok).await;
    house.visit().await;
    house.upkeep().await;
    house.pass().await;
    house.check().await;
    house.clock.set(Duration::zero());
    house.logged("\"ahead\"").await;
    house.visit().await;
    house.upkeep().await;
    house.pass().await;
    house.check().await;
    house.aggregated().await;
    house.end().await;
}
