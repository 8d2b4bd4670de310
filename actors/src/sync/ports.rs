//! What a sender asks for: the rows of the outbox, and the line to the cloud. In an engine these are PostgreSQL and HTTP; a
//! simulation puts a model behind each, and everything between the two is the engine's own.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use chrono::TimeDelta;
use schema::clock::Timestamp;
use schema::id::Uuid;
use schema::store::outbox::claim::{self, Batch, ClaimRequest, Claimed, ClaimedEvent, DueTenant};
use schema::store::outbox::lease;
use schema::store::outbox::settle::{self, Settled, Settlement};
use schema::store::outbox::slot::Slot;
use schema::store::{Store, StoreError};
use tokio::sync::Mutex;

use super::answer::Answer;
use super::cloud::Cloud;

/// Something that comes later.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// What the outbox answers.
pub type FromRows<'a, T> = Later<'a, Result<T, StoreError>>;

/// The rows of the outbox, by the transactions that a sender makes of them.
pub trait Rows: Debug + Send + Sync {
    /// The name under which this engine holds leases, which no other living engine has.
    fn holder(&self) -> FromRows<'_, Arc<str>>;
    /// See [`lease::release_mine`].
    fn release_mine<'a>(&'a self, holder: &'a str, groups: &'a [i16]) -> FromRows<'a, u64>;
    /// See [`claim::due_tenants`].
    fn due_tenants<'a>(
        &'a self,
        groups: &'a [i16],
        now: Timestamp,
        lease_max: TimeDelta,
    ) -> FromRows<'a, Vec<DueTenant>>;
    /// See [`claim::claim`].
    fn claim<'a>(&'a self, request: &'a ClaimRequest<'a>) -> FromRows<'a, Claimed>;
    /// See [`lease::renew`].
    fn renew<'a>(&'a self, batch: &'a Batch, lease_expires_at: Timestamp) -> FromRows<'a, bool>;
    /// See [`lease::mark_sent`].
    fn mark_sent<'a>(
        &'a self,
        batch: &'a Batch,
        events: &'a [&'a ClaimedEvent],
        now: Timestamp,
    ) -> FromRows<'a, u64>;
    /// See [`settle::settle`].
    fn settle<'a>(
        &'a self,
        batch: &'a Batch,
        settlement: &'a Settlement<'a>,
        now: Timestamp,
    ) -> FromRows<'a, Settled>;
}

/// The line to the cloud.
pub trait Line: Debug + Send + Sync {
    /// Posts a batch and waits for the answer.
    fn post<'a>(&'a self, tenant_id: &'a str, request_id: Uuid, body: String) -> Later<'a, Answer>;
}

/// Both, and the chance that spreads waits: a number from 0.5 to 1.
#[derive(Clone)]
pub struct Ports {
    /// The rows.
    pub rows: Arc<dyn Rows>,
    /// The line; `None` while nothing is to be sent.
    pub line: Option<Arc<dyn Line>>,
    /// The chance.
    pub chance: Arc<dyn Fn() -> f64 + Send + Sync>,
}

impl Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ports").field("rows", &self.rows).field("line", &self.line).finish_non_exhaustive()
    }
}

/// The rows in PostgreSQL.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) store: Store,
    pub(super) edge_id: String,
    /// Holds the name.
    pub(super) slot: Mutex<Option<Slot>>,
}

impl Rows for Database {
    /// Taken anew when the connection that holds it was lost.
    fn holder(&self) -> FromRows<'_, Arc<str>> {
        Box::pin(async move {
            let mut slot = self.slot.lock().await;
            if let Some(held) = slot.as_ref().filter(|slot| slot.is_held()) {
                return Ok(held.name());
            }
            let taken = Slot::take(&self.store, &self.edge_id).await?;
            let name = taken.name();
            *slot = Some(taken);
            Ok(name)
        })
    }

    fn release_mine<'a>(&'a self, holder: &'a str, groups: &'a [i16]) -> FromRows<'a, u64> {
        Box::pin(async move {
            let work = async |conn: &mut _| lease::release_mine(conn, holder, groups).await;
            self.store.run("release_mine", work).await
        })
    }

    fn due_tenants<'a>(
        &'a self,
        groups: &'a [i16],
        now: Timestamp,
        lease_max: TimeDelta,
    ) -> FromRows<'a, Vec<DueTenant>> {
        Box::pin(async move {
            let work = async |conn: &mut _| claim::due_tenants(conn, groups, now, lease_max).await;
            self.store.run("due_tenants", work).await
        })
    }

    fn claim<'a>(&'a self, request: &'a ClaimRequest<'a>) -> FromRows<'a, Claimed> {
        Box::pin(async move {
            self.store.run("claim", async |conn: &mut _| claim::claim(conn, request).await).await
        })
    }

    fn renew<'a>(&'a self, batch: &'a Batch, lease_expires_at: Timestamp) -> FromRows<'a, bool> {
        Box::pin(async move {
            let work = async |conn: &mut _| lease::renew(conn, batch, lease_expires_at).await;
            self.store.run("renew", work).await
        })
    }

    fn mark_sent<'a>(
        &'a self,
        batch: &'a Batch,
        events: &'a [&'a ClaimedEvent],
        now: Timestamp,
    ) -> FromRows<'a, u64> {
        Box::pin(async move {
            let work = async |conn: &mut _| lease::mark_sent(conn, batch, events, now).await;
            self.store.run("mark_sent", work).await
        })
    }

    fn settle<'a>(
        &'a self,
        batch: &'a Batch,
        settlement: &'a Settlement<'a>,
        now: Timestamp,
    ) -> FromRows<'a, Settled> {
        Box::pin(async move {
            let work =
                async |conn: &mut _| settle::settle(conn, &batch.tenant_id, batch.id, settlement, now).await;
            self.store.run("settle", work).await
        })
    }
}

/// The line over HTTP.
#[derive(Debug)]
pub(super) struct Http(pub(super) Arc<Cloud>);

impl Line for Http {
    fn post<'a>(&'a self, tenant_id: &'a str, request_id: Uuid, body: String) -> Later<'a, Answer> {
        Box::pin(self.0.post(tenant_id, request_id, body))
    }
}
