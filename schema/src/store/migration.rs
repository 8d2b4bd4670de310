//! Migrations: bring the tables to this program's version, and say whether it may run on those of another one.
//!
//! Migrations only add, so that a program runs on the tables of the versions after its own: two versions run side by side
//! during an upgrade, and the older one comes back when the newer is no good. A migration that an older program cannot
//! live with says on a line of its own which one is the oldest that can: `-- oldest program: 12`, by the number of its
//! last migration.
//!
//! Programs up to number 8 know no such line. They refuse whatever stands in `refinery_schema_history` and is unknown to
//! them, so that table holds the first eight migrations and those that no program of that age may run on. All after the
//! eighth stand in `schema_migrations`.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::clock::Clock;
use crate::store::{Conn, Store, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[RECORDS, HISTORY, APPLIED, RECORD, RECORD_HISTORY];

/// The key of the advisory lock under which migrations run: "farmiq" in ASCII.
const LOCK: i64 = 0x6661_726d_6971;
/// The last migration of programs that refuse whatever they do not know.
const LAST_OF_HISTORY: i32 = 8;
/// How long a migration waits for the lock of a table, since whoever comes after it waits as well.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '1s'";
/// How often a migration tries to get its locks before its start is given up.
const TRIES_MAX: u32 = 60;
/// The rest between two tries, for those who wait behind it.
const REST: Duration = Duration::from_secs(1);
/// Begins the line that says who may run on the tables.
const OLDEST_PROGRAM: &str = "-- oldest program: ";

mod embedded {
    refinery::embed_migrations!("migrations");
}

const RECORDS: &str = "-- migration_records
SELECT to_regclass('public.refinery_schema_history') IS NOT NULL, to_regclass('public.schema_migrations') IS NOT NULL";

const MAKE_RECORDS: &str = "CREATE TABLE IF NOT EXISTS refinery_schema_history (
    version int4 PRIMARY KEY, name varchar(255), applied_on varchar(255), checksum varchar(255));
CREATE TABLE IF NOT EXISTS schema_migrations (
    version int4 PRIMARY KEY, name text NOT NULL, checksum text NOT NULL, applied_at timestamptz NOT NULL,
    -- The last migration of the oldest program that may run on this one.
    oldest_program int4 NOT NULL)";

// Whoever does not know what stands here may not run.
const HISTORY: &str = "-- migration_history
SELECT version, coalesce(name, '')::text, coalesce(checksum, '')::text, version FROM refinery_schema_history";

const APPLIED: &str = "-- applied_migrations
SELECT version, name, checksum, oldest_program FROM schema_migrations";

const RECORD: &str = "-- record_migration
INSERT INTO schema_migrations (version, name, checksum, applied_at, oldest_program) VALUES ($1, $2, $3, $4, $5)";

const RECORD_HISTORY: &str = "-- record_migration_history
INSERT INTO refinery_schema_history (version, name, applied_on, checksum) VALUES ($1, $2, $3, $4)";

/// Why the tables are not those of this program.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// A newer program made them, and does not let this one run on them.
    #[error(
        "the database has migration V{version}__{name} of a newer program: it needs a program with migration \
         {oldest_program} or later, and the last one of this is {ours}; run the newer program, or restore a backup of \
         before its start"
    )]
    Newer {
        /// The migration this program does not know.
        version: i32,
        /// Its name.
        name: String,
        /// The last migration of the oldest program that may run.
        oldest_program: i32,
        /// The last migration of this program.
        ours: i32,
    },
    /// A migration was applied that has another text in this program.
    #[error(
        "migration V{version}__{name} of the database is not the one of this program; run the program that made the tables"
    )]
    Changed {
        /// The migration.
        version: i32,
        /// Its name in the database.
        name: String,
    },
}

/// How the tables stand to this program.
#[derive(Debug, PartialEq, Eq)]
pub enum Standing {
    /// Migrations of this program are missing.
    Behind {
        /// The last one that was applied; `None` when the tables have never been made.
        is: Option<i32>,
        /// The last one of this program.
        wanted: i32,
    },
    /// They are those of this program.
    Current(i32),
    /// They are those of a newer program, and this one may run on them.
    Ahead {
        /// The last one that was applied.
        is: i32,
        /// The last one of this program.
        ours: i32,
    },
    /// This program may not run on them.
    Misfit(Misfit),
}

/// How the tables stand to this program.
///
/// # Errors
/// When the database fails.
pub async fn standing(conn: &Conn) -> Result<Standing, StoreError> {
    let known = known();
    let ours = last(&known);
    let applied = applied(conn, records(conn).await?).await?;
    let is = applied.iter().map(|applied| applied.version).max();
    Ok(match (pending(&known, &applied), is) {
        (Err(misfit), _) => Standing::Misfit(misfit),
        (Ok(pending), Some(is)) if pending.is_empty() && is > ours => Standing::Ahead { is, ours },
        (Ok(pending), Some(is)) if pending.is_empty() => Standing::Current(is),
        (Ok(_), is) => Standing::Behind { is, wanted: ours },
    })
}

