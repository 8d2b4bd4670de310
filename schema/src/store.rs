//! The store: a pool of PostgreSQL connections, the migrations, and one module of SQL per domain.

pub mod access;
pub mod aggregate;
pub mod audit;
pub mod bench;
pub mod clock;
pub mod credential;
pub mod dead_letter;
pub mod dedupe;
pub mod device;
pub mod discard;
pub mod door;
pub mod error;
pub mod health;
pub mod index;
pub mod inference;
pub mod media;
pub mod migration;
pub mod outbox;
pub mod partition;
pub mod reject;
pub mod retention;
pub mod session;
pub mod sync_state;
pub mod tally;
pub mod telemetry;

use std::time::Duration;

use deadpool_postgres::{
    ClientWrapper, Hook, HookError, Manager, ManagerConfig, Object, Pool, QueueMode, RecyclingMethod,
    Runtime, Timeouts,
};
use tokio_postgres::types::ToSql;
use tokio_postgres::{NoTls, Row, Statement};

use crate::metrics;
pub(crate) use crate::store::error::at;
pub use crate::store::error::{DatabaseError, StoreError};

/// Every statement with its name, so that a test can prepare each against the migrated schema.
pub const STATEMENTS: &[&[&str]] = &[
    aggregate::STATEMENTS,
    audit::STATEMENTS,
    bench::STATEMENTS,
    clock::STATEMENTS,
    credential::STATEMENTS,
    dead_letter::STATEMENTS,
    dedupe::STATEMENTS,
    device::STATEMENTS,
    discard::STATEMENTS,
    door::STATEMENTS,
    health::STATEMENTS,
    index::STATEMENTS,
    inference::STATEMENTS,
    media::STATEMENTS,
    migration::STATEMENTS,
    outbox::STATEMENTS,
    partition::STATEMENTS,
    reject::STATEMENTS,
    retention::STATEMENTS,
    session::STATEMENTS,
    sync_state::STATEMENTS,
    tally::STATEMENTS,
    telemetry::STATEMENTS,
];

/// Seconds to wait for a free pooled connection, and for a new one to be made.
const CONNECT_SECONDS_MAX: u64 = 5;
/// How long housekeeping may take that nobody waits for.
const LEISURE_MAX: Duration = Duration::from_secs(6 * 3600);
/// How much longer than the server's own limit a client waits for an answer before it gives the connection up.
const ANSWER_GRACE_SECONDS: u64 = 5;

/// How to reach the database.
#[derive(Clone)]
pub struct StoreSettings {
    /// A PostgreSQL URL or key-value connection string. Holds a password: never logged.
    pub url: String,
    /// Pooled connections at most.
    pub pool_max: usize,
    /// Seconds after which the server ends a statement.
    pub statement_timeout_seconds: u64,
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
}

/// The database. Cloning shares the pool.
#[derive(Clone)]
pub struct Store {
    pool: Pool,
    /// For connections beside the pool.
    config: Box<tokio_postgres::Config>,
    answer_timeout: Duration,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("pool", &self.pool.status()).finish()
    }
}

