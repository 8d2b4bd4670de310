//! The bare unit of work as it was when the engine was first measured: one statement with arrays for every batch. It stays as
//! it is, so that versions of the engine can be compared with each other by what they are compared with here.

use tokio_postgres::types::ToSql;

use crate::store::telemetry::{Reading, WriteContext};
use crate::store::{Conn, StoreError};
use crate::wire::event::TELEMETRY_INGESTED;

pub(super) const STORE_READINGS: &str = "-- bench_store_readings
WITH input AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::uuid[], $7::uuid[], $8::text[],
        $9::float8[], $10::text[], $11::timestamptz[], $12::text[], $13::text[], $14::text[], $15::text[], $16::int[])
    AS i (tenant_id, farm_id, barn_id, device_id, event_id, id, outbox_id, metric_type,
        metric_value, unit, occurred_at, trace_id, topic, hash, payload_json, arrival)
), marked AS (
    INSERT INTO ingress_dedupe AS d (tenant_id, event_id, first_seen_at, expires_at, topic, hash)
    SELECT tenant_id, event_id, $17, $18, topic, hash FROM input
), stored AS (
    INSERT INTO telemetry_raw (id, tenant_id, farm_id, barn_id, device_id, event_id, metric_type, metric_value, unit,
        occurred_at, ingested_at, trace_id)
    SELECT id, tenant_id, farm_id, barn_id, device_id, event_id, metric_type, metric_value, unit,
        occurred_at, $17, trace_id
    FROM input ORDER BY arrival
), queued AS (
    INSERT INTO sync_outbox (id, tenant_id, farm_id, barn_id, device_id, event_type, occurred_at, trace_id, payload_json,
        payload_size_bytes, next_attempt_at, created_at, updated_at)
    SELECT outbox_id, tenant_id, farm_id, barn_id, device_id, $19, occurred_at, trace_id, payload_json::jsonb,
        octet_length(payload_json), $17, $17, $17
    FROM input ORDER BY arrival
), totals AS (
    INSERT INTO telemetry_totals AS t (tenant_id, shard, readings, last_reading_at)
    SELECT tenant_id, $20, count(*), max(occurred_at) FROM input GROUP BY tenant_id
    ON CONFLICT (tenant_id, shard) DO UPDATE SET readings = t.readings + excluded.readings,
        last_reading_at = greatest(t.last_reading_at, excluded.last_reading_at)
), counted AS (
    INSERT INTO ledger AS l (tenant_id, day, shard, received, stored, duplicate)
    SELECT c.tenant_id, ($17::timestamptz AT TIME ZONE 'UTC')::date, pg_backend_pid(), c.received, coalesce(s.rows, 0),
        c.repeated + coalesce(i.rows, 0) - coalesce(s.rows, 0)
    FROM unnest($21::text[], $22::bigint[], $23::bigint[]) AS c (tenant_id, received, repeated)
    LEFT JOIN (SELECT tenant_id, count(*) AS rows FROM input GROUP BY tenant_id) AS i USING (tenant_id)
    LEFT JOIN (SELECT tenant_id, count(*) AS rows FROM input GROUP BY tenant_id) AS s USING (tenant_id)
    ON CONFLICT (tenant_id, day, shard) DO UPDATE SET received = l.received + excluded.received,
        stored = l.stored + excluded.stored, duplicate = l.duplicate + excluded.duplicate
)
SELECT arrival FROM input";

/// Stores new readings, which are all of one tenant, by that statement.
///
/// # Errors
/// When the database fails.
pub async fn store_readings(conn: &Conn, readings: &[Reading], at: WriteContext) -> Result<(), StoreError> {
    let tenants: Vec<&str> = readings.iter().take(1).map(|reading| reading.tenant_id.as_str()).collect();
    let mut order: Vec<usize> = (0..readings.len()).collect();
    order.sort_unstable_by(|&a, &b| readings[a].event_id.cmp(&readings[b].event_id));
    macro_rules! column {
        ($($field:tt)+) => { order.iter().map(|&i| readings[i].$($field)+).collect::<Vec<_>>() };
    }
    let arrivals: Vec<i32> = order.iter().filter_map(|&i| i32::try_from(i).ok()).collect();
    let expires_at = at.now + at.dedupe_ttl;
    let received = i64::try_from(readings.len()).unwrap_or(i64::MAX);
    let params: [&(dyn ToSql + Sync); 23] = [
        &column!(tenant_id.as_str()),
        &column!(farm_id.as_str()),
        &column!(barn_id.as_str()),
        &column!(device_id.as_str()),
        &column!(event_id.as_str()),
        &column!(id),
        &column!(outbox_id),
        &column!(metric.as_str()),
        &column!(value),
        &column!(unit.as_deref()),
        &column!(occurred_at),
        &column!(trace_id.as_str()),
        &column!(topic.as_str()),
        &column!(hash.as_str()),
        &column!(payload_json()),
        &arrivals,
        &at.now,
        &expires_at,
        &TELEMETRY_INGESTED,
        &at.shard,
        &tenants,
        &vec![received],
        &vec![0_i64],
    ];
    conn.query(STORE_READINGS, &params).await?;
    Ok(())
}
