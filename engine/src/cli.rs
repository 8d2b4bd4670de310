//! The command line: what can be asked of the program, and what each command sets.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use actors::credentials::desk::OVERLAP_SECONDS_MAX;
use clap::{Args, Parser, Subcommand};
use schema::clock::Timestamp;

use crate::config::{Environment, Flag, Inputs};
use crate::doctor;
use crate::tree::worker::Work;

pub mod alarm;
pub mod console;
pub mod flock;
pub mod model;
pub mod place;
pub mod session;
pub mod station;
pub mod upkeep;

const EXAMPLES: &str = "\
Examples:
  farmiq-edge up --allow-anonymous    everything on this machine, to try it out
  farmiq-edge up                      the same; devices need a credential
  farmiq-edge run --config edge.toml  with a database and a broker of its own
  farmiq-edge check-config            every mistake at once, and what is in effect
  farmiq-edge doctor                  what is wrong here, and what to do about it
  farmiq-edge device add …            let a device in, and get the password for it
  farmiq-edge model check ./barn-7    whether a model package is fit for use, and what it costs
  farmiq-edge backup --to /mnt/usb    a whole box to another disk, while it works
  farmiq-edge restore --drill …       whether a backup can be restored
  farmiq-edge update ./farmiq-edge    another version, with a way back if it does not work
  farmiq-edge support --up            one archive for whoever is to help

Exit codes: 0 all is well, 1 something failed, 2 the configuration has a mistake.";

const UP_EXAMPLES: &str = "\
Examples:
  farmiq-edge up --data-dir ~/barn-1 --allow-anonymous
  farmiq-edge up --http-listen 127.0.0.1:3000 --mqtt-listen 0.0.0.0:1883

It says at start how to let a device in and send a first reading. The data
directory holds everything: the database, the images, the generated secrets.";

const RUN_EXAMPLES: &str = "\
Examples:
  farmiq-edge run --config /etc/farmiq/edge.toml
  FARMIQ_DATABASE__URL=postgresql://farmiq@db/farmiq FARMIQ_MQTT__URL=mqtt://broker farmiq-edge run

It needs database.url, and takes everything else from its defaults: see
`farmiq-edge check-config`. SIGTERM ends it in order, within 10 seconds.";

const WORKER_EXAMPLES: &str = "\
Examples:
  farmiq-edge worker --config /etc/farmiq/edge.toml              looks at images
  farmiq-edge worker --for sync --config /etc/farmiq/edge.toml   sends to the cloud
  farmiq-edge worker --for inference,sync                        both
  FARMIQ_INFERENCE__WORKERS=4 FARMIQ_HTTP__LISTEN=0.0.0.0:3001 farmiq-edge worker

It needs the database of the engine. For images it also needs their place (the same
bucket, or the same directory under media.root) and, if there is one, the model package
of inference.model_path; for the cloud it needs the settings of [cloud]. It has no MQTT,
and over HTTP it answers health, readiness and metrics alone. The engine goes on to do
the same work, unless its own inference.enabled is false or its own outbox.mode is noop.
Killing a worker loses nothing: another takes over its image when inference.lease_seconds
are over, and its batch when outbox.lease_seconds are over, or at once where the worker
itself starts again.";

const CHECK_CONFIG_EXAMPLES: &str = "\
Examples:
  farmiq-edge check-config --config edge.toml        what is in effect, and where it is from
  farmiq-edge check-config --up                      the same for a box with everything embedded
  farmiq-edge check-config --example > edge.toml     every setting with its default, to start from

A setting outbox.lease_seconds is FARMIQ_OUTBOX__LEASE_SECONDS in the environment,
which goes before the file. Exit codes: 0 no mistake, 2 mistakes, all of them named.";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  farmiq-edge doctor --config edge.toml    before the first start, or when something is odd
  farmiq-edge doctor --up                  the same for a box with everything embedded
  farmiq-edge doctor --json                the same for a program, one object a line

Without --up it judges what `run` runs with; on a machine that has the data of an `up`
and no configuration of a `run`, it judges the `up`. The first line says which. It tries
the logins of broker, bucket, RabbitMQ and cloud, in a bucket with an object of its own
that it deletes again, and changes nothing else. Exit codes: 0 the engine can work, 1 a line says FAIL.";

const HEALTH_EXAMPLES: &str = "\
Examples:
  farmiq-edge health                                  whether the engine lives
  farmiq-edge health --ready                          whether it can do its work
  farmiq-edge health --http-listen 127.0.0.1:3001     one that was started with this flag

