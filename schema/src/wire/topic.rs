//! MQTT topics: the only place that spells them.

use std::borrow::Cow;

use crate::id::{BarnId, DeviceId, FarmId, SessionId, StationId, TenantId, is_id};
use crate::wire::reject::{Reason, Reject};

/// How every topic that has a meaning here begins.
pub const ROOT: &str = "iot/";

/// A topic as a person may type it to try the engine out.
pub const EXAMPLE: &str = "iot/telemetry/t-001/f-001/b-001/d-001/temperature";
/// Tenant of [`EXAMPLE`].
pub const EXAMPLE_TENANT: &str = "t-001";
/// Device of [`EXAMPLE`].
pub const EXAMPLE_DEVICE: &str = "d-001";

/// The one spelling of a topic: without the empty segments that are tolerated in what a message says.
#[must_use]
pub fn canonical(topic: &str) -> Cow<'_, str> {
    if is_canonical(topic) {
        return Cow::Borrowed(topic);
    }
    let segments: Vec<&str> = topic.split('/').filter(|segment| !segment.is_empty()).collect();
    Cow::Owned(segments.join("/"))
}

/// Whether a topic is spelled as [`canonical`] spells it.
#[must_use]
pub fn is_canonical(topic: &str) -> bool {
    topic.split('/').all(|segment| !segment.is_empty())
}

/// The subscriptions of the engine at an external broker, one per topic kind.
pub const FILTERS: [&str; 4] = [
    "iot/telemetry/+/+/+/+/+",
    "iot/event/+/+/+/+/+",
    "iot/weighvision/+/+/+/+/session/+/+",
    "iot/status/+/+/+/+",
];

/// What the engine itself publishes, as filters; nobody else may.
pub const OWN_FILTERS: [&str; 2] = ["iot/command/+/+/+/+/+", "iot/engine/+/heartbeat"];

/// Where a device publishes its readings, for a person who sets it up: the metric is left open.
#[must_use]
pub fn readings_of([tenant_id, farm_id, barn_id]: [&str; 3], device_id: &str) -> String {
    format!("{ROOT}telemetry/{tenant_id}/{farm_id}/{barn_id}/{device_id}/{{metric}}")
}

/// The topic of what the engine tells a device to do, retained: `iot/command/{tenant}/{farm}/{barn}/{device}/{command}`.
#[must_use]
pub fn command_topic(place: &Place, device_id: &DeviceId, command: &str) -> String {
    let Place { tenant_id, farm_id, barn_id } = place;
    format!("iot/command/{tenant_id}/{farm_id}/{barn_id}/{device_id}/{command}")
}

/// The place and the device of a [`command_topic`] in its canonical spelling.
#[must_use]
pub fn parse_command(topic: &str) -> Option<(Place, DeviceId)> {
    let mut segments = topic.split('/');
    let mut next = || segments.next();
    let (root, kind) = (next()?, next()?);
    let (tenant, farm, barn, device, command) = (next()?, next()?, next()?, next()?, next()?);
    let is_command = root == "iot" && kind == "command" && is_id(command) && next().is_none();
    is_command.then_some(())?;
    Some((Place::new(tenant, farm, barn)?, DeviceId::new(device).ok()?))
}

/// The topic of the engine's signs of life, retained: `iot/engine/{edge}/heartbeat`. What cannot stand in a topic is a dash.
#[must_use]
pub fn heartbeat_topic(edge_id: &str) -> String {
    let odd = |c: char| c.is_control() || matches!(c, '/' | '+' | '#');
    let edge_id: String = edge_id.chars().map(|c| if odd(c) { '-' } else { c }).collect();
    format!("iot/engine/{edge_id}/heartbeat")
}

/// Whether a filter asks for signs of life of an engine, or of every engine.
#[must_use]
pub fn is_heartbeat(filter: &str) -> bool {
    let name = filter.strip_prefix("iot/engine/").and_then(|rest| rest.strip_suffix("/heartbeat"));
    name.is_some_and(|name| name == "+" || is_id(name))
}

/// The filters of what one device may publish, and what it may subscribe to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceTopics {
    /// Telemetry, events, and the weighing sessions of its station.
    pub publishes: [String; 3],
    /// Its status, which it also hears; it has a wildcard where the device has no farm or barn of its own.
    pub status: String,
    /// What the engine tells it to do, and the signs of life of the engine: it only hears them.
    pub hears: [String; 2],
}

impl DeviceTopics {
    /// The topics of a device; what is `None` is any.
    #[must_use]
    pub fn of(
        tenant_id: &str,
        farm_id: Option<&str>,
        barn_id: Option<&str>,
        device_id: &str,
        station_id: Option<&str>,
    ) -> Self {
        let [farm, barn, station] = [farm_id, barn_id, station_id].map(|id| id.unwrap_or("+"));
        let place = format!("{tenant_id}/{farm}/{barn}");
        Self {
            publishes: [
                format!("iot/telemetry/{place}/{device_id}/+"),
                format!("iot/event/{place}/{device_id}/+"),
                format!("iot/weighvision/{place}/{station}/session/+/+"),
            ],
            status: format!("iot/status/{place}/{device_id}"),
            hears: [format!("iot/command/{place}/{device_id}/+"), OWN_FILTERS[1].to_owned()],
        }
    }
}

