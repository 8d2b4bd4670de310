//! Compares what devices were told is safe with what the database and the cloud have, message by message.

pub mod arrivals;
pub mod compare;
pub mod database;
pub mod findings;
pub mod mapping;
pub mod message;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use schema::clock::Clock;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::cloud::{SeenImage, SeenSession, Verdict};
use crate::station::Weighed;
use crate::{http, report, run};

use arrivals::Arrivals;
use compare::Senders;
use database::{Bucket, Database, Rows};
use findings::{Findings, Rule};
use message::{Key, Kind, Messages};

/// Ids shown of a longer list.
pub(crate) const SHOWN_MAX: usize = 20;
/// How often it is looked whether something still waits.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Longest answer to one question.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// How far a sum of doubles may be from the same sum in another order, relative to its size.
const SUM_TOLERANCE: f64 = 1e-9;

/// What to compare.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What was sent and what was answered, one JSON object a line.
    pub ledger: Option<PathBuf>,
    /// Acknowledged event ids, one a line, where there is no ledger.
    pub ids_file: Option<PathBuf>,
    /// `http://host:port` of the pretend cloud or of its control address.
    pub cloud: Option<String>,
    /// The file of events that the pretend cloud wrote: contents and order are judged by it.
    pub cloud_events: Option<PathBuf>,
    /// The engine's database, for everything that must be stored.
    pub database_url: Option<String>,
    /// `http://host:port` of the engine's HTTP API, for the bytes of images and for its own account.
    pub edge: Option<String>,
    /// Key of an operator there.
    pub api_key: Option<String>,
    /// Tenant of ids that do not name one.
    pub tenant: String,
    /// Weighings that stations completed, one JSON object a line.
    pub sessions_file: Option<PathBuf>,
    /// Whether the cloud must have a weight read from every picture.
    pub expects_inference: bool,
    /// What is known of the senders beside their ledger.
    pub senders: Senders,
    /// How long the outbox may take to become empty.
    pub wait: Duration,
    /// Where the judgment is written as JSON.
    pub json: Option<PathBuf>,
    /// Where it is written as a run, for a report and its thresholds.
    pub run_file: Option<PathBuf>,
}

impl Settings {
    /// Tenant of ids that do not name one.
    fn tenant(&self) -> &str {
        if self.tenant.is_empty() { "t-001" } else { &self.tenant }
    }
}

/// Compares, prints, and says whether nothing differs.
///
/// # Errors
/// When something that was asked for cannot be read.
pub async fn run(settings: &Settings) -> Result<bool> {
    let started = Clock::system().now();
    let findings = judge(settings).await?;
    for line in findings.lines() {
        report::say(line);
    }
    if let Some(path) = &settings.json {
        let json = serde_json::to_vec_pretty(&findings).context("write the judgment as JSON")?;
        std::fs::write(path, json).with_context(|| format!("write {}", path.display()))?;
    }
    if let Some(path) = &settings.run_file {
        let mut run = run::Run::new("verify", started, Clock::system().now());
        run.counts = findings.figures();
        run.verdict = run::Verdict { passed: findings.is_good(), reasons: findings.first_differences() };
        run.write(path)?;
    }
    Ok(findings.is_good())
}

/// Compares, and prints nothing.
///
/// # Errors
/// When something that was asked for cannot be read.
pub async fn judge(settings: &Settings) -> Result<Findings> {
    let mut findings = Findings::new();
    let messages = read_messages(settings)?;
    let acknowledged = messages.acknowledged().count();
    findings.count("acknowledged", acknowledged);
    findings.count("sent", messages.by_key.len());
    findings.look(Rule::Ledger, acknowledged);
    if acknowledged == 0 {
        findings.differ(Rule::Ledger, "ledger", "nothing was acknowledged: there is nothing to judge");
    }
    let tenants = tenants(&messages, settings.tenant());
    let database = match &settings.database_url {
        Some(url) => Some(Database::open(url).await?),
        None => None,
    };
    until_settled(settings, &messages, database.as_ref(), &mut findings).await?;
    let rows = match &database {
        Some(database) => Some(database.rows(&tenants).await?),
        None => None,
    };
    if let Some(rows) = &rows {
        compare::database(&messages, rows, &settings.senders, &mut findings);
    }
    if let Some(database) = &database {
        judge_images(settings, &messages, database, &mut findings).await?;
        judge_aggregates(settings, database, &tenants, &mut findings).await?;
    }
    judge_cloud(settings, &messages, rows.as_ref(), &tenants, &mut findings).await?;
    if let Some(edge) = &settings.edge {
        judge_account(settings, edge, &mut findings).await;
    }
    Ok(findings)
}

