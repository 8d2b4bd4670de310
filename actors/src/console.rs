//! Who may look at the console: people who are let in once by a code, operators by their keys, and the logins of both.

use chrono::Duration;
use rand::Rng;
use schema::clock::deadline::{farthest, is_due};
use schema::clock::{Clock, Timestamp};
use schema::store::audit::{self, Action, Author, Deed};
use schema::store::console::{self, Invite, Session};
use schema::store::{Conn, Store, StoreError};
use serde_json::json;
use sha2::{Digest, Sha256};

/// How long a login lasts, whatever it does.
pub const SESSION_MAX: Duration = Duration::days(30);
/// How long a login lasts that nobody uses.
pub const SESSION_IDLE_MAX: Duration = Duration::days(7);
/// How long a code waits at most.
pub const INVITE_MAX: Duration = Duration::hours(24);
/// How long a code waits unless somebody says.
pub const INVITE: Duration = Duration::minutes(10);
/// How exactly is known when a login was last used.
const SEEN_EVERY: Duration = Duration::minutes(1);
/// Random bytes of a token: 256 bits.
const TOKEN_BYTES: usize = 32;
/// Characters of a code, of which each says five bits.
const CODE_CHARACTERS: usize = 10;
/// The characters of a code: none looks like another one.
const CODE_ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
/// Bytes of a person's name.
pub const NAME_BYTES_MAX: usize = 64;

/// What somebody may do at the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look.
    Viewer,
    /// Besides, answer alarms and keep the book.
    Farmer,
    /// Besides, look after devices and the box.
    Engineer,
    /// All of it.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Farmer, Self::Engineer, Self::Admin];

    /// The text in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Farmer => "farmer",
            Self::Engineer => "engineer",
            Self::Admin => "admin",
        }
    }

    /// The role of a text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// Somebody who is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// A person, or the name of an operator key.
    pub name: String,
    /// What that one may do.
    pub role: Role,
    /// Whose rows that one may see; `*` means all.
    pub tenants: Vec<String>,
    /// What is remembered of the operator's key; `None` for a person who was invited.
    pub key_mark: Option<[u8; 32]>,
}

impl Guest {
    fn of(session: Session) -> Option<Self> {
        let key_mark = match session.key_mark {
            Some(mark) => Some(mark.try_into().ok()?),
            None => None,
        };
        let Session { name, role, tenants, .. } = session;
        Some(Self { name, role: Role::parse(&role)?, tenants, key_mark })
    }
}

/// Lets people in and out. Cloning shares the database.
#[derive(Clone, Debug)]
pub struct ConsoleDesk {
    /// The database.
    pub store: Store,
    /// Wall time.
    pub clock: Clock,
}

/// Why nobody was invited.
#[derive(Debug, thiserror::Error)]
pub enum InviteError {
    /// Too many codes wait.
    #[error("{} codes wait to be used: let some of them run out", console::INVITES_MAX)]
    Full,
    /// The name cannot be kept.
    #[error("the name must have 1 to {NAME_BYTES_MAX} bytes and no control characters")]
    Name,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ConsoleDesk {
    /// Invites a person: the code lets that one in once, within `lifetime`.
    ///
    /// # Errors
    /// [`InviteError`].
    pub async fn invite(
        &self,
        guest: &Guest,
        lifetime: Duration,
        author: &Author,
    ) -> Result<String, InviteError> {
        let is_name =
            (1..=NAME_BYTES_MAX).contains(&guest.name.len()) && !guest.name.contains(char::is_control);
        if !is_name {
            return Err(InviteError::Name);
        }
        let (code, now) = (new_code(), self.clock.now());
        let invite = Invite {
            code_hash: hash(&code),
            name: guest.name.clone(),
            role: guest.role.as_str().to_owned(),
            tenants: guest.tenants.clone(),
            created_at: now,
            ends_at: now + lifetime.min(INVITE_MAX),
        };
        let detail = json!({"role": invite.role, "ends_at": invite.ends_at});
        let write = async |conn: &Conn| {
            let is_kept = console::invite(conn, &invite, farthest(now, INVITE_MAX)).await?;
            if is_kept {
                note(conn, author, Action::ConsoleInvite, guest, detail, now).await?;
            }
            Ok(is_kept)
        };
        if self.transaction("console_invite", write).await? { Ok(code) } else { Err(InviteError::Full) }
    }

    /// Lets in whoever shows a code, and returns the login with what the browser is to show from now on. No code does it twice.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn redeem(&self, code: &str, origin: &str) -> Result<Option<(Guest, String)>, StoreError> {
        let (code_hash, now) = (hash(&plain(code)), self.clock.now());
        let take = async |conn: &Conn| {
            let Some(invite) = console::redeem(conn, &code_hash, now, farthest(now, INVITE_MAX)).await?
            else {
                return Ok(None);
            };
            let Some(role) = Role::parse(&invite.role) else { return Ok(None) };
            let guest = Guest { name: invite.name, role, tenants: invite.tenants, key_mark: None };
            let token = admit(conn, &guest, origin, now).await?;
            Ok(Some((guest, token)))
        };
        self.transaction("console_redeem", take).await
    }