/// The four kinds of topics; also the `kind` label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A measured value of a device.
    Telemetry,
    /// Any other event of a device.
    Event,
    /// An event of a weighing session.
    WeighVision,
    /// The state of a device, published retained.
    Status,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Telemetry, Self::Event, Self::WeighVision, Self::Status];

    /// The second segment of the topic.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Telemetry => "telemetry",
            Self::Event => "event",
            Self::WeighVision => "weighvision",
            Self::Status => "status",
        }
    }
}

/// Where a message says it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Tenant segment.
    pub tenant_id: TenantId,
    /// Farm segment.
    pub farm_id: FarmId,
    /// Barn segment.
    pub barn_id: BarnId,
}

/// A parsed topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topic {
    /// `iot/telemetry/{tenant}/{farm}/{barn}/{device}/{metric}`
    Telemetry {
        /// Tenant, farm and barn.
        place: Place,
        /// The measuring device.
        device_id: DeviceId,
        /// What is measured, unchanged.
        metric: String,
    },
    /// `iot/event/{tenant}/{farm}/{barn}/{device}/{event_type}`
    Event {
        /// Tenant, farm and barn.
        place: Place,
        /// The reporting device.
        device_id: DeviceId,
        /// The type, which the body repeats.
        event_type: String,
    },
    /// `iot/weighvision/{tenant}/{farm}/{barn}/{station}/session/{session}/{event_type}`
    WeighVision {
        /// Tenant, farm and barn.
        place: Place,
        /// The weighing station.
        station_id: StationId,
        /// The weighing session.
        session_id: SessionId,
        /// The type, which the body repeats.
        event_type: String,
    },
    /// `iot/status/{tenant}/{farm}/{barn}/{device}`
    Status {
        /// Tenant, farm and barn.
        place: Place,
        /// The device whose state it is.
        device_id: DeviceId,
    },
}

/// Who speaks on a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A device, on topics of its own.
    Device(DeviceId),
    /// A station, on whose topics devices speak.
    Station(StationId),
}

impl Topic {
    /// Splits on `/`, drops empty segments and takes the shape by kind and count.
    ///
    /// # Errors
    /// `TOPIC_INVALID` for any other shape, and for a segment that cannot be an id.
    pub fn parse(topic: &str) -> Result<Self, Reject> {
        const SEGMENTS_MAX: usize = 9;
        let mut segments = [""; SEGMENTS_MAX];
        let mut count = 0;
        for segment in topic.split('/').filter(|segment| !segment.is_empty()) {
            if count == SEGMENTS_MAX {
                return Err(Reason::TopicInvalid.into());
            }
            segments[count] = segment;
            count += 1;
        }
        Self::of_segments(&segments[..count]).ok_or_else(|| Reason::TopicInvalid.into())
    }

    fn of_segments(segments: &[&str]) -> Option<Self> {
        match segments {
            ["iot", "telemetry", tenant, farm, barn, device, metric] if is_id(metric) => {
                Some(Self::Telemetry {
                    place: Place::new(tenant, farm, barn)?,
                    device_id: DeviceId::new(device).ok()?,
                    metric: (*metric).to_owned(),
                })
            }
            ["iot", "event", tenant, farm, barn, device, event_type] if is_id(event_type) => {
                Some(Self::Event {
                    place: Place::new(tenant, farm, barn)?,
                    device_id: DeviceId::new(device).ok()?,
                    event_type: (*event_type).to_owned(),
                })
            }
            ["iot", "weighvision", tenant, farm, barn, station, "session", session, event_type]
                if is_id(event_type) =>
            {
                Some(Self::WeighVision {
                    place: Place::new(tenant, farm, barn)?,
                    station_id: StationId::new(station).ok()?,
                    session_id: SessionId::new(session).ok()?,
                    event_type: (*event_type).to_owned(),
                })
            }
            ["iot", "status", tenant, farm, barn, device] => Some(Self::Status {
                place: Place::new(tenant, farm, barn)?,
                device_id: DeviceId::new(device).ok()?,
            }),
            _ => None,
        }
    }

