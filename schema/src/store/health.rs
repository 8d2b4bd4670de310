//! What the database says about itself: its version, and how far its tables have been migrated.

use tokio_postgres::error::SqlState;

use crate::store::{Conn, StoreError, embedded};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[SERVER_VERSION, SCHEMA_VERSION, DATA_DIRECTORY];

const SERVER_VERSION: &str = "-- server_version
SELECT current_setting('server_version')";

const SCHEMA_VERSION: &str = "-- schema_version
SELECT max(version)::int8 FROM refinery_schema_history";

// Only some roles may see it; the view leaves it out for others.
const DATA_DIRECTORY: &str = "-- data_directory
SELECT setting FROM pg_settings WHERE name = 'data_directory'";

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

/// The last migration that was applied; `None` when the tables have never been made.
///
/// # Errors
/// When the database fails.
pub async fn schema_version(conn: &Conn) -> Result<Option<i64>, StoreError> {
    match conn.query_one(SCHEMA_VERSION, &[]).await {
        Ok(row) => Ok(row.get(0)),
        Err(StoreError::Statement { source, .. }) if source.code() == Some(&SqlState::UNDEFINED_TABLE) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The last migration this program knows: where [`schema_version`] should be.
#[must_use]
pub fn schema_version_wanted() -> i64 {
    let runner = embedded::migrations::runner();
    runner.get_migrations().iter().map(|migration| i64::from(migration.version())).max().unwrap_or(0)
}