It asks over http.listen, also where that port speaks TLS, and says one line. It needs no
shell and no other program: HEALTHCHECK CMD [\"/farmiq-edge\", \"health\"].
Exit codes: 0 yes, 1 no, 2 the configuration has a mistake.";

const DEVICE_EXAMPLES: &str = "\
Examples:
  farmiq-edge device add --tenant t-001 --farm f-001 --barn b-001 --device d-001
  farmiq-edge device list --tenant t-001
  farmiq-edge device rotate --tenant t-001 --device d-001 --overlap 24h
  farmiq-edge device revoke --tenant t-001 --device d-001

A password is made here, shown once, and stored as a hash: nobody can show it again. What
is changed takes effect at once on every engine of the database; a device that is revoked
is out within a second. The database is that of the configuration; without one, the private
one of a `farmiq-edge up` that runs on this machine.
Exit codes: 0 it is done, 1 it is not and the text says why.";

const DEVICE_ADD_EXAMPLES: &str = "\
Examples:
  farmiq-edge device add --tenant t-001 --farm f-001 --barn b-001 --device d-001
  farmiq-edge device add --tenant t-001 --farm f-001 --barn b-001 --device wv-001 --station st-01

The device may then speak of itself in this farm and barn, and of this station or, without
one, of every enabled station of the barn. A device that was revoked comes back with a new
password; one that waits for approval is approved. The user name is tenant/device.";

const DEVICE_ROTATE_EXAMPLES: &str = "\
Examples:
  farmiq-edge device rotate --tenant t-001 --device d-001               both are good for a day
  farmiq-edge device rotate --tenant t-001 --device d-001 --overlap 7d  or for a week
  farmiq-edge device rotate --tenant t-001 --device d-001 --overlap 0   the old one is void at once

Give the device its new password while both are good. Connections made with the old one
close when its time is over. A Mosquitto knows one password per user: there the old one is
void as soon as its files are written again.";

const MOSQUITTO_EXAMPLES: &str = "\
Examples:
  farmiq-edge broker-config mosquitto --out /etc/mosquitto/farmiq
  farmiq-edge broker-config mosquitto --out /etc/mosquitto/farmiq --watch --pid-file /run/mosquitto/mosquitto.pid

It writes three files: passwords, acl, and access.conf, which names the two; let
mosquitto.conf include it. With --watch it stays, writes them again when a device is let
in, gets a new password or is put out, and has Mosquitto read them. The engine's own login
at the broker is mqtt.username and mqtt.password. deploy/mosquitto has the rest.";

/// The FarmIQ edge engine: MQTT in, PostgreSQL, the cloud out. One program per barn; nothing acknowledged is lost.
#[derive(Debug, Parser)]
#[command(name = "farmiq-edge", version, after_help = EXAMPLES)]
pub struct Cli {
    /// The configuration file (TOML); without it the one that FARMIQ_CONFIG names, if any.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be asked of the program.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run with everything embedded: a private PostgreSQL, the MQTT broker, images in a directory.
    Up(Up),
    /// Run with the database and the broker that the configuration names.
    #[command(after_help = RUN_EXAMPLES)]
    Run,
    /// Look at images, send to the cloud or both for an engine, with its configuration: on more nodes, in any number.
    #[command(after_help = WORKER_EXAMPLES)]
    Worker(Worker),
    /// Bring the tables of the database to this version, and leave; `up` and `run` do it, too, when they start.
    Migrate,
    /// Show the configuration in effect and where each value comes from, or every mistake in it.
    #[command(after_help = CHECK_CONFIG_EXAMPLES)]
    CheckConfig {
        /// Print a file with every setting at its default instead.
        #[arg(long)]
        example: bool,
        /// Whose configuration is judged.
        #[command(flatten)]
        judged: Judged,
    },
    /// Look for what is wrong on this machine, and say what to do about it.
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(DoctorWish),
    /// Ask the engine that runs here whether it lives, or can do its work.
    #[command(after_help = HEALTH_EXAMPLES)]
    Health(Health),
    /// Let devices in, give them passwords, and put them out.
    #[command(subcommand, after_help = DEVICE_EXAMPLES)]
    Device(DeviceCommand),
    /// Let weighing stations speak, and silence them.
    #[command(subcommand, after_help = station::STATION_EXAMPLES)]
    Station(station::StationCommand),
    /// Try the ways by which alarms leave the barn.
    #[command(subcommand, after_help = alarm::ALARM_EXAMPLES)]
    Alarm(alarm::AlarmCommand),
    /// List weighings, and keep them out of the statistics.
    #[command(subcommand, after_help = session::SESSION_EXAMPLES)]
    Session(session::SessionCommand),
    /// Let people in to the console that a phone shows, and out.
    #[command(subcommand, after_help = console::CONSOLE_EXAMPLES)]
    Console(console::ConsoleCommand),
    /// Keep the book of the flocks: place and end them, write down what happened, and read what it comes to.
    #[command(subcommand, after_help = flock::FLOCK_EXAMPLES)]
    Flock(flock::FlockCommand),
    /// Look at what birds are expected to weigh, and bring standards of your own.
    #[command(subcommand, after_help = flock::STANDARD_EXAMPLES)]
    Standard(flock::StandardCommand),
    /// Write what a broker of its own must know of the devices.
    #[command(subcommand)]
    BrokerConfig(BrokerConfigCommand),
    /// Look at model packages, which say the weight of birds in images.
    #[command(subcommand)]
    Model(model::ModelCommand),
    /// Write the database, images, configuration and secrets of an `up` to another disk or a bucket, encrypted.
    Backup(upkeep::Backup),
    /// Put a backup into an empty data directory, or try whether that would work.
    Restore(upkeep::Restore),
    /// Write one archive for whoever is to help from afar, without secrets and payloads.
    Support(upkeep::Support),
    /// Put another version of this program in place, with a look whether it works, and a way back.
    Update(upkeep::Update),
    /// Look after the private PostgreSQL of `up` itself.
    #[command(subcommand)]
    Cluster(upkeep::ClusterCommand),
}

impl Command {
    /// Whether it runs until it is told to stop.
    #[must_use]
    pub fn is_long_running(&self) -> bool {
        matches!(self, Self::Up(_) | Self::Run | Self::Worker(_))
    }
}

/// What to judge, and for whom.
#[derive(Debug, Args)]
pub struct DoctorWish {
    /// Whose configuration is judged.
    #[command(flatten)]
    pub judged: Judged,
    /// Say it for a program: one object a line.
    #[arg(long)]
    pub json: bool,
}

/// What a worker does for the engine.
#[derive(Debug, Args)]
pub struct Worker {
    /// What it does; more than one is separated by commas.
    #[arg(
        long = "for",
        value_name = "WORK,…",
        value_enum,
        value_delimiter = ',',
        default_value = "inference"
    )]
    pub works: Vec<Work>,
}

