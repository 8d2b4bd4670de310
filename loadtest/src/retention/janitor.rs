//! The janitor of an engine as an operator sees it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use schema::clock::{Clock, Timestamp};

use crate::http;

/// How often the engine is asked how far it has come.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// Rows that the engine does not delete in this time stay.
const WAIT_MAX: Duration = Duration::from_secs(300);
/// The counter of deleted rows, up to its label.
const COUNTER: &str = "retention_deleted_rows{table=\"";

/// Tables that the engine cleans at a rhythm of their own.
pub(super) const CLEANED_APART: [&str; 2] = ["ingress_dedupe", "ingress_rejects"];

/// Rows by table.
pub(super) type Deleted = BTreeMap<String, u64>;

/// The endpoints.
pub(super) struct Janitor {
    base: String,
}

/// What a pass says of itself.
#[derive(Debug, Default)]
pub(super) struct Pass {
    pub(super) rows: u64,
    pub(super) files: u64,
    pub(super) error: Option<String>,
}

#[derive(Deserialize)]
struct Body<T> {
    data: T,
}

#[derive(Deserialize)]
struct Run {
    deleted_rows: Deleted,
    deleted_files: u64,
    error: Option<String>,
}

#[derive(Deserialize)]
struct State {
    last_run_at: Option<Timestamp>,
    last_deleted_files: u64,
    last_error: Option<String>,
}

impl Janitor {
    pub(super) fn at(base: String) -> Self {
        Self { base }
    }

    /// Orders a dry run and waits for its result.
    pub(super) async fn count(&self) -> Result<Pass> {
        let run = self.order(true).await?.context("a dry run takes too long")?;
        Ok(Pass { rows: run.deleted_rows.values().sum(), files: run.deleted_files, error: run.error })
    }

    /// Orders a pass that deletes so many images, which are the last it deletes, and waits for its end.
    pub(super) async fn run(&self, images: u64) -> Result<Pass> {
        let (files, error) = match self.order(false).await? {
            Some(run) => (run.deleted_files, run.error),
            None => {
                let state = self.ended(images).await?;
                (state.last_deleted_files, state.last_error)
            }
        };
        let deleted = self.deleted().await?;
        let by_passes = deleted.iter().filter(|(table, _)| !CLEANED_APART.contains(&table.as_str()));
        Ok(Pass { rows: by_passes.map(|(_, rows)| rows).sum(), files, error })
    }

    /// Orders a pass; nothing when it takes longer than the engine lets a caller wait.
    async fn order(&self, is_dry: bool) -> Result<Option<Run>> {
        let request = Request::post(format!("/api/v1/janitor/run?dry_run={is_dry}&confirm_clock=true"));
        let (status, body) = self.call(request).await.context("order a pass")?;
        match status {
            200 => Ok(Some(data(&body)?)),
            503 => Ok(None),
            _ => bail!("the janitor answers {status}: {}", String::from_utf8_lossy(&body)),
        }
    }

    /// Waits for the end of the pass under way. One that ended before the last image went was another.
    async fn ended(&self, images: u64) -> Result<State> {
        let clock = Clock::system();
        let mut deleting_at = clock.now();
        let started = Instant::now();
        loop {
            let now = clock.now();
            if self.deleted().await?.get("media_objects").copied().unwrap_or_default() < images {
                deleting_at = now;
            }
            let (_, body) = self.call(Request::get("/api/v1/janitor/state")).await?;
            let state: State = data(&body)?;
            if state.last_run_at.is_some_and(|at| at > deleting_at) {
                return Ok(state);
            }
            ensure!(started.elapsed() < WAIT_MAX, "the pass does not end");
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    async fn call(&self, request: hyper::http::request::Builder) -> Result<(u16, Bytes)> {
        let authority = http::authority(&self.base)?;
        let request = request.header("host", authority).body(Full::<Bytes>::default())?;
        http::call(&self.base, request).await
    }

    /// Rows that this engine has deleted.
    pub(super) async fn deleted(&self) -> Result<Deleted> {
        let mut deleted = Deleted::new();
        let take = |line: &str| {
            let counted = line.strip_prefix(COUNTER).and_then(|rest| rest.split_once("\"} "));
            if let Some((table, rows)) = counted.and_then(|(table, rows)| Some((table, rows.parse().ok()?))) {
                deleted.insert(table.to_owned(), rows);
            }
        };
        http::get_lines(&self.base, "/metrics", take).await?;
        Ok(deleted)
    }

    /// Waits until this engine has deleted so many rows of a table.
    pub(super) async fn until_deleted(&self, table: &str, rows: u64) -> Result<()> {
        let started = Instant::now();
        loop {
            let deleted = self.deleted().await?.get(table).copied().unwrap_or_default();
            if deleted >= rows {
                return Ok(());
            }
            ensure!(started.elapsed() < WAIT_MAX, "only {deleted} of {rows} rows of {table} were deleted");
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
}

fn data<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    let body: Body<T> = serde_json::from_slice(body).context("read the answer of the janitor")?;
    Ok(body.data)
}
