//! Options of `replay`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};

use loadtest::mqtt::Version;
use loadtest::replay::pace::{Course, Pace, Speed, Tempo};
use loadtest::replay::{self, Shift};
use loadtest::threshold::Threshold;

use super::connection::{ConnectionArgs, LoginArgs, WatchArgs};

/// How times are moved.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ShiftChoice {
    /// Each message looks as fresh as it was when it was recorded.
    Due,
    /// The recording ends now; the pauses between its readings stay, also when it is played faster.
    EndsNow,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  farmiq-loadtest replay barn-0001.jsonl.gz --broker 127.0.0.1:1883
  farmiq-loadtest replay barn-*.jsonl.gz --speed 10 --new-ids --shift-times due --ledger ledger.jsonl.gz
  farmiq-loadtest replay barn-*.jsonl.gz --broker mqtts://barn:8883 --ca ca.pem --credentials logins.csv
  farmiq-loadtest replay barn-*.jsonl.gz --provision http://127.0.0.1:3000 --key-file operator-key --save-credentials logins.csv
  farmiq-loadtest replay barn-*.jsonl.gz --copies 20 --rate 5000 --ramp-seconds 30 --run-file run.json --fail-if 'p99>50ms'
  farmiq-loadtest replay barn-*.jsonl.gz --speed 1 --steps 1,2,5,10 --step-seconds 60
  farmiq-loadtest replay buffer.jsonl --speed max --user t-001/wv-001 --password-file secret
  farmiq-loadtest replay barn-*.jsonl.gz --print-allowlist-sql | psql \"$DATABASE_URL\"

Files are those of record, or buffer files of devices (JSON lines {topic, payload, qos, retain, ts}). Each device of
the files has a connection of its own. A message is sent when it is due, whether or not those before it were answered;
\"due\" latencies count from then, \"sent\" latencies from when it was sent. What a lost connection took is sent again.

Without --new-ids a second play is a duplicate of the first: the engine stores nothing new. --copies gives each further
copy of the barn its own barn, device and station ids (b-001-c1, ...) and new event ids.

Exit 0 when every message was acknowledged, 1 when one was refused, not answered or not sent, or a --fail-if holds,
2 when it could not run. Refusals of single messages are seen with MQTT 5 only.")]
pub(crate) struct ReplayArgs {
    /// Recordings, in this order.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    logins: LoginArgs,
    /// So many times as fast as it was recorded, 0.01 to 10000, or max.
    #[arg(long, default_value = "1", help_heading = "Pace")]
    speed: Speed,
    /// So many messages per second instead, whatever the pauses of the recording were.
    #[arg(long, conflicts_with = "speed", help_heading = "Pace")]
    rate: Option<f64>,
    /// Seconds in which the speed grows from nothing.
    #[arg(long, conflicts_with = "steps", help_heading = "Pace")]
    ramp_seconds: Option<f64>,
    /// Factors of the speed that follow each other, such as 1,2,5; the last stays.
    #[arg(long, value_parser = parse_steps, help_heading = "Pace")]
    steps: Option<Steps>,
    /// Seconds of each step.
    #[arg(long, default_value_t = 60.0, help_heading = "Pace")]
    step_seconds: f64,
    /// How often everything is played.
    #[arg(long, default_value_t = 1, help_heading = "Messages")]
    loops: usize,
    /// Barns it is played for: each copy has ids of its own.
    #[arg(long, default_value_t = 1, help_heading = "Messages")]
    copies: usize,
    /// Give events, sessions and pictures new ids, so that a second play is new data.
    #[arg(long, help_heading = "Messages")]
    new_ids: bool,
    /// Move the times in the messages.
    #[arg(long, value_enum, help_heading = "Messages")]
    shift_times: Option<ShiftChoice>,
    /// Derive new ids from this: the same seed gives the same ids.
    #[arg(long, help_heading = "Messages")]
    seed: Option<u64>,
    /// Unacknowledged messages of each device at most; MQTT 5 brokers may ask for fewer.
    #[arg(long, default_value_t = 100)]
    window: usize,
    /// Connections opened per second at most.
    #[arg(long, default_value_t = 500.0)]
    connect_rate: f64,
    /// Seconds the devices may take to connect before the play begins.
    #[arg(long, default_value_t = 60)]
    connect_seconds: u64,
    /// Seconds the answers may take after the last message.
    #[arg(long, default_value_t = 60)]
    drain_seconds: u64,
    /// Append what became of each message to this file, for verify; compressed if it ends in .gz.
    #[arg(long, help_heading = "Report")]
    ledger: Option<PathBuf>,
    /// Write figures and curves of the run to this JSON file, for report.
    #[arg(long, help_heading = "Report")]
    run_file: Option<PathBuf>,
    /// Exit 1 if this holds, such as 'p99>50ms', 'sent.p99.9>1s', 'refused>0', 'rate<1000'. May be repeated.
    #[arg(long, help_heading = "Report")]
    fail_if: Vec<Threshold>,
    #[command(flatten)]
    watch: WatchArgs,
    /// Print the SQL that lets in the devices and stations of the files, and leave.
    #[arg(long)]
    pub(crate) print_allowlist_sql: bool,
}

