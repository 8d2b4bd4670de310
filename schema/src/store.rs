//! The store: pools of PostgreSQL connections, and one module of SQL per domain.

/// Names the columns of a row type once: `$columns!()` is the list of them under an alias, and the type is made of a row
/// that has them. A statement names what it returns, since a newer program may add a column at any time.
macro_rules! row_of {
    ($type:ty, $columns:ident as $alias:literal: $first:ident $(, $column:ident)* $(,)?) => {
        macro_rules! $columns {
            () => { concat!($alias, ".", stringify!($first) $(, ", ", $alias, ".", stringify!($column))*) };
        }

        impl From<&tokio_postgres::Row> for $type {
            fn from(row: &tokio_postgres::Row) -> Self {
                Self { $first: row.get(stringify!($first)) $(, $column: row.get(stringify!($column)))* }
            }
        }
    };
}

pub mod access;
pub mod aggregate;
pub mod alarm;
pub mod audit;
pub mod bench;
pub mod board;
pub mod chart;
pub mod clock;
pub mod console;
pub mod credential;
pub mod dead_letter;
pub mod dedupe;
pub mod device;
pub mod discard;
pub mod door;
pub mod error;
pub mod fault;
pub mod flock;
pub mod health;
pub mod house;
pub mod index;
pub mod inference;
pub mod ledger;
mod link;
pub mod media;
pub mod migration;
pub mod outbox;
pub mod page;
pub mod partition;
pub mod place;
pub mod reject;
pub mod retention;
pub mod session;
pub mod station;
pub mod survey;
pub mod sync_state;
pub mod tally;
pub mod telemetry;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{
    ClientWrapper, Hook, Manager, ManagerConfig, Object, Pool, QueueMode, RecyclingMethod, Runtime, Timeouts,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

use crate::metrics;
pub(crate) use crate::store::error::at;
pub use crate::store::error::{DatabaseError, StoreError, cause};
use crate::store::link::Link;

/// Every statement with its name, so that a test can prepare each against the migrated schema.
pub const STATEMENTS: &[&[&str]] = &[
    aggregate::STATEMENTS,
    alarm::STATEMENTS,
    alarm::owner::STATEMENTS,
    alarm::rule::STATEMENTS,
    alarm::scene::STATEMENTS,
    alarm::telling::STATEMENTS,
    alarm::unheard::STATEMENTS,
    audit::STATEMENTS,
    bench::STATEMENTS,
    board::STATEMENTS,
    chart::STATEMENTS,
    clock::STATEMENTS,
    console::STATEMENTS,
    credential::STATEMENTS,
    dead_letter::STATEMENTS,
    dedupe::STATEMENTS,
    device::STATEMENTS,
    discard::STATEMENTS,
    door::STATEMENTS,
    fault::STATEMENTS,
    flock::STATEMENTS,
    flock::pair::STATEMENTS,
    flock::record::STATEMENTS,
    flock::signal::STATEMENTS,
    flock::standard::STATEMENTS,
    health::STATEMENTS,
    house::STATEMENTS,
    index::STATEMENTS,
    inference::STATEMENTS,
    inference::trial::STATEMENTS,
    ledger::STATEMENTS,
    media::STATEMENTS,
    migration::STATEMENTS,
    outbox::STATEMENTS,
    partition::STATEMENTS,
    partition::tail::STATEMENTS,
    place::STATEMENTS,
    reject::STATEMENTS,
    retention::STATEMENTS,
    session::STATEMENTS,
    session::list::STATEMENTS,
    session::mark::STATEMENTS,
    station::STATEMENTS,
    survey::STATEMENTS,
    sync_state::STATEMENTS,
    tally::STATEMENTS,
    telemetry::STATEMENTS,
    telemetry::copy::STATEMENTS,
];

/// Seconds to wait for a free pooled connection, and for a new one to be made.
const CONNECT_SECONDS_MAX: u64 = 5;
/// How long housekeeping may take that nobody waits for.
const LEISURE_MAX: Duration = Duration::from_secs(6 * 3600);
/// How much longer than the server's own limit a client waits for an answer before it gives the connection up.
const ANSWER_GRACE_SECONDS: u64 = 5;
/// Connections that are kept for as long as somebody holds a lock of the server, at most.
const KEPT_MAX: usize = 8;

/// How to reach the database.
#[derive(Clone)]
pub struct StoreSettings {
    /// A PostgreSQL URL or key-value connection string. Holds a password: never logged.
    pub url: String,
    /// Pooled connections for work, at most.
    pub pool_max: usize,
    /// Seconds after which the server ends a statement.
    pub statement_timeout_seconds: u64,
    /// Pooled connections for those who only look, at most.
    pub read_pool_max: usize,
    /// Seconds after which the server ends a statement of theirs.
    pub read_timeout_seconds: u64,
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
}

impl StoreSettings {
    /// The settings of an engine that says nothing about them.
    #[must_use]
    pub fn new(url: &str, application_name: &str) -> Self {
        Self {
            url: url.to_owned(),
            pool_max: 16,
            statement_timeout_seconds: 30,
            read_pool_max: 4,
            read_timeout_seconds: 5,
            application_name: application_name.to_owned(),
        }
    }
}

/// The database. Cloning shares the pools.
///
/// Those who acknowledge must never wait for those who only look, or for whoever holds a lock all day. So there are three
/// pools, and this is the way into one of them: work by default, [`Store::reads`] for those who look. Callers of whom
/// there may be any number get [`Store::share`] of the work.
#[derive(Clone)]
pub struct Store {
    lane: Lane,
    turns: Option<Arc<Semaphore>>,
    shared: Arc<Shared>,
}

/// A pool, and how long its connections may take for an answer.
#[derive(Clone)]
struct Lane {
    pool: Pool,
    answer_timeout: Duration,
}

/// What all ways to a database have in common.
struct Shared {
    work: Lane,
    reads: Lane,
    kept: Lane,
    /// For connections beside the pools.
    link: Link,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("pool", &self.lane.pool.status()).finish_non_exhaustive()
    }
}

