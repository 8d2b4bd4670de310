//! Arguments and their help.

pub(crate) mod barn;
mod connection;
mod judge;
mod measure;
mod record;
mod replay;
mod report;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use loadtest::cloud::{Auth, Mode, Plan};
use loadtest::device::Place;
use loadtest::stream::Tls;
use loadtest::{cloud, door, drain, render, retention, weigh};
use schema::clock::Clock;

use judge::{ChaosArgs, VerifyArgs};
use measure::{BenchArgs, RestArgs};

/// A stranger with many devices: simulate a barn, pretend to be the cloud, replay traffic, judge and measure.
///
/// Nothing here shares code with the engine: it connects like a device and answers like the cloud.
#[derive(Debug, Parser)]
#[command(
    name = "farmiq-loadtest",
    version,
    after_help = "\
Record a barn, play it back ten times as fast as new data, and look at the report:
  farmiq-loadtest record --broker 127.0.0.1:1883 --out barn
  farmiq-loadtest replay barn-*.jsonl.gz --broker mqtts://box:8883 --ca ca.pem --credentials logins.csv --speed 10 \\
      --new-ids --shift-times due --ledger ledger.jsonl.gz --run-file run.json
  farmiq-loadtest report run.json --html report.html --fail-if 'p99>50ms' --fail-if 'refused>0'

A whole rehearsal, one shell each:
  farmiq-loadtest cloud --listen 127.0.0.1:9300 --control 127.0.0.1:9301
  farmiq-loadtest barn --print-allowlist-sql | psql \"$DATABASE_URL\"
  farmiq-loadtest barn --broker 127.0.0.1:1883 --ids-file ids.txt --duration-seconds 60
  farmiq-loadtest verify --ids-file ids.txt --cloud http://127.0.0.1:9301

The same with birds that are weighed, and pictures of them (engine with auth.mode = \"compat\" and
broker.allow_anonymous = true; farmiq-edge up --allow-anonymous has the latter):
  farmiq-loadtest cloud --tolerate-late
  farmiq-loadtest barn --devices 0 --stations 2 --print-allowlist-sql | psql \"$DATABASE_URL\"
  farmiq-loadtest barn --devices 0 --stations 2 --weigh-seconds 15 --edge http://127.0.0.1:3000 \\
      --ids-file ids.txt --sessions-file sessions.txt --duration-seconds 60
  farmiq-loadtest verify --ids-file ids.txt --sessions-file sessions.txt --expect-inference

