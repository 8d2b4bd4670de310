//! The heartbeat, the engine's own trouble and the guard over the database, beside the tree.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use actors::alarm::heartbeat::url::BeatUrl;
use actors::alarm::heartbeat::{Heart, HeldLine, Outlets, SendBeat};
use actors::alarm::owner::{self, AlarmOwner};
use actors::alarm::trouble::Gauges;
use actors::alarm::way::line::{KernelLines, LineSettings};
use actors::supervisor::ChildSpec;
use schema::wire::topic::heartbeat_topic;
use tokio::time::sleep;

use crate::config::Config;
use crate::observe;
use crate::parts::Parts;
use crate::telling::{Telling, heartbeat_line};

/// The wait before a line of the heartbeat that could not be taken is tried again.
const LINE_RETRY: Duration = Duration::from_secs(30);

/// The owner of the alarms.
pub(super) fn owner(config: &Config, parts: &Parts) -> ChildSpec {
    let args = owner::Args {
        store: parts.store.clone(),
        clock: parts.clock.clone(),
        tap: parts.tap.clone(),
        edge_id: config.edge.id.clone(),
        ways: parts.telling.ways.clone(),
        troubles: parts.telling.troubles.clone(),
        guard: parts.telling.guard.clone(),
        heart: parts.telling.heart.clone(),
        plans: Arc::new(config.alarms.plans()),
        drill_at: config.alarms.drill_at,
        places: parts.places.clone(),
        board: parts.board.clone(),
        feed: parts.alarm_feed.clone(),
    };
    ChildSpec::new("alarms", "", &parts.alarms, move || (AlarmOwner, args.clone()))
}

/// The gauges of this process.
struct OwnGauges;

impl Gauges for OwnGauges {
    fn read(&self, name: &str) -> Vec<(String, f64)> {
        observe::gauges(name)
    }
}

fn outlets(config: &Config, parts: &Parts) -> Outlets {
    let alarms = &config.alarms;
    let url = alarms.heartbeat_url.as_ref();
    let url = url.and_then(|url| BeatUrl::new(url.as_str(), alarms.heartbeat_tls_ca.clone()));
    Outlets {
        edge_id: config.edge.id.clone(),
        clock: parts.clock.clone(),
        mqtt: (Arc::new(parts.way_in.clone()), heartbeat_topic(&config.edge.id)),
        http: url.map(|url| Arc::new(url) as Arc<dyn SendBeat>),
    }
}

/// The last word of an engine that ends in order.
pub(super) fn part(config: &Config, parts: &Parts) {
    outlets(config, parts).part();
}

/// Stands beside the tree, before it begins and when it does not answer: beats, looks at the gauges, and rings while the
/// database is away.
pub(super) fn keep(config: &Config, parts: &Parts) -> impl Future<Output = Infallible> + Send + use<> {
    let Telling { heart, troubles, guard, .. } = parts.telling.clone();
    let alarms = &config.alarms;
    let outlets = outlets(config, parts);
    let line = heartbeat_line(config).map(|line| (line, alarms.heartbeat_gpio_pulse));
    let holding = hold(heart.clone(), line);
    async move {
        tokio::select! {
            never = heart.keep(outlets) => never,
            never = troubles.keep(Arc::new(OwnGauges)) => never,
            never = guard.keep() => never,
            never = holding => never,
        }
    }
}

/// Holds the relay of the heartbeat. Dropping the future lets it go.
async fn hold(heart: Heart, line: Option<(LineSettings, bool)>) -> Infallible {
    let Some((line, is_pulsed)) = line else { return std::future::pending().await };
    loop {
        match HeldLine::start(heart.clone(), Arc::new(KernelLines), line.clone(), is_pulsed) {
            Ok(_held) => return std::future::pending().await,
            Err(error) => {
                tracing::error!(%error, "the relay of the heartbeat cannot be taken, and rings");
                sleep(LINE_RETRY).await;
            }
        }
    }
}
