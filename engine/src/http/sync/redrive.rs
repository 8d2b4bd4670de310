//! What was given up, taken up again: by its ids, all of it, or what a filter names.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use schema::clock::Timestamp;
use schema::id::Uuid;
use schema::store::audit::Action;
use schema::store::outbox::queries::{self, Dead, DeadFilter};
use schema::wire;
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::{SOURCES, ids};
use crate::http::AppState;
use crate::http::audit;
use crate::http::auth::{Call, Tenants};
use crate::http::body::JsonBody;
use crate::http::error::Error;
use crate::http::query::Problems;

/// Rows of a filter that are taken up at a time.
const CHUNK_ROWS: i64 = 1000;
/// Rows of a filter that one call takes up at most, in chunks.
const CHUNKS_MAX: usize = 10;
/// Bytes of a filter's text.
const TEXT_BYTES_MAX: usize = 200;
/// The keys of a filter.
const FILTER_KEYS: [&str; 6] = ["source", "event_type", "reason", "device_id", "from", "to"];

/// What to redrive: some rows by id, all that were given up, or those that a filter names.
#[derive(Debug, Default, ToSchema)]
#[schema(example = json!({"ids": ["be6ead4e-49b4-4366-a96b-edf9725f68bf"]}))]
pub(in crate::http) struct Redrive {
    /// These rows; at most 1000.
    #[schema(max_items = 1000)]
    ids: Option<Vec<Uuid>>,
    /// All rows that were given up.
    #[schema(rename = "allDlq")]
    all_dlq: Option<bool>,
    /// Those that it names, at most 10,000 in one call.
    filter: Option<Filter>,
    /// `true`, with a filter or `allDlq`: only says how many there are.
    dry_run: Option<bool>,
}

/// Which rows are meant, by at least one of these.
#[derive(Debug, Default, ToSchema)]
pub(in crate::http) struct Filter {
    /// `outbox`, `session`, `media` or `inference`.
    source: Option<String>,
    /// Of this type of event.
    #[schema(example = "telemetry.ingested")]
    event_type: Option<String>,
    /// Given up for this reason, or because of this error.
    #[schema(example = "max_rejections")]
    reason: Option<String>,
    /// Of this device.
    #[schema(example = "d-001")]
    device_id: Option<String>,
    /// Given up then or later.
    #[schema(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// Given up before.
    #[schema(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
}

impl Redrive {
    fn of(body: &Value) -> Result<Self, Error> {
        let mut problems = Problems::default();
        let redrive = Self {
            ids: ids(body, &mut problems),
            all_dlq: flag(body, "allDlq", &mut problems),
            filter: Filter::of(body, &mut problems),
            dry_run: flag(body, "dry_run", &mut problems),
        };
        let is_all = redrive.all_dlq == Some(true);
        if redrive.ids.is_none() && redrive.filter.is_none() && !is_all {
            problems.push("ids", "name rows by ids, by filter, or all by allDlq");
        }
        if redrive.filter.is_some() && (redrive.ids.is_some() || is_all) {
            problems.push("filter", "stands alone: neither ids nor allDlq beside it");
        }
        if redrive.is_dry_run() && redrive.ids.is_some() && !is_all {
            problems.push("dry_run", "counts what a filter or allDlq names; ids are counted already");
        }
        problems.finish()?;
        Ok(redrive)
    }

    fn is_dry_run(&self) -> bool {
        self.dry_run == Some(true)
    }

    /// The rows that are meant by their ids; `None` means all.
    fn rows(&self) -> Option<&[Uuid]> {
        if self.all_dlq == Some(true) { None } else { self.ids.as_deref() }
    }

    fn detail(&self, body: &Value) -> Value {
        match (&self.filter, self.rows()) {
            (Some(_), _) => json!({"filter": body["filter"]}),
            (None, Some(ids)) => json!({"ids": ids}),
            (None, None) => json!({"all": true}),
        }
    }
}

