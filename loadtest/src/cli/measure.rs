//! Arguments of the benchmarks of readings.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use loadtest::{bench, rest};

use super::BrokerArgs;

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  farmiq-loadtest bench --broker 127.0.0.1:1883 --database-url \"$DATABASE_URL\" --engine-pid $(pidof farmiq-edge)

The engine must run on that database and let its devices in anonymously (broker.allow_anonymous = true). The rows of
the benchmark stay; use a database you can throw away. Build with --release.")]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    broker: BrokerArgs,
    /// The engine's database.
    #[arg(long)]
    database_url: String,
    /// The engine's process; without it its CPU and memory are not read.
    #[arg(long)]
    engine_pid: Option<u32>,
    /// Connections that publish.
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// Devices they speak for, and idle connections of the memory figure.
    #[arg(long, default_value_t = 1000)]
    devices: usize,
    /// Events of each measurement of a round.
    #[arg(long, default_value_t = 200_000)]
    events: usize,
    /// Rounds in which COPY, bare SQL and the engine at full speed take turns; shown are those in the middle.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Paced runs: messages per second of each.
    #[arg(long, value_delimiter = ',', default_values_t = [10_000.0, 30_000.0])]
    rate: Vec<f64>,
    /// Seconds of each paced run.
    #[arg(long, default_value_t = 10.0)]
    rate_seconds: f64,
    /// Measure the engine's unit of work by batches of so many rows as well, by its statement and copied.
    #[arg(long, value_delimiter = ',')]
    batch_rows: Vec<usize>,
    /// Unacknowledged messages of each connection.
    #[arg(long, default_value_t = 100)]
    window: usize,
    /// Leave out COPY and bare SQL.
    #[arg(long)]
    only_engine: bool,
    /// Leave out the engine.
    #[arg(long, conflicts_with = "only_engine")]
    only_limits: bool,
}

impl BenchArgs {
    pub(crate) fn settings(self) -> bench::Settings {
        bench::Settings {
            broker: self.broker.broker,
            database_url: self.database_url,
            engine_pid: self.engine_pid,
            connections: self.connections.max(1),
            devices: self.devices.max(1),
            events: self.events.max(1000),
            rounds: self.rounds.min(1000),
            rates: self.rate.into_iter().map(|rate| rate.max(1.0)).collect(),
            rate_duration: Duration::from_secs_f64(self.rate_seconds.clamp(1.0, 3600.0)),
            window: self.window.clamp(1, 1000),
            measures_limits: !self.only_engine,
            measures_engine: !self.only_limits,
            batch_rows: self.batch_rows.into_iter().map(|rows| rows.max(1)).collect(),
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example (make bench-rest starts everything itself):
  farmiq-loadtest rest --database-url \"$DATABASE_URL\" --engine target/release/farmiq-edge --rest-seconds 600

The database must be migrated (farmiq-edge migrate) and empty. First nothing comes, then readings at a steady pace, which go on
to a pretend cloud. Wake-ups are how often a thread or a server process went to sleep of its own accord. Exit 1 when a reading
that was acknowledged did not arrive at the cloud. Build with --release.")]
pub(crate) struct RestArgs {
    /// The database.
    #[arg(long)]
    database_url: String,
    /// The program farmiq-edge.
    #[arg(long)]
    engine: PathBuf,
    /// Seconds in which nothing comes.
    #[arg(long, default_value_t = 600.0)]
    rest_seconds: f64,
    /// Readings per second afterwards.
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    /// Seconds of them.
    #[arg(long, default_value_t = 120.0)]
    rate_seconds: f64,
    /// Devices they come from.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    devices: u16,
}

impl RestArgs {
    pub(crate) fn settings(self) -> rest::Settings {
        rest::Settings {
            database_url: self.database_url,
            engine: self.engine,
            rest: Duration::from_secs_f64(self.rest_seconds.clamp(1.0, 86_400.0)),
            rate: self.rate.max(1.0),
            rate_duration: Duration::from_secs_f64(self.rate_seconds.clamp(1.0, 3600.0)),
            devices: usize::from(self.devices),
        }
    }
}