fn read_messages(settings: &Settings) -> Result<Messages> {
    match (&settings.ledger, &settings.ids_file) {
        (Some(ledger), _) => Messages::read(ledger, settings.tenant()),
        (None, Some(ids)) => Messages::read_ids(ids, settings.tenant()),
        (None, None) => bail!("there is neither a ledger nor a file of ids to judge by"),
    }
}

fn tenants(messages: &Messages, tenant: &str) -> Vec<String> {
    let mut tenants: BTreeSet<&str> = messages.by_key.keys().map(|(tenant, _)| tenant.as_str()).collect();
    tenants.insert(tenant);
    tenants.into_iter().map(str::to_owned).collect()
}

/// Waits until nothing is under way, for as long as the settings let it.
async fn until_settled(
    settings: &Settings,
    messages: &Messages,
    database: Option<&Database>,
    findings: &mut Findings,
) -> Result<()> {
    let started = Instant::now();
    loop {
        let waiting = match (database, &settings.cloud) {
            (Some(database), _) => database.waiting().await?,
            (None, Some(cloud)) => missing_at(cloud, settings, messages).await?,
            (None, None) => 0,
        };
        if waiting == 0 || started.elapsed() >= settings.wait {
            if database.is_some() {
                findings.look(Rule::Settled, 1);
            }
            if database.is_some() && waiting > 0 {
                let detail = format!("{waiting} rows still wait after {} s", settings.wait.as_secs());
                findings.differ(Rule::Settled, "outbox", detail);
            }
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Acknowledged messages whose ids the cloud does not list yet.
async fn missing_at(cloud: &str, settings: &Settings, messages: &Messages) -> Result<u64> {
    let mut expected = Findings::new();
    let ids = read_ids(cloud, &tenants(messages, settings.tenant())).await?;
    compare::cloud_by_ledger(messages, &ids, &mut expected);
    Ok(expected.differences(Rule::Delivered))
}

async fn read_ids(cloud: &str, tenants: &[String]) -> Result<Arrivals> {
    let mut arrivals = Arrivals::default();
    for tenant in tenants {
        let path = format!("/judge/ids?tenant_id={tenant}");
        http::get_lines(cloud, &path, |line| arrivals.ids.extend(crate::ids::parse(line))).await?;
    }
    Ok(arrivals)
}

async fn judge_cloud(
    settings: &Settings,
    messages: &Messages,
    rows: Option<&Rows>,
    tenants: &[String],
    findings: &mut Findings,
) -> Result<()> {
    let arrivals = match (&settings.cloud_events, &settings.cloud) {
        (Some(file), _) => Some(Arrivals::read(file)?),
        (None, Some(cloud)) => Some(read_ids(cloud, tenants).await?),
        (None, None) => None,
    };
    if let Some(arrivals) = &arrivals {
        findings.count("at the cloud", arrivals.ids.len());
        match rows {
            Some(rows) => compare::cloud_by_database(messages, rows, arrivals, findings),
            None => compare::cloud_by_ledger(messages, arrivals, findings),
        }
        if arrivals.has_log {
            compare::sessions(messages, rows, arrivals, findings);
        } else {
            findings.note("contents and order at the cloud were not judged: it kept no file of events");
        }
        if let (Some(rows), true) = (rows, arrivals.has_log) {
            compare::order(rows, arrivals, findings);
        }
    }
    if let Some(cloud) = &settings.cloud {
        let verdict = verdict(cloud).await?;
        findings.look(Rule::Judge, usize::try_from(verdict.accepted).unwrap_or(usize::MAX));
        findings.count("sent again to the cloud", usize::try_from(verdict.duplicated).unwrap_or(usize::MAX));
        for violation in verdict.violations {
            findings.differ(Rule::Judge, violation.kind, violation.detail);
        }
    }
    if let (Some(file), Some(cloud)) = (&settings.sessions_file, &settings.cloud) {
        let weighings = read_weighings(file)?;
        let (sessions, images) = seen(cloud, settings.tenant()).await?;
        findings.look(Rule::Sessions, weighings.len());
        for fault in faults(&weighings, &sessions, &images, settings.expects_inference) {
            let (id, detail) = fault.split_once(": ").unwrap_or(("", &fault));
            findings.differ(Rule::Sessions, id, detail);
        }
    }
    Ok(())
}

/// Every image that was taken over has its row, and its bytes where the engine can be asked.
async fn judge_images(
    settings: &Settings,
    messages: &Messages,
    database: &Database,
    findings: &mut Findings,
) -> Result<()> {
    let images: HashMap<&Key, _> =
        messages.acknowledged().filter(|(_, message)| message.kind == Kind::Image).collect();
    findings.count("images", images.len());
    for ((tenant, media_id), message) in images {
        findings.look(Rule::Images, 1);
        let Some((_, hash)) = database.image(tenant, media_id).await? else {
            findings.differ(Rule::Images, media_id, "taken over and not stored");
            continue;
        };
        if hash.is_some_and(|hash| hash != message.sha256) {
            findings.differ(Rule::Images, media_id, "its row has another hash than its sender");
        }
        let Some(edge) = &settings.edge else { continue };
        match get_image(edge, settings.api_key.as_deref(), tenant, media_id).await {
            Ok(bytes) if hex::encode(Sha256::digest(&bytes)) == message.sha256 => {}
            Ok(bytes) => {
                findings.differ(Rule::Images, media_id, format!("{} other bytes are stored", bytes.len()));
            }
            Err(error) => findings.differ(Rule::Images, media_id, format!("{error:#}")),
        }
    }
    Ok(())
}

async fn get_image(edge: &str, key: Option<&str>, tenant: &str, media_id: &str) -> Result<Bytes> {
    let request = Request::get(format!("/api/v1/media/objects/{media_id}")).header("x-tenant-id", tenant);
    let (status, bytes) = ask(edge, key, request).await?;
    ensure!(status == 200, "the engine answers {status}");
    Ok(bytes)
}

async fn ask(edge: &str, key: Option<&str>, request: hyper::http::request::Builder) -> Result<(u16, Bytes)> {
    let mut request = request.header("host", http::authority(edge)?);
    if let Some(key) = key {
        request = request.header("x-api-key", key);
    }
    let request = request.body(Full::<Bytes>::default()).context("make a request")?;
    tokio::time::timeout(ANSWER_MAX, http::call(edge, request)).await.context("no answer in time")?
}

/// Aggregates are made once a minute, and a clock that was set may have one made too early: they have until the end of the
/// wait to come right.
async fn judge_aggregates(
    settings: &Settings,
    database: &Database,
    tenants: &[String],
    findings: &mut Findings,
) -> Result<()> {
    let started = Instant::now();
    let buckets = loop {
        let buckets = database.buckets(tenants).await?;
        if buckets.iter().all(is_sum) || started.elapsed() >= settings.wait {
            break buckets;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    findings.look(Rule::Aggregates, buckets.len());
    for Bucket { name, expected, found } in buckets.iter().filter(|bucket| !is_sum(bucket)) {
        let detail = format!("count, least, greatest and sum are {found:?}, of the readings {expected:?}");
        findings.differ(Rule::Aggregates, name, detail);
    }
    Ok(())
}

fn is_sum(bucket: &Bucket) -> bool {
    let (count, least, greatest, sum) = bucket.expected;
    bucket.found.is_some_and(|found| {
        (found.0, found.1.to_bits(), found.2.to_bits()) == (count, least.to_bits(), greatest.to_bits())
            && (found.3 - sum).abs() <= SUM_TOLERANCE * sum.abs().max(1.0)
    })
}

/// Looks at the engine's own account, where it keeps one. Its sums may be written a moment after what they count.
async fn judge_account(settings: &Settings, edge: &str, findings: &mut Findings) {
    let started = Instant::now();
    let found = loop {
        let account = read_account(edge, settings.api_key.as_deref()).await;
        let found = account.map(|account| differences(&account, String::new()));
        let is_uneven =
            found.as_ref().is_ok_and(|found| found.iter().any(|(_, difference)| *difference != 0.0));
        if !is_uneven || started.elapsed() >= settings.wait {
            break found;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    match found {
        Ok(found) => {
            findings.look(Rule::Account, found.len());
            for (path, difference) in found.into_iter().filter(|(_, difference)| *difference != 0.0) {
                findings.differ(Rule::Account, path, format!("the difference is {difference}"));
            }
        }
        Err(error) => findings.note(format!("the engine's own account was not read: {error:#}")),
    }
}

async fn read_account(edge: &str, key: Option<&str>) -> Result<Value> {
    let (status, body) = ask(edge, key, Request::get("/api/v1/ledger")).await?;
    ensure!(status == 200, "GET /api/v1/ledger answers {status}");
    serde_json::from_slice(&body).context("read the account as JSON")
}

/// Every number whose name begins with `difference`, wherever it stands.
fn differences(value: &Value, path: String) -> Vec<(String, f64)> {
    match value {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| match value.as_f64() {
                Some(difference) if name.starts_with("difference") => {
                    vec![(format!("{path}/{name}"), difference)]
                }
                _ => differences(value, format!("{path}/{name}")),
            })
            .collect(),
        Value::Array(items) => {
            let at = |(index, item)| differences(item, format!("{path}/{index}"));
            items.iter().enumerate().flat_map(at).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

/// Reads the weighings of a file.
///
/// # Errors
/// When the file cannot be read or holds something else.
pub fn read_weighings(path: &Path) -> Result<Vec<Weighed>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let parse = |line: &str| {
        serde_json::from_str(line).with_context(|| format!("{} has no weighing in {line}", path.display()))
    };
    text.lines().map(parse).collect()
}

/// What the cloud knows of a tenant's sessions and pictures.
///
/// # Errors
/// When the cloud cannot be asked.
pub async fn seen(cloud: &str, tenant: &str) -> Result<(Vec<SeenSession>, Vec<SeenImage>)> {
    let (mut sessions, mut images) = (Vec::new(), Vec::new());
    let path = format!("/judge/sessions?tenant_id={tenant}");
    http::get_lines(cloud, &path, |line| sessions.extend(serde_json::from_str::<SeenSession>(line))).await?;
    let path = format!("/judge/images?tenant_id={tenant}");
    http::get_lines(cloud, &path, |line| images.extend(serde_json::from_str::<SeenImage>(line))).await?;
    Ok((sessions, images))
}

/// What the cloud lacks of these weighings, or has too often: each session one beginning, one end, all weights and
/// pictures; each picture stored once, and read once where that is expected.
#[must_use]
pub fn faults(
    weighings: &[Weighed],
    sessions: &[SeenSession],
    images: &[SeenImage],
    expects_inference: bool,
) -> Vec<String> {
    let sessions: HashMap<&str, _> = sessions.iter().map(|seen| (seen.session_id.as_str(), seen)).collect();
    let images: HashMap<&str, _> = images.iter().map(|seen| (seen.media_id.as_str(), seen)).collect();
    let mut faults = Vec::new();
    for weighed in weighings {
        let id = &weighed.session_id;
        let seen = sessions.get(id.as_str()).copied().cloned().unwrap_or_default();
        let expected = SeenSession {
            session_id: seen.session_id.clone(),
            created: 1,
            finalized: 1,
            weights: weighed.weights as u64,
            image_count: weighed.media_ids.len() as u64,
        };
        if seen != expected {
            faults.push(format!("{id}: expected {expected:?}, the cloud has {seen:?}"));
        }
        for media_id in &weighed.media_ids {
            let seen = images.get(media_id.as_str()).copied().cloned().unwrap_or_default();
            if seen.stored != 1 {
                faults.push(format!("{id}: image {media_id} was stored {} times", seen.stored));
            }
            if expects_inference && seen.inferred != 1 {
                faults.push(format!("{id}: image {media_id} was read {} times", seen.inferred));
            }
        }
    }
    faults
}

/// What the cloud's own judge says.
async fn verdict(cloud: &str) -> Result<Verdict> {
    let mut text = String::new();
    http::get_lines(cloud, "/judge", |line| text.push_str(line)).await?;
    match serde_json::from_str(&text) {
        Ok(verdict) => Ok(verdict),
        Err(error) => bail!("{cloud}/judge did not answer with a verdict: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_of_an_account_is_found() {
        let account = serde_json::json!({"tenants": [{"difference": 0}, {"received": {"difference_in": 2}}], "difference": "?"});
        let found = differences(&account, String::new());
        let expected = [("/tenants/0/difference", 0.0), ("/tenants/1/received/difference_in", 2.0)];
        assert_eq!(found, expected.map(|(path, difference)| (path.to_owned(), difference)));
    }

    #[test]
    fn a_weighing_needs_one_start_one_end_and_every_image() {
        let weighed = Weighed {
            session_id: "s-1".into(),
            true_kg: 2.0,
            weights: 1,
            media_ids: vec!["m-1".into()],
            event_ids: Vec::new(),
        };
        let whole =
            SeenSession { session_id: "s-1".into(), created: 1, finalized: 1, weights: 1, image_count: 1 };
        let image = SeenImage { media_id: "m-1".into(), stored: 1, inferred: 1, predicted_kg: Some(2.1) };
        let check = |session: &SeenSession, image: &SeenImage, expected: usize| {
            let found = faults(
                std::slice::from_ref(&weighed),
                std::slice::from_ref(session),
                std::slice::from_ref(image),
                true,
            );
            assert_eq!(found.len(), expected, "{found:?}");
        };
        check(&whole, &image, 0);
        check(&SeenSession::default(), &image, 1);
        check(&SeenSession { created: 2, ..whole.clone() }, &image, 1);
        check(&SeenSession { finalized: 0, ..whole.clone() }, &image, 1);
        check(&SeenSession { image_count: 0, ..whole.clone() }, &image, 1);
        check(&whole, &SeenImage { inferred: 0, ..image.clone() }, 1);
        check(&whole, &SeenImage::default(), 2);
    }
}
