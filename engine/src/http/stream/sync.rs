//! How sending fares, as a stream tells it: looked at once for all streams of a tenant.

use std::collections::HashMap;
use std::sync::Arc;

use schema::store::Conn;
use schema::store::outbox::queries;
use serde::Serialize;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, interval};

use super::super::AppState;
use super::super::time::Time;
use super::SYNC_EVERY;

/// Tenants of which something is known.
const TENANTS_MAX: usize = 256;

/// What is told of sending.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Glance {
    /// `up`, `down`, `unknown` or `disabled`.
    cloud: &'static str,
    /// When the cloud last took a batch.
    last_success_at: Option<Time>,
    /// Events of the tenant that wait.
    waiting: i64,
    /// Those that wait for a person.
    failed: i64,
    /// When the oldest that waits was made.
    oldest_waiting_at: Option<Time>,
}

/// What was last seen, by tenant. Cloning shares it.
#[derive(Clone, Default)]
pub(super) struct Glances(Arc<Mutex<HashMap<String, (Instant, Glance)>>>);

impl Glances {
    /// What is known of a tenant's events, no older than [`SYNC_EVERY`]; `None` while the database does not say. Whoever asks
    /// meanwhile waits for the same answer.
    async fn of(&self, state: &AppState, tenant_id: &str) -> Option<Glance> {
        let mut known = self.0.lock().await;
        if let Some((_, glance)) = known.get(tenant_id).filter(|(at, _)| at.elapsed() < SYNC_EVERY / 2) {
            return Some(glance.clone());
        }
        let tenants = [tenant_id.to_owned()];
        let count = async |conn: &mut Conn| queries::counts(conn, Some(&tenants)).await;
        let counts = state.reads.run("stream_sync", count).await.ok()?;
        let view = state.sync.view();
        let glance = Glance {
            cloud: view.state.as_str(),
            last_success_at: view.last_success_at.map(Time),
            waiting: counts.pending + counts.claimed + counts.sent,
            failed: counts.failed,
            oldest_waiting_at: counts.oldest_pending_at.map(Time),
        };
        if known.len() >= TENANTS_MAX {
            known.clear();
        }
        known.insert(tenant_id.to_owned(), (Instant::now(), glance.clone()));
        Some(glance)
    }
}

/// Looks again and again, beside a stream that must not wait for the database.
pub(super) async fn watch(state: Arc<AppState>, tenant_id: String, told: watch::Sender<Option<Glance>>) {
    let mut ticks = interval(SYNC_EVERY);
    while !told.is_closed() {
        ticks.tick().await;
        if let Some(glance) = state.streams.glances.of(&state, &tenant_id).await {
            told.send_if_modified(|known| {
                let is_news = known.as_ref() != Some(&glance);
                *known = Some(glance);
                is_news
            });
        }
    }
}
