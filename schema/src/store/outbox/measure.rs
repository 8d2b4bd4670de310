//! Measuring: how fast batches are claimed and settled when the cloud costs nothing.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::types::ToSql;

use super::claim::{CANDIDATES, ClaimRequest, READ_ROWS, claim, with_plans};
use super::groups_of;
use super::settle::{Settlement, settle};
use crate::clock::Clock;
use crate::clock::deadline::farthest;
use crate::id;
use crate::store::{Conn, Store, StoreError, sync_state};

/// What some claim and settle cycles took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cycles {
    /// Batches.
    pub batches: u64,
    /// Events.
    pub events: u64,
    /// In claims.
    pub claiming: Duration,
    /// In settlements.
    pub settling: Duration,
}

/// Claims and acknowledges up to `events_max` events of a tenant without sending them, as partition `partition` of
/// `partitions` would. The events are gone for the cloud: for measurements only.
///
/// # Errors
/// When the database fails.
pub async fn drain_unsent(
    store: &Store,
    clock: &Clock,
    tenant_id: &str,
    (partition, partitions): (usize, usize),
    events_max: u64,
) -> Result<Cycles, StoreError> {
    let mut groups = groups_of(partition, partitions);
    let window_rows = i64::try_from(500_usize.div_ceil(groups.len().max(1))).unwrap_or(500);
    let mut cycles = Cycles::default();
    while cycles.events < events_max && !groups.is_empty() {
        groups.rotate_left(1);
        let request = ClaimRequest {
            tenant_id,
            groups: &groups,
            window_rows,
            batch_id: id::new_id(),
            edge_id: "measure",
            holder: "measure",
            now: clock.now(),
            lease: chrono::Duration::seconds(300),
            wait_max: chrono::Duration::seconds(300),
            events_max: 500,
            bytes_max: 1_000_000,
        };
        let started = Instant::now();
        let claimed = store.run("measure", async |conn| claim(conn, &request).await).await?;
        cycles.claiming += started.elapsed();
        let Some(batch) = claimed.batch else { break };
        let change = sync_state::Change::Success {
            batch_id: batch.id,
            last_acked_event_id: batch.events.last().map(|event| event.id),
        };
        let settlement = Settlement {
            acked: batch.events.iter().collect(),
            is_last: true,
            change: Some(change),
            ..Settlement::default()
        };
        let started = Instant::now();
        let now = clock.now();
        store.run("measure", async |conn| settle(conn, tenant_id, batch.id, &settlement, now).await).await?;
        cycles.settling += started.elapsed();
        cycles.batches += 1;
        cycles.events += batch.events.len() as u64;
    }
    Ok(cycles)
}

/// Pages that a claim reads to find its rows and then to read them: what must not grow with the backlog.
///
/// # Errors
/// When the database fails.
pub async fn pages_of_a_claim(conn: &mut Conn, request: &ClaimRequest<'_>) -> Result<(i64, i64), StoreError> {
    with_plans(conn, "explain", async |conn| explain_claim(conn, request).await).await
}

async fn explain_claim(conn: &Conn, request: &ClaimRequest<'_>) -> Result<(i64, i64), StoreError> {
    let rows_max = i64::try_from(request.events_max).unwrap_or(i64::MAX);
    let lanes: Option<&[&str]> = None;
    let look: [&(dyn ToSql + Sync); 9] = [
        &request.tenant_id,
        &request.groups,
        &request.now,
        &request.window_rows,
        &rows_max,
        &lanes,
        &lanes,
        &farthest(request.now, request.lease),
        &farthest(request.now, request.wait_max),
    ];
    let looking = pages(conn, CANDIDATES, &look).await?;
    let rows = conn.query(CANDIDATES, &look).await?;
    let places: Vec<&str> = rows.iter().map(|row| row.get("place")).collect();
    Ok((looking, pages(conn, READ_ROWS, &[&places]).await?))
}

async fn pages(conn: &Conn, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<i64, StoreError> {
    let sql = format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}");
    let plan: serde_json::Value = conn.query_one(&sql, params).await?.get(0);
    let pages = |kind: &str| plan[0]["Plan"][kind].as_i64().unwrap_or(0);
    Ok(pages("Shared Hit Blocks") + pages("Shared Read Blocks"))
}
