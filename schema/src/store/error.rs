//! What can go wrong with the database, in the server's own words.

use std::error::Error;
use std::fmt;

use deadpool_postgres::{HookError, PoolError, TimeoutType};
use tokio_postgres::error::SqlState;

use crate::store::link::LinkError;
use crate::store::migration::Misfit;

/// What went wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The connection string cannot be read.
    #[error("read the database URL")]
    Url(#[from] LinkError),
    /// No connection could be made.
    #[error("connect to the database")]
    Connect(#[source] DatabaseError),
    /// No connection could be had of the pool.
    #[error("take a connection from the pool")]
    Pool(#[source] PoolError),
    /// So many of one kind wait for a connection that none came in time.
    #[error("wait for a turn at the database")]
    Crowded,
    /// The server would not keep what it commits; the problems with what to do about them.
    #[error("the database cannot be trusted: {0}")]
    Unfit(String),
    /// The pool could not be made.
    #[error("build the connection pool")]
    Build(#[from] deadpool_postgres::BuildError),
    /// A statement failed.
    #[error("run {name}")]
    Statement {
        /// The statement's or transaction's name.
        name: &'static str,
        /// What the server or the driver says.
        #[source]
        source: DatabaseError,
    },
    /// The server did not answer in time; the connection is given up.
    #[error("run {name}: no answer from the database")]
    Unanswered {
        /// The transaction's name.
        name: &'static str,
    },
    /// A migration failed, and left nothing behind.
    #[error("apply migration {migration}")]
    Migration {
        /// Its number and name.
        migration: String,
        /// What the server or the driver says.
        #[source]
        source: DatabaseError,
    },
    /// The tables are not those of this program.
    #[error(transparent)]
    Misfit(#[from] Misfit),
}

impl StoreError {
    /// What the server or the driver says, if it was asked.
    fn database(&self) -> Option<&DatabaseError> {
        match self {
            Self::Connect(source) | Self::Statement { source, .. } | Self::Migration { source, .. } => {
                Some(source)
            }
            Self::Url(_)
            | Self::Pool(_)
            | Self::Crowded
            | Self::Unfit(_)
            | Self::Build(_)
            | Self::Unanswered { .. }
            | Self::Misfit(_) => None,
        }
    }

    /// The server's code, when it was the server that refused.
    #[must_use]
    pub fn code(&self) -> Option<&SqlState> {
        self.database().and_then(DatabaseError::code)
    }

    /// Whether the data is at fault, so that the same rows would fail again: SQLSTATE classes 22 and 23, and values
    /// that PostgreSQL cannot take at all (54).
    #[must_use]
    pub fn is_data(&self) -> bool {
        let Self::Statement { source, .. } = self else { return false };
        source.code().is_some_and(|state| {
            let is_data_class = ["22", "23", "54"].iter().any(|class| state.code().starts_with(class));
            // A row that waited for the default partition while its month got one of its own: it goes there when it comes
            // again. A constraint that the data breaks has a name.
            let is_misplaced = *state == SqlState::CHECK_VIOLATION && source.constraint().is_none();
            is_data_class && !is_misplaced
        })
    }

    /// Whether the time for the statement was over.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Unanswered { .. }) || self.code() == Some(&SqlState::QUERY_CANCELED)
    }

    /// Whether a key is there already.
    #[must_use]
    pub fn is_replay(&self) -> bool {
        matches!(self, Self::Statement { .. }) && self.code() == Some(&SqlState::UNIQUE_VIOLATION)
    }

    /// Whether a row that another one belongs to is not there.
    #[must_use]
    pub fn is_missing_parent(&self) -> bool {
        self.code() == Some(&SqlState::FOREIGN_KEY_VIOLATION)
    }

    /// Whether the database is away, as opposed to a statement that it would not run.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Pool(_) | Self::Unanswered { .. } => true,
            Self::Statement { .. } | Self::Migration { .. } => self.code().is_none(),
            Self::Url(_) | Self::Build(_) | Self::Crowded | Self::Unfit(_) | Self::Misfit(_) => false,
        }
    }

    /// Whether the server has no room left: on a disk, in memory, for locks or for connections (class 53), or its disk fails.
    #[must_use]
    pub fn is_lack_of_room(&self) -> bool {
        self.code().is_some_and(|state| state.code().starts_with("53") || *state == SqlState::IO_ERROR)
    }

    /// Whether another connection would be better: this one is broken, its server is going down or has become read-only,
    /// its transaction is lost, or what it has prepared fits no longer.
    pub(crate) fn is_of_the_connection(&self) -> bool {
        const STATES: [&str; 5] = ["08", "0A000", "25", "26", "57P"];
        match self.database().map(DatabaseError::code) {
            Some(Some(state)) => STATES.iter().any(|begin| state.code().starts_with(begin)),
            Some(None) => true,
            None => false,
        }
    }

    /// Whether a table has changed since a statement was prepared, in the columns that the statement returns.
    pub(crate) fn is_stale_plan(&self) -> bool {
        self.code() == Some(&SqlState::FEATURE_NOT_SUPPORTED)
    }

    /// Whether trying again cannot help: the URL or a migration is wrong, a right is missing, or the tables are those of
    /// another program.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Url(_) | Self::Unfit(_) | Self::Misfit(_) => true,
            Self::Migration { source, .. } => source.code().is_some_and(is_of_the_statement),
            Self::Connect(_)
            | Self::Pool(_)
            | Self::Crowded
            | Self::Build(_)
            | Self::Statement { .. }
            | Self::Unanswered { .. } => false,
        }
    }
}