    /// Lets somebody in who is known otherwise, and returns what the browser is to show from now on.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn open(&self, guest: &Guest, origin: &str) -> Result<String, StoreError> {
        let now = self.clock.now();
        self.transaction("console_open", async |conn| admit(conn, guest, origin, now).await).await
    }

    /// Who shows such a token, if that login is not over.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find(&self, token: &str) -> Result<Option<Guest>, StoreError> {
        let (token_hash, now) = (hash(token), self.clock.now());
        let find = async |conn: &mut Conn| {
            let Some(session) = console::find(conn, &token_hash).await? else { return Ok(None) };
            if is_over(&session, now) {
                return Ok(None);
            }
            if now - session.seen_at >= SEEN_EVERY {
                console::see(conn, &token_hash, now).await?;
            }
            Ok(Guest::of(session))
        };
        self.store.run("console_find", find).await
    }

    /// Ends a login.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn end(&self, token: &str, guest: &Guest, origin: &str) -> Result<(), StoreError> {
        let (token_hash, now) = (hash(token), self.clock.now());
        let author = Author { actor: actor(guest), origin: origin.to_owned() };
        let end = async |conn: &Conn| {
            console::end(conn, &token_hash).await?;
            note(conn, &author, Action::ConsoleLogout, guest, json!({}), now).await
        };
        self.transaction("console_end", end).await
    }

    /// Ends all logins of a person who was invited, and the codes that wait; says how many there were.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn end_all(&self, name: &str, author: &Author) -> Result<i64, StoreError> {
        let now = self.clock.now();
        let guest = Guest {
            name: name.to_owned(),
            role: Role::Viewer,
            tenants: vec!["*".to_owned()],
            key_mark: None,
        };
        let end = async |conn: &Conn| {
            let ended = console::end_all(conn, name).await?;
            note(conn, author, Action::ConsoleEnd, &guest, json!({"ended": ended}), now).await?;
            Ok(ended)
        };
        self.transaction("console_end_all", end).await
    }

    /// Logins that are not over, those that called last first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(&self, limit: i64) -> Result<Vec<Session>, StoreError> {
        let now = self.clock.now();
        let all = self.store.run("console_list", async |conn| console::list(conn, limit).await).await?;
        Ok(all.into_iter().filter(|session| !is_over(session, now)).collect())
    }

    async fn transaction<T>(
        &self,
        name: &'static str,
        work: impl AsyncFnOnce(&Conn) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.store.run(name, async |conn| conn.transaction(name, work).await).await
    }
}

/// Whether a login has ended by its age, or because nobody used it.
fn is_over(session: &Session, now: Timestamp) -> bool {
    is_due(session.ends_at, now, SESSION_MAX)
        || is_due(session.seen_at + SESSION_IDLE_MAX, now, SESSION_IDLE_MAX)
}

/// How what somebody does at the console is signed.
#[must_use]
pub fn actor(guest: &Guest) -> String {
    match guest.key_mark {
        Some(_) => format!("operator:{}", guest.name),
        None => format!("operator:{}", invited(&guest.name)),
    }
}

/// The name of a person who was invited, as no operator key can have it by accident.
#[must_use]
pub fn invited(name: &str) -> String {
    format!("invited/{name}")
}

async fn admit(conn: &Conn, guest: &Guest, origin: &str, now: Timestamp) -> Result<String, StoreError> {
    let token = hex::encode(rand::rng().random::<[u8; TOKEN_BYTES]>());
    let session = Session {
        token_hash: hash(&token),
        name: guest.name.clone(),
        role: guest.role.as_str().to_owned(),
        tenants: guest.tenants.clone(),
        key_mark: guest.key_mark.map(Vec::from),
        created_at: now,
        seen_at: now,
        ends_at: now + SESSION_MAX,
    };
    console::open(conn, &session).await?;
    let author = Author { actor: actor(guest), origin: origin.to_owned() };
    let detail = json!({"role": session.role, "by": if guest.key_mark.is_some() { "key" } else { "code" }});
    note(conn, &author, Action::ConsoleLogin, guest, detail, now).await?;
    Ok(token)
}

async fn note(
    conn: &Conn,
    author: &Author,
    action: Action,
    guest: &Guest,
    detail: serde_json::Value,
    now: Timestamp,
) -> Result<(), StoreError> {
    let is_for_all = guest.tenants.iter().any(|tenant| tenant == "*");
    let tenants = (!is_for_all).then_some(&*guest.tenants);
    audit::record(conn, author, &Deed { action, tenants, target: Some(&guest.name), detail }, now).await
}

fn new_code() -> String {
    let mut code = [0_u8; CODE_CHARACTERS];
    rand::rng().fill(&mut code[..]);
    code.iter().map(|byte| char::from(CODE_ALPHABET[usize::from(byte % 32)])).collect()
}

/// A code as it was made, however somebody typed it.
fn plain(code: &str) -> String {
    code.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_uppercase())
        .take(CODE_CHARACTERS + 1)
        .collect()
}

fn hash(text: &str) -> Vec<u8> {
    Sha256::digest(text).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_however_it_is_typed() {
        let code = new_code();
        assert_eq!(code.len(), CODE_CHARACTERS);
        let typed = format!(" {}-{} ", code[..5].to_lowercase(), &code[5..]);
        assert_eq!(plain(&typed), code);
        assert_ne!(new_code(), code);
    }

    #[test]
    fn a_login_is_over_by_age_by_idleness_and_by_a_clock_that_was_wrong() {
        let now = Timestamp::UNIX_EPOCH + Duration::days(20_000);
        let session = |seen: Duration, ends: Duration| Session {
            token_hash: Vec::new(),
            name: "n".into(),
            role: "viewer".into(),
            tenants: Vec::new(),
            key_mark: None,
            created_at: now,
            seen_at: now + seen,
            ends_at: now + ends,
        };
        let check = |seen, ends, expected: bool| {
            assert_eq!(is_over(&session(seen, ends), now), expected, "{seen} {ends}");
        };
        check(Duration::zero(), SESSION_MAX, false);
        check(Duration::days(-6), Duration::seconds(1), false);
        check(Duration::days(-7), Duration::days(1), true);
        check(Duration::days(-1), Duration::zero(), true);
        check(Duration::zero(), SESSION_MAX + Duration::days(1), true);
        check(Duration::days(1), SESSION_MAX, true);
    }
}
