//! What the database says about itself: its version, whether what it commits is kept, and whether it takes writes.

use std::fmt;

use deadpool_postgres::{ClientWrapper, HookError};
use tokio_postgres::SimpleQueryMessage;

use crate::clock::Timestamp;
use crate::store::{Conn, Store, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[SERVER_VERSION, DATA_DIRECTORY, SERVER, OLDEST_SNAPSHOT, PROBE];

const SERVER_VERSION: &str = "-- server_version
SELECT current_setting('server_version')";

// Only some roles may see it; the view leaves it out for others.
const DATA_DIRECTORY: &str = "-- data_directory
SELECT setting FROM pg_settings WHERE name = 'data_directory'";

// A limit of -1 is none.
const SERVER: &str = "-- server
SELECT pg_is_in_recovery(), current_setting('transaction_read_only')::boolean, least(
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true)::int, 0),
    (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user),
    (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database()))";

// Of other roles only a superuser and members of pg_read_all_stats see this.
const OLDEST_SNAPSHOT: &str = "-- oldest_snapshot
SELECT a.pid, coalesce(a.application_name, ''), coalesce(a.state, ''),
    extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, a.backend_start))::float8
FROM pg_stat_activity AS a
WHERE a.backend_xmin IS NOT NULL AND a.pid <> pg_backend_pid() AND a.backend_type IN ('client backend', 'walsender')
ORDER BY age(a.backend_xmin) DESC, a.xact_start LIMIT 1";

const PROBE: &str = "-- probe
INSERT INTO database_probe (id, written_at) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET written_at = excluded.written_at";

// About a megabyte of new pages, which vanish with the transaction.
const ROOM: &str =
    "CREATE TEMPORARY TABLE farmiq_room ON COMMIT DROP AS SELECT generate_series(1, 30000) AS number";

/// From which age on a snapshot is worth a word.
const OLD_SNAPSHOT_SECONDS: f64 = 600.0;

/// Something about the database that somebody should change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub text: String,
    /// What to do about it.
    pub advice: &'static str,
    /// Whether an acknowledgement would be untrue, so that the engine does not run on it.
    pub is_fatal: bool,
}

impl Problem {
    fn fatal(text: String, advice: &'static str) -> Self {
        Self { text, advice, is_fatal: true }
    }

    fn warning(text: String, advice: &'static str) -> Self {
        Self { text, advice, is_fatal: false }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.text, self.advice)
    }
}

/// Gives a new connection its settings, and turns it down when what is committed on it could be lost.
///
/// The search path is pinned, since a schema named like the role would otherwise hide the tables. A statement that counts or
/// aggregates gets one core at most, and never compiles itself: acknowledgements wait for what it takes.
pub(super) async fn set_up(client: &ClientWrapper, statement_timeout_seconds: u64) -> Result<(), HookError> {
    let sql = format!(
        "SET search_path = public; SET statement_timeout = '{statement_timeout_seconds}s'; SET timezone = 'UTC'; \
         SET max_parallel_workers_per_gather = 0; SET jit = off; SET synchronous_commit = on; \
         SELECT current_setting('server_encoding'), current_setting('fsync'), current_setting('full_page_writes'), \
         current_setting('synchronous_commit')"
    );
    let answers = client.simple_query(&sql).await.map_err(HookError::Backend)?;
    let problems = answers.iter().find_map(|answer| {
        let SimpleQueryMessage::Row(row) = answer else { return None };
        let word = |index| row.get(index).unwrap_or_default();
        Some(unkept(word(0), word(1), word(2), word(3)))
    });
    let problems: Vec<String> = problems.into_iter().flatten().map(|problem| problem.to_string()).collect();
    if problems.is_empty() { Ok(()) } else { Err(HookError::message(problems.join("; "))) }
}

/// Settings of a server by which what it has committed is not kept as it was.
fn unkept(encoding: &str, fsync: &str, full_page_writes: &str, synchronous_commit: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    if encoding != "UTF8" {
        let advice = "make a database with ENCODING 'UTF8' TEMPLATE template0, and move the tables there";
        problems.push(Problem::fatal(
            format!("the encoding of the database is {encoding}, which does not hold every text"),
            advice,
        ));
    }
    let switches = [
        ("fsync", fsync, "a power cut loses what was committed"),
        ("full_page_writes", full_page_writes, "a power cut tears pages that were committed"),
        ("synchronous_commit", synchronous_commit, "a crash loses what was committed"),
    ];
    for (name, value, harm) in switches {
        if value != "on" {
            let advice = "set it to on in postgresql.conf and reload the server";
            problems.push(Problem::fatal(format!("{name} is {value}, so that {harm}"), advice));
        }
    }
    problems
}

/// Looks for what is wrong with the database as the engine uses it.
///
/// # Errors
/// When the database fails. [`StoreError::Unfit`] says what would make an acknowledgement untrue.
pub async fn problems(store: &Store) -> Result<Vec<Problem>, StoreError> {
    let mut problems = Vec::new();
    if is_pooled_by_transaction(store).await? {
        let advice = "let it pool by session (pool_mode = session), or connect to the server itself";
        let text = "a connection pooler hands the server's connections round between transactions, so that settings, locks and word of changes are lost";
        problems.push(Problem::fatal(text.to_owned(), advice));
    }
    let row = store.run("server", async |conn| conn.query_one(SERVER, &[]).await).await?;
    let (is_standby, is_read_only, room): (bool, bool, i32) = (row.get(0), row.get(1), row.get(2));
    if is_standby {
        let advice = "connect to the primary (target_session_attrs=read-write finds it among several hosts), or promote it";
        problems.push(Problem::warning("the server is a standby and takes no writes".to_owned(), advice));
    } else if is_read_only {
        let advice = "see default_transaction_read_only of the server, the database and the role";
        problems.push(Problem::warning("transactions are read-only".to_owned(), advice));
    }
    let wanted = store.connections_max();
    if usize::try_from(room).is_ok_and(|room| room < wanted) {
        let advice =
            "raise max_connections (or the limit of the role or the database), or lower database.pool_max";
        let text = format!("the engine may open {wanted} connections, the server lets in {room}");
        problems.push(Problem::warning(text, advice));
    }
    let snapshot = store.run("oldest_snapshot", async |conn| oldest_snapshot(conn).await).await?;
    problems.extend(snapshot.as_ref().and_then(old_snapshot));
    Ok(problems)
}

