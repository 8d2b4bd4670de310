//! Weighing sessions over HTTP: the same orders as over MQTT, and the same session actor behind them.

use std::sync::Arc;
use std::time::Duration;

use actors::session::Reply;
use actors::session::order::{Command, Mark, Order};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schema::id;
use schema::store::session::{self as rows, Session};
use schema::wire::reject::{Reason, Reject};
use sha2::{Digest, Sha256};

use super::AppState;
use super::auth::Call;
use super::body::JsonBody;
use super::error::{Code, Error, ErrorBody};
use super::query::Params;

mod answer;
mod list;
mod mark;
mod request;
pub(super) mod scope;

pub(super) use list::{__path_list_sessions, list_sessions};
pub(super) use mark::{
    __path_exclude, __path_include, __path_list_marks, __path_review, exclude, include, list_marks, review,
};

use answer::{Attachment, ImageRow, ParkedFinalize, SessionRow, SessionView, WeightRow};
use request::{AttachBody, BindMediaBody, BindWeightBody, CreateBody, FinalizeBody, Report};

/// Seconds to wait for the commit; the session goes on trying, and a call that is repeated is a duplicate then.
const COMMIT_SECONDS_MAX: u64 = 30;
/// Bytes of an order in memory; its texts are ids.
const ORDER_BYTES: usize = 4096;
/// Asked again this often when the session's actor fails meanwhile.
const ASK_ATTEMPTS_MAX: u32 = 3;

/// Begins a session. One that is there already is shown as it is.
#[utoipa::path(post, path = "/api/v1/weighvision/sessions", tag = "weighvision", request_body = CreateBody,
    responses((status = 201, description = "The session, new or not", body = SessionRow),
        (status = 400, description = "VALIDATION_ERROR, BODY_NOT_JSON, UNSUPPORTED_CONTENT_TYPE", body = ErrorBody),
        (status = 403, description = "TENANT_MISMATCH, SCOPE_MISMATCH, STATION_NOT_ALLOWED, DEVICE_NOT_ALLOWED", body = ErrorBody),
        (status = 409, description = "SESSION_CONFLICT: the session id is in use by another station; SESSION_CLOSED: the session is cancelled", body = ErrorBody)))]
pub(super) async fn create(
    State(state): State<Arc<AppState>>,
    call: Call,
    body: JsonBody,
) -> Result<(StatusCode, Json<SessionRow>), Error> {
    let create = CreateBody::of(&body)?;
    scope::check_create(&state, &call, &create).await?;
    let command = Command::Create {
        farm_id: create.farm_id,
        barn_id: create.barn_id,
        device_id: create.device_id.clone(),
        station_id: create.station_id.clone(),
        batch_id: create.batch_id,
    };
    let order = Order {
        station_id: Some(create.station_id),
        device_id: Some(create.device_id),
        occurred_at: create.start_at,
        ..order(&state, &call, [&create.tenant_id, &create.session_id], &create.event_id, command)
    };
    let Reply::Session(session) = ask(&state, marked(order, "/api/v1/weighvision/sessions", &body)).await?
    else {
        return Err(event_id_taken());
    };
    Ok((StatusCode::CREATED, Json(SessionRow::from(*session))))
}

/// Binds a weight to a session, which need not be there yet.
#[utoipa::path(post, path = "/api/v1/weighvision/sessions/{id}/bind-weight", tag = "weighvision",
    params(("id" = String, Path, description = "Session", example = "20260212_093215")), request_body = BindWeightBody,
    responses((status = 200, description = "The weight", body = WeightRow),
        (status = 400, description = "VALIDATION_ERROR, BODY_NOT_JSON, UNSUPPORTED_CONTENT_TYPE", body = ErrorBody),
        (status = 403, description = "TENANT_MISMATCH, SCOPE_MISMATCH, DEVICE_NOT_ALLOWED, STATION_NOT_ALLOWED", body = ErrorBody),
        (status = 409, description = "SESSION_CLOSED: the session is cancelled", body = ErrorBody)))]
pub(super) async fn bind_weight(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(session_id): Path<String>,
    body: JsonBody,
) -> Result<Json<WeightRow>, Error> {
    let weight = Report::of_weight(&session_id, &body)?;
    let Reply::Weight(weight) = tell(&state, &call, &session_id, weight, "bind-weight", &body).await? else {
        return Err(event_id_taken());
    };
    Ok(Json(weight.into()))
}

