//! What can go wrong, with what it needs to be repeated.

use std::fmt;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::cloud::Mode;

/// The kinds of faults, as `--only` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kind {
    /// The engine is killed, and started again later.
    EngineKill,
    /// The engine stands still.
    EngineStop,
    /// The engine is ended in order, and started again with other settings.
    EngineReconfigure,
    /// The engine is killed with a picture in the hand of its model.
    WorkerKill,
    /// A second engine works on the same database, and is ended or killed.
    SecondEngine,
    /// The postmaster is killed; its server comes back later.
    PostmasterKill,
    /// The whole server stands still.
    PostmasterStop,
    /// One server process is killed: the server ends every connection and recovers.
    BackendKill,
    /// One server process stands still, with whatever locks it has.
    BackendStop,
    /// The server ends every connection of the engine.
    BackendTerminate,
    /// Every new transaction is read-only.
    ReadOnly,
    /// The disk of database and images is full.
    DiskFull,
    /// Connections to the database are cut, and refused for a while.
    DatabaseCut,
    /// Answers and questions of the database take longer.
    DatabaseDelay,
    /// Connections to the database stand, and nothing comes back.
    DatabaseHalfOpen,
    /// A slow line to the database.
    DatabaseThrottle,
    /// Connections to the cloud are cut, and refused for a while.
    CloudCut,
    /// Answers and questions of the cloud take longer.
    CloudDelay,
    /// Connections to the cloud stand, and nothing comes back.
    CloudHalfOpen,
    /// A slow line to the cloud.
    CloudThrottle,
    /// The cloud answers in one of its bad ways.
    CloudMode,
    /// Devices lose their connections.
    DevicesCut,
    /// Devices have connections on which nothing comes back.
    DevicesHalfOpen,
    /// The wall clock of the engine is set.
    ClockStep,
    /// A device has a wrong clock.
    WrongClock,
    /// A device sends as fast as it can.
    Flood,
    /// A device sends everything three times.
    Duplicates,
    /// A device sends in another order than it measured.
    Reorder,
}

/// A part of the barn that has one fault at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The engine's process.
    Engine,
    /// A second engine.
    SecondEngine,
    /// The database server and the line to it.
    Database,
    /// The cloud and the line to it.
    Cloud,
    /// The line from the devices.
    Line,
    /// The engine's clock.
    Clock,
    /// A device of its own.
    Device(Kind),
}

impl Kind {
    /// All of them, in the order of their names here.
    pub const ALL: [Self; 28] = [
        Self::EngineKill,
        Self::EngineStop,
        Self::EngineReconfigure,
        Self::WorkerKill,
        Self::SecondEngine,
        Self::PostmasterKill,
        Self::PostmasterStop,
        Self::BackendKill,
        Self::BackendStop,
        Self::BackendTerminate,
        Self::ReadOnly,
        Self::DiskFull,
        Self::DatabaseCut,
        Self::DatabaseDelay,
        Self::DatabaseHalfOpen,
        Self::DatabaseThrottle,
        Self::CloudCut,
        Self::CloudDelay,
        Self::CloudHalfOpen,
        Self::CloudThrottle,
        Self::CloudMode,
        Self::DevicesCut,
        Self::DevicesHalfOpen,
        Self::ClockStep,
        Self::WrongClock,
        Self::Flood,
        Self::Duplicates,
        Self::Reorder,
    ];

    /// What it happens to.
    #[must_use]
    pub fn part(self) -> Part {
        match self {
            Self::EngineKill | Self::EngineStop | Self::EngineReconfigure | Self::WorkerKill => Part::Engine,
            Self::SecondEngine => Part::SecondEngine,
            Self::PostmasterKill
            | Self::PostmasterStop
            | Self::BackendKill
            | Self::BackendStop
            | Self::BackendTerminate
            | Self::ReadOnly
            | Self::DiskFull
            | Self::DatabaseCut
            | Self::DatabaseDelay
            | Self::DatabaseHalfOpen
            | Self::DatabaseThrottle => Part::Database,
            Self::CloudCut
            | Self::CloudDelay
            | Self::CloudHalfOpen
            | Self::CloudThrottle
            | Self::CloudMode => Part::Cloud,
            Self::DevicesCut | Self::DevicesHalfOpen => Part::Line,
            Self::ClockStep => Part::Clock,
            Self::WrongClock | Self::Flood | Self::Duplicates | Self::Reorder => Part::Device(self),
        }
    }

    /// Milliseconds for which it lasts, least and most; where it ends by itself, for how long its parts are down.
    fn lasts_ms(self) -> (u64, u64) {
        match self {
            Self::EngineKill | Self::WorkerKill | Self::PostmasterKill | Self::BackendKill => (0, 3000),
            Self::EngineReconfigure | Self::BackendTerminate => (0, 500),
            // An engine that stands for longer than its leases finds others at its work.
            Self::EngineStop => (500, 9000),
            Self::PostmasterStop | Self::BackendStop => (500, 6000),
            Self::SecondEngine => (8000, 20_000),
            Self::ReadOnly | Self::DiskFull => (1000, 6000),
            Self::DatabaseCut | Self::DatabaseHalfOpen | Self::DevicesCut | Self::DevicesHalfOpen => {
                (500, 5000)
            }
            Self::DatabaseDelay | Self::DatabaseThrottle | Self::CloudDelay | Self::CloudThrottle => {
                (2000, 8000)
            }
            Self::CloudCut | Self::CloudHalfOpen | Self::CloudMode => (1000, 8000),
            Self::ClockStep => (2000, 8000),
            Self::WrongClock | Self::Duplicates | Self::Reorder => (3000, 8000),
            Self::Flood => (1000, 3000),
        }
    }
}