/// Factors of the speed.
#[derive(Clone, Debug)]
struct Steps(Vec<f64>);

fn parse_steps(text: &str) -> Result<Steps> {
    Course::parse_steps(text).map(Steps)
}

impl ReplayArgs {
    pub(crate) fn settings(self) -> Result<replay::Settings> {
        let told = self.told();
        let connection = self.logins.apply(self.connection.connection(Version::V5)?)?;
        let seconds = |seconds: f64| Duration::from_secs_f64(seconds.clamp(0.001, 1e8));
        let course = match (self.ramp_seconds, self.steps) {
            (Some(ramp), _) => Course::Ramp(seconds(ramp)),
            (None, Some(Steps(factors))) => Course::Steps(factors, seconds(self.step_seconds)),
            (None, None) => Course::Steady,
        };
        let tempo = self.rate.map_or(self.speed.0, |rate| Tempo::PerSecond(rate.max(1e-6)));
        let settings = replay::Settings {
            files: self.files,
            connection,
            provision: self.logins.provision()?,
            pace: Pace { tempo, course },
            loops: self.loops.max(1),
            copies: self.copies.max(1),
            renews_ids: self.new_ids,
            shift: self.shift_times.map(|shift| match shift {
                ShiftChoice::Due => Shift::ToDue,
                ShiftChoice::EndsNow => Shift::EndsNow,
            }),
            seed: self.seed,
            window: self.window.clamp(1, 65_535),
            connects_per_second: self.connect_rate,
            connect_wait: Duration::from_secs(self.connect_seconds),
            drain_wait: Duration::from_secs(self.drain_seconds),
            ledger: self.ledger,
            run_file: self.run_file,
            fail_if: self.fail_if,
            watched: self.watch.settings()?,
            told,
        };
        replay::check(&settings)?;
        Ok(settings)
    }

    /// The settings as the report shows them; no secret is among them.
    fn told(&self) -> BTreeMap<String, String> {
        let files: Vec<_> = self.files.iter().map(|file| file.display().to_string()).collect();
        let mut told: BTreeMap<_, _> = [
            ("files", files.join(" ")),
            ("broker", self.connection.broker.clone()),
            ("speed", self.rate.map_or(format!("{:?}", self.speed.0), |rate| format!("{rate} messages/s"))),
            ("loops", self.loops.to_string()),
            ("copies", self.copies.to_string()),
            ("window", self.window.to_string()),
            ("new ids", self.new_ids.to_string()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        if let Some(Steps(factors)) = &self.steps {
            told.insert("steps".to_owned(), format!("{factors:?} of {} s", self.step_seconds));
        }
        if let Some(ramp) = self.ramp_seconds {
            told.insert("ramp".to_owned(), format!("{ramp} s"));
        }
        if let Some(shift) = self.shift_times {
            told.insert("times".to_owned(), format!("{shift:?}"));
        }
        told
    }
}
