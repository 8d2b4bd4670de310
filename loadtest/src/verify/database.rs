//! What the database has, read in one transaction with statements of the judge's own.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result};
use tokio_postgres::{Client, NoTls, Row};

use schema::id::Uuid;

use super::message::Key;

/// A stored reading.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Its device.
    pub device: String,
    /// Its metric.
    pub metric: String,
    /// Its value.
    pub value: f64,
    /// Its unit.
    pub unit: Option<String>,
    /// When it happened, microseconds.
    pub at_micros: i64,
    /// Rows of it: one, or something is wrong.
    pub copies: usize,
}

/// What the engine remembers of a message's first arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Where it was published.
    pub topic: String,
    /// Hash of its body.
    pub hash: Option<String>,
}

/// A refusal on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: String,
    /// Hash of the body.
    pub sha256: String,
}

/// An event for the cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its type.
    pub event_type: String,
    /// `pending`, `acked`, `failed`, ...
    pub status: String,
    /// Order of insertion.
    pub seq: i64,
    /// Order of sending inside the lane, microseconds.
    pub order_micros: i64,
    /// What the cloud said last.
    pub error: Option<String>,
    /// Rows of it, of all states.
    pub copies: usize,
}

/// A session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// `created`, `finalized` or `cancelled`.
    pub status: String,
    /// The event that began it.
    pub created_event_id: String,
    /// The event that ended it.
    pub finalized_event_id: Option<String>,
}

/// A weight.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weight {
    /// Its session.
    pub session_id: String,
    /// Kilograms.
    pub weight_kg: f64,
    /// Whether the session is there.
    pub is_bound: bool,
}

/// Everything, by tenant and id.
#[derive(Debug, Default)]
pub struct Rows {
    /// Readings by event id.
    pub readings: HashMap<Key, Reading>,
    /// Generic events by event id.
    pub events: HashSet<Key>,
    /// Weights by event id.
    pub weights: HashMap<Key, Weight>,
    /// Bindings of images by event id.
    pub bindings: HashSet<Key>,
    /// Sessions by session id.
    pub sessions: HashMap<Key, Session>,
    /// Ends that wait for their session, and what could not be applied, by event id.
    pub set_aside: HashSet<Key>,
    /// Marks of the dedupe by event id.
    pub marks: HashMap<Key, Mark>,
    /// Refusals by event id.
    pub refusals: HashMap<Key, Refusal>,
    /// Events for the cloud.
    pub outbox: HashMap<(String, u128), Outgoing>,
    /// Events that a person has discarded.
    pub discarded: HashSet<(String, u128)>,
}

const READINGS: &str =
    "SELECT tenant_id, event_id, min(device_id), min(metric_type), min(metric_value), min(unit),
    (extract(epoch FROM min(occurred_at)) * 1000000)::bigint, count(*)
FROM telemetry_raw WHERE tenant_id = ANY ($1) GROUP BY tenant_id, event_id";

const EVENTS: &str = "SELECT tenant_id, event_id FROM device_events WHERE tenant_id = ANY ($1)";

const WEIGHTS: &str = "SELECT tenant_id, event_id, session_id, weight_kg, is_bound FROM session_weights
WHERE tenant_id = ANY ($1)";

const BINDINGS: &str = "SELECT tenant_id, event_id FROM session_media_bindings WHERE tenant_id = ANY ($1)";

const SESSIONS: &str = "SELECT tenant_id, session_id, status, created_event_id, finalized_event_id
FROM weight_sessions WHERE tenant_id = ANY ($1)";

const SET_ASIDE: &str = "SELECT tenant_id, event_id FROM session_parked WHERE tenant_id = ANY ($1)
UNION SELECT tenant_id, event_id FROM dead_letters WHERE tenant_id = ANY ($1) AND event_id IS NOT NULL";

const MARKS: &str = "SELECT tenant_id, event_id, topic, hash FROM ingress_dedupe WHERE tenant_id = ANY ($1)";

