//! What the running engine knows to be wrong with itself, as data: what `farmiq-edge doctor` finds out from outside, as far
//! as it shows from inside. Nothing is tried and nobody is called.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use schema::store::StoreError;
use schema::store::migration::{self, Standing};
use schema::store::outbox::queries::{self, Counts};
use schema::store::partition;
use schema::store::sync_state::{self, Summary};
use serde::Serialize;
use utoipa::ToSchema;

use crate::finding::{Finding, Verdict};
use crate::http::AppState;
use crate::http::auth::{Call, Tenants};
use crate::http::error::Error;
use crate::http::inference::model_status;
use crate::http::time::Time;
use crate::runway::Runway;

/// A finding.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"verdict": "warn", "subject": "runway", "text": "the cloud may stay away for 4.2 days",
    "advice": "give the volume of the database more room: the promise is seven days without the cloud"}))]
pub(in crate::http) struct FindingBody {
    /// `ok`, `warn` when somebody should look at it, `fail` when the engine cannot do its work because of it.
    verdict: &'static str,
    /// What it is about.
    subject: &'static str,
    /// What was found.
    text: String,
    /// What to do; null when there is nothing to do.
    advice: Option<String>,
}

impl From<Finding> for FindingBody {
    fn from(finding: Finding) -> Self {
        let Finding { verdict, subject, text, advice } = finding;
        let advice = Some(advice).filter(|advice| !advice.is_empty());
        Self { verdict: verdict.as_str(), subject, text, advice }
    }
}

/// What the engine knows of itself.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct DoctorBody {
    /// The worst of the findings.
    #[schema(example = "warn")]
    verdict: &'static str,
    /// When it was looked.
    looked_at: Time,
    findings: Vec<FindingBody>,
}

/// Says what is wrong with the running engine, and what to do about it.
#[utoipa::path(get, path = "/api/v1/ops/doctor", tag = "operations",
    responses((status = 200, description = "What was found", body = DoctorBody)))]
pub(in crate::http) async fn examine(
    State(state): State<Arc<AppState>>,
    call: Call,
) -> Result<Json<DoctorBody>, Error> {
    let findings = findings(&state, &call.tenants(None)?).await;
    let worst = [Verdict::Fail, Verdict::Warn].into_iter();
    let worst = worst.into_iter().find(|worst| findings.iter().any(|finding| finding.verdict == *worst));
    Ok(Json(DoctorBody {
        verdict: worst.unwrap_or(Verdict::Ok).as_str(),
        looked_at: state.clock.now().into(),
        findings: findings.into_iter().map(FindingBody::from).collect(),
    }))
}

/// What the engine knows of itself, as a tenant may know it.
pub(in crate::http) async fn findings(state: &AppState, tenants: &Tenants) -> Vec<Finding> {
    let mut findings = database(state).await;
    if state.database.is_up()
        && let Ok(more) = waiting(state, tenants).await
    {
        findings.extend(more);
    }
    findings.push(mqtt(state));
    findings.extend(sessions(state));
    findings.extend(images(state).await);
    findings.push(model(state));
    findings.extend(retention(state));
    findings.extend(runway(state).await);
    findings
}

async fn database(state: &AppState) -> Vec<Finding> {
    let away = || {
        let advice =
            "see that the server runs and lets the engine in; devices wait meanwhile, and nothing is lost";
        vec![Finding::new(Verdict::Fail, "database", "does not answer", advice)]
    };
    if !state.database.is_up() {
        return away();
    }
    let now = state.clock.now();
    let look = async |conn: &mut _| {
        let standing = migration::standing(conn).await?;
        Ok((standing, partition::missing_ahead(conn, now).await?))
    };
    let Ok((standing, missing)) = state.reads.run("doctor", look).await else { return away() };
    let mut findings = vec![Finding::ok("database", "answers")];
    findings.push(match standing {
        Standing::Current(is) => Finding::ok("tables", format!("migrated to {is}")),
        Standing::Ahead { is, ours } => {
            Finding::ok("tables", format!("migrated to {is} by a newer program; the last of this is {ours}"))
        }
        Standing::Behind { .. } | Standing::Misfit(_) => Finding::new(
            Verdict::Fail,
            "tables",
            "are not those of this program any more",
            "run the program that made the tables, or restart this one",
        ),
    });
    findings.extend(missing.first().map(|first| {
        let text = format!("{} missing, the first is {first}", missing.len());
        Finding::new(
            Verdict::Warn,
            "partitions",
            text,
            "they are made at start and daily: see the log for why not",
        )
    }));
    findings
}