/// Connections in use of each pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InUse {
    /// By those who write, and by all who do the engine's work.
    pub work: usize,
    /// By those who only look.
    pub reads: usize,
    /// By holders of locks.
    pub kept: usize,
}

impl Store {
    /// Makes the pools. No connection is opened yet: the engine starts while its database is away.
    ///
    /// # Errors
    /// [`StoreError::Url`] when the connection string cannot be read.
    pub fn new(settings: &StoreSettings) -> Result<Self, StoreError> {
        let mut link = Link::parse(&settings.url)?;
        link.config.application_name(&settings.application_name);
        link.config.connect_timeout(Duration::from_secs(CONNECT_SECONDS_MAX));
        link.config.keepalives_idle(Duration::from_secs(30));
        let work = Lane::new(&link, settings.pool_max, settings.statement_timeout_seconds)?;
        let reads = Lane::new(&link, settings.read_pool_max, settings.read_timeout_seconds)?;
        let kept = Lane::new(&link, KEPT_MAX, settings.statement_timeout_seconds)?;
        Ok(Self { lane: work.clone(), turns: None, shared: Arc::new(Shared { work, reads, kept, link }) })
    }

    /// The same database for those who only look: a few connections of their own, and statements that end soon.
    #[must_use]
    pub fn reads(&self) -> Self {
        Self { lane: self.shared.reads.clone(), turns: None, shared: Arc::clone(&self.shared) }
    }

    /// The same database for callers of whom there may be any number: together they use so many connections of the work
    /// at most.
    #[must_use]
    pub fn share(&self, connections_max: usize) -> Self {
        let turns = Some(Arc::new(Semaphore::new(connections_max)));
        Self { lane: self.shared.work.clone(), turns, shared: Arc::clone(&self.shared) }
    }

    /// A pooled connection.
    ///
    /// # Errors
    /// When none is free in time or the database is away.
    pub async fn conn(&self) -> Result<Conn, StoreError> {
        let turn = match &self.turns {
            Some(turns) => Some(Self::turn(turns).await?),
            None => None,
        };
        let client = self.lane.pool.get().await?;
        Ok(Conn { client: Some(client), is_in_transaction: false, is_at_work: false, _turn: turn })
    }

