//! Who looks at the console: logins of browsers, and codes that let somebody in once.

use crate::clock::Timestamp;
use crate::clock::deadline::waits;
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[OPEN, TRIM, FIND, SEE, END, END_ALL, LIST, INVITE, INVITES, REDEEM, EXPIRE];

/// Logins of one name at most; the oldest gives way.
pub const SESSIONS_PER_NAME_MAX: i64 = 20;
/// Codes that wait at most.
pub const INVITES_MAX: i64 = 100;
/// Rows that go at a time.
pub const ROWS_PER_CHUNK: i64 = 1000;

/// A login of a browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// SHA-256 of what the browser shows.
    pub token_hash: Vec<u8>,
    /// A person who was invited, or the name of an operator key.
    pub name: String,
    /// `viewer`, `farmer`, `engineer` or `admin`.
    pub role: String,
    /// Whose rows it may see; `*` means all.
    pub tenants: Vec<String>,
    /// What is remembered of the key that opened it.
    pub key_mark: Option<Vec<u8>>,
    /// Since when.
    pub created_at: Timestamp,
    /// When it last called, to a minute.
    pub seen_at: Timestamp,
    /// When it is over, whatever it does.
    pub ends_at: Timestamp,
}

row_of!(Session, session_columns as "s": token_hash, name, role, tenants, key_mark, created_at, seen_at, ends_at);

/// A code that lets somebody in once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    /// SHA-256 of the code.
    pub code_hash: Vec<u8>,
    /// Who is let in.
    pub name: String,
    /// `viewer`, `farmer`, `engineer` or `admin`.
    pub role: String,
    /// Whose rows that person may see; `*` means all.
    pub tenants: Vec<String>,
    /// Since when.
    pub created_at: Timestamp,
    /// When nobody is let in by it any more.
    pub ends_at: Timestamp,
}

row_of!(Invite, invite_columns as "i": code_hash, name, role, tenants, created_at, ends_at);