    /// Which of the four kinds it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Telemetry { .. } => Kind::Telemetry,
            Self::Event { .. } => Kind::Event,
            Self::WeighVision { .. } => Kind::WeighVision,
            Self::Status { .. } => Kind::Status,
        }
    }

    /// Tenant, farm and barn of the topic.
    #[must_use]
    pub fn place(&self) -> &Place {
        match self {
            Self::Telemetry { place, .. }
            | Self::Event { place, .. }
            | Self::WeighVision { place, .. }
            | Self::Status { place, .. } => place,
        }
    }

    /// Who speaks.
    #[must_use]
    pub fn source(&self) -> Source {
        match self {
            Self::Telemetry { device_id, .. }
            | Self::Event { device_id, .. }
            | Self::Status { device_id, .. } => Source::Device(device_id.clone()),
            Self::WeighVision { station_id, .. } => Source::Station(station_id.clone()),
        }
    }

    /// The device of the topic; a station's topic names none.
    #[must_use]
    pub fn device_id(&self) -> Option<DeviceId> {
        match self.source() {
            Source::Device(device_id) => Some(device_id),
            Source::Station(_) => None,
        }
    }

    /// The event type that the body must repeat, on topics that name one.
    #[must_use]
    pub fn event_type(&self) -> Option<&str> {
        match self {
            Self::Event { event_type, .. } | Self::WeighVision { event_type, .. } => Some(event_type),
            Self::Telemetry { .. } | Self::Status { .. } => None,
        }
    }
}

impl Place {
    /// A place of these names; `None` when one of them cannot be an id.
    #[must_use]
    pub fn new(tenant: &str, farm: &str, barn: &str) -> Option<Self> {
        Some(Self {
            tenant_id: TenantId::new(tenant).ok()?,
            farm_id: FarmId::new(farm).ok()?,
            barn_id: BarnId::new(barn).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(topic: &str) {
        assert_eq!(Topic::parse(topic), Err(Reason::TopicInvalid.into()), "{topic}");
    }

    #[test]
    fn each_kind_is_read_from_its_shape() {
        let kind = |topic: &str| Topic::parse(topic).map(|topic| topic.kind());
        assert_eq!(kind("iot/telemetry/t/f/b/d/temperature"), Ok(Kind::Telemetry));
        assert_eq!(kind("iot/event/t/f/b/d/door_opened"), Ok(Kind::Event));
        assert_eq!(
            kind("iot/weighvision/t/f/b/st/session/s/weighvision.session.created"),
            Ok(Kind::WeighVision)
        );
        assert_eq!(kind("iot/status/t/f/b/d"), Ok(Kind::Status));
    }

    #[test]
    fn who_sets_a_device_up_is_told_a_topic_that_is_read() {
        let topic = readings_of(["t-001", "f-001", "b-001"], "d-001").replace("{metric}", "temperature");
        assert_eq!(topic, EXAMPLE);
        assert!(Topic::parse(&topic).is_ok());
    }

    #[test]
    fn what_the_engine_says_has_topics_of_its_own() {
        let place = Place::new("t", "f", "b").unwrap();
        let device_id = DeviceId::new("siren-1").unwrap();
        let topic = command_topic(&place, &device_id, "siren");
        assert_eq!(topic, "iot/command/t/f/b/siren-1/siren");
        assert_eq!(parse_command(&topic), Some((place, device_id)));
        for topic in [
            "iot/command/t/f/b/siren-1",
            "iot/command/t/f/b/siren-1/siren/x",
            "/iot/command/t/f/b/siren-1/siren",
            "iot/command/t//b/siren-1/siren",
            "iot/command/t/f/b/+/siren",
            "iot/command/t/f/b/siren-1/#",
            "iot/event/t/f/b/siren-1/siren",
        ] {
            assert_eq!(parse_command(topic), None, "{topic}");
        }
        refused("iot/command/t/f/b/siren-1/siren");
        assert_eq!(heartbeat_topic("box/7"), "iot/engine/box-7/heartbeat");
        for (filter, expected) in [
            ("iot/engine/box-7/heartbeat", true),
            ("iot/engine/+/heartbeat", true),
            ("iot/engine/#", false),
            ("iot/engine/a/b/heartbeat", false),
            ("iot/engine//heartbeat", false),
        ] {
            assert_eq!(is_heartbeat(filter), expected, "{filter}");
        }
    }

    #[test]
    fn stray_slashes_are_tolerated() {
        let clean = Topic::parse("iot/status/t/f/b/d");
        assert_eq!(Topic::parse("/iot//status/t/f/b/d/"), clean);
    }

    #[test]
    fn every_spelling_of_a_topic_has_the_same_canonical_one() {
        for topic in
            ["iot/status/t/f/b/d", "/iot/status/t/f/b/d", "iot//status/t/f/b/d//", "///iot/status/t/f/b/d"]
        {
            assert_eq!(canonical(topic), "iot/status/t/f/b/d", "{topic}");
            assert_eq!(is_canonical(topic), !topic.starts_with('/') && !topic.contains("//"), "{topic}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for topic in [
            "",
            "/",
            "iot",
            "iot/telemetry/t/f/b/d",
            "iot/telemetry/t/f/b/d/m/x",
            "iot/weighvision/t/f/b/st/sessions/s/e",
            "iot/feed/t/f/b/d/x",
            "farmiq/device/d/ota",
            "iot/status/t/f/b/d/e/f/g/h/i",
            "iot/status/t/f/b/tab\there",
            "IOT/status/t/f/b/d",
        ] {
            refused(topic);
        }
        refused(&format!("iot/status/t/f/b/{}", "x".repeat(129)));
    }
}
