//! What an application does in the server at one moment: locks that keep writers out, waits for locks, statements.

use crate::clock::Timestamp;
use crate::store::{Conn, StoreError};

// Whoever waits for such a lock keeps writers out already, since they queue up behind it; so does the whole transaction
// count, from its start on.
pub(super) const LOOK: &str = "-- bench_look
WITH mine AS (
    SELECT pid, xact_start, query_start, state, split_part(ltrim(query, '- '), chr(10), 1) AS statement
    FROM pg_stat_activity WHERE datname = current_database() AND starts_with(application_name, $2)
)
SELECT 'lock', c.relname::text, extract(epoch FROM $1::timestamptz - m.xact_start)::float8
FROM pg_locks AS l JOIN mine AS m USING (pid) JOIN pg_class AS c ON c.oid = l.relation
WHERE l.locktype = 'relation' AND c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace
    AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
UNION ALL
SELECT 'wait', m.statement, extract(epoch FROM $1 - l.waitstart)::float8
FROM pg_locks AS l JOIN mine AS m USING (pid) WHERE NOT l.granted
UNION ALL
SELECT 'statement', m.statement, extract(epoch FROM $1 - m.query_start)::float8 FROM mine AS m WHERE m.state = 'active'";

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A transaction that holds a lock on a table, or waits for one, that keeps writers out.
    Lock,
    /// A wait for somebody else's lock.
    Wait,
    /// A statement.
    Statement,
}

/// One thing of one moment.
#[derive(Clone, Debug)]
pub struct Sight {
    /// What it is.
    pub kind: Kind,
    /// The table of a lock; otherwise the first line of the statement, which is its name where it has one.
    pub about: String,
    /// For how long it has lasted, seconds; less than nothing when it began after the moment.
    pub seconds: f64,
}

/// Looks at everything that connections do whose application is called so, or begins so.
///
/// # Errors
/// When the database fails.
pub async fn look(conn: &Conn, application: &str, now: Timestamp) -> Result<Vec<Sight>, StoreError> {
    let rows = conn.query(LOOK, &[&now, &application]).await?;
    let sight = |row: &tokio_postgres::Row| Sight {
        kind: match row.get(0) {
            "lock" => Kind::Lock,
            "wait" => Kind::Wait,
            _ => Kind::Statement,
        },
        about: row.get(1),
        // The start of what has just begun may not be known yet.
        seconds: row.get::<_, Option<f64>>(2).unwrap_or(0.0),
    };
    Ok(rows.iter().map(sight).collect())
}