/// For which broker.
#[derive(Debug, Subcommand)]
pub enum BrokerConfigCommand {
    /// Password and ACL files for Mosquitto 2.
    Mosquitto(MosquittoFiles),
}

/// Where the files of Mosquitto go.
#[derive(Debug, Args)]
#[command(after_help = MOSQUITTO_EXAMPLES)]
pub struct MosquittoFiles {
    /// The directory of the files; it is made when it is not there.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Stay, and write them again whenever something changes.
    #[arg(long)]
    pub watch: bool,
    /// Mosquitto's own pid_file: it is told to read the files again.
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
}

/// What can be done about devices.
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// Let a device in, and make the password it comes with.
    #[command(after_help = DEVICE_ADD_EXAMPLES)]
    Add(DeviceAdd),
    /// List devices: where they may act, and what they come with.
    List {
        /// Only those of this tenant.
        #[arg(long, value_name = "ID", value_parser = id)]
        tenant: Option<String>,
        /// Say it for a program.
        #[arg(long)]
        json: bool,
    },
    /// Show one device.
    Show(DeviceName),
    /// Give a device a new password; the one before stays good for a while.
    #[command(after_help = DEVICE_ROTATE_EXAMPLES)]
    Rotate {
        /// Which device.
        #[command(flatten)]
        device: DeviceName,
        /// How long the password before stays good, such as 30m, 24h or 7d; 0 ends it at once
        /// [default: device.rotation_overlap_hours].
        #[arg(long, value_name = "TIME", value_parser = duration)]
        overlap: Option<Duration>,
    },
    /// Put a device out at once, whatever it comes with.
    Revoke(DeviceName),
    /// Say where devices are.
    #[command(subcommand, after_help = place::PLACE_EXAMPLES)]
    Place(place::PlaceCommand),
}

/// Which device.
#[derive(Debug, Args)]
pub struct DeviceName {
    /// Its tenant.
    #[arg(long, value_name = "ID", value_parser = id)]
    pub tenant: String,
    /// The device.
    #[arg(long, value_name = "ID", value_parser = id)]
    pub device: String,
    /// Say it for a program.
    #[arg(long)]
    pub json: bool,
}

