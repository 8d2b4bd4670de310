//! Lists of weighings, with what a person should look at.

use std::sync::Arc;

use actors::session::flag::{self, Flag, flags};
use axum::Json;
use axum::extract::State;
use schema::clock::Timestamp;
use schema::store::page::{self, Place};
use schema::store::session::Status;
use schema::store::session::list::{self as rows, Listed, Wanted};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::answer::SessionRow;
use crate::http::AppState;
use crate::http::auth::Call;
use crate::http::cursor::{self, SessionKey};
use crate::http::error::Error;
use crate::http::query::Params;
use crate::http::telemetry::TenantQuery;
use crate::http::time::Time;

const STATUSES: [(&str, Status); 3] =
    [("created", Status::Created), ("finalized", Status::Finalized), ("cancelled", Status::Cancelled)];

/// Which sessions are listed.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the parameters that are read by hand")]
pub(in crate::http) struct SessionQuery {
    /// Weighed then or later.
    #[param(format = DateTime, example = "2026-02-12T00:00:00Z")]
    from: Option<String>,
    /// Weighed before.
    #[param(format = DateTime, example = "2026-02-13T00:00:00Z")]
    to: Option<String>,
    /// Only those of this barn.
    #[param(example = "b-001")]
    barn_id: Option<String>,
    /// Only those of this batch. Where the flock's book has it: those of its barn and days that name it or no batch.
    #[param(example = "2026-01")]
    batch_id: Option<String>,
    /// `created`, `finalized` or `cancelled`.
    status: Option<String>,
    /// Only those with this flag: `disagree` (scale and image, by more than 15 %), `low_confidence`, `no_weight`,
    /// `no_picture`, `open_long` (more than an hour), `amended`, `clock_ahead`, `demo` or `excluded`.
    flag: Option<String>,
    /// `true`: only those that the caller has reviewed since they last changed; `false`: only the others.
    reviewed: Option<bool>,
    /// Only what stands behind: `next` of the list before.
    after: Option<String>,
    /// Rows at most.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<i64>,
}

/// A session, with what its image says and what a person should look at.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct ListedSession {
    #[serde(flatten)]
    session: SessionRow,
    /// By what the list is ordered: when it was weighed, or when it came in where its device's clock is ahead of that.
    weighed_at: Time,
    /// Its first image.
    media_id: Option<String>,
    /// What a model read from its images last, kg.
    predicted_weight_kg: Option<f64>,
    /// How sure the model is, from 0 to 1.
    confidence: Option<f64>,
    /// The model.
    model_version: Option<String>,
    /// What to look at; see the parameter `flag`.
    #[schema(value_type = Vec<String>)]
    flags: Vec<&'static str>,
    /// Whether the caller has reviewed it since it last changed.
    reviewed: bool,
}

impl ListedSession {
    fn of(listed: Listed, now: Timestamp) -> Self {
        let flags = flags(&listed, now).into_iter().map(Flag::as_str).collect();
        let Listed { session, weighed_at, image_id, reading, is_reviewed, .. } = listed;
        Self {
            session: session.into(),
            weighed_at: weighed_at.into(),
            media_id: image_id,
            predicted_weight_kg: reading.as_ref().and_then(|reading| reading.weight_kg),
            confidence: reading.as_ref().map(|reading| reading.confidence),
            model_version: reading.map(|reading| reading.model_version),
            flags,
            reviewed: is_reviewed,
        }
    }
}

/// Sessions, those weighed last first.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct SessionList {
    sessions: Vec<ListedSession>,
    /// How many there are in this list.
    count: usize,
    /// What to give as `after` for those that follow; null at the end. With `flag` or
    /// `reviewed` a list may have no row and yet go on.
    next: Option<String>,
}

/// Lists weighings, those weighed last first.
#[utoipa::path(get, path = "/api/v1/weighvision/sessions", tag = "weighvision", params(SessionQuery, TenantQuery),
    responses((status = 200, description = "The sessions", body = SessionList)))]
pub(in crate::http) async fn list_sessions(
    State(state): State<Arc<AppState>>,
    call: Call,
    mut params: Params,
) -> Result<Json<SessionList>, Error> {
    let (from, to) = (params.time("from"), params.time("to"));
    let (barn_id, batch_id) = (params.id("barn_id"), params.id("batch_id"));
    let (status, flag) = (params.one_of("status", &STATUSES), params.one_of("flag", Flag::ALL));
    let (after, limit) = (params.after::<SessionKey>().map(Place::from), params.limit());
    let is_reviewed = params.one_of("reviewed", &[("true", true), ("false", false)]);
    let named = params.id("tenant_id");
    params.finish()?;
    let tenant_id = call.tenant(named.as_deref())?;
    let flock = match &batch_id {
        Some(batch_id) => state.book.of_batch(&tenant_id, batch_id, barn_id.as_deref()).await?,
        None => None,
    };
    let author = call.author();
    let mut wanted = Wanted {
        tenant_id: &tenant_id,
        from,
        to,
        barn_id: barn_id.as_deref(),
        batch_id: batch_id.as_deref(),
        status,
        reviewer: &author.actor,
        ..Wanted::default()
    };
    if let Some((flock, placed_at, ended_at)) = &flock {
        wanted.from = from.max(Some(*placed_at));
        wanted.to = [to, *ended_at].into_iter().flatten().min();
        wanted.farm_id = Some(flock.farm_id.as_str());
        wanted.barn_id = Some(flock.barn_id.as_str());
        wanted.is_nameless_taken = true;
    }
    let now = state.clock.now();
    let is_wanted = |listed: &Listed| {
        flag.is_none_or(|flag| flag::has(listed, flag, now))
            && is_reviewed.is_none_or(|is_reviewed| is_reviewed == listed.is_reviewed)
    };
    let is_sifted = flag.is_some() || is_reviewed.is_some();
    let read = async |conn: &mut _| match is_sifted {
        false => Ok(page::whole(rows::list(conn, &wanted, after, limit).await?, limit, Listed::place)),
        true => rows::sifted(conn, &wanted, after, limit, &is_wanted).await,
    };
    let page = state.reads.run("sessions", read).await?;
    let next = cursor::next::<_, SessionKey>(&page);
    let sessions: Vec<_> = page.rows.into_iter().map(|listed| ListedSession::of(listed, now)).collect();
    Ok(Json(SessionList { count: sessions.len(), sessions, next }))
}