const OPEN: &str = "-- console_open
INSERT INTO console_sessions (token_hash, name, role, tenants, key_mark, created_at, seen_at, ends_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";

const TRIM: &str = "-- console_trim
DELETE FROM console_sessions WHERE token_hash IN (
    SELECT token_hash FROM console_sessions WHERE name = $1 ORDER BY created_at DESC, token_hash OFFSET $2)";

/// Lets a browser in, as part of the caller's transaction. The oldest login of the same name gives way when there are too many.
///
/// # Errors
/// When the database fails.
pub async fn open(conn: &Conn, session: &Session) -> Result<(), StoreError> {
    let Session { token_hash, name, role, tenants, key_mark, created_at, seen_at, ends_at } = session;
    conn.execute(OPEN, &[token_hash, name, role, tenants, key_mark, created_at, seen_at, ends_at]).await?;
    conn.execute(TRIM, &[name, &SESSIONS_PER_NAME_MAX]).await?;
    Ok(())
}

const FIND: &str = concat!(
    "-- console_find\nSELECT ",
    session_columns!(),
    " FROM console_sessions AS s WHERE s.token_hash = $1"
);

/// The login of a token, whether it is over or not.
///
/// # Errors
/// When the database fails.
pub async fn find(conn: &Conn, token_hash: &[u8]) -> Result<Option<Session>, StoreError> {
    Ok(conn.query(FIND, &[&token_hash]).await?.first().map(Session::from))
}

const SEE: &str = "-- console_see
UPDATE console_sessions SET seen_at = $2 WHERE token_hash = $1";

/// Notes that a login is in use.
///
/// # Errors
/// When the database fails.
pub async fn see(conn: &Conn, token_hash: &[u8], now: Timestamp) -> Result<(), StoreError> {
    conn.execute(SEE, &[&token_hash, &now]).await?;
    Ok(())
}

const END: &str = "-- console_end
DELETE FROM console_sessions WHERE token_hash = $1";

/// Ends a login.
///
/// # Errors
/// When the database fails.
pub async fn end(conn: &Conn, token_hash: &[u8]) -> Result<(), StoreError> {
    conn.execute(END, &[&token_hash]).await?;
    Ok(())
}

const END_ALL: &str = "-- console_end_all
WITH codes AS (DELETE FROM console_invites WHERE name = $1 RETURNING 1),
    logins AS (DELETE FROM console_sessions WHERE name = $1 AND key_mark IS NULL RETURNING 1)
SELECT (SELECT count(*) FROM codes) + (SELECT count(*) FROM logins)";

/// Ends the logins of a person, and the codes that wait for that person; says how many there were.
///
/// # Errors
/// When the database fails.
pub async fn end_all(conn: &Conn, name: &str) -> Result<i64, StoreError> {
    Ok(conn.query_one(END_ALL, &[&name]).await?.get(0))
}

const LIST: &str = concat!(
    "-- console_list\nSELECT ",
    session_columns!(),
    " FROM console_sessions AS s ORDER BY s.seen_at DESC LIMIT $1"
);

/// Logins, those that called last first.
///
/// # Errors
/// When the database fails.
pub async fn list(conn: &Conn, limit: i64) -> Result<Vec<Session>, StoreError> {
    Ok(conn.query(LIST, &[&limit]).await?.iter().map(Session::from).collect())
}

const INVITE: &str = "-- console_invite
INSERT INTO console_invites (code_hash, name, role, tenants, created_at, ends_at) VALUES ($1, $2, $3, $4, $5, $6)";

const INVITES: &str =
    concat!("-- console_invites\nSELECT count(*) FROM console_invites WHERE ", waits!("ends_at", "$1", "$2"));

/// Keeps a code, unless too many wait; says whether it did.
///
/// # Errors
/// When the database fails.
pub async fn invite(conn: &Conn, invite: &Invite, farthest: Timestamp) -> Result<bool, StoreError> {
    let Invite { code_hash, name, role, tenants, created_at, ends_at } = invite;
    let waiting: i64 = conn.query_one(INVITES, &[created_at, &farthest]).await?.get(0);
    if waiting >= INVITES_MAX {
        return Ok(false);
    }
    conn.execute(INVITE, &[code_hash, name, role, tenants, created_at, ends_at]).await?;
    Ok(true)
}

const REDEEM: &str = concat!(
    "-- console_redeem\nDELETE FROM console_invites AS i WHERE i.code_hash = $1 AND ",
    waits!("i.ends_at", "$2", "$3"),
    " RETURNING ",
    invite_columns!()
);

/// Takes a code that is still good. Nobody takes it again.
///
/// # Errors
/// When the database fails.
pub async fn redeem(
    conn: &Conn,
    code_hash: &[u8],
    now: Timestamp,
    farthest: Timestamp,
) -> Result<Option<Invite>, StoreError> {
    Ok(conn.query(REDEEM, &[&code_hash, &now, &farthest]).await?.first().map(Invite::from))
}

const EXPIRE: &str = "-- console_expire
WITH codes AS (DELETE FROM console_invites WHERE ends_at <= $1 RETURNING 1),
    logins AS (DELETE FROM console_sessions WHERE token_hash = ANY (ARRAY(
        SELECT token_hash FROM console_sessions WHERE ends_at <= $1 ORDER BY ends_at LIMIT $2)) RETURNING 1)
SELECT (SELECT count(*) FROM codes) + (SELECT count(*) FROM logins)";

/// Removes codes and logins that are over: a chunk, of which it says the size.
///
/// # Errors
/// When the database fails.
pub async fn expire(conn: &Conn, now: Timestamp) -> Result<u64, StoreError> {
    Ok(conn.query_one(EXPIRE, &[&now, &ROWS_PER_CHUNK]).await?.get::<_, i64>(0).unsigned_abs())
}