/// Which device to let in, and where.
#[derive(Debug, Args)]
pub struct DeviceAdd {
    /// Which device.
    #[command(flatten)]
    pub name: DeviceName,
    /// Its farm.
    #[arg(long, value_name = "ID", value_parser = id)]
    pub farm: String,
    /// Its barn.
    #[arg(long, value_name = "ID", value_parser = id)]
    pub barn: String,
    /// The only weighing station it speaks for.
    #[arg(long, value_name = "ID", value_parser = id)]
    pub station: Option<String>,
    /// Another user name than tenant/device.
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,
}

/// Reads an id.
fn id(text: &str) -> Result<String, String> {
    if schema::id::is_id(text) { Ok(text.to_owned()) } else { Err(schema::id::InvalidId.to_string()) }
}

/// Reads a moment, or the first of a day in UTC.
fn time(text: &str) -> Result<Timestamp, String> {
    let moment =
        schema::wire::time::parse(text).or_else(|| schema::wire::time::parse(&format!("{text}T00:00:00Z")));
    moment.ok_or_else(|| "write it as 2026-02-12 or 2026-02-12T09:00:00Z".to_owned())
}

/// Reads a time such as `30m`, `24h` or `7d`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write it as 0, 45s, 30m, 24h or 7d".to_owned();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "" if number == 0 => 0,
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let seconds = number.checked_mul(seconds).filter(|seconds| *seconds <= OVERLAP_SECONDS_MAX);
    seconds.map(Duration::from_secs).ok_or_else(|| "a year is the longest".to_owned())
}

/// What to ask the running engine, and where.
#[derive(Debug, Args)]
pub struct Health {
    /// Ask whether it can do its work, and not only whether it lives.
    #[arg(long)]
    pub ready: bool,
    /// Address and port of its HTTP [default: http.listen].
    #[arg(long, value_name = "ADDRESS")]
    pub http_listen: Option<SocketAddr>,
}

/// How to run with everything embedded.
#[derive(Debug, Args)]
#[command(after_help = UP_EXAMPLES)]
pub struct Up {
    /// Where everything is kept [default: /var/lib/farmiq-edge for root, else ~/.local/share/farmiq-edge].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address and port of HTTP [default: 0.0.0.0:3000].
    #[arg(long, value_name = "ADDRESS")]
    pub http_listen: Option<SocketAddr>,
    /// Address and port of MQTT [default: 0.0.0.0:1883].
    #[arg(long, value_name = "ADDRESS")]
    pub mqtt_listen: Option<SocketAddr>,
    /// Let devices connect without a credential: for trying it out, not for a barn.
    #[arg(long)]
    pub allow_anonymous: bool,
}

impl Cli {
    /// Decides whose configuration is judged, where that depends on the machine.
    pub fn settle(&mut self, environment: &Environment) {
        let file = self.config.as_deref();
        if let Command::CheckConfig { judged, .. }
        | Command::Doctor(DoctorWish { judged, .. })
        | Command::Update(upkeep::Update { judged, .. })
        | Command::Support(upkeep::Support { judged, .. }) = &mut self.command
        {
            judged.up = judged.is_up(file, environment);
        }
    }

    /// What the configuration of this command is read from.
    pub fn inputs(&self, environment: Environment) -> Inputs {
        let mut inputs = Inputs { file: self.config.clone(), ..Inputs::default() };
        match &self.command {
            Command::Up(up) => {
                inputs.flags = up.flags();
                inputs.presets = private_presets(&environment);
            }
            Command::Run | Command::Migrate => inputs.needs_database = true,
            Command::Worker(worker) => {
                inputs.needs_database = true;
                inputs.needs_inference = worker.works.contains(&Work::Inference);
                inputs.needs_cloud = worker.works.contains(&Work::Sync);
            }
            // The private database of a box that is up is found where `up` puts it.
            Command::Alarm(_)
            | Command::Device(_)
            | Command::Console(_)
            | Command::Flock(_)
            | Command::Session(_)
            | Command::Standard(_)
            | Command::Station(_)
            | Command::BrokerConfig(_) => inputs.presets = private_presets(&environment),
            Command::Health(health) => {
                let address = health.http_listen.map(|address| address.to_string());
                let flag = |value| Flag { name: "--http-listen", path: "http.listen", value };
                inputs.flags = address.map(flag).into_iter().collect();
            }
            Command::CheckConfig { judged, .. }
            | Command::Doctor(DoctorWish { judged, .. })
            | Command::Update(upkeep::Update { judged, .. })
            | Command::Support(upkeep::Support { judged, .. }) => {
                inputs.flags = judged.flags();
                if judged.is_up(self.config.as_deref(), &environment) {
                    inputs.presets = private_presets(&environment);
                }
            }
            Command::Model(_) => {}
            Command::Cluster(wish) => {
                inputs.flags = upkeep::data_dir(wish.data_dir());
                inputs.presets = private_presets(&environment);
            }
            Command::Backup(upkeep::Backup { data_dir, .. })
            | Command::Restore(upkeep::Restore { data_dir, .. }) => {
                inputs.flags = upkeep::data_dir(data_dir.as_ref());
                inputs.presets = private_presets(&environment);
            }
        }
        inputs.environment = environment;
        inputs
    }
}

