//! The engine killed while stations weigh: what was acknowledged or answered with success is there, once, and nothing is
//! left over.

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actors::media::store::MARKER;
use chrono::TimeDelta;
use http_body_util::Full;
use hyper::{Method, Request};
use loadtest::device::Weighing;
use loadtest::station::{AnyStation, Course};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use schema::clock::Clock;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tests::barn::check_idle;
use tests::device::{TENANT, new_event_id};
use tests::engine::Engine;
use tests::objects::Objects;
use tests::postgres::Database;
use tests::stations::{check_rows, faults_in_cloud, stations};
use tests::wait::until;
use tests::witness::{Answered, Witness};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::*;

/// How often it is killed with a bucket, whose way through the engine is shorter.
const KILLS_WITH_BUCKET: usize = 4;
/// Requests that are answered at most before the engine is killed.
const ANSWERED_MAX: usize = 12;
/// The longest wait after that, microseconds: a kill may hit any step of any request.
const WAIT_MICROS_MAX: u64 = 30_000;
/// How often the clerk asks again for what was not there yet.
const CLERK_EVERY: Duration = Duration::from_millis(100);
/// Days for which nothing is kept that nobody claims.
const LONG_DAYS: i64 = 9;

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_during_weighings_lose_nothing_and_leave_nothing_behind() {
    let seed = rand::rng().random();
    println!("seed {seed}");
    println!("{}", weigh_and_kill(None, KILLS, seed).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_during_weighings_lose_nothing_and_leave_nothing_behind_in_a_bucket() {
    let seed = rand::rng().random();
    println!("seed {seed}");
    println!("{}", weigh_and_kill(Some(Objects::start().await), KILLS_WITH_BUCKET, seed).await);
}

/// The whole test; says what happened. With a bucket, only the clerk's orders have pictures looked at.
async fn weigh_and_kill(objects: Option<Objects>, kills: usize, seed: u64) -> String {
    let db = database().await;
    // Stations that end sessions before they begin them have events that are late by nature.
    let lenient = cloud::Settings { tolerates_late: true, ..cloud::Settings::default() };
    let cloud = PretendCloud::start(lenient).await.expect("a free port");
    let settings = settings(&db, &cloud)
        .set("media.presign_per_minute", "60000")
        .set("retention.free_disk_gb_min", "0")
        .set("inference.on_complete", &objects.is_none().to_string())
        .set("inference.lease_seconds", "5")
        // An attempt that a kill ends counts against the job.
        .set("inference.attempts_max", "100");
    let settings = if let Some(objects) = &objects { objects.of(settings) } else { settings };
    let witness = Arc::new(Witness::start(settings.http).await);
    let mut engine = Engine::start(settings.set("media.public_base_url", &witness.url())).await;
    let place = match objects {
        Some(objects) => Place::Bucket(objects),
        None => Place::Directory(engine.settings.data_dir().join("media")),
    };
    let mut random = StdRng::seed_from_u64(seed);
    let traffic = Traffic::start(&engine, &witness);
    let mut clerk = JoinSet::new();
    clerk.spawn(order_looks(Arc::clone(&witness)));
    for _ in 0..kills {
        witness.progress(random.random_range(1..=ANSWERED_MAX)).await;
        let _half = half_upload(&engine, &place.root(), &witness).await;
        tokio::time::sleep(Duration::from_micros(random.random_range(0..WAIT_MICROS_MAX))).await;
        engine.kill().await;
        engine.start_again().await;
    }
    let courses = traffic.finish().await;
    until("the cloud has every weighing", async || faults_in_cloud(&cloud, &courses).is_empty()).await;
    drop(clerk);
    settle(&db).await;

    let answered = witness.answered();
    for answered in &answered {
        check_kept(&db, answered).await;
    }
    for course in &courses {
        check_rows(&db.client, course, |image| {
            let below = image.path.as_ref().unwrap_or(&image.object_key);
            std::fs::read(place.root().join(below)).expect("the image is there")
        })
        .await;
    }
    check_nothing_else(&db, &cloud, &courses).await;
    let swept = check_nothing_left_over(&db, &engine, &place).await;
    assert_eq!(engine.terminate().await.code, Some(0));
    check_idle(&db).await;
    assert_eq!(cloud.judge().violations, []);
    let (weighings, successes) = (courses.len(), answered.len());
    format!("{kills} kills, {weighings} weighings, {successes} requests answered with success, {swept}")
}

/// Waits until nothing is under way: every upload has come to its end, every picture was looked at, and the cloud has
/// every event.
async fn settle(db: &Database) {
    let ends = "UPDATE media_uploads SET expires_at = now(), next_look_at = NULL WHERE status IN ('presigned', 'uploaded')";
    db.execute(ends).await;
    for under_way in [
        "SELECT count(*) FROM media_uploads WHERE status IN ('presigned', 'uploaded')",
        "SELECT count(*) FROM inference_jobs WHERE status IN ('pending', 'processing')",
        "SELECT count(*) FROM sync_outbox WHERE status <> 'acked'",
    ] {
        until(under_way, async || db.count(under_way).await == 0).await;
    }
}

/// What was answered with success is there, and in its last state.
async fn check_kept(db: &Database, answered: &Answered) {
    let Answered { method, path, request, answer } = answered;
    let said: Value = serde_json::from_slice(request).unwrap_or_default();
    let segments: Vec<_> = path.trim_start_matches("/api/v1/").split('/').collect();
    let sql = match (method, &segments[..]) {
        (&Method::POST, ["media", "images", "presign"]) => format!(
            "media_uploads WHERE media_id::text = {} AND object_key = {} AND status IN ('completed', 'expired')",
            quoted(&answer["media_id"]),
            quoted(&answer["object_key"]),
        ),
        (&Method::PUT, ["media", "uploads", media_id]) => {
            let sha256 = hex::encode(Sha256::digest(request));
            format!("media_objects WHERE id = '{media_id}' AND sha256 = '{sha256}'")
        }
        (&Method::POST, ["media", "images", "complete"]) => format!(
            "media_objects WHERE id::text = {} AND object_key = {} AND size_bytes = {} AND session_id = {}",
            quoted(&answer["media_id"]),
            quoted(&said["object_key"]),
            said["size_bytes"],
            quoted(&said["session_id"]),
        ),
        (&Method::POST, ["inference", "jobs"]) => format!(
            "inference_jobs AS j JOIN inference_results AS r ON r.id = j.result_id
             WHERE j.status = 'completed' AND j.id::text = {} AND r.media_id = {}",
            quoted(&answer["job_id"]),
            quoted(&said["media_id"]),
        ),
        (&Method::POST, ["weighvision", "sessions"]) => format!(
            "weight_sessions WHERE status = 'finalized' AND session_id = {} AND created_event_id = {}",
            quoted(&said["sessionId"]),
            quoted(&said["eventId"]),
        ),
        (&Method::POST, ["weighvision", "sessions", session, "bind-weight"]) => format!(
            "session_weights WHERE is_bound AND session_id = '{session}' AND event_id = {} AND weight_kg = {}",
            quoted(&said["eventId"]),
            said["weightKg"],
        ),
        (&Method::POST, ["weighvision", "sessions", session, "bind-media"]) => format!(
            "session_media_bindings WHERE is_bound AND session_id = '{session}' AND media_object_id = {}",
            quoted(&said["mediaObjectId"]),
        ),
        (&Method::POST, ["weighvision", "sessions", session, "finalize"]) => format!(
            "weight_sessions WHERE status = 'finalized' AND session_id = '{session}' AND finalized_event_id = {}",
            quoted(&said["eventId"]),
        ),
        _ => panic!("no station calls {method} {path}"),
    };
    let sql = format!("SELECT count(*) FROM {sql}");
    assert_eq!(db.count(&sql).await, 1, "{sql}");
}

/// A text of JSON as one of SQL; the ids of these tests have no quotes.
fn quoted(text: &Value) -> String {
    format!("'{}'", text.as_str().expect("a text"))
}

/// Nothing is there that no station asked for, nothing twice, and nothing on its own; the cloud has what the outbox had.
async fn check_nothing_else(db: &Database, cloud: &PretendCloud, courses: &[Course]) {
    let weights: usize = courses.iter().map(|course| course.weighed.weights).sum();
    // Only the kind weight-vision-service takes two pictures, and sends two readings.
    let readings: usize =
        courses.iter().map(|course| course.uploads.len()).filter(|pictures| *pictures == 2).sum();
    for (rows, expected) in [
        ("weight_sessions WHERE status = 'finalized'", courses.len()),
        ("weight_sessions", courses.len()),
        ("session_weights WHERE is_bound", weights),
        ("session_weights", weights),
        ("telemetry_raw", readings),
        ("session_media_bindings WHERE NOT is_bound", 0),
        ("session_media_bindings WHERE media_object_id NOT IN (SELECT id::text FROM media_objects)", 0),
        ("media_objects WHERE session_id NOT IN (SELECT session_id FROM weight_sessions)", 0),
        ("media_objects WHERE id NOT IN (SELECT media_id FROM media_uploads WHERE status = 'completed')", 0),
        ("inference_jobs WHERE media_id NOT IN (SELECT id FROM media_objects)", 0),
        ("inference_results WHERE id NOT IN (SELECT id FROM inference_jobs WHERE status = 'completed')", 0),
        ("session_parked", 0),
        ("dead_letters", 0),
        ("ingress_rejects", 0),
    ] {
        let found = db.count(&format!("SELECT count(*) FROM {rows}")).await;
        assert_eq!(found, expected as i64, "{rows}");
    }
    let queued = texts(db, "SELECT id::text FROM sync_outbox").await;
    let arrived: HashSet<_> = cloud.ids(TENANT).into_iter().collect();
    assert_eq!(queued.len(), arrived.len());
    assert!(queued.iter().all(|id| arrived.contains(id)), "the cloud has other events than the outbox");
}

async fn texts(db: &Database, sql: &str) -> Vec<String> {
    let rows = db.client.query(sql, &[]).await.expect("the query is right");
    rows.iter().map(|row| row.get(0)).collect()
}

/// After a pass of retention to which everything is old that nobody claims, each image has its file as it was received,
/// each file its image, and no upload is open. Says what was swept up.
async fn check_nothing_left_over(db: &Database, engine: &Engine, place: &Place) -> String {
    let (root, listed) = (place.root(), files(&place.root()));
    let long_ago = Clock::system().now() - TimeDelta::days(LONG_DAYS);
    for path in &listed {
        let file = File::options().write(true).open(root.join(path)).expect("it is there");
        file.set_modified(long_ago.into()).expect("its time can be set");
    }
    db.execute(&format!(
        "UPDATE media_uploads SET expires_at = expires_at - interval '{LONG_DAYS} days',
            completed_at = completed_at - interval '{LONG_DAYS} days'"
    ))
    .await;
    let http = format!("http://{}", engine.settings.http);
    let request = Request::post("/api/v1/janitor/run?confirm_orphans=true")
        .header("host", "edge")
        .body(Full::default());
    let (status, report) = loadtest::http::call(&http, request.expect("a request")).await.expect("an answer");
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    assert_eq!((status, &report["data"]["error"]), (200, &Value::Null), "{report}");
    let column = place.column();
    let known = texts(db, &format!("SELECT {column} FROM media_objects")).await;
    let left = files(&root);
    assert_eq!(known.len(), left.len());
    assert_eq!(known.into_iter().collect::<BTreeSet<_>>(), left);
    let hashed = texts(db, "SELECT path || ' ' || sha256 FROM media_objects WHERE path IS NOT NULL").await;
    for (path, sha256) in hashed.iter().map(|line| line.rsplit_once(' ').expect("two words")) {
        let bytes = std::fs::read(root.join(path)).expect("it is there");
        assert_eq!(hex::encode(Sha256::digest(bytes)), sha256, "{path}");
    }
    assert_eq!(db.count("SELECT count(*) FROM media_uploads").await, 0);
    let drafts = listed.iter().filter(|path| path.ends_with(".part")).count();
    format!(
        "{} files of which {drafts} were half written and {} swept up",
        listed.len(),
        report["data"]["deleted_files"]
    )
}

/// Where the images of an engine lie.
enum Place {
    Directory(PathBuf),
    Bucket(Objects),
}

impl Place {
    fn root(&self) -> PathBuf {
        match self {
            Self::Directory(root) => root.clone(),
            Self::Bucket(objects) => objects.place(""),
        }
    }

    /// The column that says where an image lies below the root.
    fn column(&self) -> &'static str {
        match self {
            Self::Directory(_) => "path",
            Self::Bucket(_) => "object_key",
        }
    }
}

/// Stations that weigh one bird after the other.
struct Traffic {
    is_over: Arc<AtomicBool>,
    stations: JoinSet<Vec<Course>>,
}

impl Traffic {
    fn start(engine: &Engine, witness: &Witness) -> Self {
        let (is_over, mut at_work) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        for station in stations(engine.settings.mqtt, &witness.url()) {
            at_work.spawn(weigh_on(station, Arc::clone(&is_over)));
        }
        Self { is_over, stations: at_work }
    }

    /// Lets every station finish its bird, and returns all weighings.
    async fn finish(self) -> Vec<Course> {
        self.is_over.store(true, Ordering::Relaxed);
        self.stations.join_all().await.into_iter().flatten().collect()
    }
}

async fn weigh_on(mut station: AnyStation, is_over: Arc<AtomicBool>) -> Vec<Course> {
    let mut courses = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let session = new_event_id();
        let weighing = Weighing { session: &session, weight_kg: 2.0, at: Clock::system().now() };
        // A capture that was given up begins again with new ids under the same session.
        courses.push(loop {
            if let Ok(course) = station.weigh(weighing).await {
                break course;
            }
        });
    }
    station.close().await;
    courses
}