/// Whether a code blames the statement or the rights of whoever runs it, and not the state of the server: features that
/// are not supported, data, dependencies, routines, schemas, syntax and rights, limits, and what a function raises.
fn is_of_the_statement(state: &SqlState) -> bool {
    const CLASSES: [&str; 12] = ["0A", "0L", "0P", "22", "23", "2B", "2F", "39", "3F", "42", "54", "P0"];
    CLASSES.iter().any(|class| state.code().starts_with(class))
}

impl From<PoolError> for StoreError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(source) | PoolError::PostCreateHook(HookError::Backend(source)) => {
                Self::Connect(source.into())
            }
            PoolError::PostCreateHook(HookError::Message(problems)) => Self::Unfit(problems.into_owned()),
            PoolError::Timeout(TimeoutType::Wait | TimeoutType::Create | TimeoutType::Recycle)
            | PoolError::Closed
            | PoolError::NoRuntimeSpecified => Self::Pool(error),
        }
    }
}

/// What an error came of, for a log line beside the error itself.
#[must_use]
pub fn cause(error: &(dyn Error + 'static)) -> Option<String> {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    (!causes.is_empty()).then(|| causes.join(": "))
}

/// Names the statement an error came from.
pub(crate) fn at(name: &'static str) -> impl FnOnce(tokio_postgres::Error) -> StoreError {
    move |source| StoreError::Statement { name, source: source.into() }
}

/// What the server or the driver says, as one sentence: the server's message with its code and its hint, or the driver's
/// with its causes. The server's DETAIL is left out, since it quotes rows.
#[derive(Debug)]
pub struct DatabaseError(tokio_postgres::Error);

impl DatabaseError {
    /// The server's code; `None` when the server did not answer, or not with an error.
    #[must_use]
    pub fn code(&self) -> Option<&SqlState> {
        self.0.code()
    }

    /// The constraint that the server names.
    fn constraint(&self) -> Option<&str> {
        self.0.as_db_error().and_then(tokio_postgres::error::DbError::constraint)
    }
}

impl From<tokio_postgres::Error> for DatabaseError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self(error)
    }
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(said) = self.0.as_db_error() {
            write!(f, "{} (SQLSTATE {})", said.message(), said.code().code())?;
            return said.hint().map_or(Ok(()), |hint| write!(f, "; {hint}"));
        }
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

// The causes are in the sentence already.
impl Error for DatabaseError {}