impl Store {
    /// Brings the tables to this program's version. Replicas that start together take turns.
    ///
    /// # Errors
    /// [`StoreError::Migration`] when one fails, [`StoreError::Misfit`] when this program may not run on these tables.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let mut conn = self.keep().await?;
        let outcome = migrate(&mut conn).await;
        // The connection carries the lock and an unlimited statement timeout: it is not returned to the pool.
        conn.give_up();
        outcome
    }
}

async fn migrate(conn: &mut Conn) -> Result<(), StoreError> {
    let lock = format!("SET statement_timeout = 0; SELECT pg_advisory_lock({LOCK})");
    conn.batch("migration_lock", &lock).await?;
    let records = records(conn).await?;
    if !(records.has_history && records.has_applied) {
        conn.batch("make_migration_records", MAKE_RECORDS).await.map_err(in_migration("records"))?;
    }
    let (known, applied) = (known(), applied(conn, records).await?);
    for migration in pending(&known, &applied)? {
        apply_patiently(conn, migration).await?;
        tracing::info!(migration = migration.title(), "migration applied");
    }
    if let Some(newer) = applied.iter().rfind(|applied| applied.version > last(&known)) {
        let ours = last(&known);
        tracing::warn!(
            version = newer.version,
            ours,
            "the tables are those of a newer program, which lets this one run"
        );
    }
    Ok(())
}

/// Which tables of records are there.
#[derive(Clone, Copy)]
struct Records {
    has_history: bool,
    has_applied: bool,
}

/// Asked before they are made, since whoever may not make tables may still run.
async fn records(conn: &Conn) -> Result<Records, StoreError> {
    let row = conn.query_one(RECORDS, &[]).await?;
    Ok(Records { has_history: row.get(0), has_applied: row.get(1) })
}

/// What was applied according to both tables; the second has the last word on who may run.
async fn applied(conn: &Conn, records: Records) -> Result<Vec<Applied>, StoreError> {
    let mut applied = BTreeMap::new();
    for (sql, is_there) in [(HISTORY, records.has_history), (APPLIED, records.has_applied)] {
        if !is_there {
            continue;
        }
        for row in conn.query(sql, &[]).await? {
            let version: i32 = row.get(0);
            let migration =
                Applied { version, name: row.get(1), checksum: row.get(2), oldest_program: row.get(3) };
            applied.insert(version, migration);
        }
    }
    Ok(applied.into_values().collect())
}

/// Applies a migration. While others hold a table that it needs, it lets those behind it pass, and tries again.
async fn apply_patiently(conn: &mut Conn, migration: &Migration) -> Result<(), StoreError> {
    let mut tries = 1;
    loop {
        match apply(conn, migration).await {
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) && tries < TRIES_MAX => {
                if tries == 1 {
                    tracing::warn!(
                        migration = migration.title(),
                        "a migration waits for a table that others hold"
                    );
                }
                tries += 1;
                tokio::time::sleep(REST).await;
            }
            outcome => return outcome,
        }
    }
}

async fn apply(conn: &mut Conn, migration: &Migration) -> Result<(), StoreError> {
    let work = async |conn: &Conn| {
        conn.batch("migrate", LOCK_TIMEOUT).await?;
        conn.batch("migrate", &migration.sql).await?;
        record(conn, migration).await
    };
    conn.transaction("migrate", work).await.map_err(in_migration(&migration.title()))
}

async fn record(conn: &Conn, migration: &Migration) -> Result<(), StoreError> {
    let Migration { version, name, checksum, oldest_program, .. } = migration;
    let now = Clock::system().now();
    if *version > LAST_OF_HISTORY {
        conn.execute(RECORD, &[version, name, checksum, &now, oldest_program]).await?;
    }
    if *version <= LAST_OF_HISTORY || *oldest_program > LAST_OF_HISTORY {
        conn.execute(RECORD_HISTORY, &[version, name, &now.to_rfc3339(), checksum]).await?;
    }
    Ok(())
}

fn in_migration(title: &str) -> impl FnOnce(StoreError) -> StoreError {
    move |error| {
        let StoreError::Statement { source, .. } = error else { return error };
        StoreError::Migration { migration: title.to_owned(), source }
    }
}

/// A migration of this program.
#[derive(Debug)]
struct Migration {
    version: i32,
    name: String,
    checksum: String,
    sql: String,
    oldest_program: i32,
}

