//! Options of `barn`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};

use loadtest::barn::{self, Subscribers};
use loadtest::connection::Connection;
use loadtest::connection::logins::Logins;
use loadtest::device::Place;
use loadtest::flock::{Book, air};
use loadtest::mqtt::Version;
use loadtest::threshold::Threshold;
use schema::wire::envelope::Dialect;

use super::connection::{ConnectionArgs, LoginArgs, WatchArgs, first_line};
use super::parse_share;

/// How sensors write their bodies.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum DialectChoice {
    /// One device after the other in each dialect.
    Mix,
    /// The full envelope.
    Canonical,
    /// The envelope with explicit nulls.
    NullFields,
    /// Top-level keys, no envelope.
    Flat,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  farmiq-loadtest barn --print-allowlist-sql | psql \"$DATABASE_URL\"
  farmiq-loadtest barn --broker 127.0.0.1:1883 --devices 12 --stations 2
  farmiq-loadtest barn --devices 100 --interval-seconds 1 --ids-file ids.txt --duration-seconds 60
  farmiq-loadtest barn --speed 60 --dialect flat       (an hour of barn in a minute)
  farmiq-loadtest barn --broker mqtts://barn:8883 --ca ca.pem --devices 200 --credentials logins.csv
  farmiq-loadtest barn --devices 200 --provision http://127.0.0.1:3000 --key-file operator-key --save-credentials logins.csv
  farmiq-loadtest barn --devices 10000 --stations 0 --interval-seconds 60 --connect-rate 1000 --run-file run.json
  farmiq-loadtest barn --devices 500 --storm-seconds 30 --duration-seconds 300 --fail-if 'connect.p99>5s'
  farmiq-loadtest barn --subscribers 20 --subscriber-user operator:admin --subscriber-password-file operator-key
  farmiq-loadtest barn --stations 2 --edge http://127.0.0.1:3000 --ids-file ids.txt --sessions-file sessions.txt
  farmiq-loadtest barn --flock --history 42d --stations 3 --edge http://127.0.0.1:3000 --key-file operator-key \\
      --air-hours 12 --truth-file truth.json --duration-seconds 0
  farmiq-loadtest barn --flock --beside --drift 0.08 --stations 2 --edge http://127.0.0.1:3000
  farmiq-loadtest barn --devices 0 --stations 8 --edge http://127.0.0.1:3000 --weigh-seconds 15 --bad-share 0.5

Each sensor d-001, d-002, ... has its own connection, seven metrics, a retained status and a last will; each station
st-01 (device wv-001), ... weighs whole sessions. --ids-file holds the acknowledged ids the cloud must see.

With --edge stations draw a bird, upload its pictures and speak as real devices do. st-01, st-03, ... are of the kind
weight-vision-service: presign, PUT, complete, the session over HTTP, then the same events again over MQTT. st-02, ...
are iot-weighvision-agents: presign in camelCase, PUT, no complete, pictures announced before their session begins, a
second connection per session that takes the place of the first, and a will as old as the process. In --bad-share of
the weighings they also end a session before they begin it, say things twice, or have no weight. They show no token:
the engine needs auth.mode = compat. It lets a device ask for 10 uploads a minute (media.presign_per_minute), and a
weighing takes two: with --weigh-seconds below 12 stations meet 429 and try again, as devices do.