impl Store {
    /// Makes the pool. No connection is opened yet: the engine starts while its database is away.
    ///
    /// # Errors
    /// [`StoreError::Url`] when the connection string cannot be read.
    pub fn new(settings: &StoreSettings) -> Result<Self, StoreError> {
        let mut config: tokio_postgres::Config =
            settings.url.parse().map_err(|error: tokio_postgres::Error| StoreError::Url(error.into()))?;
        config.application_name(&settings.application_name);
        config.connect_timeout(Duration::from_secs(CONNECT_SECONDS_MAX));
        config.keepalives_idle(Duration::from_secs(30));
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config.clone(), NoTls, recycling);
        // The search path is pinned, since a schema named like the role would otherwise hide the tables. A statement that
        // counts or aggregates gets one core at most, and never compiles itself: acknowledgements wait for what it takes.
        let setup = format!(
            "SET search_path = public; SET statement_timeout = '{}s'; SET timezone = 'UTC'; \
             SET max_parallel_workers_per_gather = 0; SET jit = off",
            settings.statement_timeout_seconds
        );
        let timeout = Some(Duration::from_secs(CONNECT_SECONDS_MAX));
        let pool = Pool::builder(manager)
            .max_size(settings.pool_max)
            .runtime(Runtime::Tokio1)
            // The connection used last first: its server process has everything at hand that the next statement needs.
            .queue_mode(QueueMode::Lifo)
            .timeouts(Timeouts { wait: timeout, create: timeout, recycle: timeout })
            .post_create(Hook::async_fn(move |client, _| {
                let setup = setup.clone();
                Box::pin(async move { client.batch_execute(&setup).await.map_err(HookError::Backend) })
            }))
            .build()?;
        let answer_timeout = Duration::from_secs(settings.statement_timeout_seconds + ANSWER_GRACE_SECONDS);
        Ok(Self { pool, config: Box::new(config), answer_timeout })
    }

    /// A pooled connection.
    ///
    /// # Errors
    /// When none is free in time or the database is away.
    pub async fn conn(&self) -> Result<Conn, StoreError> {
        let client = self.pool.get().await?;
        Ok(Conn { client: Some(client), is_in_transaction: false })
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
        let started = tokio::time::Instant::now();
        let outcome = tokio::time::timeout(self.answer_timeout, work(&mut conn)).await;
        metrics::db_query_duration_seconds(name).record(started.elapsed());
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                conn.give_up_if_broken(&error);
                if error.is_stale_plan() {
                    // The other connections have prepared the same statement for the same columns.
                    self.pool.manager().statement_caches.clear();
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
        self.run("ping", async |conn| conn.batch("ping", "SELECT 1").await).await
    }

    /// Connections in use and their limit.
    #[must_use]
    pub fn pool_in_use(&self) -> (usize, usize) {
        let status = self.pool.status();
        (status.size.saturating_sub(status.available), status.max_size)
    }
}

/// A connection of the pool, with the few verbs the domains need.
///
/// Work may be dropped half-way, when a request is given up for example. A connection that is inside a transaction then
/// is closed instead of being returned to the pool, and the server rolls back.
pub struct Conn {
    /// Empty once it was given up.
    client: Option<Object>,
    is_in_transaction: bool,
}

impl Drop for Conn {
    fn drop(&mut self) {
        if self.is_in_transaction {
            self.give_up();
        }
    }
}

impl Conn {
    /// A statement, prepared once per connection.
    pub(crate) async fn prepare(&self, sql: &str) -> Result<Statement, StoreError> {
        self.raw().prepare_cached(sql).await.map_err(at(name_of(sql)))
    }

    pub(crate) async fn query(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        let statement = self.prepare(sql).await?;
        self.raw().query(&statement, params).await.map_err(at(name_of(sql)))
    }

    pub(crate) async fn query_one(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, StoreError> {
        let statement = self.prepare(sql).await?;
        self.raw().query_one(&statement, params).await.map_err(at(name_of(sql)))
    }

    pub(crate) async fn query_opt(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, StoreError> {
        let statement = self.prepare(sql).await?;
        self.raw().query_opt(&statement, params).await.map_err(at(name_of(sql)))
    }

    pub(crate) async fn execute(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<u64, StoreError> {
        let statement = self.prepare(sql).await?;
        self.raw().execute(&statement, params).await.map_err(at(name_of(sql)))
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

/// The name in a statement's first line, `-- name`.
pub(crate) fn name_of(sql: &str) -> &'static str {
    let name = sql.lines().next().and_then(|line| line.strip_prefix("-- ")).unwrap_or("statement");
    STATEMENTS
        .iter()
        .flat_map(|statements| statements.iter())
        .filter_map(|known| known.lines().next()?.strip_prefix("-- "))
        .find(|known| *known == name)
        .unwrap_or("statement")
}
