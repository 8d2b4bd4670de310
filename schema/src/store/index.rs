//! Indexes of tables that may be large already when a program comes that wants them: they are made beside the work, when
//! the migrations are long over and nobody waits.

use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[TRY_LOCK, STATE, PARTITIONS_WITHOUT];

/// The key of the advisory lock under which indexes are made: "indexes" in ASCII.
const LOCK: i64 = 0x0069_6e64_6578_6573;
/// Whoever writes to the table waits behind the wait for a lock.
const LOCK_MS: u32 = 500;

/// Aggregates with their values.
const AGGREGATE_VALUES: &str = "telemetry_agg_values";
/// Expired dedupe marks.
pub const DEDUPE_EXPIRES: &str = "ingress_dedupe_expires";

/// An index.
#[derive(Clone, Copy)]
struct Index<'a> {
    name: &'a str,
    table: &'a str,
    columns: &'a str,
    /// Whether the table is partitioned.
    is_partitioned: bool,
    /// Whether it keeps keys apart.
    is_unique: bool,
    /// The index whose work it does, which goes.
    replaces: Option<&'a str>,
    /// The same of an index that belongs to a constraint.
    replaces_constraint: Option<&'a str>,
}

const INDEXES: [Index<'static>; 13] = [
    Index {
        replaces: Some("ingress_dedupe_expiry"),
        ..Index::of(DEDUPE_EXPIRES, "ingress_dedupe", "(expires_at)")
    },
    Index {
        is_partitioned: true,
        ..Index::of("device_events_time", "device_events", "(tenant_id, occurred_at DESC)")
    },
    Index::of("session_weights_waiting", "session_weights", "(created_at) WHERE NOT is_bound"),
    Index::of("session_media_bindings_waiting", "session_media_bindings", "(created_at) WHERE NOT is_bound"),
    Index::of("media_objects_created", "media_objects", "(created_at, tenant_id, id)"),
    Index::of("telemetry_raw_default_came_in", "telemetry_raw_default", "(ingested_at, id)"),
    Index::of("device_events_default_came_in", "device_events_default", "(ingested_at, id)"),
    // Weighings by the time at which they were done: of a barn and its days, of a tenant, of a batch, of a status.
    Index {
        replaces: Some("weight_sessions_weighed"),
        ..Index::of(
            "weight_sessions_by_barn",
            "weight_sessions",
            "(tenant_id, barn_id, least(start_at, created_at), id)",
        )
    },
    Index::of("weight_sessions_by_time", "weight_sessions", "(tenant_id, least(start_at, created_at), id)"),
    Index::of(
        "weight_sessions_by_batch",
        "weight_sessions",
        "(tenant_id, batch_id, least(start_at, created_at), id) WHERE batch_id IS NOT NULL",
    ),
    Index {
        replaces: Some("weight_sessions_status"),
        ..Index::of(
            "weight_sessions_by_status",
            "weight_sessions",
            "(tenant_id, status, least(start_at, created_at), id)",
        )
    },
    Index::of("inference_results_time", "inference_results", "(tenant_id, occurred_at DESC)"),
    // The key with its values: charts read it, and not the table.
    Index {
        is_unique: true,
        replaces_constraint: Some("telemetry_agg_tenant_id_device_id_window_bucket_start_at_me_key"),
        ..Index::of(
            AGGREGATE_VALUES,
            "telemetry_agg",
            "(tenant_id, device_id, \"window\", bucket_start_at, metric_type) INCLUDE (min_value, avg_value, max_value, count)",
        )
    },
];

const TRY_LOCK: &str = "-- index_lock
SELECT pg_try_advisory_lock($1)";

const STATE: &str = "-- index_state
SELECT i.indisvalid FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE c.relnamespace = 'public'::regnamespace AND c.relname = $1";

const PARTITIONS_WITHOUT: &str = "-- partitions_without_index
SELECT c.relname::text FROM pg_inherits AS p JOIN pg_class AS c ON c.oid = p.inhrelid
WHERE p.inhparent = $1::text::regclass AND NOT EXISTS (
    SELECT FROM pg_inherits AS q JOIN pg_index AS i ON i.indexrelid = q.inhrelid
    WHERE q.inhparent = $2::text::regclass AND i.indrelid = c.oid)
