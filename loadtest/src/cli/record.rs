//! Options of `record`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use loadtest::listener::Subscription;
use loadtest::mqtt::Version;
use loadtest::record;
use loadtest::recording::writer::Rotation;
use loadtest::redact::Redactor;

use super::connection::ConnectionArgs;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  farmiq-loadtest record --broker 127.0.0.1:1883 --out barn
  farmiq-loadtest record --broker mqtts://barn:8883 --ca ca.pem --user operator:admin --password-file operator-key \\
      --topic 'iot/+/t-001/#' --out /data/barn --rotate-minutes 60
  farmiq-loadtest record --broker wss://barn:8084 --ca ca.pem --mqtt 3.1.1 --duration-seconds 3600 --out barn
  farmiq-loadtest record --out handed-on --redact --redact-key-file key

Files are called NAME-0001.jsonl.gz, NAME-0002.jsonl.gz, ...; docs/loadtest.md describes them. Ctrl-C ends the last one
in order; a file that was cut short is still played, without its last line.

At the engine's door an operator listens: user operator:NAME, the key as its password, and only topics of its tenants
(iot/+/TENANT/#). With MQTT 3.1.1 brokers drop the retain flag of live messages; MQTT 5 keeps it, and properties.

--redact replaces every id and text that is no word of the protocol by a pseudonym, the same by the same, and lets
numbers shrink by up to a tenth, all of one key of one device by the same share. Times stay.")]
pub(crate) struct RecordArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// Name of the files up to their number.
    #[arg(long, default_value = "recording")]
    out: PathBuf,
    /// Topic filter; may be repeated.
    #[arg(long = "topic", default_value = "iot/#")]
    topics: Vec<String>,
    /// QoS of the subscription: a message arrives at the lower of this and its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// Leave out messages that were retained before the recording began; needs MQTT 5.
    #[arg(long)]
    skip_retained: bool,
    /// MQTT client id; without it a random one.
    #[arg(long)]
    client_id: Option<String>,
    /// MiB of a file before compression.
    #[arg(long, default_value_t = 256)]
    rotate_mib: u64,
    /// Minutes of a file.
    #[arg(long, default_value_t = 60)]
    rotate_minutes: u64,
    /// Write the files without compression.
    #[arg(long)]
    plain: bool,
    /// Replace ids and values, so that the recording can be handed on.
    #[arg(long)]
    redact: bool,
    /// Secret that decides the pseudonyms: the same file gives the same. Without it they are new each time.
    #[arg(long, requires = "redact")]
    redact_key_file: Option<PathBuf>,
    /// End after so many seconds; without it at Ctrl-C.
    #[arg(long)]
    duration_seconds: Option<f64>,
    /// End after so many messages.
    #[arg(long)]
    messages: Option<u64>,
}

impl RecordArgs {
    pub(crate) fn settings(self) -> Result<record::Settings> {
        let redactor = match (&self.redact_key_file, self.redact) {
            (Some(file), _) => {
                let secret = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
                Some(Redactor::from_secret(&secret))
            }
            (None, true) => Some(Redactor::new(rand::random())),
            (None, false) => None,
        };
        let client_id =
            self.client_id.unwrap_or_else(|| format!("farmiq-record-{:08x}", rand::random::<u32>()));
        Ok(record::Settings {
            connection: self.connection.connection(Version::V5)?,
            subscription: Subscription {
                filters: self.topics,
                qos: self.qos,
                wants_retained: !self.skip_retained,
            },
            client_id,
            stem: self.out,
            is_compressed: !self.plain,
            rotation: Rotation {
                bytes_max: self.rotate_mib.max(1) * 1024 * 1024,
                age_max: Duration::from_secs(self.rotate_minutes.max(1) * 60),
            },
            redactor,
            duration: self.duration_seconds.map(|seconds| Duration::from_secs_f64(seconds.clamp(0.0, 1e9))),
            messages_max: self.messages,
        })
    }
}