/// What waits for the cloud, and what waits for a person.
async fn waiting(state: &AppState, tenants: &Tenants) -> Result<Vec<Finding>, StoreError> {
    let (now, pause_max, tenants) = (state.clock.now(), state.sync.pause_max(), tenants.as_slice());
    let read = async |conn: &mut _| {
        let summary = sync_state::summary(conn, tenants, now, pause_max).await?;
        Ok((queries::counts(conn, tenants).await?, summary))
    };
    let (counts, summary) = state.reads.run("sync_state", read).await?;
    Ok(vec![cloud(&counts, &summary), given_up(&counts)])
}

fn cloud(counts: &Counts, summary: &Summary) -> Finding {
    let waiting = counts.pending;
    if summary.consecutive_failures == 0 {
        return Finding::ok("cloud", format!("{waiting} events wait"));
    }
    let why = summary.last_error.as_deref().unwrap_or("no reason was noted");
    let text =
        format!("{} attempts failed in a row, {waiting} events wait: {why}", summary.consecutive_failures);
    let advice = "see GET /api/v1/sync/diagnostics/cloud; events wait meanwhile, and nothing is lost";
    Finding::new(Verdict::Warn, "cloud", text, advice)
}

fn given_up(counts: &Counts) -> Finding {
    if counts.failed == 0 {
        return Finding::ok("outbox", "no event was given up");
    }
    let text = format!("{} events were given up, which hold {} sessions", counts.failed, counts.lanes_held);
    let advice = "see GET /api/v1/sync/dlq for why, then redrive or discard them";
    Finding::new(Verdict::Warn, "outbox", text, advice)
}

fn mqtt(state: &AppState) -> Finding {
    if (state.is_mqtt_connected)() {
        return Finding::ok("mqtt", "devices are served");
    }
    let advice = "see the log: a listener that cannot be opened, or an external broker that does not answer";
    Finding::new(Verdict::Fail, "mqtt", "no device is served", advice)
}

fn sessions(state: &AppState) -> Option<Finding> {
    let text = if (state.keeps_sessions)()? { "are kept here" } else { "are kept by another engine" };
    Some(Finding::ok("mqtt sessions", text))
}

async fn images(state: &AppState) -> Vec<Finding> {
    let mut findings = vec![if state.is_media_up().await {
        Finding::ok("images", format!("{} answers", state.media.backend()))
    } else {
        let advice =
            "see that the directory can be written, or that the bucket answers; cameras keep their images";
        Finding::new(Verdict::Fail, "images", format!("{} does not answer", state.media.backend()), advice)
    }];
    if !state.media.has_room().await {
        let advice = "make room: uploads are refused with 507 until there is some";
        findings.push(Finding::new(Verdict::Fail, "images", "their volume is nearly full", advice));
    }
    findings
}

fn model(state: &AppState) -> Finding {
    let version = state.inference.model().version().to_owned();
    if let Some(fault) = state.inference.fault() {
        let text = format!("{version} is in use, since the newest package is no good: {fault}");
        return Finding::new(Verdict::Warn, "model", text, "see `farmiq-edge model check`");
    }
    match model_status(state) {
        "demo" => Finding::new(
            Verdict::Warn,
            "model",
            format!("{version}, a demonstration: its weights are not those of real birds"),
            "set inference.model_path to a package of your own: docs/models.md",
        ),
        "disabled" => Finding::ok("model", "this engine looks at no images"),
        _ => Finding::ok("model", format!("{version} is in use")),
    }
}

fn retention(state: &AppState) -> Vec<Finding> {
    let troubles = state.retention.troubles();
    if troubles.is_empty() {
        return vec![Finding::ok("retention", "deletes what it should")];
    }
    let finding = |(kept, trouble): (&'static str, actors::retention::trouble::Trouble)| {
        let text = format!("deletes less than it should of {kept}: {}", trouble.text());
        Finding::new(Verdict::Warn, "retention", text, "see docs/retention.md")
    };
    troubles.into_iter().map(finding).collect()
}

/// How long the cloud may stay away, as it was last measured.
async fn runway(state: &AppState) -> Option<Finding> {
    let data_dir = state.settings.data_dir.clone();
    let read = tokio::task::spawn_blocking(move || Runway::read(&data_dir)).await;
    let runway = read.expect("reading a file does not panic")?;
    let text = format!("the cloud may stay away for {:.1} days: {}", runway.days, runway.arithmetic());
    if runway.is_enough() {
        return Some(Finding::ok("runway", text));
    }
    let advice = "give the volume of the database more room: the promise is seven days without the cloud";
    Some(Finding::new(Verdict::Warn, "runway", text, advice))
}