/// Binds an image to a session, which need not be there yet.
#[utoipa::path(post, path = "/api/v1/weighvision/sessions/{id}/bind-media", tag = "weighvision",
    params(("id" = String, Path, description = "Session", example = "20260212_093215")), request_body = BindMediaBody,
    responses((status = 200, description = "The binding", body = ImageRow),
        (status = 400, description = "VALIDATION_ERROR, BODY_NOT_JSON, UNSUPPORTED_CONTENT_TYPE", body = ErrorBody),
        (status = 403, description = "TENANT_MISMATCH, SCOPE_MISMATCH, DEVICE_NOT_ALLOWED, STATION_NOT_ALLOWED", body = ErrorBody),
        (status = 409, description = "SESSION_CLOSED: the session is cancelled", body = ErrorBody)))]
pub(super) async fn bind_media(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(session_id): Path<String>,
    body: JsonBody,
) -> Result<Json<ImageRow>, Error> {
    let image = Report::of_image(&session_id, &body)?;
    let Reply::Image(image) = tell(&state, &call, &session_id, image, "bind-media", &body).await? else {
        return Err(event_id_taken());
    };
    Ok(Json(image.into()))
}

/// Attaches an image, an inference result, or both to a session that is there.
#[utoipa::path(post, path = "/api/v1/weighvision/sessions/{id}/attach", tag = "weighvision",
    params(("id" = String, Path, description = "Session", example = "20260212_093215")), request_body = AttachBody,
    responses((status = 200, description = "The session and the binding", body = Attachment),
        (status = 400, description = "VALIDATION_ERROR, BODY_NOT_JSON, MISSING_TENANT, UNSUPPORTED_CONTENT_TYPE", body = ErrorBody),
        (status = 403, description = "TENANT_MISMATCH, SCOPE_MISMATCH, DEVICE_NOT_ALLOWED, STATION_NOT_ALLOWED", body = ErrorBody),
        (status = 404, description = "NOT_FOUND", body = ErrorBody),
        (status = 409, description = "SESSION_CLOSED: the session is cancelled", body = ErrorBody)))]
pub(super) async fn attach(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(session_id): Path<String>,
    body: JsonBody,
) -> Result<Json<Attachment>, Error> {
    let attach = AttachBody::of(&session_id, &body)?;
    let tenant_id = call.tenant(None)?;
    let sender = scope::check_session(&state, &call, &tenant_id, &session_id).await?;
    let (media_id, result_id) = (attach.media_id.as_deref(), attach.inference_result_id.as_deref());
    scope::check_parts(&state, (&tenant_id, &session_id), &sender, media_id, result_id).await?;
    let event_id = match &attach.media_id {
        Some(media_id) => format!("attach:{session_id}:{media_id}"),
        None => format!("attach:{session_id}"),
    };
    let command = Command::Attach { media_object_id: attach.media_id, result_id: attach.inference_result_id };
    let order = order(&state, &call, [&tenant_id, &session_id], &event_id, command).sent_by(sender);
    let order = Order { occurred_at: attach.captured_at.unwrap_or(order.received_at), ..order };
    let Reply::Attached(session, image) = ask(&state, order).await? else { return Err(not_found()) };
    Ok(Json(Attachment { session: (*session).into(), media_binding: image.map(ImageRow::from) }))
}

/// Ends a session. One that is not there yet is ended as soon as it comes.
#[utoipa::path(post, path = "/api/v1/weighvision/sessions/{id}/finalize", tag = "weighvision",
    params(("id" = String, Path, description = "Session", example = "20260212_093215")), request_body = FinalizeBody,
    responses((status = 200, description = "The session", body = SessionRow),
        (status = 202, description = "The finalize waits for its session", body = ParkedFinalize),
        (status = 400, description = "VALIDATION_ERROR, BODY_NOT_JSON, UNSUPPORTED_CONTENT_TYPE", body = ErrorBody),
        (status = 403, description = "TENANT_MISMATCH, SCOPE_MISMATCH, DEVICE_NOT_ALLOWED, STATION_NOT_ALLOWED", body = ErrorBody),
        (status = 409, description = "SESSION_CLOSED: the session is cancelled", body = ErrorBody)))]
pub(super) async fn finalize(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(session_id): Path<String>,
    body: JsonBody,
) -> Result<Response, Error> {
    let end = Report::of_end(&session_id, &body)?;
    let event_id = end.event_id.clone();
    match tell(&state, &call, &session_id, end, "finalize", &body).await? {
        Reply::Session(session) => Ok(Json(SessionRow::from(*session)).into_response()),
        Reply::Parked => {
            let parked = ParkedFinalize { status: "parked", session_id, event_id };
            Ok((StatusCode::ACCEPTED, Json(parked)).into_response())
        }
        Reply::Weight(_) | Reply::Image(_) | Reply::Attached(..) | Reply::Redriven | Reply::Nothing => {
            Err(event_id_taken())
        }
    }
}

