//! What the ways out of the barn, the heartbeat and the guard over the database are handed.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use actors::alarm::guard::DatabaseGuard;
use actors::alarm::heartbeat::url::BeatUrl;
use actors::alarm::heartbeat::{Heart, HeldLine, Outlets, SendBeat};
use actors::alarm::trouble::{Gauges, Troubles};
use actors::alarm::way::email::Email;
use actors::alarm::way::line::{KernelLines, LineSettings};
use actors::alarm::way::ntfy::Ntfy;
use actors::alarm::way::program::Program;
use actors::alarm::way::relay::Relay;
use actors::alarm::way::siren::{Post, Siren, SirenDesk};
use actors::alarm::way::webhook::Webhook;
use actors::alarm::way::{Way, Ways};
use actors::door::WayInView;
use schema::clock::Clock;
use schema::wire::topic::heartbeat_topic;
use tokio::time::sleep;

use crate::config::{Config, WaySettings};
use crate::observe;
use crate::parts::Parts;

/// The wait before a line of the heartbeat that could not be taken is tried again.
const LINE_RETRY: Duration = Duration::from_secs(30);

/// What tells of alarms, and of the engine's own life and trouble. Cloning shares everything.
#[derive(Clone)]
pub struct Telling {
    /// The ways out of the barn.
    pub ways: Ways,
    /// Where sirens answer.
    pub sirens: SirenDesk,
    /// The signs of life.
    pub heart: Heart,
    /// The engine's own trouble, as conditions of alarms.
    pub troubles: Troubles,
    /// Rings while the database is away.
    pub guard: DatabaseGuard,
}

impl Telling {
    /// What is told by what, of a configuration; nothing is connected.
    pub(super) fn new(config: &Config, way_in: &WayInView, clock: &Clock) -> Self {
        let sirens = SirenDesk::default();
        let post: Arc<dyn Post> = Arc::new(way_in.clone());
        let ways = ways(config, &sirens, &post, clock);
        let troubles = Troubles::default();
        let guard = DatabaseGuard::new(&config.edge.id, ways.clone(), troubles.clone(), clock.clone());
        let guarding = guard.clone();
        sirens.acknowledge_by(Arc::new(move |acknowledgment| {
            guarding.acknowledge(&acknowledgment);
        }));
        let heart = Heart::new(Duration::from_secs(config.alarms.heartbeat_seconds));
        Self { ways, sirens, heart, troubles, guard }
    }
}

/// The ways of a configuration.
pub(crate) fn ways(config: &Config, sirens: &SirenDesk, post: &Arc<dyn Post>, clock: &Clock) -> Ways {
    let lines = Arc::new(KernelLines);
    let ways = config.alarms.ways.iter().filter_map(|(name, settings)| -> Option<Arc<dyn Way>> {
        Some(match settings {
            WaySettings::Siren(settings) => {
                Arc::new(Siren::new(name, settings, sirens.clone(), Arc::clone(post), clock.clone())?)
            }
            WaySettings::Webhook(settings) => Arc::new(Webhook::new(name, settings.clone(), clock.clone())),
            WaySettings::Ntfy(settings) => Arc::new(Ntfy::new(name, settings.clone())),
            WaySettings::Program(settings) => Arc::new(Program::new(name, settings.clone())),
            WaySettings::Relay(settings) => Arc::new(Relay::new(name, settings.clone(), lines.clone())),
            WaySettings::Email(settings) => Arc::new(Email::new(name, settings.clone())),
        })
    });
    Ways::new(ways)
}

/// The gauges of this process.
struct OwnGauges;

impl Gauges for OwnGauges {
    fn read(&self, name: &str) -> Vec<(String, f64)> {
        observe::gauges(name)
    }
}

/// The line of the heartbeat's relay, if there is one.
pub(crate) fn heartbeat_line(config: &Config) -> Option<LineSettings> {
    let alarms = &config.alarms;
    let chip = alarms.heartbeat_gpio_chip.clone()?;
    Some(LineSettings {
        chip,
        line: alarms.heartbeat_gpio_line,
        active_low: alarms.heartbeat_gpio_active_low,
    })
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
