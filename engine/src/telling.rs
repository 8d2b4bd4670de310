//! What tells of alarms, made of the configuration.

use std::sync::Arc;
use std::time::Duration;

use actors::address::Address;
use actors::alarm::guard::DatabaseGuard;
use actors::alarm::heartbeat::Heart;
use actors::alarm::owner;
use actors::alarm::trouble::Troubles;
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

use crate::config::{Config, WaySettings};

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
    pub(crate) fn new(
        config: &Config,
        way_in: &WayInView,
        clock: &Clock,
        owner: &Address<owner::Msg>,
    ) -> Self {
        let sirens = SirenDesk::default();
        let post: Arc<dyn Post> = Arc::new(way_in.clone());
        let ways = ways(config, &sirens, &post, clock);
        let troubles = Troubles::default();
        let guard = DatabaseGuard::new(&config.edge.id, ways.clone(), troubles.clone(), clock.clone());
        let (guarding, owner) = (guard.clone(), owner.clone());
        sirens.acknowledge_by(Arc::new(move |acknowledgment| {
            if !guarding.acknowledge(&acknowledgment) {
                // An owner that restarts finds the alarm as it was: whoever hears it presses again.
                owner.cast(owner::Msg::Acknowledged(acknowledgment));
            }
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
