//! Measures the way of a picture: from its last byte to the weight that was read from it, and how far that weight is
//! from the true one.

mod report;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http_body_util::Full;
use hyper::Request;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::task::JoinSet;

use schema::clock::{Clock, Timestamp};
use schema::wire::time;

use crate::barn::station_ids;
use crate::device::{Place, ROLES, Station, Weighing};
use crate::ids::new_event_id;
use crate::mqtt::Login;
use crate::publisher::Meter;
use crate::render::random_weight_kg;
use crate::report::{Live, note, say};
use crate::station::vision::{Vision, draw};
use crate::station::{Access, Course, Tally};
use crate::{http, verify};

/// How often results are asked for while some are missing.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// Keepalive of every station.
const KEEPALIVE_SECONDS: u16 = 60;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `host:port` of the broker.
    pub broker: String,
    /// `http://host:port` of the HTTP API.
    pub edge: String,
    /// `http://host:port` of the pretend cloud or of its control address; without it the cloud is not asked.
    pub cloud: Option<String>,
    /// Tenant, farm and barn.
    pub place: Place,
    /// Weighings, of two pictures each.
    pub captures: usize,
    /// Pictures per second, over all stations.
    pub images_per_second: f64,
    /// Stations that take turns.
    pub stations: usize,
    /// Decides weights and pictures.
    pub seed: u64,
    /// How long missing results are waited for after the last weighing.
    pub wait: Duration,
}

/// A picture with everything that is known of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    /// The weight it was drawn for.
    pub(crate) true_kg: f64,
    /// The weight that was read from it.
    pub(crate) read_kg: Option<f64>,
    /// From the answer that its last byte was taken to the result.
    pub(crate) latency_ms: f64,
}

/// A row of `GET /api/v1/inference/results`.
#[derive(Debug, Deserialize)]
struct ResultRow {
    media_id: String,
    predicted_weight_kg: Option<f64>,
    created_at: String,
}

#[derive(Debug, Deserialize)]
struct Results {
    results: Vec<ResultRow>,
}

/// Measures and prints. Says whether every picture was read, and whether the cloud has everything.
///
/// # Errors
/// When the engine cannot be reached or answers something else than results.
pub async fn run(settings: Settings, stop: watch::Receiver<bool>) -> Result<bool> {
    ensure!(settings.stations > 0 && settings.captures > 0, "nothing to weigh, or nobody to weigh it");
    say(crate::bench::process::machine());
    let tally = Arc::new(Tally::default());
    let mut live = Live::start(Some(settings.captures as u64));
    let courses = weigh_all(&settings, &tally, &stop, &mut live).await?;
    let readings = collect(&settings, &courses, &stop, &mut live).await?;
    let is_in_cloud = match &settings.cloud {
        Some(cloud) => await_cloud(&settings, cloud, &courses, &stop, &mut live).await?,
        None => true,
    };
    live.finish();
    say(tally.line());
    let finalizes: Vec<_> = courses.iter().filter_map(|course| course.finalize).collect();
    report::print(courses.len() * ROLES.len(), &readings, &finalizes);
    let is_whole = readings.len() == settings.captures * ROLES.len();
    if !is_whole {
        note(format!("only {} of {} pictures were read", readings.len(), settings.captures * ROLES.len()));
    }
    Ok(is_whole && is_in_cloud)
}

async fn weigh_all(
    settings: &Settings,
    tally: &Arc<Tally>,
    stop: &watch::Receiver<bool>,
    live: &mut Live,
) -> Result<Vec<Course>> {
    let mut idle: VecDeque<_> = stations(settings, tally).collect();
    let mut random = StdRng::seed_from_u64(settings.seed);
    let mut busy = JoinSet::new();
    let mut courses = Vec::with_capacity(settings.captures);
    let interval = Duration::from_secs_f64(ROLES.len() as f64 / settings.images_per_second.max(1e-3));
    let mut due = Instant::now();
    for _ in 0..settings.captures {
        if *stop.borrow() {
            break;
        }
        let mut station = match idle.pop_front() {
            Some(station) => station,
            None => returned(&mut busy, &mut courses).await?,
        };
        let weight_kg = random_weight_kg(&mut random);
        let session = new_event_id(&mut random_ids());
        let pictures = draw(weight_kg, &mut random);
        tokio::time::sleep_until(due.into()).await;
        due += interval;
        busy.spawn(async move {
            let weighing = Weighing { session: &session, weight_kg, at: Clock::system().now() };
            let outcome = station.weigh_pictured(weighing, &pictures).await;
            (station, outcome)
        });
        while let Some(done) = busy.try_join_next() {
            idle.push_back(settle(done, &mut courses)?);
        }
        live.show(courses.len() as u64, &format!("{}: {}", settings.captures, tally.line()));
    }
    while !busy.is_empty() {
        returned(&mut busy, &mut courses).await?;
    }
    Ok(courses)
}