How fast and how well weights are read from pictures: farmiq-loadtest weigh --help"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Be a strict cloud that fails on demand and judges what it is sent.
    Cloud(CloudArgs),
    /// Record what goes through a broker, into files that replay plays.
    Record(Box<record::RecordArgs>),
    /// Play recordings back, each device through a connection and a login of its own.
    Replay(Box<replay::ReplayArgs>),
    /// Be a barn full of sensors and weighing stations.
    Barn(Box<barn::BarnArgs>),
    /// Make one HTML page of runs, and an exit status of thresholds.
    Report(report::ReportArgs),
    /// Compare what was acknowledged with what the database and the cloud have; exit 1 when anything differs.
    Verify(VerifyArgs),
    /// Break a whole barn by a plan that a seed decides, and judge what is left.
    Chaos(ChaosArgs),
    /// Measure the engine against COPY and against its own bare SQL, in one run on one database.
    Bench(BenchArgs),
    /// Measure the engine's MQTT listener beside other brokers: acknowledgements per second, memory per connection.
    Door(DoorArgs),
    /// Measure how fast a backlog goes to the cloud: claims alone, then an engine, then an engine under load.
    Drain(DrainArgs),
    /// Measure what an engine and its PostgreSQL use at rest, and at the load of a barn with the cloud up.
    Rest(RestArgs),
    /// Measure what deleting a million old rows costs those who write meanwhile.
    Retention(RetentionArgs),
    /// Measure the way of pictures to weights: latency, and the error against the true weight.
    Weigh(WeighArgs),
    /// Draw pictures of birds on a scale, and the table of their true weights.
    Render(RenderArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Switch the behavior while it runs (add \"seconds\" or \"requests\" to any mode to go back to ok by itself):
  curl -d '{\"mode\":\"503\",\"requests\":3}'             http://127.0.0.1:9301/mode
  curl -d '{\"mode\":\"refuse\",\"seconds\":30}'          http://127.0.0.1:9301/mode
  curl -d '{\"mode\":\"429\",\"retry_after\":\"2\"}'       http://127.0.0.1:9301/mode
  curl -d '{\"mode\":\"400\",\"ids\":[\"<event id>\"]}'    http://127.0.0.1:9301/mode
  curl -d '{\"mode\":\"reject_ids\",\"ids\":{\"<event id>\":\"text\"}}' http://127.0.0.1:9301/mode
Modes: ok refuse hang slow{latency_ms} lose_answer status{code} 503 401 403 404 429{retry_after} 400{ids}
  413{bytes_max} captive redirect reject_ids{ids,marks} reject_without_ids count_mismatch bare_ok

Look at the verdict (Ctrl-C prints it too and exits 1 when there is a violation):
  curl http://127.0.0.1:9301/judge
  curl 'http://127.0.0.1:9301/judge/ids?tenant_id=t-001'
  curl 'http://127.0.0.1:9301/judge/events?limit=5'
  curl 'http://127.0.0.1:9301/judge/sessions?tenant_id=t-001'
  curl 'http://127.0.0.1:9301/judge/images?tenant_id=t-001'
  curl -X POST http://127.0.0.1:9301/judge/reset")]
pub(crate) struct CloudArgs {
    /// Address of the cloud; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:9300")]
    listen: SocketAddr,
    /// Second address for /judge and /mode, open even while the cloud refuses connections.
    #[arg(long)]
    control: Option<SocketAddr>,
    /// none, api_key:KEY or hmac:SECRET[,NEXT_SECRET].
    #[arg(long, default_value = "none")]
    auth: Auth,
    /// First behavior: the name of a mode, or its JSON.
    #[arg(long, default_value = "ok", value_parser = parse_mode)]
    mode: Mode,
    /// Remember accepted ids across restarts in this file.
    #[arg(long)]
    state_file: Option<PathBuf>,
    /// Write each event as it was taken, and the ids of refused ones, for verify --cloud-events.
    #[arg(long)]
    events_file: Option<PathBuf>,
    /// Only count events that are older than what their lane delivered before, as they come from devices that replay
    /// old buffers, and from stations that upload a picture before they tell of the weighing.
    #[arg(long)]
    tolerate_late: bool,
}

impl CloudArgs {
    pub(crate) fn settings(self) -> cloud::Settings {
        cloud::Settings {
            listen: self.listen,
            control: self.control,
            auth: self.auth,
            mode: self.mode,
            state_file: self.state_file,
            events_file: self.events_file,
            tolerates_late: self.tolerate_late,
            clock: Clock::system(),
        }
    }
}

fn parse_mode(text: &str) -> Result<Mode, String> {
    let json = if text.starts_with('{') { text.to_owned() } else { format!(r#"{{"mode":"{text}"}}"#) };
    serde_json::from_str::<Plan>(&json).map(|plan| plan.mode).map_err(|error| error.to_string())
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().map_err(|error| error.to_string())?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("a share is between 0 and 1".to_owned()) }
}

#[derive(Debug, Args)]
pub(crate) struct BrokerArgs {
    /// Broker as host:port.
    #[arg(long, default_value = "127.0.0.1:1883")]
    broker: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example (make bench-door starts everything itself):
  farmiq-loadtest door --database-url \"$DATABASE_URL\" --ca ca.pem --idle 1000 \\
      --broker engine,$ENGINE_PID,127.0.0.1:1883,127.0.0.1:8883 \\
      --broker mosquitto,$MOSQUITTO_PID,127.0.0.1:1884,127.0.0.1:8884

The first broker is the engine, on that database, with broker.allow_anonymous = true; ratios refer to the second. All
get the same readings, of which the engine commits each. The brokers take turns in every round; shown are the medians.
Memory is what a broker grew by, so let it be fresh. Build with --release.")]
pub(crate) struct DoorArgs {
    /// The engine's database.
    #[arg(long)]
    database_url: String,
    /// A broker that runs on this machine: NAME,PID,HOST:PORT or NAME,PID,HOST:PORT,HOST:PORT-OF-TLS.
    #[arg(long = "broker", required = true, value_parser = door::Broker::parse)]
    brokers: Vec<door::Broker>,
    /// The CA that vouches for localhost (PEM file).
    #[arg(long)]
    ca: PathBuf,
    /// Numbers of connections that publish, each measured by itself.
    #[arg(long, value_delimiter = ',', default_values_t = [50, 500])]
    connections: Vec<usize>,
    /// Unacknowledged messages of each connection.
    #[arg(long, default_value_t = 20)]
    window: usize,
    /// Seconds for which a round publishes.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Messages of a round at most, of all connections together.
    #[arg(long, default_value_t = 300_000)]
    messages: usize,
    /// Rounds that are counted.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Numbers of idle connections whose memory is measured.
    #[arg(long, value_delimiter = ',')]
    idle: Vec<usize>,
}

impl DoorArgs {
    pub(crate) fn settings(self) -> anyhow::Result<door::Settings> {
        Ok(door::Settings {
            brokers: self.brokers,
            database_url: self.database_url,
            tls: Tls::trusting_file(&self.ca)?,
            connections: self.connections.into_iter().map(|connections| connections.max(1)).collect(),
            window: self.window.clamp(1, 1000),
            round: Duration::from_secs(self.seconds.max(1)),
            messages: self.messages.max(1),
            rounds: self.rounds.max(1),
            idle: self.idle,
        })
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  farmiq-loadtest drain --database-url \"$DATABASE_URL\" --engine target/release/farmiq-edge --rows 1000000

The database must be migrated (farmiq-edge migrate) and its outbox empty, for everything in it is sent to a pretend
cloud; use a database you can throw away. While readings arrive, events/s counts all that went to the cloud, and the
engine's figures include storing what arrives. Exit 1 when an event was lost or the judge saw a violation. Build with
--release.")]
pub(crate) struct DrainArgs {
    /// The database.
    #[arg(long)]
    database_url: String,
    /// The program farmiq-edge, which is started twice.
    #[arg(long)]
    engine: PathBuf,
    /// Events that wait when an engine begins.
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// Readings per second that arrive over MQTT during the last measurement.
    #[arg(long, default_value_t = 2000.0)]
    incoming_rate: f64,
}

impl DrainArgs {
    pub(crate) fn settings(self) -> drain::Settings {
        drain::Settings {
            database_url: self.database_url,
            engine: self.engine,
            rows: self.rows.clamp(drain::ROWS_MIN, drain::ROWS_MAX),
            incoming_rate: self.incoming_rate.max(1.0),
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  farmiq-loadtest retention --database-url \"$DATABASE_URL\" --engine target/release/farmiq-edge --rows 1000000

The database must be migrated (farmiq-edge migrate) and is filled with old rows of every kind; use one you can throw
away. Readings arrive all the time, first without a pass, then with one. Locks and waits are seen every 10 ms. Exit 1
when something old stayed, something else went, or a lock kept writers out for more than a second. Build with
--release.")]
pub(crate) struct RetentionArgs {
    /// The database.
    #[arg(long)]
    database_url: String,
    /// The program farmiq-edge.
    #[arg(long)]
    engine: PathBuf,
    /// Rows that are old enough to be deleted.
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// Readings per second that arrive over MQTT.
    #[arg(long, default_value_t = 2000.0)]
    incoming_rate: f64,
    /// Seconds of the measurement without a pass.
    #[arg(long, default_value_t = 30.0)]
    quiet_seconds: f64,
}

impl RetentionArgs {
    pub(crate) fn settings(self) -> retention::Settings {
        retention::Settings {
            database_url: self.database_url,
            engine: self.engine,
            rows: self.rows.clamp(retention::ROWS_MIN, retention::ROWS_MAX),
            incoming_rate: self.incoming_rate.max(1.0),
            quiet: Duration::from_secs_f64(self.quiet_seconds.clamp(1.0, 600.0)),
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
A whole measurement, one shell each (make bench-weigh does it on both backends):
  farmiq-loadtest cloud --tolerate-late
  FARMIQ_AUTH__MODE=compat FARMIQ_CLOUD__URL=http://127.0.0.1:9300/api/v1/edge/batch \\
      farmiq-edge up --allow-anonymous                 (it prints the address of its database)
  farmiq-loadtest barn --devices 0 --stations 20 --print-allowlist-sql | psql \"$DATABASE_URL\"
  farmiq-loadtest weigh --captures 200 --images-per-second 2 --cloud http://127.0.0.1:9300

Printed are the time from the last byte of a picture to its weight, the time a finalize takes, and how far the weights
are from the true ones, beside the error on the bundled model's card. One --seed gives the same birds and pictures.

Stations of the kind weight-vision-service take turns; a capture is two pictures of one bird. The engine lets each
device ask for 10 uploads at once and 10 a minute after that (media.presign_per_minute), so 2 pictures per second need
12 stations or more. The pictures are drawn on this machine, which costs the engine a little of it. Exit 1 when a
picture was not read or the cloud lacks something. Build with --release.")]
pub(crate) struct WeighArgs {
    #[command(flatten)]
    broker: BrokerArgs,
    /// HTTP API of the engine.
    #[arg(long, default_value = "http://127.0.0.1:3000")]
    edge: String,
    /// The pretend cloud or its control address, asked at the end whether it has everything.
    #[arg(long)]
    cloud: Option<String>,
    /// Weighings, of two pictures each.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    captures: u32,
    /// Pictures per second, over all stations.
    #[arg(long, default_value_t = 2.0)]
    images_per_second: f64,
    /// Stations st-01 (device wv-001), st-02, ... that take turns.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=999))]
    stations: u32,
    /// Tenant id.
    #[arg(long, default_value = "t-001")]
    tenant: String,
    /// Farm id.
    #[arg(long, default_value = "f-001")]
    farm: String,
    /// Barn id.
    #[arg(long, default_value = "b-001")]
    barn: String,
    /// Decides the birds and their pictures.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long missing results are waited for at the end.
    #[arg(long, default_value_t = 120)]
    wait_seconds: u64,
}

impl WeighArgs {
    pub(crate) fn settings(self) -> weigh::Settings {
        weigh::Settings {
            broker: self.broker.broker,
            edge: self.edge,
            cloud: self.cloud,
            place: Place { tenant: self.tenant, farm: self.farm, barn: self.barn },
            captures: self.captures as usize,
            images_per_second: self.images_per_second.clamp(0.01, 1000.0),
            stations: self.stations as usize,
            seed: self.seed,
            wait: Duration::from_secs(self.wait_seconds.min(86_400)),
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  farmiq-loadtest render --count 20 --seed 1 --out pictures
  farmiq-loadtest render --count 3000 --seed 7 --out pictures --weight-kg-min 1.5 --weight-kg-max 3

Writes 00000.jpg, 00001.jpg, ... (640 x 480) and weights.csv with file, weight_kg, seed, body_pixels. The same seed
gives the same files. The area of a bird seen from above is 0.0275 m2 times its weight in kg to the power 2/3, give or
take 2 %; turn, place, light, blur, litter and neighbors are chance. These are drawings, not photographs.")]
pub(crate) struct RenderArgs {
    /// How many pictures.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    count: u64,
    /// Decides weights and pictures.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The folder, made when it is not there.
    #[arg(long)]
    out: PathBuf,
    /// Lightest bird, kilograms.
    #[arg(long, default_value_t = render::WEIGHT_KG_MIN)]
    weight_kg_min: f64,
    /// Heaviest bird, kilograms.
    #[arg(long, default_value_t = render::WEIGHT_KG_MAX)]
    weight_kg_max: f64,
}

impl RenderArgs {
    pub(crate) fn settings(self) -> render::folder::Settings {
        render::folder::Settings {
            count: self.count,
            seed: self.seed,
            folder: self.out,
            weights_kg: (self.weight_kg_min, self.weight_kg_max),
        }
    }
}