Each line of --sessions-file is a weighing that went through: its session, the true weight, its pictures. What the
engine read from them: curl -H 'x-tenant-id: t-001' 'http://127.0.0.1:3000/api/v1/inference/results?sessionId=...'")]
pub(crate) struct BarnArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    logins: LoginArgs,
    /// Sensors.
    #[arg(long, default_value_t = 12)]
    devices: usize,
    /// Weighing stations.
    #[arg(long, default_value_t = 1)]
    stations: usize,
    /// Simulated seconds between two polls of a sensor; a poll is seven readings.
    #[arg(long, default_value_t = 5.0)]
    interval_seconds: f64,
    /// Simulated seconds between two weighings of a station.
    #[arg(long, default_value_t = 30.0)]
    weigh_seconds: f64,
    /// Tenant id.
    #[arg(long, default_value = "t-001")]
    tenant: String,
    /// Farm id.
    #[arg(long, default_value = "f-001")]
    farm: String,
    /// Barn id.
    #[arg(long, default_value = "b-001")]
    barn: String,
    /// How sensors write their bodies.
    #[arg(long, value_enum, default_value = "mix")]
    dialect: DialectChoice,
    /// Log in as this prefix followed by the device id, all with the same --password.
    #[arg(long, conflicts_with_all = ["credentials", "certificates", "provision", "user"], help_heading = "Logins")]
    user_prefix: Option<String>,
    /// Connections opened per second at most.
    #[arg(long, default_value_t = 500.0)]
    connect_rate: f64,
    /// Every so many seconds all sensors lose their connections and come back at once.
    #[arg(long)]
    storm_seconds: Option<f64>,
    /// Connections that listen and measure how long a reading takes to arrive.
    #[arg(long, default_value_t = 0, help_heading = "Subscribers")]
    subscribers: usize,
    /// Each reading goes to one of the subscribers instead of to all.
    #[arg(long, help_heading = "Subscribers")]
    shared: bool,
    /// What they listen to; without it all readings of the barn.
    #[arg(long, help_heading = "Subscribers")]
    subscribe: Option<String>,
    /// QoS of their subscription.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2), help_heading = "Subscribers")]
    subscribe_qos: u8,
    /// User name of the subscribers, such as operator:admin; without it that of --user, or none.
    #[arg(long, requires = "subscriber_password_file", help_heading = "Subscribers")]
    subscriber_user: Option<String>,
    /// File that holds their password.
    #[arg(long, help_heading = "Subscribers")]
    subscriber_password_file: Option<PathBuf>,
    /// Simulated seconds per real second.
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// Leave after so many real seconds; without it stay until Ctrl-C.
    #[arg(long)]
    duration_seconds: Option<f64>,
    /// Decides the weather; event ids never repeat.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Append each acknowledged event id that the cloud must see, one a line.
    #[arg(long)]
    ids_file: Option<PathBuf>,
    /// Append what became of each message to this file, for verify; compressed if it ends in .gz.
    #[arg(long, help_heading = "Report")]
    ledger: Option<PathBuf>,
    /// Write figures and curves of the run to this JSON file, for report.
    #[arg(long, help_heading = "Report")]
    run_file: Option<PathBuf>,
    /// Exit 1 if this holds, such as 'p99>50ms', 'delivery.p99>100ms', 'undelivered>0'. May be repeated.
    #[arg(long, help_heading = "Report")]
    fail_if: Vec<Threshold>,
    #[command(flatten)]
    watch: WatchArgs,
    /// HTTP API of the engine, http://host:port; with it stations upload pictures.
    #[arg(long)]
    edge: Option<String>,
    /// Sensors, the last ones, that now and then write a time that nobody can read: it is refused.
    #[arg(long, default_value_t = 0)]
    confused: usize,
    /// Share of weighings in which stations have bad habits, 0 to 1.
    #[arg(long, default_value_t = 0.2, value_parser = parse_share)]
    bad_share: f64,
    /// Append each weighing that went through, for verify; needs --edge.
    #[arg(long, requires = "edge")]
    sessions_file: Option<PathBuf>,
    /// First play the past of a flock that is drawn from the seed: its book over HTTP, its weighings by the stations.
    #[arg(long, requires = "edge", help_heading = "Flock")]
    flock: bool,
    /// Play that past beside the life of the barn, once a bird was weighed.
    #[arg(long, requires = "flock", help_heading = "Flock")]
    beside: bool,
    /// The flock was played before: only have stations weigh its birds.
    #[arg(long, requires = "flock", conflicts_with = "truth_file", help_heading = "Flock")]
    played: bool,
    /// How much too much the last scale has come to say, as a share, 0 to 1.
    #[arg(long, default_value_t = 0.0, value_parser = parse_share, requires = "flock", help_heading = "Flock")]
    drift: f64,
    /// Days of that past; the flock was placed so many days ago.
    #[arg(long, default_value = "30d", value_parser = parse_days, help_heading = "Flock")]
    history: u16,
    /// Birds placed.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000), help_heading = "Flock")]
    birds: u32,
    /// Weighings of a day, of all stations together.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=20_000), help_heading = "Flock")]
    weighings_per_day: u32,
    /// Then play so many hours of the air of its barn, up to now, by the probes air-01 to air-06, each with a fault, and with a
    /// heat wave at the end.
    #[arg(long, requires = "flock", value_parser = clap::value_parser!(u16).range(air::HOURS), help_heading = "Flock")]
    air_hours: Option<u16>,
    /// Write what is true of the flock, for verify.
    #[arg(long, requires = "flock", help_heading = "Flock")]
    truth_file: Option<PathBuf>,
    /// Print the SQL that enables these devices and stations, and leave.
    #[arg(long)]
    pub(crate) print_allowlist_sql: bool,
    /// Write that SQL to a file, then go on.
    #[arg(long)]
    pub(crate) allowlist_file: Option<PathBuf>,
}