impl Migration {
    fn title(&self) -> String {
        format!("V{}__{}", self.version, self.name)
    }
}

/// A migration of the database.
#[derive(Debug)]
struct Applied {
    version: i32,
    name: String,
    checksum: String,
    oldest_program: i32,
}

/// The migrations of this program, in their order.
fn known() -> Vec<Migration> {
    let mut known: Vec<Migration> =
        embedded::migrations::runner().get_migrations().iter().map(Migration::from).collect();
    known.sort_by_key(|migration| migration.version);
    known
}

fn last(known: &[Migration]) -> i32 {
    known.last().map_or(0, |migration| migration.version)
}

impl From<&refinery::Migration> for Migration {
    fn from(embedded: &refinery::Migration) -> Self {
        let sql = embedded.sql().expect("an embedded migration has a text").to_owned();
        Self {
            version: embedded.version(),
            name: embedded.name().to_owned(),
            checksum: embedded.checksum().to_string(),
            oldest_program: oldest_program(&sql),
            sql,
        }
    }
}

/// The last migration of the oldest program that may run on a migration.
fn oldest_program(sql: &str) -> i32 {
    let line = sql.lines().find_map(|line| line.strip_prefix(OLDEST_PROGRAM));
    line.map_or(LAST_OF_HISTORY, |number| number.trim().parse().expect("it is the number of a migration"))
}

/// What is to be applied to the tables, in its order.
///
/// | in the database | in this program | |
/// |---|---|---|
/// | applied | the same | |
/// | applied | under the same number another | misfit |
/// | applied, for programs up to ours | unknown | |
/// | applied, for newer programs | unknown | misfit |
/// | | known | pending |
fn pending<'a>(known: &'a [Migration], applied: &[Applied]) -> Result<Vec<&'a Migration>, Misfit> {
    let ours = last(known);
    for was in applied {
        let (version, name, oldest_program) = (was.version, was.name.clone(), was.oldest_program);
        match known.iter().find(|migration| migration.version == version) {
            Some(same) if same.checksum == was.checksum && same.name == name => {}
            Some(_) => return Err(Misfit::Changed { version, name }),
            None if oldest_program <= ours => {}
            None => return Err(Misfit::Newer { version, name, oldest_program, ours }),
        }
    }
    let is_applied = |migration: &&Migration| applied.iter().any(|was| was.version == migration.version);
    Ok(known.iter().filter(|migration| !is_applied(migration)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migration(version: i32) -> Migration {
        Migration {
            version,
            name: format!("m{version}"),
            checksum: version.to_string(),
            sql: String::new(),
            oldest_program: LAST_OF_HISTORY,
        }
    }

    fn applied(version: i32, oldest_program: i32) -> Applied {
        Applied { version, name: format!("m{version}"), checksum: version.to_string(), oldest_program }
    }

    fn check(applied: &[Applied], expected: Result<&[i32], Misfit>) {
        let known: Vec<Migration> = [8, 9, 11].into_iter().map(migration).collect();
        let pending = pending(&known, applied);
        let pending = pending.map(|pending| pending.iter().map(|one| one.version).collect::<Vec<_>>());
        assert_eq!(pending, expected.map(<[i32]>::to_vec), "{applied:?}");
    }

    #[test]
    fn what_is_missing_is_applied_and_what_a_newer_program_made_is_judged_by_its_mark() {
        check(&[], Ok(&[8, 9, 11]));
        check(&[applied(8, 8), applied(9, 8)], Ok(&[11]));
        check(&[applied(8, 8), applied(11, 8)], Ok(&[9]));
        check(&[applied(8, 8), applied(9, 8), applied(11, 8), applied(12, 11)], Ok(&[]));
        check(&[applied(8, 8), applied(10, 8)], Ok(&[9, 11]));
        let newer = Misfit::Newer { version: 13, name: "m13".to_owned(), oldest_program: 12, ours: 11 };
        check(&[applied(8, 8), applied(12, 8), applied(13, 12)], Err(newer));
        let other = Applied { checksum: "7".to_owned(), ..applied(9, 8) };
        check(&[applied(8, 8), other], Err(Misfit::Changed { version: 9, name: "m9".to_owned() }));
    }

    #[test]
    fn the_mark_of_a_migration_is_read_from_its_text() {
        assert_eq!(oldest_program("-- Words.\nCREATE TABLE t ()"), LAST_OF_HISTORY);
        assert_eq!(oldest_program("-- Words.\n-- oldest program: 12\nDROP TABLE t"), 12);
        let mut ours = known().into_iter().filter(|migration| migration.version > LAST_OF_HISTORY);
        assert!(ours.all(|migration| migration.oldest_program <= migration.version));
    }
}