const REFUSALS: &str = "SELECT tenant_id, event_id, reason, sha256 FROM ingress_rejects
WHERE tenant_id = ANY ($1) AND event_id IS NOT NULL";

// Acknowledged rows lie in tables that inherit from this one.
const OUTBOX: &str = "SELECT tenant_id, id, min(event_type), min(status), min(seq),
    (extract(epoch FROM min(coalesce(order_at, occurred_at, created_at))) * 1000000)::bigint,
    min(concat_ws(' ', last_error_code, last_error_message)), count(*)
FROM sync_outbox WHERE tenant_id = ANY ($1) GROUP BY tenant_id, id";

const DISCARDED: &str = "SELECT tenant_id, id FROM discarded_events WHERE tenant_id = ANY ($1)";

const WAITING: &str = "SELECT (SELECT count(*) FROM ONLY sync_outbox WHERE status <> 'failed')
    + (SELECT count(*) FROM inference_jobs WHERE status IN ('pending', 'processing'))
    + (SELECT count(*) FROM media_uploads WHERE status = 'uploaded')";

const IMAGE: &str = "SELECT size_bytes, sha256 FROM media_objects WHERE tenant_id = $1 AND id = $2";

// Buckets into which something came after the last pass are left to the next one.
const AGGREGATES: &str = r#"WITH progress AS (
    SELECT closed_until, ingested_until FROM telemetry_agg_progress
), windows (name, unit) AS (
    VALUES ('1m', 'minute'), ('1h', 'hour'), ('1d', 'day')
), expected AS (
    SELECT r.tenant_id, r.device_id, w.name, date_trunc(w.unit, r.occurred_at, 'UTC') AS start, r.metric_type,
        count(*) AS count, min(metric_value) AS low, max(metric_value) AS high, sum(metric_value) AS total,
        max(r.ingested_at) AS came_in, w.unit
    FROM telemetry_raw AS r CROSS JOIN windows AS w WHERE r.tenant_id = ANY ($1) GROUP BY 1, 2, 3, 4, 5, w.unit
)
SELECT concat_ws(' ', e.tenant_id, e.device_id, e.name, e.start, e.metric_type), e.count, a.count::bigint,
    e.low, a.min_value, e.high, a.max_value, e.total, a.avg_value * a.count
FROM expected AS e CROSS JOIN progress AS p LEFT JOIN telemetry_agg AS a
    ON (a.tenant_id, a.device_id, a."window", a.bucket_start_at, a.metric_type)
        = (e.tenant_id, e.device_id, e.name, e.start, e.metric_type)
WHERE e.came_in < p.ingested_until AND e.start + ('1 ' || e.unit)::interval <= p.closed_until"#;

/// A bucket beside its readings: count, least, greatest, sum.
#[derive(Clone, Debug, PartialEq)]
pub struct Bucket {
    /// Where it is.
    pub name: String,
    /// What the readings say.
    pub expected: (i64, f64, f64, f64),
    /// What the aggregate says; `None` when there is none.
    pub found: Option<(i64, f64, f64, f64)>,
}

/// A connection of the judge.
pub struct Database {
    client: Client,
    tasks: tokio::task::JoinSet<()>,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Database").field("tasks", &self.tasks).finish_non_exhaustive()
    }
}