/// Orders a look at each picture that was offered, again and again until the engine has the picture.
async fn order_looks(witness: Arc<Witness>) {
    let mut ordered = HashSet::new();
    loop {
        for offer in witness.answered().iter().filter(|answered| answered.path.ends_with("/presign")) {
            let media_id = offer.answer["media_id"].as_str().expect("an id").to_owned();
            let body = json!({"tenant_id": TENANT, "media_id": media_id});
            let is_new = !ordered.contains(&media_id);
            if is_new && post(&witness.url(), "/api/v1/inference/jobs", &body).await.is_ok_and(|is_ok| is_ok)
            {
                ordered.insert(media_id);
            }
        }
        tokio::time::sleep(CLERK_EVERY).await;
    }
}

/// Whether a call succeeds.
async fn post(base: &str, path: &str, body: &Value) -> anyhow::Result<bool> {
    let request = Request::post(path).header("host", "edge").header("x-tenant-id", TENANT);
    let request = request.header("content-type", "application/json").body(Full::from(body.to_string()))?;
    Ok(loadtest::http::call(base, request).await?.0 == 200)
}

/// Uploads half a picture and waits in vain for somebody to send the rest.
async fn half_upload(engine: &Engine, root: &Path, witness: &Witness) -> Option<TcpStream> {
    let offered = witness.answered().into_iter().rfind(|answered| answered.path.ends_with("/presign"))?;
    let url = offered.answer["upload_url"].as_str().expect("a URL");
    let path = url.strip_prefix(&witness.url())?;
    let before = files(root);
    let mut stream = TcpStream::connect(engine.settings.http).await.expect("the engine listens");
    let head = format!("PUT {path} HTTP/1.1\r\nhost: edge\r\ncontent-length: 100000\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("a connection");
    stream.write_all(&[0x5a; 50_000]).await.expect("a connection");
    until("half of a picture is written", async || {
        files(root).difference(&before).any(|path| path.ends_with(".part"))
    })
    .await;
    Some(stream)
}

/// Every file below a directory, as paths from there; what is being deleted meanwhile may be among them.
fn files(root: &Path) -> BTreeSet<String> {
    fn walk(root: &Path, place: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
            let place = entry.path();
            if place.is_dir() {
                walk(root, &place, found);
            } else if entry.file_name() != MARKER {
                found.insert(place.strip_prefix(root).expect("below").display().to_string());
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(root, root, &mut found);
    found
}