    async fn turn(turns: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, StoreError> {
        let turn = Arc::clone(turns).acquire_owned();
        let turn = tokio::time::timeout(Duration::from_secs(CONNECT_SECONDS_MAX), turn).await;
        Ok(turn.map_err(|_| StoreError::Crowded)?.expect("nobody closes it"))
    }

    /// A connection for whoever keeps it, since a lock of the server lasts as long: it is none of those that work is done on.
    pub(crate) async fn keep(&self) -> Result<Conn, StoreError> {
        let client = self.shared.kept.pool.get().await?;
        Ok(Conn { client: Some(client), is_in_transaction: false, is_at_work: false, _turn: None })
    }

    /// Runs named work on a pooled connection: its duration is a metric, and when the server stays silent beyond its
    /// own limit the work is dropped together with the connection.
    ///
    /// # Errors
    /// Those of the work, of connecting, and [`StoreError::Unanswered`].
    pub async fn run<T>(
        &self,
        name: &'static str,
        work: impl AsyncFnOnce(&mut Conn) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut conn = self.conn().await?;
        self.run_on(&mut conn, name, work).await
    }

    /// As [`Store::run`], on a connection that the caller has.
    pub(crate) async fn run_on<T>(
        &self,
        conn: &mut Conn,
        name: &'static str,
        work: impl AsyncFnOnce(&mut Conn) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let started = tokio::time::Instant::now();
        conn.is_at_work = true;
        let outcome = tokio::time::timeout(self.lane.answer_timeout, work(conn)).await;
        conn.is_at_work = false;
        metrics::db_query_duration_seconds(name).record(started.elapsed());
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                conn.give_up_if_broken(&error);
                if error.is_stale_plan() {
                    self.forget_statements();
                }
                Err(error)
            }
            Err(_) => {
                conn.give_up();
                Err(StoreError::Unanswered { name })
            }
        }
    }

    /// Runs named housekeeping that may take long and that nobody waits for, such as making an index of a large table. It
    /// has a connection for itself meanwhile, whose statements have no time limit but [`LEISURE_MAX`].
    ///
    /// # Errors
    /// Those of the work, of connecting, and [`StoreError::Unanswered`].
    pub async fn run_at_leisure<T>(
        &self,
        name: &'static str,
        work: impl AsyncFnOnce(&mut Conn) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut conn = self.conn().await?;
        let limit = format!("SET statement_timeout = '{}s'", LEISURE_MAX.as_secs());
        conn.batch(name, &limit).await?;
        let outcome = tokio::time::timeout(LEISURE_MAX, work(&mut conn)).await;
        // The next one to have it would have the same limit.
        conn.give_up();
        outcome.unwrap_or(Err(StoreError::Unanswered { name }))
    }

    /// Asks the database whether it answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.run("ping", async |conn| conn.ping().await).await
    }

    /// Lets every connection prepare its statements anew: a table is no longer what it was.
    fn forget_statements(&self) {
        let Shared { work, reads, kept, .. } = &*self.shared;
        [work, reads, kept].iter().for_each(|lane| lane.pool.manager().statement_caches.clear());
    }

    /// Connections in use.
    #[must_use]
    pub fn in_use(&self) -> InUse {
        let in_use = |lane: &Lane| {
            let status = lane.pool.status();
            status.size.saturating_sub(status.available)
        };
        let Shared { work, reads, kept, .. } = &*self.shared;
        InUse { work: in_use(work), reads: in_use(reads), kept: in_use(kept) }
    }

    /// Connections that this way to the database may open in all, the one that listens included.
    #[must_use]
    pub fn connections_max(&self) -> usize {
        let Shared { work, reads, kept, .. } = &*self.shared;
        [work, reads, kept].iter().map(|lane| lane.pool.status().max_size).sum::<usize>() + 1
    }
}

impl Lane {
    fn new(link: &Link, connections_max: usize, statement_timeout_seconds: u64) -> Result<Self, StoreError> {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(link.config.clone(), link.tls.clone(), recycling);
        let timeout = Some(Duration::from_secs(CONNECT_SECONDS_MAX));
        let pool = Pool::builder(manager)
            .max_size(connections_max)
            .runtime(Runtime::Tokio1)
            // The connection used last first: its server process has everything at hand that the next statement needs.
            .queue_mode(QueueMode::Lifo)
            .timeouts(Timeouts { wait: timeout, create: timeout, recycle: timeout })
            .post_create(Hook::async_fn(move |client, _| {
                Box::pin(async move { health::set_up(client, statement_timeout_seconds).await })
            }))
            .build()?;
        let answer_timeout = Duration::from_secs(statement_timeout_seconds + ANSWER_GRACE_SECONDS);
        Ok(Self { pool, answer_timeout })
    }
}