/// Whose configuration is judged.
#[derive(Debug, Default, Args)]
pub struct Judged {
    /// Judge what `farmiq-edge up` runs with, and not `run`.
    #[arg(long)]
    pub up: bool,
    /// The data directory of that `up`.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

impl Judged {
    /// Whether an `up` is judged: when that is asked for, and on a machine that has the data of one and nothing that a
    /// `run` would need.
    fn is_up(&self, file: Option<&Path>, environment: &Environment) -> bool {
        const OF_A_RUN: [&str; 4] =
            ["FARMIQ_CONFIG", "FARMIQ_DATABASE__URL", "FARMIQ_DATABASE__URL_FILE", "DATABASE_URL"];
        let is_a_run = file.is_some() || OF_A_RUN.iter().any(|name| environment.get(name).is_some());
        let has_data = || default_data_dir(environment).join("postgres").exists();
        self.up || self.data_dir.is_some() || (!is_a_run && has_data())
    }

    /// The command that would run with the configuration that is judged.
    #[must_use]
    pub fn command(&self) -> doctor::Command {
        if self.up { doctor::Command::Up } else { doctor::Command::Run }
    }

    fn flags(&self) -> Vec<Flag> {
        upkeep::data_dir(self.data_dir.as_ref())
    }
}

impl Up {
    fn flags(&self) -> Vec<Flag> {
        let data_dir = self.data_dir.as_ref().map(|path| path.display().to_string());
        let http = self.http_listen.map(|address| address.to_string());
        let mqtt = self.mqtt_listen.map(|address| address.to_string());
        let anonymous = self.allow_anonymous.then(|| true.to_string());
        let flags = [
            ("--data-dir", "edge.data_dir", data_dir),
            ("--http-listen", "http.listen", http),
            ("--mqtt-listen", "broker.listen", mqtt),
            ("--allow-anonymous", "broker.allow_anonymous", anonymous),
        ];
        flags.into_iter().filter_map(|(name, path, value)| Some(Flag { name, path, value: value? })).collect()
    }
}

/// The defaults of a box that has everything in one directory.
fn private_presets(environment: &Environment) -> Vec<(&'static str, String)> {
    let data_dir = default_data_dir(environment).display().to_string();
    vec![("mqtt.mode", "embedded".to_owned()), ("edge.data_dir", data_dir)]
}

/// Where data goes when nobody says otherwise. For root it is a place that the user PostgreSQL runs as can reach.
fn default_data_dir(environment: &Environment) -> PathBuf {
    let set = |name| environment.get(name).filter(|path| path.starts_with('/')).map(PathBuf::from);
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/farmiq-edge");
    }
    let in_home = || Some(set("HOME")?.join(".local/share"));
    set("XDG_DATA_HOME").or_else(in_home).unwrap_or_else(|| PathBuf::from("/var/tmp")).join("farmiq-edge")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::config::{MqttMode, Origin, load};

