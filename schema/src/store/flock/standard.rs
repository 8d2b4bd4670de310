//! Standards that somebody brought: what a bird of some age is expected to weigh and to have eaten.

use uuid::Uuid;

use crate::clock::Timestamp;
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[PUT, PUT_ROWS, LIST, FIND, ROWS];

/// A set, without its days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandardSet {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub tenant_id: String,
    /// What people call it.
    pub name: String,
    /// `REFERENCE`, `STANDARD` or `TARGET`.
    pub kind: String,
    /// Breed.
    pub genetic_line_code: String,
    /// `AS_HATCHED`, `MALE` or `FEMALE`.
    pub sex: String,
    /// Who says so.
    pub source: String,
    /// When that was said.
    pub year: i32,
    /// When it was brought.
    pub created_at: Timestamp,
}

row_of!(StandardSet, set_columns as "s": id, tenant_id, name, kind, genetic_line_code, sex, source, year, created_at);

/// A day of a set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StandardRow {
    /// Age; 0 is the day of placement.
    pub age_day: i32,
    /// Grams.
    pub body_weight_g: f64,
    /// Eaten since day 0, grams a bird, where the standard says so.
    pub cum_feed_intake_g: Option<f64>,
    /// Of a standard that was made of flocks: how many have this day; none of one that lies between its neighbors.
    pub flocks: Option<i32>,
}

row_of!(StandardRow, standard_row_columns as "r": age_day, body_weight_g, cum_feed_intake_g, flocks);

const PUT: &str = "-- standard_put
INSERT INTO standard_sets (id, tenant_id, name, kind, genetic_line_code, sex, source, year, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING";

const PUT_ROWS: &str = "-- standard_put_rows
INSERT INTO standard_rows (set_id, age_day, body_weight_g, cum_feed_intake_g, flocks)
SELECT $1, * FROM unnest($2::int[], $3::float8[], $4::float8[], $5::int[])";

/// Writes a set as part of the caller's transaction; `false` if its tenant has one of the same name and sex.
///
/// # Errors
/// When the database fails.
pub async fn put(conn: &Conn, set: &StandardSet, rows: &[StandardRow]) -> Result<bool, StoreError> {
    let s = set;
    let made = conn
        .execute(
            PUT,
            &[
                &s.id,
                &s.tenant_id,
                &s.name,
                &s.kind,
                &s.genetic_line_code,
                &s.sex,
                &s.source,
                &s.year,
                &s.created_at,
            ],
        )
        .await?;
    if made == 1 {
        let ages: Vec<i32> = rows.iter().map(|row| row.age_day).collect();
        let weights: Vec<f64> = rows.iter().map(|row| row.body_weight_g).collect();
        let feed: Vec<Option<f64>> = rows.iter().map(|row| row.cum_feed_intake_g).collect();
        let flocks: Vec<Option<i32>> = rows.iter().map(|row| row.flocks).collect();
        conn.execute(PUT_ROWS, &[&s.id, &ages, &weights, &feed, &flocks]).await?;
    }
    Ok(made == 1)
}

const LIST: &str = concat!(
    "-- standard_list\nSELECT ",
    set_columns!(),
    " FROM standard_sets AS s
WHERE ($1::text IS NULL OR tenant_id = $1) ORDER BY name, sex, id LIMIT $2"
);

/// The sets of a tenant, or of all.
///
/// # Errors
/// When the database fails.
pub async fn list(conn: &Conn, tenant_id: Option<&str>, limit: i64) -> Result<Vec<StandardSet>, StoreError> {
    Ok(conn.query(LIST, &[&tenant_id, &limit]).await?.iter().map(StandardSet::from).collect())
}

const FIND: &str = concat!(
    "-- standard_find\nSELECT ",
    set_columns!(),
    " FROM standard_sets AS s WHERE tenant_id = $1 AND id = $2"
);

const ROWS: &str = concat!(
    "-- standard_rows\nSELECT ",
    standard_row_columns!(),
    " FROM standard_rows AS r
WHERE set_id = $1 ORDER BY age_day"
);

/// A set of a tenant with its days, if it is there.
///
/// # Errors
/// When the database fails.
pub async fn find(
    conn: &Conn,
    tenant_id: &str,
    id: Uuid,
) -> Result<Option<(StandardSet, Vec<StandardRow>)>, StoreError> {
    let Some(row) = conn.query_opt(FIND, &[&tenant_id, &id]).await? else { return Ok(None) };
    let rows = conn.query(ROWS, &[&id]).await?;
    Ok(Some((StandardSet::from(&row), rows.iter().map(StandardRow::from).collect())))
}
