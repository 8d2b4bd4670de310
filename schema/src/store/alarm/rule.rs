//! Edited rules, version by version, and the modes of houses.

use serde_json::Value;

use super::Barn;
use crate::clock::Timestamp;
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[NEWEST, HISTORY, PUT, MODE, PUT_MODE];

/// Rules of one barn at most.
pub const RULES_MAX: i64 = 500;
/// Versions of a rule that a list has.
const VERSIONS_MAX: i64 = 1000;

/// A version of a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleRow {
    /// Its name.
    pub rule_id: String,
    /// Its version, from 1.
    pub version: i32,
    /// The rule.
    pub body: Value,
    /// Why it was edited.
    pub reason: Option<String>,
    /// By whom.
    pub author: String,
    /// When.
    pub created_at: Timestamp,
}

row_of!(RuleRow, rule_columns as "r": rule_id, version, body, reason, author, created_at);

const NEWEST: &str = concat!(
    "-- alarm_rules\nSELECT DISTINCT ON (r.rule_id) ",
    rule_columns!(),
    " FROM alarm_rules AS r
WHERE tenant_id = $1 AND farm_id = $2 AND barn_id = $3 ORDER BY r.rule_id, r.version DESC LIMIT $4"
);

/// The newest version of each edited rule of a barn.
///
/// # Errors
/// When the database fails.
pub async fn newest(conn: &Conn, barn: &Barn) -> Result<Vec<RuleRow>, StoreError> {
    let Barn { tenant_id, farm_id, barn_id } = barn;
    let rows = conn.query(NEWEST, &[tenant_id, farm_id, barn_id, &RULES_MAX]).await?;
    Ok(rows.iter().map(RuleRow::from).collect())
}

const HISTORY: &str = concat!(
    "-- alarm_rule_history\nSELECT ",
    rule_columns!(),
    " FROM alarm_rules AS r
WHERE tenant_id = $1 AND farm_id = $2 AND barn_id = $3 AND rule_id = $4 ORDER BY version DESC LIMIT $5"
);

/// All versions of a rule, the newest first.
///
/// # Errors
/// When the database fails.
pub async fn history(conn: &Conn, barn: &Barn, rule_id: &str) -> Result<Vec<RuleRow>, StoreError> {
    let Barn { tenant_id, farm_id, barn_id } = barn;
    let rows = conn.query(HISTORY, &[tenant_id, farm_id, barn_id, &rule_id, &VERSIONS_MAX]).await?;
    Ok(rows.iter().map(RuleRow::from).collect())
}

const PUT: &str = "-- alarm_rule_put
INSERT INTO alarm_rules (tenant_id, farm_id, barn_id, rule_id, version, body, reason, author, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING";

/// Writes a version, and says whether it is new: else somebody else was faster.
///
/// # Errors
/// When the database fails.
pub async fn put(conn: &Conn, barn: &Barn, row: &RuleRow) -> Result<bool, StoreError> {
    let Barn { tenant_id, farm_id, barn_id } = barn;
    let RuleRow { rule_id, version, body, reason, author, created_at } = row;
    let made = conn
        .execute(PUT, &[tenant_id, farm_id, barn_id, rule_id, version, body, reason, author, created_at])
        .await?;
    Ok(made == 1)
}

/// What a house is doing, as a person said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeRow {
    /// The mode.
    pub mode: String,
    /// Why.
    pub reason: Option<String>,
    /// Who said so.
    pub author: String,
    /// Since when.
    pub since: Timestamp,
}

row_of!(ModeRow, mode_columns as "m": mode, reason, author, since);

const MODE: &str = concat!(
    "-- house_mode\nSELECT ",
    mode_columns!(),
    " FROM house_modes AS m
WHERE tenant_id = $1 AND farm_id = $2 AND barn_id = $3"
);

/// What a house is doing, where a person has said so.
///
/// # Errors
/// When the database fails.
pub async fn mode(conn: &Conn, barn: &Barn) -> Result<Option<ModeRow>, StoreError> {
    let Barn { tenant_id, farm_id, barn_id } = barn;
    let row = conn.query_opt(MODE, &[tenant_id, farm_id, barn_id]).await?;
    Ok(row.as_ref().map(ModeRow::from))
}

const PUT_MODE: &str = "-- house_mode_put
INSERT INTO house_modes (tenant_id, farm_id, barn_id, mode, reason, author, since) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (tenant_id, farm_id, barn_id) DO UPDATE SET mode = excluded.mode, reason = excluded.reason,
    author = excluded.author, since = excluded.since";

/// Writes what a house is doing.
///
/// # Errors
/// When the database fails.
pub async fn put_mode(conn: &Conn, barn: &Barn, row: &ModeRow) -> Result<(), StoreError> {
    let Barn { tenant_id, farm_id, barn_id } = barn;
    let ModeRow { mode, reason, author, since } = row;
    conn.execute(PUT_MODE, &[tenant_id, farm_id, barn_id, mode, reason, author, since]).await?;
    Ok(())
}
