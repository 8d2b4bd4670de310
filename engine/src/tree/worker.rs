//! A worker: a process that does some of an engine's work beside it.

use std::future::Future;

use actors::supervisor::ChildSpec;
use clap::ValueEnum;

use super::{Beside, chore, database_probe, inference, serve, sync_partitions, take_up};
use crate::config::Config;
use crate::http::{self, AppState};
use crate::parts::Parts;

/// A kind of work that processes can share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Work {
    /// Looks at images and stores their weights.
    Inference,
    /// Sends events of the outbox to the cloud.
    Sync,
}

/// Does such work for an engine from here to `shutdown`: no devices, and over HTTP only health and metrics. Jobs and lane
/// groups are leased, so that any number of processes share them.
///
/// # Errors
/// When the listener cannot be opened, the database is newer than this program, or parts fail again and again.
pub async fn run(
    mut config: Config,
    works: &[Work],
    beside: Beside,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let looks_at_images = works.contains(&Work::Inference);
    if !looks_at_images {
        // Nobody asks its model; the bundled one is small and always there.
        config.inference.enabled = false;
        config.inference.model_path = None;
    }
    let parts = Parts::new(&config)?;
    let state = AppState::of(&config, &parts)?;
    let reloads = take_up(beside.auth, state.authority(), parts.clone());
    let face = http::worker_face(&config, state, looks_at_images);
    let children = |config: &Config, parts: &Parts| Ok(children(works, config, parts));
    serve(&config, &parts, face, reloads, children, shutdown).await
}

fn children(works: &[Work], config: &Config, parts: &Parts) -> Vec<ChildSpec> {
    let mut children = vec![chore(parts, database_probe(parts))];
    if works.contains(&Work::Sync) {
        children.extend(sync_partitions(parts));
    }
    if works.contains(&Work::Inference) {
        children.extend(inference::children(config, parts));
    }
    children
}
