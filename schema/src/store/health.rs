//! What the database says about itself.

use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[SERVER_VERSION, DATA_DIRECTORY];

const SERVER_VERSION: &str = "-- server_version
SELECT current_setting('server_version')";

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
