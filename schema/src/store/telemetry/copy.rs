//! Storing many new readings by COPY in its binary form. At 1,000 rows it costs the server a tenth less than a statement with arrays,
//! which makes rows of them, keeps them aside, and sorts them for each table.

use std::collections::BTreeMap;
use std::pin::Pin;

use serde_json::value::to_raw_value;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{Json, ToSql, Type};

use crate::clock::Timestamp;
use crate::store::ledger::{self, Arrivals, Inbound};
use crate::store::telemetry::{Reading, WriteContext, sorted_by_key};
use crate::store::{Conn, StoreError, failed};
use crate::wire::event::TELEMETRY_INGESTED;

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[COPY_MARKS, COPY_READINGS, COPY_OUTBOX, COUNT_COPIED];

/// Readings from which on copying them is cheaper than one statement: it goes to the server and back ten times instead of
/// once, however many there are.
pub const COPY_ROWS_MIN: usize = 200;

const COPY_MARKS: &str = "-- copy_marks
COPY ingress_dedupe (tenant_id, event_id, first_seen_at, expires_at, topic, hash) FROM STDIN BINARY";

const COPY_READINGS: &str = "-- copy_readings
COPY telemetry_raw (id, tenant_id, farm_id, barn_id, device_id, event_id, metric_type, metric_value, unit,
    occurred_at, ingested_at, trace_id) FROM STDIN BINARY";

const COPY_OUTBOX: &str = "-- copy_outbox
COPY sync_outbox (id, tenant_id, farm_id, barn_id, device_id, event_type, occurred_at, trace_id, payload_json,
    payload_size_bytes, next_attempt_at, created_at, updated_at) FROM STDIN BINARY";

const COUNT_COPIED: &str = "-- count_copied_readings
INSERT INTO telemetry_totals AS t (tenant_id, shard, readings, last_reading_at)
SELECT tenant_id, $1, readings, last_reading_at
FROM unnest($2::text[], $3::bigint[], $4::timestamptz[]) AS i (tenant_id, readings, last_reading_at)
ON CONFLICT (tenant_id, shard) DO UPDATE SET readings = t.readings + excluded.readings,
    last_reading_at = greatest(t.last_reading_at, excluded.last_reading_at)";

