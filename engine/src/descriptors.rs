//! File descriptors: as many as the system allows, and no more places for connections than they suffice for.

use broker::DoorSettings;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{Config, MqttMode};
use crate::http;

/// Descriptors for everything that is neither a client nor the database: listeners, logs, images, models, and the links to
/// the cloud, to an S3 server and to RabbitMQ.
const FILES: usize = 128;
/// Connections to the database beside its pool.
const DATABASE_EXTRA: usize = 8;
/// Of the descriptors that are left for connections when there are too few, HTTP gets one in so many.
const HTTP_SHARE: usize = 4;

/// Too few descriptors for all places that are configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{allowed} file descriptors are allowed and {needed} needed for all connections that are configured: raise the hard \
     limit (ulimit -n, LimitNOFILE), or lower broker.connections_max and http.connections_max"
)]
pub struct TooFew {
    /// As many as the system allows.
    pub allowed: usize,
    /// As many as all places would take.
    pub needed: usize,
}

/// Raises the limit of this process as far as it may; says how many descriptors it has.
#[must_use]
pub fn raise() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // Where raising fails, the limit stays as it was.
    let is_raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    let limit = if is_raised { maximum } else { current };
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// Whether `allowed` descriptors suffice for a configuration.
///
/// # Errors
/// [`TooFew`] when they do not.
pub fn check(config: &Config, allowed: usize) -> Result<(), TooFew> {
    let needed = fixed(config) + clients(config);
    if needed <= allowed { Ok(()) } else { Err(TooFew { allowed, needed }) }
}

/// Lowers the places of a configuration to what `allowed` descriptors suffice for, so that a port that is full refuses
/// its own clients and nothing else lacks a descriptor.
///
/// # Errors
/// [`TooFew`] when that was necessary.
pub fn fit(config: &mut Config, allowed: usize) -> Result<(), TooFew> {
    let checked = check(config, allowed);
    if checked.is_err() {
        let left = allowed.saturating_sub(fixed(config)).max(2);
        let http = match config.mqtt.mode {
            MqttMode::Embedded => (left / HTTP_SHARE).max(1),
            MqttMode::External => left,
        };
        config.http.connections_max = config.http.connections_max.min(http);
        let mqtt = left.saturating_sub(config.http.connections_max).max(1);
        let mqtt = DoorSettings::connections_within(mqtt);
        config.broker.connections_max = config.broker.connections_max.min(mqtt);
    }
    checked
}

fn fixed(config: &Config) -> usize {
    FILES + DATABASE_EXTRA + config.database.pool_max + http::CONNECTIONS_RESERVED
}

fn clients(config: &Config) -> usize {
    let mqtt = match config.mqtt.mode {
        MqttMode::Embedded => DoorSettings::sockets_max(config.broker.connections_max),
        MqttMode::External => 0,
    };
    config.http.connections_max + mqtt
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let mut config = Config::default();
        config.mqtt.mode = MqttMode::Embedded;
        config.broker.connections_max = 1000;
        config.http.connections_max = 1024;
        config.database.pool_max = 16;
        config
    }

    #[test]
    fn enough_descriptors_change_nothing() {
        let mut config = config();
        let needed = fixed(&config) + 1024 + DoorSettings::sockets_max(1000);
        assert_eq!(fit(&mut config, needed), Ok(()));
        assert_eq!((config.broker.connections_max, config.http.connections_max), (1000, 1024));
    }

    #[test]
    fn places_are_bounded_by_what_the_descriptors_allow() {
        let mut config = config();
        let needed = fixed(&config) + 1024 + DoorSettings::sockets_max(1000);
        assert_eq!(fit(&mut config, 1024), Err(TooFew { allowed: 1024, needed }));
        let (mqtt, http) = (config.broker.connections_max, config.http.connections_max);
        assert!(mqtt > 300 && http > 200, "{mqtt} {http}");
        assert_eq!(check(&config, 1024), Ok(()));
        assert_eq!(fit(&mut config, 10).map_err(|too_few| too_few.allowed), Err(10));
        assert_eq!(
            (config.broker.connections_max, config.http.connections_max),
            (1, 1),
            "one of each at least"
        );
    }
}