impl Database {
    /// Connects, without encryption.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn open(url: &str) -> Result<Self> {
        let (client, connection) =
            tokio_postgres::connect(url, NoTls).await.context("connect to the database")?;
        let mut tasks = tokio::task::JoinSet::new();
        // Its end shows in the next question.
        tasks.spawn(async move { drop(connection.await) });
        Ok(Self { client, tasks })
    }

    /// Rows under way: events for the cloud, pictures for the models, uploads to be completed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn waiting(&self) -> Result<u64> {
        let row = self.client.query_one(WAITING, &[]).await.context("count what waits")?;
        Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or(0))
    }

    /// Everything of these tenants, as it stands at one moment.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn rows(&self, tenants: &[String]) -> Result<Rows> {
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        self.client.batch_execute(begin).await.context("begin to read")?;
        let rows = self.read(tenants).await;
        self.client.batch_execute("ROLLBACK").await.context("end reading")?;
        rows
    }

    async fn read(&self, tenants: &[String]) -> Result<Rows> {
        let mut rows = Rows::default();
        for row in self.query(READINGS, tenants).await? {
            let reading = Reading {
                device: row.get(2),
                metric: row.get(3),
                value: row.get(4),
                unit: row.get(5),
                at_micros: row.get(6),
                copies: copies(&row, 7),
            };
            rows.readings.insert(key(&row), reading);
        }
        rows.events = self.query(EVENTS, tenants).await?.iter().map(key).collect();
        for row in self.query(WEIGHTS, tenants).await? {
            let weight = Weight { session_id: row.get(2), weight_kg: row.get(3), is_bound: row.get(4) };
            rows.weights.insert(key(&row), weight);
        }
        rows.bindings = self.query(BINDINGS, tenants).await?.iter().map(key).collect();
        for row in self.query(SESSIONS, tenants).await? {
            let session =
                Session { status: row.get(2), created_event_id: row.get(3), finalized_event_id: row.get(4) };
            rows.sessions.insert(key(&row), session);
        }
        rows.set_aside = self.query(SET_ASIDE, tenants).await?.iter().map(key).collect();
        for row in self.query(MARKS, tenants).await? {
            rows.marks.insert(key(&row), Mark { topic: row.get(2), hash: row.get(3) });
        }
        for row in self.query(REFUSALS, tenants).await? {
            rows.refusals.insert(key(&row), Refusal { reason: row.get(2), sha256: row.get(3) });
        }
        for row in self.query(OUTBOX, tenants).await? {
            let outgoing = Outgoing {
                event_type: row.get(2),
                status: row.get(3),
                seq: row.get(4),
                order_micros: row.get(5),
                error: row.get(6),
                copies: copies(&row, 7),
            };
            rows.outbox.insert(uuid_key(&row), outgoing);
        }
        rows.discarded = self.query(DISCARDED, tenants).await?.iter().map(uuid_key).collect();
        Ok(rows)
    }

    /// Size and hash of an image; `None` when it is not there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn image(&self, tenant: &str, media_id: &str) -> Result<Option<(i64, Option<String>)>> {
        let Ok(id) = Uuid::parse_str(media_id) else { return Ok(None) };
        let row = self.client.query_opt(IMAGE, &[&tenant, &id]).await.context("look for an image")?;
        Ok(row.map(|row| (row.get::<_, Option<i64>>(0).unwrap_or(-1), row.get(1))))
    }

    /// Every closed bucket beside its readings.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn buckets(&self, tenants: &[String]) -> Result<Vec<Bucket>> {
        let bucket = |row: Row| Bucket {
            name: row.get(0),
            expected: (row.get(1), row.get(3), row.get(5), row.get(7)),
            found: row
                .get::<_, Option<i64>>(2)
                .map(|count| (count, row.get(4), row.get(6), row.get::<_, f64>(8))),
        };
        Ok(self.query(AGGREGATES, tenants).await?.into_iter().map(bucket).collect())
    }

    async fn query(&self, sql: &str, tenants: &[String]) -> Result<Vec<Row>> {
        let name = sql.split_whitespace().skip_while(|word| *word != "FROM").nth(1).unwrap_or_default();
        self.client.query(sql, &[&tenants]).await.with_context(|| format!("read {name}"))
    }
}

fn key(row: &Row) -> Key {
    (row.get(0), row.get(1))
}

fn uuid_key(row: &Row) -> (String, u128) {
    (row.get(0), row.get::<_, Uuid>(1).as_u128())
}

fn copies(row: &Row, at: usize) -> usize {
    usize::try_from(row.get::<_, i64>(at)).unwrap_or(usize::MAX)
}