impl BarnArgs {
    pub(crate) fn settings(&self) -> Result<barn::Settings> {
        let seconds = |seconds: f64| Duration::from_secs_f64(seconds.clamp(0.0, 1e9));
        Ok(barn::Settings {
            connection: self.connection()?,
            provision: self.logins.provision()?,
            connects_per_second: self.connect_rate.clamp(0.01, 1e6),
            storm_every: self.storm_seconds.map(|every| seconds(every.max(0.1))),
            subscribers: self.subscribers()?,
            place: Place { tenant: self.tenant.clone(), farm: self.farm.clone(), barn: self.barn.clone() },
            devices: self.devices,
            stations: self.stations,
            interval_seconds: self.interval_seconds,
            weigh_seconds: self.weigh_seconds,
            dialect: match self.dialect {
                DialectChoice::Mix => None,
                DialectChoice::Canonical => Some(Dialect::Canonical),
                DialectChoice::NullFields => Some(Dialect::NullFields),
                DialectChoice::Flat => Some(Dialect::Flat),
            },
            speed: self.speed,
            duration: self.duration_seconds.map(seconds),
            seed: self.seed,
            ids_file: self.ids_file.clone(),
            edge: self.edge.clone(),
            flock: self.flock()?,
            confused: self.confused,
            bad_share: self.bad_share,
            sessions_file: self.sessions_file.clone(),
            ledger: self.ledger.clone(),
            run_file: self.run_file.clone(),
            fail_if: self.fail_if.clone(),
            watched: self.watch.settings()?,
            told: self.told(),
        })
    }

    fn connection(&self) -> Result<Connection> {
        let connection = self.logins.apply(self.connection.connection(Version::V311)?)?;
        let Some(prefix) = &self.user_prefix else { return Ok(connection) };
        let logins = Logins::Prefixed { prefix: prefix.clone(), password: self.connection.password()? };
        Ok(Connection { logins, ..connection })
    }

    fn flock(&self) -> Result<Option<barn::FlockSettings>> {
        let Some(url) = self.edge.as_ref().filter(|_| self.flock) else { return Ok(None) };
        let key = self.logins.key()?;
        Ok(Some(barn::FlockSettings {
            book: (!self.played).then(|| Book { url: url.clone(), key, tenant: self.tenant.clone() }),
            is_beside: self.beside,
            drift: self.drift,
            days: self.history,
            birds: self.birds,
            weighings_per_day: self.weighings_per_day,
            air_hours: self.air_hours,
            truth_file: self.truth_file.clone(),
        }))
    }

    fn subscribers(&self) -> Result<Option<Subscribers>> {
        if self.subscribers == 0 {
            return Ok(None);
        }
        let mut connection = self.connection.connection(Version::V5)?;
        if let (Some(user), Some(file)) = (&self.subscriber_user, &self.subscriber_password_file) {
            connection.logins = Logins::Shared { user: user.clone(), password: Some(first_line(file)?) };
        }
        let all = || format!("iot/telemetry/{}/{}/{}/#", self.tenant, self.farm, self.barn);
        Ok(Some(Subscribers {
            connection,
            count: self.subscribers,
            is_shared: self.shared,
            filter: self.subscribe.clone().unwrap_or_else(all),
            qos: self.subscribe_qos,
        }))
    }

    /// The settings as the report shows them; no secret is among them.
    fn told(&self) -> BTreeMap<String, String> {
        let told = [
            ("broker", self.connection.broker.clone()),
            ("devices", self.devices.to_string()),
            ("stations", self.stations.to_string()),
            ("interval", format!("{} s", self.interval_seconds)),
            ("speed", self.speed.to_string()),
            ("connections per second", self.connect_rate.to_string()),
            ("storms every", self.storm_seconds.map_or("never".to_owned(), |every| format!("{every} s"))),
            ("subscribers", format!("{}{}", self.subscribers, if self.shared { ", shared" } else { "" })),
        ];
        told.map(|(name, value)| (name.to_owned(), value)).into()
    }
}

/// Days, with or without a `d` behind them.
fn parse_days(text: &str) -> Result<u16, String> {
    let days = text.strip_suffix('d').unwrap_or(text).parse::<u16>().ok();
    days.filter(|days| (1..=365).contains(days)).ok_or_else(|| "1d to 365d".to_owned())
}