/// Session ids never repeat, whatever the seed.
fn random_ids() -> StdRng {
    StdRng::from_os_rng()
}

type Done = (Vision, Result<Course>);

/// Waits for a station that comes back.
async fn returned(busy: &mut JoinSet<Done>, courses: &mut Vec<Course>) -> Result<Vision> {
    let done = busy.join_next().await.context("no station is under way")?;
    settle(done, courses)
}

fn settle(done: Result<Done, tokio::task::JoinError>, courses: &mut Vec<Course>) -> Result<Vision> {
    let (station, outcome) = done.context("a station's task broke")?;
    match outcome {
        Ok(course) => courses.push(course),
        Err(error) => note(format!("a weighing failed: {error:#}")),
    }
    Ok(station)
}

fn stations(settings: &Settings, tally: &Arc<Tally>) -> impl Iterator<Item = Vision> {
    let meter = Arc::new(Meter::default());
    station_ids(settings.stations).map(move |(station, device)| {
        let login =
            Login { client_id: device.clone(), keepalive_seconds: KEEPALIVE_SECONDS, ..Login::default() };
        let access = Access {
            broker: settings.broker.clone(),
            tls: None,
            edge: settings.edge.clone(),
            login,
            meter: Arc::clone(&meter),
            tally: Arc::clone(tally),
        };
        Vision::new(Station { place: settings.place.clone(), station, device }, &access, 0.0)
    })
}

/// Asks for the results of every session until all are there, or the wait is over.
async fn collect(
    settings: &Settings,
    courses: &[Course],
    stop: &watch::Receiver<bool>,
    live: &mut Live,
) -> Result<Vec<Reading>> {
    let gives_up_at = Instant::now() + settings.wait;
    let mut readings = Vec::new();
    for course in courses {
        loop {
            let rows = results(settings, &course.weighed.session_id).await?;
            let is_over = Instant::now() >= gives_up_at || *stop.borrow();
            if rows.len() >= course.uploads.len() || is_over {
                readings.extend(read(course, &rows));
                break;
            }
            live.show(readings.len() as u64 / 2, "waiting for results");
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
    Ok(readings)
}

async fn results(settings: &Settings, session: &str) -> Result<Vec<ResultRow>> {
    let request = Request::get(format!("/api/v1/inference/results?sessionId={session}&limit=500"))
        .header("host", http::authority(&settings.edge)?)
        .header("x-tenant-id", &settings.place.tenant)
        .body(Full::default())?;
    let (status, body) = http::call(&settings.edge, request).await?;
    ensure!(status == 200, "GET /api/v1/inference/results answered {status}");
    let results: Results = serde_json::from_slice(&body).context("read the results")?;
    Ok(results.results)
}

fn read(course: &Course, rows: &[ResultRow]) -> Vec<Reading> {
    let taken: HashMap<&str, Timestamp> =
        course.uploads.iter().map(|(upload, at)| (upload.image.media_id.as_str(), *at)).collect();
    let reading = |row: &ResultRow| {
        let taken_at = taken.get(row.media_id.as_str())?;
        let read_at = time::parse(&row.created_at)?;
        let latency_ms = (read_at - *taken_at).as_seconds_f64() * 1000.0;
        Some(Reading { true_kg: course.weighed.true_kg, read_kg: row.predicted_weight_kg, latency_ms })
    };
    rows.iter().filter_map(reading).collect()
}

/// Waits until the cloud has every session and every picture with its weight; says what it lacks otherwise.
async fn await_cloud(
    settings: &Settings,
    cloud: &str,
    courses: &[Course],
    stop: &watch::Receiver<bool>,
    live: &mut Live,
) -> Result<bool> {
    let gives_up_at = Instant::now() + settings.wait;
    let weighings: Vec<_> = courses.iter().map(|course| course.weighed.clone()).collect();
    loop {
        let (sessions, images) = verify::seen(cloud, &settings.place.tenant).await?;
        let faults = verify::faults(&weighings, &sessions, &images, true);
        if faults.is_empty() {
            return Ok(true);
        }
        if Instant::now() >= gives_up_at || *stop.borrow() {
            for fault in faults.iter().take(verify::SHOWN_MAX) {
                live.keep(&format!("in the cloud: session {fault}"));
            }
            return Ok(false);
        }
        live.show(courses.len() as u64, &format!("waiting for the cloud: {} faults", faults.len()));
        tokio::time::sleep(ASK_EVERY).await;
    }
}