/// A fault with everything that chance decides about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// What goes wrong.
    pub kind: Kind,
    /// How exactly.
    pub how: How,
    /// For how long, milliseconds.
    pub lasts_ms: u64,
}

/// How exactly something goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum How {
    /// There is one way.
    Plainly,
    /// So many milliseconds later.
    Delayed(u64),
    /// So many bytes per second.
    Throttled(u64),
    /// The cloud's mode. Modes for single events are given their ids when they begin.
    Mode(Mode),
    /// The clock goes so many seconds forward; back when negative.
    Seconds(i64),
    /// Whichever is first in this order of chance.
    Which(u32),
    /// Killed instead of ended.
    Killed(bool),
}

impl Fault {
    /// Decides about a fault of this kind. Takes the same number of decisions for every fault of a kind.
    #[must_use]
    pub fn draw(kind: Kind, random: &mut StdRng) -> Self {
        let (least, most) = kind.lasts_ms();
        let lasts_ms = random.random_range(least..=most);
        let how = match kind {
            Kind::DatabaseDelay => How::Delayed(random.random_range(5..200)),
            Kind::CloudDelay => How::Delayed(random.random_range(50..1500)),
            Kind::DatabaseThrottle => How::Throttled(random.random_range(10_000..200_000)),
            Kind::CloudThrottle => How::Throttled(random.random_range(2000..50_000)),
            Kind::CloudMode => How::Mode(mode(random)),
            Kind::ClockStep => How::Seconds(step(random)),
            Kind::WrongClock => How::Seconds(
                *[-40 * 365 * 86_400, -86_400, -3600, 3600, 86_400, 400 * 86_400]
                    .choose(random)
                    .expect("some"),
            ),
            Kind::BackendKill | Kind::BackendStop | Kind::EngineReconfigure => How::Which(random.random()),
            Kind::SecondEngine => How::Killed(random.random()),
            Kind::EngineKill
            | Kind::EngineStop
            | Kind::WorkerKill
            | Kind::PostmasterKill
            | Kind::PostmasterStop
            | Kind::BackendTerminate
            | Kind::ReadOnly
            | Kind::DiskFull
            | Kind::DatabaseCut
            | Kind::DatabaseHalfOpen
            | Kind::CloudCut
            | Kind::CloudHalfOpen
            | Kind::DevicesCut
            | Kind::DevicesHalfOpen
            | Kind::Flood
            | Kind::Duplicates
            | Kind::Reorder => How::Plainly,
        };
        Self { kind, how, lasts_ms }
    }
}

/// One of the ways in which a cloud fails. It never marks what it rejects: such an event is lost at the cloud, whatever an
/// engine does.
fn mode(random: &mut StdRng) -> Mode {
    let retry_after = ["1", "2"].choose(random).map(|seconds| (*seconds).to_owned());
    let latency_ms = random.random_range(100..3000);
    let code = *[500, 502, 504, 408, 418].choose(random).expect("some");
    let bytes_max = random.random_range(600..20_000);
    let modes = [
        Mode::Refuse,
        Mode::Hang,
        Mode::Slow { latency_ms },
        Mode::LoseAnswer,
        Mode::Status { code },
        Mode::Unavailable,
        Mode::Unauthorized,
        Mode::Forbidden,
        Mode::NotFound,
        Mode::Throttled { retry_after },
        Mode::Poison { ids: std::collections::HashSet::new() },
        Mode::TooLarge { bytes_max },
        Mode::Captive,
        Mode::Redirect,
        Mode::RejectIds { ids: std::collections::HashMap::new(), marks: false },
        Mode::RejectWithoutIds,
        Mode::CountMismatch,
        Mode::BareOk,
    ];
    modes.choose(random).expect("there are modes").clone()
}

/// A step of the wall clock: seconds to hours, in either direction.
fn step(random: &mut StdRng) -> i64 {
    let seconds = *[30, 600, 7200, 86_400].choose(random).expect("some");
    if random.random() { seconds } else { -seconds }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = clap::ValueEnum::to_possible_value(&self.kind);
        write!(out, "{}", name.as_ref().map_or("?", |name| name.get_name()))?;
        match &self.how {
            How::Plainly => {}
            How::Delayed(ms) => write!(out, " by {ms} ms")?,
            How::Throttled(bytes) => write!(out, " to {bytes} bytes/s")?,
            How::Mode(mode) => write!(out, " {}", serde_json::to_string(mode).unwrap_or_default())?,
            How::Seconds(seconds) => write!(out, " by {seconds} s")?,
            How::Which(number) => write!(out, " number {number}")?,
            How::Killed(true) => write!(out, ", killed in the end")?,
            How::Killed(false) => write!(out, ", ended in the end")?,
        }
        write!(out, " for {:.1} s", std::time::Duration::from_millis(self.lasts_ms).as_secs_f64())
    }
}