/// Shows a session and its weights, the earliest first.
#[utoipa::path(get, path = "/api/v1/weighvision/sessions/{id}", tag = "weighvision",
    params(("id" = String, Path, description = "Session", example = "20260212_093215"),
        ("tenant_id" = Option<String>, Query, description = "Tenant; may be named by `x-tenant-id` or the credential instead", example = "t-001")),
    responses((status = 200, description = "The session", body = SessionView),
        (status = 404, description = "NOT_FOUND", body = ErrorBody)))]
pub(super) async fn show(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(session_id): Path<String>,
    mut params: Params,
) -> Result<Json<SessionView>, Error> {
    let named = params.id("tenant_id");
    params.finish()?;
    let tenant_id = call.tenant(named.as_deref())?;
    if !id::is_id(&session_id) {
        return Err(not_found());
    }
    let read = async |conn: &mut _| {
        let Some(session) = rows::find(conn, &tenant_id, &session_id).await? else { return Ok(None) };
        Ok(Some((session, rows::weights(conn, &tenant_id, &session_id).await?)))
    };
    let (session, weights) = state.reads.run("session_show", read).await?.ok_or_else(not_found)?;
    Ok(Json(SessionView {
        session: session.into(),
        weights: weights.into_iter().map(WeightRow::from).collect(),
    }))
}

/// Has what a device reports of its session applied, and waits for the commit.
async fn tell(
    state: &AppState,
    call: &Call,
    session_id: &str,
    report: Report,
    step: &str,
    body: &JsonBody,
) -> Result<Reply, Error> {
    let Report { tenant_id, event_id, occurred_at, command } = report;
    let sender = scope::check_session(state, call, &tenant_id, session_id).await?;
    let media_id = command.media_object_id();
    scope::check_parts(state, (&tenant_id, session_id), &sender, media_id, None).await?;
    let order = order(state, call, [&tenant_id, session_id], &event_id, command).sent_by(sender);
    let order = Order { occurred_at, ..order };
    ask(state, marked(order, &format!("/api/v1/weighvision/sessions/{{id}}/{step}"), body)).await
}

fn order(
    state: &AppState,
    call: &Call,
    [tenant_id, session_id]: [&str; 2],
    event_id: &str,
    command: Command,
) -> Order {
    Order {
        event_id: id::normal_form(event_id),
        trace_id: call.ids.trace_id.to_string(),
        ..Order::own(tenant_id, session_id, command, state.clock.now())
    }
}

/// With what makes a repetition known.
fn marked(order: Order, route: &str, body: &JsonBody) -> Order {
    let mark = Mark { topic: format!("http:{route}"), hash: hex::encode(Sha256::digest(&body.0)) };
    Order { mark: Some(mark), ..order }
}

/// Has an order applied and waits for the commit.
async fn ask(state: &AppState, order: Order) -> Result<Reply, Error> {
    if !state.database.is_up() {
        return Err(Error::database_unavailable());
    }
    let asking = async {
        for _ in 0..ASK_ATTEMPTS_MAX {
            let share = state.calls.take(1, ORDER_BYTES)?;
            match state.sessions.call(order.clone(), share).await {
                Some(answer) => return answer.map_err(refused),
                None => tracing::warn!("session actor ended while a request waited for it"),
            }
        }
        Err(Error::database_unavailable())
    };
    let answered = tokio::time::timeout(Duration::from_secs(COMMIT_SECONDS_MAX), asking).await;
    answered.map_err(|_| Error::database_unavailable())?
}

fn refused(reject: Reject) -> Error {
    if reject.reason == Reason::SessionConflict {
        Error::new(Code::SessionConflict, reject.reason.text())
    } else if reject.reason == Reason::SessionClosed {
        Error::new(Code::SessionClosed, reject.reason.text())
    } else {
        Error::new(Code::InternalError, "the order could not be stored")
    }
}

fn event_id_taken() -> Error {
    Error::validation("eventId: was used by another event")
}

fn not_found() -> Error {
    Error::new(Code::NotFound, "there is no such session")
}

impl From<Session> for SessionRow {
    fn from(row: Session) -> Self {
        Self {
            id: row.id,
            session_id: row.session_id,
            tenant_id: row.tenant_id,
            farm_id: row.farm_id,
            barn_id: row.barn_id,
            device_id: row.device_id,
            station_id: row.station_id,
            batch_id: row.batch_id,
            status: row.status.as_str(),
            start_at: row.start_at.into(),
            end_at: row.end_at.map(Into::into),
            initial_weight_kg: row.initial_weight_kg,
            final_weight_kg: row.final_weight_kg,
            image_count: row.image_count,
            inference_result_id: row.inference_result_id,
            created_at: row.created_at.into(),
            updated_at: row.updated_at.into(),
        }
    }
}
