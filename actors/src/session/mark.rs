//! What people say of weighings: which enter no statistics, and which they have looked at.
//!
//! The session itself stays as it is, and so does what the cloud has of it: only our own statistics change, of the one day
//! of the weighing, whose flock is told in the same transaction.

use schema::clock::{Clock, Timestamp};
use schema::id::Uuid;
use schema::store::audit::{self, Action, Author, Deed};
use schema::store::session::mark::{self as rows, Kind, Mark};
use schema::store::session::{self, Session};
use schema::store::{Conn, Store, StoreError};
use serde_json::json;

/// Reads and writes what people say of weighings. Cloning shares the database.
#[derive(Clone, Debug)]
pub struct MarkDesk {
    /// The database, to write.
    pub store: Store,
    /// The same, to look.
    pub reads: Store,
    /// Wall time.
    pub clock: Clock,
}

/// A session, or one weight of it.
#[derive(Clone, Copy, Debug)]
pub struct Weighing<'a> {
    /// Tenant.
    pub tenant_id: &'a str,
    /// The session.
    pub session_id: &'a str,
    /// The weight; `None` means the whole session.
    pub weight_id: Option<Uuid>,
}

/// Why nothing was said.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// There is no such session.
    #[error("there is no such session")]
    NoSession,
    /// The session has no such weight.
    #[error("the session has no such weight")]
    NoWeight,
    /// There is no exclusion that could end.
    #[error("it is not excluded")]
    NotExcluded,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl MarkDesk {
    /// Keeps a weighing out of the statistics. One that is kept out already stays so, and what was said then is given back.
    ///
    /// # Errors
    /// [`MarkError`].
    pub async fn exclude(
        &self,
        weighing: Weighing<'_>,
        reason: &str,
        author: &Author,
    ) -> Result<Mark, MarkError> {
        let decide = |in_force: Option<Mark>| match in_force {
            Some(mark) => Ok(Said::Before(mark)),
            None => Ok(Said::Now { kind: Kind::Excluded, ends: None }),
        };
        self.say(weighing, Some(reason), author, decide).await
    }

    /// Takes a weighing into the statistics again.
    ///
    /// # Errors
    /// [`MarkError`].
    pub async fn include(
        &self,
        weighing: Weighing<'_>,
        reason: Option<&str>,
        author: &Author,
    ) -> Result<Mark, MarkError> {
        let decide = |in_force: Option<Mark>| match in_force {
            Some(mark) => Ok(Said::Now { kind: Kind::Included, ends: Some(mark.id) }),
            None => Err(MarkError::NotExcluded),
        };
        self.say(weighing, reason, author, decide).await
    }

    /// Notes that somebody has looked at a session. The row is its own record: the audit log has none of it.
    ///
    /// # Errors
    /// [`MarkError`].
    pub async fn review(
        &self,
        [tenant_id, session_id]: [&str; 2],
        note: Option<&str>,
        author: &Author,
    ) -> Result<Mark, MarkError> {
        let weighing = Weighing { tenant_id, session_id, weight_id: None };
        let decide = |_: Option<Mark>| Ok(Said::Now { kind: Kind::Reviewed, ends: None });
        self.say(weighing, note, author, decide).await
    }

    /// What was said of a session, newest first, before a row.
    ///
    /// # Errors
    /// [`MarkError::NoSession`], and when the database fails.
    pub async fn list(
        &self,
        names: [&str; 2],
        before: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<Mark>, MarkError> {
        let read = async |conn: &mut Conn| {
            let [tenant_id, session_id] = names;
            let Some(_) = session::find(conn, tenant_id, session_id).await? else { return Ok(None) };
            Ok(Some(rows::list(conn, names, before, limit).await?))
        };
        self.reads.run("session_marks", read).await?.ok_or(MarkError::NoSession)
    }

    async fn say(
        &self,
        weighing: Weighing<'_>,
        reason: Option<&str>,
        author: &Author,
        decide: impl Fn(Option<Mark>) -> Result<Said, MarkError>,
    ) -> Result<Mark, MarkError> {
        let now = self.clock.now();
        let names = [weighing.tenant_id, weighing.session_id];
        let write = async |conn: &Conn| {
            session::lock(conn, weighing.tenant_id, weighing.session_id).await?;
            if let Err(error) = check(conn, weighing).await? {
                return Ok(Err(error));
            }
            let said = match decide(rows::exclusion(conn, names, weighing.weight_id).await?) {
                Ok(said) => said,
                Err(error) => return Ok(Err(error)),
            };
            let (kind, ends) = match said {
                Said::Before(mark) => return Ok(Ok(mark)),
                Said::Now { kind, ends } => (kind, ends),
            };
            let mark = Mark {
                id: schema::id::new_id(),
                tenant_id: weighing.tenant_id.to_owned(),
                session_id: weighing.session_id.to_owned(),
                weight_id: weighing.weight_id,
                kind: kind.as_str().to_owned(),
                ends,
                reason: reason.map(str::to_owned),
                author: author.actor.clone(),
                created_at: now,
            };
            rows::add(conn, &mark).await?;
            if kind != Kind::Reviewed {
                rows::signal(conn, names).await?;
                note(conn, &mark, kind, author, now).await?;
            }
            Ok(Ok(mark))
        };
        let work = async |conn: &mut Conn| conn.transaction("session_mark", write).await;
        self.store.run("session_mark", work).await?
    }
}

/// What becomes of an order.
enum Said {
    /// It was said before.
    Before(Mark),
    /// It is said now.
    Now {
        /// What.
        kind: Kind,
        /// The exclusion that ends with it.
        ends: Option<Uuid>,
    },
}

async fn check(conn: &Conn, weighing: Weighing<'_>) -> Result<Result<(), MarkError>, StoreError> {
    let Weighing { tenant_id, session_id, weight_id } = weighing;
    let found: Option<Session> = session::find(conn, tenant_id, session_id).await?;
    if found.is_none() {
        return Ok(Err(MarkError::NoSession));
    }
    let Some(weight_id) = weight_id else { return Ok(Ok(())) };
    let has_weight = rows::has_weight(conn, [tenant_id, session_id], weight_id).await?;
    Ok(if has_weight { Ok(()) } else { Err(MarkError::NoWeight) })
}

async fn note(
    conn: &Conn,
    mark: &Mark,
    kind: Kind,
    author: &Author,
    now: Timestamp,
) -> Result<(), StoreError> {
    let tenants = [mark.tenant_id.clone()];
    let action = match kind {
        Kind::Excluded => Action::SessionExclude,
        Kind::Included | Kind::Reviewed => Action::SessionInclude,
    };
    let detail = json!({"weight_id": mark.weight_id, "reason": mark.reason, "mark_id": mark.id});
    let deed = Deed { action, tenants: Some(&tenants), target: Some(&mark.session_id), detail };
    audit::record(conn, author, &deed, now).await
}