impl Filter {
    /// A key that is not known is a mistake: without it more would be taken up than was meant.
    fn of(body: &Value, problems: &mut Problems) -> Option<Self> {
        let value = body.get("filter").filter(|filter| !filter.is_null())?;
        let Some(map) = value.as_object() else {
            problems.push("filter", "must be an object");
            return None;
        };
        if let Some(name) = map.keys().find(|name| !FILTER_KEYS.contains(&name.as_str())) {
            problems.push("filter", &format!("{name:?} is none of {}", FILTER_KEYS.join(", ")));
        }
        if !FILTER_KEYS.iter().any(|name| map.get(*name).is_some_and(|value| !value.is_null())) {
            problems.push("filter", &format!("name at least one of {}", FILTER_KEYS.join(", ")));
        }
        let source = text(map, "source", problems);
        if source.as_deref().is_some_and(|source| SOURCES.iter().all(|(name, _)| *name != source)) {
            problems.push("filter.source", "must be one of outbox, session, media, inference");
        }
        Some(Self {
            source,
            event_type: text(map, "event_type", problems),
            reason: text(map, "reason", problems),
            device_id: text(map, "device_id", problems),
            from: time(map, "from", problems),
            to: time(map, "to", problems),
        })
    }

    fn within<'a>(&'a self, tenants: &'a Tenants) -> DeadFilter<'a> {
        DeadFilter {
            tenants: tenants.as_slice(),
            source: self.source.as_deref(),
            event_type: self.event_type.as_deref(),
            reason: self.reason.as_deref(),
            device_id: self.device_id.as_deref(),
            from: self.from,
            to: self.to,
        }
    }
}

fn text(map: &Map<String, Value>, name: &str, problems: &mut Problems) -> Option<String> {
    let value = map.get(name).filter(|value| !value.is_null())?;
    let is_good = |text: &&str| (1..=TEXT_BYTES_MAX).contains(&text.len()) && !text.contains('\0');
    let text = value.as_str().filter(is_good).map(str::to_owned);
    if text.is_none() {
        problems.push(&format!("filter.{name}"), "must be a text of 1 to 200 bytes");
    }
    text
}

fn time(map: &Map<String, Value>, name: &str, problems: &mut Problems) -> Option<Timestamp> {
    let value = map.get(name).filter(|value| !value.is_null())?;
    let time = value.as_str().and_then(wire::time::parse);
    if time.is_none() {
        problems.push(&format!("filter.{name}"), "is not a time");
    }
    time
}

fn flag(body: &Value, name: &str, problems: &mut Problems) -> Option<bool> {
    let value = body.get(name).filter(|value| !value.is_null())?;
    if !value.is_boolean() {
        problems.push(name, "must be true or false");
    }
    value.as_bool()
}

/// What was redriven.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Redriven {
    /// How many rows.
    redriven_count: u64,
    /// The same in words.
    #[schema(example = "Redriven 3 entries back to pending")]
    message: String,
    /// Of a dry run: how many there are, by source.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    matching: Option<Map<String, Value>>,
    /// Of a filter that names more than one call takes up: call again.
    #[serde(skip_serializing_if = "Option::is_none")]
    has_more: Option<bool>,
}

impl Redriven {
    fn of(redriven_count: u64) -> Self {
        let message = format!("Redriven {redriven_count} entries back to pending");
        Self { redriven_count, message, matching: None, has_more: None }
    }
}

/// Gives what was given up another chance: outbox rows go back to pending, dead letters of sessions are applied again,
/// those of inference have their images looked at again.
#[utoipa::path(post, path = "/api/v1/sync/redrive", tag = "sync", request_body = Redrive,
    responses((status = 200, description = "What was redriven", body = Redriven)))]
pub(in crate::http) async fn redrive(
    State(state): State<Arc<AppState>>,
    call: Call,
    body: JsonBody,
) -> Result<Json<Redriven>, Error> {
    let body = body.object()?;
    let redrive = Redrive::of(&body)?;
    let tenants = call.tenants(None)?;
    if redrive.is_dry_run() {
        return Ok(Json(count(&state, &redrive, &tenants).await?));
    }
    let detail = redrive.detail(&body);
    audit::note(&state, &call, Action::Redrive, tenants.as_slice(), detail).await?;
    let redriven = match &redrive.filter {
        None => Redriven::of(take_up(&state, redrive.rows(), &tenants).await?),
        Some(filter) => take_up_matching(&state, filter, &tenants).await?,
    };
    state.sync.wake();
    Ok(Json(redriven))
}

