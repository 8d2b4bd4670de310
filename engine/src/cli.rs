//! The command line: what can be asked of the program, and what each command sets.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{Environment, Flag, Inputs};

const EXAMPLES: &str = "\
Examples:
  farmiq-edge up --allow-anonymous    everything on this machine, to try it out
  farmiq-edge up                      the same; devices need a credential
  farmiq-edge run --config edge.toml  with a database and a broker of its own
  farmiq-edge check-config            every mistake at once, and what is in effect
  farmiq-edge doctor                  what is wrong here, and what to do about it
  farmiq-edge model check ./barn-7    whether a model package is fit for use, and what it costs

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
  farmiq-edge worker --config /etc/farmiq/edge.toml
  FARMIQ_INFERENCE__WORKERS=4 FARMIQ_HTTP__LISTEN=0.0.0.0:3001 farmiq-edge worker

It needs the database of the engine, the place of its images (the same bucket, or
the same directory under media.root) and, if there is one, the model package of
inference.model_path. Over HTTP it answers health and metrics alone. Killing one
loses nothing: another takes over its image when inference.lease_seconds are over.";

const CHECK_CONFIG_EXAMPLES: &str = "\
Examples:
  farmiq-edge check-config --config edge.toml        what is in effect, and where it is from
  farmiq-edge check-config --example > edge.toml     every setting with its default, to start from

A setting outbox.lease_seconds is FARMIQ_OUTBOX__LEASE_SECONDS in the environment,
which goes before the file. Exit codes: 0 no mistake, 2 mistakes, all of them named.";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  farmiq-edge doctor --config edge.toml    before the first start, or when something is odd

It changes nothing. Exit codes: 0 the engine can work, 1 a line says FAIL.";

const MODEL_CHECK_EXAMPLES: &str = "\
Examples:
  farmiq-edge model check                                  the model that the configuration names
  farmiq-edge model check ./barn-7                         a package, before it is used
  farmiq-edge model check ./barn-7 --image hen.jpg         what it says of your picture

A package is three files in one directory:
  model.onnx    the network; its only input is one image, [1, 3, height, width] floats
  model.toml    what it takes and what its output means
  selftest.jpg  a picture whose weight is known; model.toml names it

A model.toml of a network that says one weight:
  version = \"barn-7-2026-12\"
  input = { width = 224, height = 224, mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225] }
  output = { meaning = \"regression\", confidence = 0.85 }
  self_test = { image = \"selftest.jpg\", weight_kg_min = 1.95, weight_kg_max = 2.05 }

docs/models.md tells how to export one from PyTorch, also one that finds birds in boxes.
Exit codes: 0 it is fit for use, 1 it is not and the text says why.";

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
    /// Run inference workers alone, with the same configuration: for a bigger node, in any number.
    #[command(after_help = WORKER_EXAMPLES)]
    Worker,
    /// Bring the tables of the database to this version, and leave; `up` and `run` do it, too, when they start.
    Migrate,
    /// Show the configuration in effect and where each value comes from, or every mistake in it.
    #[command(after_help = CHECK_CONFIG_EXAMPLES)]
    CheckConfig {
        /// Print a file with every setting at its default instead.
        #[arg(long)]
        example: bool,
    },
    /// Look for what is wrong on this machine, and say what to do about it.
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor,
    /// Look at model packages, which say the weight of birds in images.
    #[command(subcommand)]
    Model(ModelCommand),
}

/// What can be asked about model packages.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Load a package as the engine would, run its self-test, and measure what it costs on this machine.
    Check(ModelCheck),
}

/// Which package to look at, and how.
#[derive(Debug, Args)]
#[command(after_help = MODEL_CHECK_EXAMPLES)]
pub struct ModelCheck {
    /// An ONNX file with its settings beside it, or a directory with both [default: what inference.model_path names,
    /// else the bundled demonstration].
    #[arg(value_name = "PACKAGE")]
    pub package: Option<PathBuf>,
    /// A picture to say the weight of; it is also what the time is taken with. Can be given several times.
    #[arg(long = "image", value_name = "FILE")]
    pub images: Vec<PathBuf>,
    /// Numbers of workers to take the time with, one after the other.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,2", 
        value_parser = clap::value_parser!(u8).range(1..=64))]
    pub workers: Vec<u8>,
    /// Say it for a program.
    #[arg(long)]
    pub json: bool,
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
    /// What the configuration of this command is read from.
    pub fn inputs(&self, environment: Environment) -> Inputs {
        let mut inputs = Inputs { file: self.config.clone(), ..Inputs::default() };
        match &self.command {
            Command::Up(up) => {
                inputs.flags = up.flags();
                inputs.presets = up.presets(&environment);
            }
            Command::Run | Command::Worker | Command::Migrate => inputs.needs_database = true,
            Command::CheckConfig { .. } | Command::Doctor | Command::Model(_) => {}
        }
        inputs.environment = environment;
        inputs
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

    /// The defaults of a box that has everything in one directory.
    fn presets(&self, environment: &Environment) -> Vec<(&'static str, String)> {
        let data_dir = default_data_dir(environment).display().to_string();
        vec![("mqtt.mode", "embedded".to_owned()), ("edge.data_dir", data_dir)]
    }
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
    fn run_cannot_do_without_a_database() {
        let cli = Cli::parse_from(["farmiq-edge", "run"]);
        assert!(load(&cli.inputs(Environment::default())).is_err());
    }
}