/// A connection of the pool, with the few verbs the domains need.
///
/// Work may be dropped half-way, when a request is given up for example. Its connection then is closed instead of being
/// returned to the pool: the server rolls back, and nobody waits for what it was at.
pub struct Conn {
    /// Empty once it was given up.
    client: Option<Object>,
    is_in_transaction: bool,
    /// Whether the server may still be at work for somebody who does not wait for it any more.
    is_at_work: bool,
    /// Its place among callers of whom there may be any number.
    _turn: Option<OwnedSemaphorePermit>,
}

impl Drop for Conn {
    fn drop(&mut self) {
        if self.is_in_transaction || self.is_at_work {
            self.give_up();
        }
    }
}

impl Conn {
    /// A statement, prepared once per connection.
    pub(crate) async fn prepare(&self, sql: &str) -> Result<Statement, StoreError> {
        self.raw().prepare_cached(sql).await.map_err(|error| failed(sql, error))
    }

    pub(crate) async fn query(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        let statement = self.prepare(sql).await?;
        self.raw().query(&statement, params).await.map_err(|error| failed(sql, error))
    }

    pub(crate) async fn query_one(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, StoreError> {
        let statement = self.prepare(sql).await?;
        self.raw().query_one(&statement, params).await.map_err(|error| failed(sql, error))
    }

    pub(crate) async fn query_opt(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, StoreError> {
        let statement = self.prepare(sql).await?;
        self.raw().query_opt(&statement, params).await.map_err(|error| failed(sql, error))
    }

    pub(crate) async fn execute(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<u64, StoreError> {
        let statement = self.prepare(sql).await?;
        self.raw().execute(&statement, params).await.map_err(|error| failed(sql, error))
    }

    /// Asks the server whether it answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.batch("ping", "SELECT 1").await
    }

    /// Unprepared statements without parameters: definitions of tables, settings.
    pub(crate) async fn batch(&self, name: &'static str, sql: &str) -> Result<(), StoreError> {
        self.raw().batch_execute(sql).await.map_err(at(name))
    }

    /// Runs work in one transaction, which rolls back when the work fails.
    ///
    /// # Errors
    /// Those of the work, and of beginning and committing.
    pub async fn transaction<T>(
        &mut self,
        name: &'static str,
        work: impl AsyncFnOnce(&Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let work = async |conn: &Self| work(conn).await.map(Some);
        let value = self.transaction_from(name, "BEGIN", work).await?;
        Ok(value.expect("work that returns a value is committed"))
    }

    /// Runs work in one transaction that begins with these statements. It rolls back when the work fails, and also when
    /// the work returns `None`.
    pub(crate) async fn transaction_from<T>(
        &mut self,
        name: &'static str,
        begin: &str,
        work: impl AsyncFnOnce(&Self) -> Result<Option<T>, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        self.is_in_transaction = true;
        self.batch(name, begin).await?;
        let outcome = work(self).await;
        // A rollback that fails means a broken connection, whose transaction the server ends by itself.
        let end = if matches!(outcome, Ok(Some(_))) { "COMMIT" } else { "ROLLBACK" };
        let ended = self.batch(name, end).await;
        self.is_in_transaction = ended.is_err();
        let value = outcome?;
        ended?;
        Ok(value)
    }

    /// The driver's client, with its cache of prepared statements.
    pub(crate) fn raw(&self) -> &ClientWrapper {
        self.client.as_deref().expect("a connection that was given up is not used again")
    }

    fn give_up_if_broken(&mut self, error: &StoreError) {
        if self.is_closed() || error.is_of_the_connection() {
            self.give_up();
        }
    }

    fn is_closed(&self) -> bool {
        self.client.as_ref().is_none_or(|client| client.is_closed())
    }

    /// Closes the connection instead of returning it to the pool.
    fn give_up(&mut self) {
        self.client.take().map(Object::take);
    }
}

/// Names the statement an error came from. The name is looked for among all of them, which only a failure is worth.
fn failed(sql: &str, error: tokio_postgres::Error) -> StoreError {
    at(name_of(sql))(error)
}

/// The name in a statement's first line, `-- name`.
fn name_of(sql: &str) -> &'static str {
    let name = sql.lines().next().and_then(|line| line.strip_prefix("-- ")).unwrap_or("statement");
    STATEMENTS
        .iter()
        .flat_map(|statements| statements.iter())
        .filter_map(|known| known.lines().next()?.strip_prefix("-- "))
        .find(|known| *known == name)
        .unwrap_or("statement")
}