/// Stores readings, none of which was stored before, as part of the caller's transaction, and has the ledger count what
/// `came`. When one was stored before, it fails with [`StoreError::is_replay`].
pub(super) async fn store(
    conn: &Conn,
    readings: &[&Reading],
    came: &[Arrivals<'_>],
    at: WriteContext,
) -> Result<(), StoreError> {
    assert!(conn.is_in_transaction, "mark, reading and outbox row stand or fall together");
    copy(conn, readings, at).await?;
    count(conn, readings, came, at).await
}

/// Copies readings into the three tables of their unit of work, and counts nothing.
pub(in crate::store) async fn copy(
    conn: &Conn,
    readings: &[&Reading],
    at: WriteContext,
) -> Result<(), StoreError> {
    copy_marks(conn, readings, at).await?;
    copy_readings(conn, readings, at).await?;
    copy_outbox(conn, readings, at).await
}

/// In the order of their keys, so that two writers cannot wait for each other.
async fn copy_marks(conn: &Conn, readings: &[&Reading], at: WriteContext) -> Result<(), StoreError> {
    const TYPES: [Type; 6] =
        [Type::TEXT, Type::TEXT, Type::TIMESTAMPTZ, Type::TIMESTAMPTZ, Type::TEXT, Type::TEXT];
    let mut copying = Copying::begin(conn, COPY_MARKS, &TYPES).await?;
    let expires_at = at.now + at.dedupe_ttl;
    for index in sorted_by_key(readings, |reading| (&reading.tenant_id, &reading.event_id)) {
        let r = readings[index];
        copying.write(&[&r.tenant_id, &r.event_id, &at.now, &expires_at, &r.topic, &r.hash]).await?;
    }
    copying.end().await
}

async fn copy_readings(conn: &Conn, readings: &[&Reading], at: WriteContext) -> Result<(), StoreError> {
    const TYPES: [Type; 12] = [
        Type::UUID,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::FLOAT8,
        Type::TEXT,
        Type::TIMESTAMPTZ,
        Type::TIMESTAMPTZ,
        Type::TEXT,
    ];
    let mut copying = Copying::begin(conn, COPY_READINGS, &TYPES).await?;
    for r in readings {
        let row: [&(dyn ToSql + Sync); 12] = [
            &r.id,
            &r.tenant_id,
            &r.farm_id,
            &r.barn_id,
            &r.device_id,
            &r.event_id,
            &r.metric,
            &r.value,
            &r.unit,
            &r.occurred_at,
            &at.now,
            &r.trace_id,
        ];
        copying.write(&row).await?;
    }
    copying.end().await
}

async fn copy_outbox(conn: &Conn, readings: &[&Reading], at: WriteContext) -> Result<(), StoreError> {
    const TYPES: [Type; 13] = [
        Type::UUID,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TIMESTAMPTZ,
        Type::TEXT,
        Type::JSONB,
        Type::INT4,
        Type::TIMESTAMPTZ,
        Type::TIMESTAMPTZ,
        Type::TIMESTAMPTZ,
    ];
    let mut copying = Copying::begin(conn, COPY_OUTBOX, &TYPES).await?;
    for r in readings {
        let payload = to_raw_value(&r.payload()).expect("texts and finite numbers always serialize");
        let size = i32::try_from(payload.get().len()).expect("a payload is far below 2 GiB");
        let row: [&(dyn ToSql + Sync); 13] = [
            &r.outbox_id,
            &r.tenant_id,
            &r.farm_id,
            &r.barn_id,
            &r.device_id,
            &TELEMETRY_INGESTED,
            &r.occurred_at,
            &r.trace_id,
            &Json(&*payload),
            &size,
            &at.now,
            &at.now,
            &at.now,
        ];
        copying.write(&row).await?;
    }
    copying.end().await
}

async fn count(
    conn: &Conn,
    readings: &[&Reading],
    came: &[Arrivals<'_>],
    at: WriteContext,
) -> Result<(), StoreError> {
    let mut stored: BTreeMap<&str, (i64, Timestamp)> = BTreeMap::new();
    for reading in readings {
        let (count, last_at) = stored.entry(&reading.tenant_id).or_insert((0, reading.occurred_at));
        *count += 1;
        *last_at = reading.occurred_at.max(*last_at);
    }
    let tenants: Vec<&str> = stored.keys().copied().collect();
    let counts: Vec<i64> = stored.values().map(|(count, _)| *count).collect();
    let last_times: Vec<Timestamp> = stored.values().map(|(_, last_at)| *last_at).collect();
    conn.execute(COUNT_COPIED, &[&at.shard, &tenants, &counts, &last_times]).await?;
    let inbound = |came: &Arrivals<'_>| Inbound {
        received: came.received,
        stored: stored.get(came.tenant_id).map_or(0, |(count, _)| *count),
        duplicate: came.repeated,
        ..Inbound::default()
    };
    let came = came.iter().map(|came| (came.tenant_id.to_owned(), inbound(came))).collect();
    ledger::count(conn, &came, at.now).await
}

/// Rows on their way into a table. Dropped before its end, it fails and leaves none.
struct Copying {
    sql: &'static str,
    rows: Pin<Box<BinaryCopyInWriter>>,
}

impl Copying {
    async fn begin(conn: &Conn, sql: &'static str, types: &[Type]) -> Result<Self, StoreError> {
        let statement = conn.prepare(sql).await?;
        let sink = conn.raw().copy_in(&statement).await.map_err(|error| failed(sql, error))?;
        Ok(Self { sql, rows: Box::pin(BinaryCopyInWriter::new(sink, types)) })
    }

    async fn write(&mut self, row: &[&(dyn ToSql + Sync)]) -> Result<(), StoreError> {
        self.rows.as_mut().write(row).await.map_err(|error| failed(self.sql, error))
    }

    async fn end(mut self) -> Result<(), StoreError> {
        self.rows.as_mut().finish().await.map(drop).map_err(|error| failed(self.sql, error))
    }
}