ORDER BY c.relname";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Missing,
    /// It was not finished, or not for all partitions yet.
    Invalid,
    Valid,
}

/// Makes sure that the indexes are there, without keeping anybody waiting who writes; to be run at leisure
/// ([`crate::store::Store::run_at_leisure`]). Another engine that is at it is left to it.
///
/// # Errors
/// When the database fails, or a lock is not had in time.
pub async fn ensure(conn: &mut Conn) -> Result<(), StoreError> {
    // It ends with the connection.
    if !conn.query_one(TRY_LOCK, &[&LOCK]).await?.get::<_, bool>(0) {
        return Ok(());
    }
    for index in &INDEXES {
        if index.is_partitioned {
            index.ensure_on_partitions(conn).await?;
        } else {
            index.make(conn).await?;
        }
        if let Some(old) = index.replaces {
            conn.batch("drop_index", &format!("DROP INDEX CONCURRENTLY IF EXISTS {old}")).await?;
        }
        if let Some(old) = index.replaces_constraint
            && state(conn, old).await? != State::Missing
        {
            define(conn, &format!("ALTER TABLE {} DROP CONSTRAINT {old}", index.table)).await?;
        }
    }
    Ok(())
}

/// Whether an index may be relied on.
///
/// # Errors
/// When the database fails.
pub async fn is_valid(conn: &Conn, name: &str) -> Result<bool, StoreError> {
    Ok(state(conn, name).await? == State::Valid)
}

impl<'a> Index<'a> {
    const fn of(name: &'a str, table: &'a str, columns: &'a str) -> Self {
        Self {
            name,
            table,
            columns,
            is_partitioned: false,
            is_unique: false,
            replaces: None,
            replaces_constraint: None,
        }
    }

    async fn make(&self, conn: &Conn) -> Result<(), StoreError> {
        let Self { name, table, columns, is_unique, .. } = self;
        match state(conn, name).await? {
            State::Valid => return Ok(()),
            State::Invalid => conn.batch("drop_index", &format!("DROP INDEX CONCURRENTLY {name}")).await?,
            State::Missing => {}
        }
        let unique = if *is_unique { "UNIQUE " } else { "" };
        let sql = format!("CREATE {unique}INDEX CONCURRENTLY {name} ON {table} {columns}");
        conn.batch("create_index", &sql).await
    }

    /// The index of the parent becomes valid by itself with that of the last partition.
    async fn ensure_on_partitions(&self, conn: &mut Conn) -> Result<(), StoreError> {
        let Self { name, table, columns, .. } = self;
        match state(conn, name).await? {
            State::Valid => return Ok(()),
            State::Invalid => {}
            State::Missing => {
                define(conn, &format!("CREATE INDEX IF NOT EXISTS {name} ON ONLY {table} {columns}")).await?;
            }
        }
        for row in conn.query(PARTITIONS_WITHOUT, &[table, name]).await? {
            let partition: &str = row.get(0);
            let part = format!("{partition}_by_{name}");
            Index { name: &part, table: partition, ..*self }.make(conn).await?;
            define(conn, &format!("ALTER INDEX {name} ATTACH PARTITION {part}")).await?;
        }
        Ok(())
    }
}

async fn define(conn: &mut Conn, sql: &str) -> Result<(), StoreError> {
    let begin = format!("BEGIN; SET LOCAL lock_timeout = '{LOCK_MS}ms'");
    let work = async |conn: &Conn| conn.batch("define_index", sql).await.map(Some);
    conn.transaction_from("define_index", &begin, work).await.map(drop)
}

async fn state(conn: &Conn, name: &str) -> Result<State, StoreError> {
    let row = conn.query_opt(STATE, &[&name]).await?;
    Ok(row.map_or(State::Missing, |row| if row.get(0) { State::Valid } else { State::Invalid }))
}
