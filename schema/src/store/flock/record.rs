//! What people and devices write down of a flock: rows are added and never changed.

use chrono::NaiveDate;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[ADD, BY_REF, FIND, LIST, OF_DAY];

/// Records that are taken of one day.
pub const DAY_RECORDS_MAX: i64 = 1000;

/// What a record tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Birds found dead.
    Mortality,
    /// Birds killed because they would not have lived.
    Cull,
    /// Birds taken out alive.
    Thinning,
    /// Feed that came, kg.
    FeedDelivered,
    /// Feed that is left, kg.
    FeedLeft,
    /// Feed that was taken back, kg.
    FeedReturned,
    /// Feed that was eaten, kg.
    FeedIntake,
    /// What the water meter shows, liters.
    WaterMeter,
    /// Mean of birds weighed by hand, kg.
    HandWeighing,
    /// A text.
    Note,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Mortality,
        Self::Cull,
        Self::Thinning,
        Self::FeedDelivered,
        Self::FeedLeft,
        Self::FeedReturned,
        Self::FeedIntake,
        Self::WaterMeter,
        Self::HandWeighing,
        Self::Note,
    ];

    /// The text in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mortality => "MORTALITY",
            Self::Cull => "CULL",
            Self::Thinning => "THINNING",
            Self::FeedDelivered => "FEED_DELIVERED",
            Self::FeedLeft => "FEED_LEFT",
            Self::FeedReturned => "FEED_RETURNED",
            Self::FeedIntake => "FEED_INTAKE",
            Self::WaterMeter => "WATER_METER",
            Self::HandWeighing => "HAND_WEIGHING",
            Self::Note => "NOTE",
        }
    }

    /// The kind of a text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A row of the book.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its id.
    pub id: Uuid,
    /// Tenant.
    pub tenant_id: String,
    /// Flock.
    pub flock_id: Uuid,
    /// What it tells of, as [`Kind::as_str`] says it.
    pub kind: String,
    /// Of which day.
    pub day: NaiveDate,
    /// `MORNING` or `EVENING`, where that is said.
    pub part: Option<String>,
    /// How much, in the unit of its kind.
    pub value: Option<f64>,
    /// Birds of a hand weighing.
    pub birds: Option<i32>,
    /// Why.
    pub cause: Option<String>,
    /// Anything else.
    pub note: Option<String>,
    /// `MANUAL`, `API_IMPORT`, `MQTT_DISPENSED` or `SILO_AUTO`.
    pub source: String,
    /// What makes a repetition known.
    pub external_ref: Option<String>,
    /// The row that it takes the place of.
    pub corrects: Option<Uuid>,
    /// Whether it only takes that one away.
    pub is_void: bool,
    /// Who wrote it.
    pub author: String,
    /// When that happened which it tells of.
    pub occurred_at: Timestamp,
    /// When it was written.
    pub created_at: Timestamp,
}

row_of!(Record, record_columns as "r": id, tenant_id, flock_id, kind, day, part, value, birds, cause, note, source,
    external_ref, corrects, is_void, author, occurred_at, created_at);

const ADD: &str = "-- flock_record_add
INSERT INTO flock_records (id, tenant_id, flock_id, kind, day, part, value, birds, cause, note, source, external_ref, corrects,
    is_void, author, occurred_at, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17) ON CONFLICT DO NOTHING";

/// Adds a row as part of the caller's transaction; `false` if it is there, or what it corrects has been corrected.
///
/// # Errors
/// When the database fails.
pub async fn add(conn: &Conn, record: &Record) -> Result<bool, StoreError> {
    let r = record;
    let added = conn
        .execute(
            ADD,
            &[
                &r.id,
                &r.tenant_id,
                &r.flock_id,
                &r.kind,
                &r.day,
                &r.part,
                &r.value,
                &r.birds,
                &r.cause,
                &r.note,
                &r.source,
                &r.external_ref,
                &r.corrects,
                &r.is_void,
                &r.author,
                &r.occurred_at,
                &r.created_at,
            ],
        )
        .await?;
    Ok(added == 1)
}

const BY_REF: &str = concat!(
    "-- flock_record_by_ref\nSELECT ",
    record_columns!(),
    " FROM flock_records AS r
WHERE tenant_id = $1 AND external_ref = $2"
);

/// The row that came with this reference.
///
/// # Errors
/// When the database fails.
pub async fn by_ref(conn: &Conn, tenant_id: &str, external_ref: &str) -> Result<Option<Record>, StoreError> {
    Ok(conn.query_opt(BY_REF, &[&tenant_id, &external_ref]).await?.as_ref().map(Record::from))
}

const FIND: &str = concat!(
    "-- flock_record\nSELECT ",
    record_columns!(),
    " FROM flock_records AS r
WHERE tenant_id = $1 AND id = $2"
);

/// A row, if it is there.
///
/// # Errors
/// When the database fails.
pub async fn find(conn: &Conn, tenant_id: &str, id: Uuid) -> Result<Option<Record>, StoreError> {
    Ok(conn.query_opt(FIND, &[&tenant_id, &id]).await?.as_ref().map(Record::from))
}

const LIST: &str = concat!(
    "-- flock_records\nSELECT ",
    record_columns!(),
    " FROM flock_records AS r
WHERE tenant_id = $1 AND flock_id = $2 AND ($3::uuid IS NULL OR id < $3) ORDER BY id DESC LIMIT $4"
);

/// Rows of a flock as they were written, newest first, behind `before`.
///
/// # Errors
/// When the database fails.
pub async fn list(
    conn: &Conn,
    tenant_id: &str,
    flock_id: Uuid,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Record>, StoreError> {
    let rows = conn.query(LIST, &[&tenant_id, &flock_id, &before, &limit]).await?;
    Ok(rows.iter().map(Record::from).collect())
}

const OF_DAY: &str = concat!(
    "-- flock_records_of_day\nSELECT ",
    record_columns!(),
    " FROM flock_records AS r
WHERE r.tenant_id = $1 AND r.flock_id = $2 AND r.day = $3 AND NOT r.is_void
    AND NOT EXISTS (SELECT FROM flock_records AS c WHERE c.tenant_id = r.tenant_id AND c.corrects = r.id)
ORDER BY r.occurred_at, r.id LIMIT $4"
);

/// The rows that hold for a day: corrections, and whatever was not corrected.
///
/// # Errors
/// When the database fails.
pub async fn of_day(
    conn: &Conn,
    tenant_id: &str,
    flock_id: Uuid,
    day: NaiveDate,
) -> Result<Vec<Record>, StoreError> {
    let rows = conn.query(OF_DAY, &[&tenant_id, &flock_id, &day, &DAY_RECORDS_MAX]).await?;
    Ok(rows.iter().map(Record::from).collect())
}