/// Gives rows that were given up another chance, under its other name.
#[utoipa::path(post, path = "/api/v1/sync/dlq/redrive", tag = "sync", request_body = Redrive,
    responses((status = 200, description = "What was redriven", body = Redriven)))]
pub(in crate::http) async fn redrive_dead(
    state: State<Arc<AppState>>,
    call: Call,
    body: JsonBody,
) -> Result<Json<Redriven>, Error> {
    redrive(state, call, body).await
}

async fn count(state: &AppState, redrive: &Redrive, tenants: &Tenants) -> Result<Redriven, Error> {
    let everything = Filter::default();
    let filter = redrive.filter.as_ref().unwrap_or(&everything).within(tenants);
    let read = async |conn: &mut _| queries::count_dead(conn, &filter).await;
    let counts = state.reads.run("dlq_count", read).await?;
    let sum: i64 = counts.iter().map(|(_, count)| count).sum();
    let matching = counts.into_iter().map(|(source, count)| (source, Value::from(count))).collect();
    let message = format!("{sum} entries would be redriven");
    Ok(Redriven { redriven_count: 0, message, matching: Some(matching), has_more: None })
}

/// Takes up these rows, or all.
async fn take_up(state: &AppState, rows: Option<&[Uuid]>, tenants: &Tenants) -> Result<u64, Error> {
    let (now, tenants) = (state.clock.now(), tenants.as_slice());
    let write = async |conn: &mut _| queries::redrive(conn, rows, tenants, now).await;
    let events = state.store.run("redrive", write).await?;
    let orders = state.sessions.redrive(&state.store, rows, tenants).await?;
    let jobs = state.inference.redrive(&state.store, &state.clock, rows, tenants).await?;
    Ok(events + orders + jobs)
}

/// Takes up what a filter names, chunk by chunk from the newest failure on. What fails again stays where it was, and the
/// next chunk goes on behind it.
async fn take_up_matching(state: &AppState, filter: &Filter, tenants: &Tenants) -> Result<Redriven, Error> {
    let wanted = filter.within(tenants);
    let (mut redriven, mut after) = (0, None);
    for _ in 0..CHUNKS_MAX {
        let read = async |conn: &mut _| queries::dead(conn, &wanted, after, CHUNK_ROWS).await;
        let chunk = state.store.run("dlq_list", read).await?;
        let ids: Vec<Uuid> = chunk.iter().map(|dead| dead.id).collect();
        if !ids.is_empty() {
            redriven += take_up(state, Some(&ids), tenants).await?;
        }
        let is_full = i64::try_from(chunk.len()) == Ok(CHUNK_ROWS);
        after = chunk.last().filter(|_| is_full).map(Dead::place);
        if after.is_none() {
            return Ok(Redriven::of(redriven));
        }
    }
    Ok(Redriven { has_more: Some(true), ..Redriven::of(redriven) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redrive_names_its_rows_or_all() {
        let id = "be6ead4e-49b4-4366-a96b-edf9725f68bf";
        let rows = |body: Value| Redrive::of(&body).map(|redrive| redrive.rows().map(<[Uuid]>::len));
        let check = |body: Value, expected: Result<Option<usize>, &str>| {
            let outcome = rows(body.clone()).map_err(|error| error.message.into_owned());
            assert_eq!(outcome, expected.map_err(str::to_owned), "{body}");
        };
        check(json!({"ids": [id]}), Ok(Some(1)));
        check(json!({"allDlq": true}), Ok(None));
        check(json!({"ids": [id], "allDlq": false}), Ok(Some(1)));
        check(json!({}), Err("ids: name rows by ids, by filter, or all by allDlq"));
        check(json!({"allDlq": false}), Err("ids: name rows by ids, by filter, or all by allDlq"));
        check(
            json!({"ids": ["x"], "allDlq": 1}),
            Err("ids: must be a list of UUIDs; allDlq: must be true or false"),
        );
    }
}
