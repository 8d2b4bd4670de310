//! Lists of sessions: by the time at which they were weighed, of a tenant, a barn, a batch, or of one status.

use tokio_postgres::types::ToSql;

use super::mark::exclusions;
use super::{Session, Status, session_columns};
use crate::clock::Timestamp;
use crate::store::page::{Page, Place, ROWS_PER_READ, Sieve, behind};
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[SESSIONS, OF_BARN, OF_BATCH, OF_STATUS];

/// Which sessions are listed.
#[derive(Clone, Debug, Default)]
pub struct Wanted<'a> {
    /// Their tenant.
    pub tenant_id: &'a str,
    /// Weighed then or later.
    pub from: Option<Timestamp>,
    /// Weighed before.
    pub to: Option<Timestamp>,
    /// Only those of this farm.
    pub farm_id: Option<&'a str>,
    /// Only those of this barn.
    pub barn_id: Option<&'a str>,
    /// Only those that name this batch.
    pub batch_id: Option<&'a str>,
    /// Those that name no batch as well.
    pub is_nameless_taken: bool,
    /// Only those that have come to this.
    pub status: Option<Status>,
    /// Who may have looked at them, as the audit log names it.
    pub reviewer: &'a str,
}

/// A session as it is listed.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// Its row.
    pub session: Session,
    /// When it was weighed: as its device says, or when it came in if that is earlier, since the clock of the device may
    /// be ahead.
    pub weighed_at: Timestamp,
    /// Its first image.
    pub image_id: Option<String>,
    /// What a model read from its images last.
    pub reading: Option<Reading>,
    /// Whether it is excluded from the statistics, the whole of it or one of its weights.
    pub is_excluded: bool,
    /// Whether the reviewer has looked at it since it last changed.
    pub is_reviewed: bool,
}

impl Listed {
    /// Its place in the list.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { at: self.weighed_at, id: self.session.id }
    }
}

/// What a model read from an image of a session.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Kilograms; `None` when there is no bird in the image.
    pub weight_kg: Option<f64>,
    /// From 0 to 1.
    pub confidence: f64,
    /// The model.
    pub model_version: String,
    /// Whether the model is a demonstration.
    pub is_demo: bool,
}

// Each of the statements is served by an index of its own. The time is written as the indexes have it.
macro_rules! sessions {
    ($name:literal, $where:literal) => {
        concat!(
            "-- ",
            $name,
            "\nSELECT ",
            session_columns!(),
            ", least(s.start_at, s.created_at) AS weighed_at, i.media_object_id AS image_id, r.predicted_weight_kg, r.confidence,
    r.model_version, coalesce(r.metadata -> 'demo' = 'true'::jsonb, false) AS is_demo, x.is_whole OR x.is_part AS is_excluded,
    EXISTS (SELECT FROM session_marks AS v WHERE v.tenant_id = s.tenant_id AND v.session_id = s.session_id
        AND v.kind = 'reviewed' AND v.author = $12 AND v.created_at >= s.updated_at) AS is_reviewed
FROM weight_sessions AS s
LEFT JOIN LATERAL (
    SELECT b.media_object_id FROM session_media_bindings AS b
    WHERE b.tenant_id = s.tenant_id AND b.session_id = s.session_id AND b.is_bound
    ORDER BY b.occurred_at, b.id LIMIT 1
) AS i ON true
LEFT JOIN LATERAL (
    SELECT q.predicted_weight_kg, q.confidence, q.model_version, q.metadata FROM inference_results AS q
    WHERE q.tenant_id = s.tenant_id AND q.session_id = s.session_id AND (q.farm_id, q.barn_id) = (s.farm_id, s.barn_id)
    ORDER BY q.occurred_at DESC, q.id DESC LIMIT 1
) AS r ON true
",
            exclusions!(),
            "
WHERE s.tenant_id = $1 AND ",
            $where,
            " AND least(s.start_at, s.created_at) >= coalesce($2::timestamptz, '-infinity')
    AND least(s.start_at, s.created_at) < coalesce($3::timestamptz, 'infinity')
    AND ",
            behind!("least(s.start_at, s.created_at), s.id", "$4", "$5"),
            "
    AND ($7::text IS NULL OR s.barn_id = $7) AND ($8::text IS NULL OR s.farm_id = $8) AND ($11::text IS NULL OR s.status = $11)
    AND ($9::text IS NULL OR s.batch_id = $9 OR ($10::boolean AND s.batch_id IS NULL))
ORDER BY least(s.start_at, s.created_at) DESC, s.id DESC LIMIT $6"
        )
    };
}
const SESSIONS: &str = sessions!("sessions", "true");
const OF_BARN: &str = sessions!("sessions_of_barn", "s.barn_id = $7");
const OF_BATCH: &str = sessions!("sessions_of_batch", "s.batch_id = $9");
const OF_STATUS: &str = sessions!("sessions_of_status", "s.status = $11");

/// Sessions behind a place, the newest first.
///
/// # Errors
/// When the database fails.
pub async fn list(
    conn: &Conn,
    wanted: &Wanted<'_>,
    after: Option<Place>,
    limit: i64,
) -> Result<Vec<Listed>, StoreError> {
    let w = wanted;
    let (at, id) = Place::params(after);
    let status = w.status.map(Status::as_str);
    let params: [&(dyn ToSql + Sync); 12] = [
        &w.tenant_id,
        &w.from,
        &w.to,
        &at,
        &id,
        &limit,
        &w.barn_id,
        &w.farm_id,
        &w.batch_id,
        &w.is_nameless_taken,
        &status,
        &w.reviewer,
    ];
    let rows = conn.query(statement(wanted), &params).await?;
    Ok(rows.iter().map(Listed::from).collect())
}

/// Those of the sessions behind a place of which `is_wanted` is true, as one page.
///
/// # Errors
/// When the database fails.
pub async fn sifted(
    conn: &Conn,
    wanted: &Wanted<'_>,
    after: Option<Place>,
    limit: i64,
    is_wanted: &(dyn Fn(&Listed) -> bool + Sync),
) -> Result<Page<Listed>, StoreError> {
    let mut sieve = Sieve::new(after, limit);
    loop {
        let found = list(conn, wanted, sieve.after(), ROWS_PER_READ).await?;
        if sieve.take(found, is_wanted, Listed::place) {
            return Ok(sieve.page());
        }
    }
}

/// Sessions that did not end are few, and so are those of one batch; most are of the barn that is asked for.
fn statement(wanted: &Wanted<'_>) -> &'static str {
    match (wanted.status, wanted.batch_id, wanted.barn_id) {
        (Some(Status::Created | Status::Cancelled), _, _) => OF_STATUS,
        (Some(Status::Finalized) | None, Some(_), _) if !wanted.is_nameless_taken => OF_BATCH,
        (Some(Status::Finalized) | None, _, Some(_)) => OF_BARN,
        (Some(Status::Finalized) | None, _, None) => SESSIONS,
    }
}

impl From<&tokio_postgres::Row> for Listed {
    fn from(row: &tokio_postgres::Row) -> Self {
        let confidence: Option<f64> = row.get("confidence");
        Self {
            session: Session::from(row),
            weighed_at: row.get("weighed_at"),
            image_id: row.get("image_id"),
            reading: confidence.map(|confidence| Reading {
                weight_kg: row.get("predicted_weight_kg"),
                confidence,
                model_version: row.get("model_version"),
                is_demo: row.get("is_demo"),
            }),
            is_excluded: row.get("is_excluded"),
            is_reviewed: row.get("is_reviewed"),
        }
    }
}