fn old_snapshot(snapshot: &Snapshot) -> Option<Problem> {
    let Snapshot { pid, application, state, seconds } = snapshot;
    if *seconds < OLD_SNAPSHOT_SECONDS {
        return None;
    }
    let advice = "what was deleted since cannot be removed: let it end, or end it with SELECT pg_terminate_backend(pid)";
    let (application, state) = (named(application), named(state));
    let minutes = (seconds / 60.0).floor();
    let text = format!(
        "process {pid} of the server (application {application}, {state}) holds a snapshot of {minutes} minutes ago"
    );
    Some(Problem::warning(text, advice))
}

fn named(text: &str) -> &str {
    if text.is_empty() { "unnamed" } else { text }
}

/// Whether two transactions of one connection may run on two of the server's, or two connections of ours share one of them.
async fn is_pooled_by_transaction(store: &Store) -> Result<bool, StoreError> {
    let (mut one, mut other) = (store.keep().await?, store.keep().await?);
    let before = server_process(&one).await?;
    other.batch("begin", "BEGIN").await?;
    let (meanwhile, after) = (server_process(&other).await?, server_process(&one).await?);
    // Neither goes back: the one may have a transaction open.
    one.give_up();
    other.give_up();
    Ok(before != after || before == meanwhile)
}

async fn server_process(conn: &Conn) -> Result<Option<String>, StoreError> {
    let answers = conn.raw().simple_query("SELECT pg_backend_pid()").await;
    let answers = answers.map_err(crate::store::at("server_process"))?;
    Ok(answers.iter().find_map(|answer| {
        let SimpleQueryMessage::Row(row) = answer else { return None };
        row.get(0).map(str::to_owned)
    }))
}

/// The oldest snapshot that somebody holds: nothing that was deleted since is removed.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The process of the server.
    pub pid: i32,
    /// Who is connected.
    pub application: String,
    /// Whether it works, waits, or holds a transaction open.
    pub state: String,
    /// Its age.
    pub seconds: f64,
}

/// The oldest snapshot of all that this role may see.
///
/// # Errors
/// When the database fails.
pub async fn oldest_snapshot(conn: &Conn) -> Result<Option<Snapshot>, StoreError> {
    let row = conn.query_opt(OLDEST_SNAPSHOT, &[]).await?;
    Ok(row.map(|row| Snapshot {
        pid: row.get(0),
        application: row.get(1),
        state: row.get(2),
        seconds: row.get(3),
    }))
}

/// The server's version, such as `15.13 (Debian 15.13-0+deb12u1)`.
///
/// # Errors
/// When the database fails.
pub async fn server_version(conn: &Conn) -> Result<String, StoreError> {
    Ok(conn.query_one(SERVER_VERSION, &[]).await?.get(0))
}

/// Where the server keeps its tables, on its own machine; `None` when we may not know.
///
/// # Errors
/// When the database fails.
pub async fn data_directory(conn: &Conn) -> Result<Option<String>, StoreError> {
    Ok(conn.query_opt(DATA_DIRECTORY, &[]).await?.and_then(|row| row.get(0)))
}

/// Writes as a message would be written, and commits. With `needs_room` also as much as many messages take: a full volume
/// still has room for one row.
///
/// # Errors
/// When the database does not take it.
pub async fn probe(conn: &mut Conn, needs_room: bool, now: Timestamp) -> Result<(), StoreError> {
    let work = async |conn: &Conn| {
        if needs_room {
            conn.batch("probe_room", ROOM).await?;
        }
        conn.execute(PROBE, &[&now]).await.map(drop)
    };
    conn.transaction("probe", work).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_holds_an_old_snapshot_is_named() {
        let of = |seconds| {
            let (application, state) = ("pg_dump".to_owned(), String::new());
            old_snapshot(&Snapshot { pid: 4711, application, state, seconds })
        };
        assert_eq!(of(599.0), None);
        let problem = of(3_601.0).expect("an hour is long");
        assert!(!problem.is_fatal);
        assert_eq!(
            problem.text,
            "process 4711 of the server (application pg_dump, unnamed) holds a snapshot of 60 minutes ago"
        );
    }

    #[test]
    fn a_server_that_does_not_keep_what_it_commits_is_told_so() {
        assert_eq!(unkept("UTF8", "on", "on", "on"), []);
        for (settings, word) in [
            (["LATIN1", "on", "on", "on"], "LATIN1"),
            (["SQL_ASCII", "on", "on", "on"], "SQL_ASCII"),
            (["UTF8", "off", "on", "on"], "fsync is off"),
            (["UTF8", "on", "off", "on"], "full_page_writes is off"),
            (["UTF8", "on", "on", "local"], "synchronous_commit is local"),
        ] {
            let [encoding, fsync, full_page_writes, synchronous_commit] = settings;
            let problems = unkept(encoding, fsync, full_page_writes, synchronous_commit);
            assert_eq!(problems.len(), 1, "{settings:?}");
            assert!(problems[0].is_fatal && problems[0].text.contains(word), "{problems:?}");
        }
    }
}