    fn loaded(arguments: &[&str], environment: &[(&str, &str)]) -> crate::config::Loaded {
        let cli = Cli::parse_from([&["farmiq-edge"], arguments].concat());
        load(&cli.inputs(environment.iter().copied().collect())).unwrap()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn up_embeds_everything_in_one_directory() {
        let loaded = loaded(
            &["up", "--data-dir", "/barn", "--mqtt-listen", "127.0.0.1:1999", "--allow-anonymous"],
            &[],
        );
        let config = &loaded.config;
        assert_eq!(config.mqtt.mode, MqttMode::Embedded);
        assert_eq!(config.media.root, PathBuf::from("/barn/media"));
        assert_eq!(config.edge.data_dir, PathBuf::from("/barn"));
        assert_eq!(config.broker.listen.unwrap().port(), 1999);
        assert!(config.broker.allow_anonymous);
        assert_eq!(loaded.origins["broker.listen"], Origin::Flag("--mqtt-listen"));
    }

    #[test]
    fn up_needs_no_database_and_gives_way_to_what_is_set() {
        let loaded = loaded(&["up"], &[("FARMIQ_MEDIA__ROOT", "/images"), ("DATABASE_URL", "host=db")]);
        assert_eq!(loaded.config.media.root, PathBuf::from("/images"));
        assert!(loaded.config.database.url.is_some());
        assert!(!loaded.config.broker.allow_anonymous);
    }

    #[test]
    fn a_doctor_judges_what_runs_here() {
        let judged = |arguments: &[&str], environment: &[(&str, &str)]| {
            let mut cli = Cli::parse_from([&["farmiq-edge", "doctor"], arguments].concat());
            cli.settle(&environment.iter().copied().collect());
            let Command::Doctor(wish) = cli.command else { panic!("{cli:?}") };
            wish.judged.command()
        };
        assert_eq!(judged(&["--up"], &[("DATABASE_URL", "host=db")]), doctor::Command::Up);
        assert_eq!(judged(&["--data-dir", "/barn"], &[]), doctor::Command::Up);
        assert_eq!(judged(&["--config", "edge.toml"], &[]), doctor::Command::Run);
        assert_eq!(judged(&[], &[("DATABASE_URL", "host=db")]), doctor::Command::Run);
        let up = loaded(&["doctor", "--data-dir", "/barn"], &[]);
        assert_eq!((up.config.mqtt.mode, up.config.media.root), (MqttMode::Embedded, "/barn/media".into()));
        assert_eq!(loaded(&["check-config", "--up"], &[]).config.mqtt.mode, MqttMode::Embedded);
    }

    #[test]
    fn a_time_is_a_number_with_its_unit() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(duration(text).ok(), expected.map(Duration::from_secs), "{text:?}");
        };
        check("0", Some(0));
        check("45s", Some(45));
        check("30m", Some(1800));
        check("24h", Some(86_400));
        check("7d", Some(604_800));
        for text in ["", "24", "h", "-1h", "1.5h", "1w", "1 h", "367d", "99999999999999999999h"] {
            check(text, None);
        }
    }

    #[test]
    fn a_moment_may_be_a_day() {
        assert_eq!(time("2026-02-12"), time("2026-02-12T00:00:00Z"));
        assert_eq!(time("2026-02-12T07:00:00+07:00"), time("2026-02-12"));
        for text in ["", "yesterday", "12.2.2026", "2026-02-30"] {
            time(text).unwrap_err();
        }
    }

    #[test]
    fn a_worker_refuses_work_that_the_configuration_does_not_have() {
        let check = |works: &[&str], environment: &[(&str, &str)], complaint: Option<&str>| {
            let cli = Cli::parse_from([&["farmiq-edge", "worker"], works].concat());
            let environment = [&[("DATABASE_URL", "host=db")], environment].concat();
            let report = load(&cli.inputs(environment.into_iter().collect()))
                .map_or_else(|mistakes| mistakes.report(false), |_| String::new());
            let is_as_expected = complaint.map_or(report.is_empty(), |complaint| report.contains(complaint));
            assert!(is_as_expected, "{works:?}: {report}");
        };
        let cloud = ("FARMIQ_CLOUD__URL", "https://cloud.example/batch");
        check(&[], &[], None);
        check(&["--for", "inference,sync"], &[cloud], None);
        check(&["--for", "sync"], &[("FARMIQ_INFERENCE__ENABLED", "false"), cloud], None);
        check(&["--for", "sync"], &[], Some("cloud.url"));
        check(&["--for", "sync"], &[("FARMIQ_OUTBOX__MODE", "noop"), cloud], Some("outbox.mode"));
        check(&[], &[("FARMIQ_INFERENCE__ENABLED", "false")], Some("inference.enabled"));
        for nonsense in [&["--for", "mqtt"][..], &["--for", ""], &["--for"], &["--for", "sync,"]] {
            Cli::try_parse_from([&["farmiq-edge", "worker"], nonsense].concat()).unwrap_err();
        }
    }

    #[test]
    fn run_cannot_do_without_a_database() {
        let cli = Cli::parse_from(["farmiq-edge", "run"]);
        assert!(load(&cli.inputs(Environment::default())).is_err());
    }
}
