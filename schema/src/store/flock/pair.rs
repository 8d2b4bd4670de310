//! Weighings that a scale and a camera have both seen. They are compared, and never put into one mean.

use super::{Flock, WEIGHTS_MAX};
use crate::clock::Timestamp;
use crate::store::session::mark::exclusions;
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[PAIRS];

/// A weighing by a scale, and what one model says of one camera's pictures of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// The camera.
    pub device_id: String,
    /// The model that read its pictures.
    pub model_version: String,
    /// The last weight of the scale.
    pub scale_kg: f64,
    /// Mean of the pictures.
    pub camera_kg: f64,
}

row_of!(Pair, pair_columns as "p": device_id, model_version, scale_kg, camera_kg);

// A picture with several birds in it says nothing of the one on the scale, and no bird weighs a ton: sums stay finite.
const PAIRS: &str = concat!("-- flock_pairs\nSELECT ", pair_columns!(), " FROM (
    SELECT s.id, least(s.start_at, s.created_at) AS weighed_at, coalesce(l.weight_kg, s.final_weight_kg) AS scale_kg,
        c.device_id, c.model_version, c.camera_kg
    FROM weight_sessions AS s
    ", exclusions!(), "
    CROSS JOIN LATERAL (
        SELECT r.device_id, r.model_version, avg(r.predicted_weight_kg) AS camera_kg
        FROM inference_results AS r
        WHERE r.tenant_id = s.tenant_id AND r.session_id = s.session_id AND r.farm_id = s.farm_id AND r.barn_id = s.barn_id
            AND r.predicted_weight_kg BETWEEN 0.001 AND 1000 AND coalesce(r.metadata ->> 'demo', 'false') <> 'true'
            AND coalesce(r.metadata ->> 'count', '1') = '1'
        GROUP BY r.device_id, r.model_version) AS c
    WHERE s.tenant_id = $1 AND s.barn_id = $3 AND least(s.start_at, s.created_at) >= $4 AND least(s.start_at, s.created_at) < $5
        AND s.final_weight_kg IS NOT NULL AND s.farm_id = $2 AND (s.batch_id IS NULL OR s.batch_id = $6)
        AND NOT (x.is_whole OR (x.is_part AND l.weight_kg IS NULL))) AS p
ORDER BY p.weighed_at, p.id, p.device_id, p.model_version LIMIT $7");

/// The weighings of a flock within a time that have a scale's weight and a camera's: of the same sessions as
/// [`weights`](super::weights), but for those that a person has excluded, and for demonstrations.
///
/// # Errors
/// When the database fails.
pub async fn pairs(
    conn: &Conn,
    flock: &Flock,
    (from, to): (Timestamp, Timestamp),
) -> Result<Vec<Pair>, StoreError> {
    let Flock { tenant_id, farm_id, barn_id, batch_id, .. } = flock;
    let rows = conn.query(PAIRS, &[tenant_id, farm_id, barn_id, &from, &to, batch_id, &WEIGHTS_MAX]).await?;
    Ok(rows.iter().map(Pair::from).collect())
}
