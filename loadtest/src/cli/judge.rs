//! Arguments of the commands that break and judge.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use loadtest::chaos::{self, fault::Kind};
use loadtest::flock::truth::Truth;
use loadtest::flock::{self, Book};
use loadtest::verify::compare::Senders;
use loadtest::{report, verify};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  farmiq-loadtest verify --ledger ledger.jsonl --database-url \"$DATABASE_URL\" \\
      --cloud http://127.0.0.1:9301 --cloud-events cloud.jsonl --wait-seconds 60 --json judgment.json
  farmiq-loadtest verify --ids-file ids.txt --cloud http://127.0.0.1:9301
  farmiq-loadtest verify --ids-file ids.txt --sessions-file sessions.txt --expect-inference
  farmiq-loadtest verify --truth-file truth.json --edge http://127.0.0.1:3000 --weighings 84000 --wait-seconds 300

A ledger has one line for each message, with the answer of the broker and the hash of the body; barn, replay and chaos
write it. Each acknowledged message must be in exactly one state: stored with what was sent, or refused on record. A
refusal is named as a refusal, with its reason, and fails the judgment. With --database-url the database is compared
row by row, and the cloud with the database; with --cloud-events, which the pretend cloud writes (cloud --events-file),
also the contents and the order of what arrived. With --edge the bytes of each image are fetched and hashed.

In the cloud but not acknowledged is no fault: the connection may have died between commit and PUBACK.

Exit 0: nothing differs. Exit 1: something differs; the first ten are shown by id, a hundred of each rule stand in the
JSON file. Exit 2: something could not be read. An empty ledger is no proof of anything and exits 1.")]
pub(crate) struct VerifyArgs {
    /// What was sent and answered, one JSON object a line; compressed when the name ends in .gz.
    #[arg(long, required_unless_present_any = ["ids_file", "truth_file"])]
    ledger: Option<PathBuf>,
    /// Acknowledged event ids, one a line, where there is no ledger.
    #[arg(long, conflicts_with = "ledger")]
    ids_file: Option<PathBuf>,
    /// The pretend cloud, or its control address.
    #[arg(long, default_value = "http://127.0.0.1:9300")]
    cloud: String,
    /// The file of events that the pretend cloud wrote.
    #[arg(long)]
    cloud_events: Option<PathBuf>,
    /// The engine's database, without encryption.
    #[arg(long)]
    database_url: Option<String>,
    /// The engine's HTTP API, http://host:port.
    #[arg(long)]
    edge: Option<String>,
    /// Key of an operator there.
    #[arg(long, requires = "edge")]
    api_key: Option<String>,
    /// Tenant of ids that do not name one.
    #[arg(long, default_value = "t-001")]
    tenant: String,
    /// Weighings that stations completed (barn --sessions-file); each is compared with its session in the cloud.
    #[arg(long)]
    sessions_file: Option<PathBuf>,
    /// The cloud must also have a weight read from every picture.
    #[arg(long, requires = "sessions_file")]
    expect_inference: bool,
    /// A device whose messages the ledger does not hold; once for each.
    #[arg(long)]
    unwatched: Vec<String>,
    /// The truth of a flock that was played into the engine (barn --flock --truth-file), to compare its book with.
    #[arg(long, requires = "edge", conflicts_with_all = ["ledger", "ids_file"])]
    truth_file: Option<PathBuf>,
    /// Weighings that must be in its days.
    #[arg(long, requires = "truth_file", default_value_t = 0)]
    weighings: u32,
    /// How long everything that waits may take to arrive before the judgment.
    #[arg(long, default_value_t = 0)]
    wait_seconds: u64,
    /// Write the judgment as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the judgment as a run, for report: --fail-if 'lost>0'.
    #[arg(long)]
    run_file: Option<PathBuf>,
}

impl VerifyArgs {
    /// Compares what was asked for, prints it, and says whether nothing differs.
    pub(crate) async fn run(self) -> Result<bool> {
        let (Some(truth_file), Some(edge)) = (&self.truth_file, &self.edge) else {
            return verify::run(&self.settings()).await;
        };
        let truth = Truth::read(truth_file)?;
        let book = Book { url: edge.clone(), key: self.api_key.clone(), tenant: truth.tenant_id.clone() };
        let wait = Duration::from_secs(self.wait_seconds.min(86_400));
        let judgment = flock::judge::judge(&book, &truth, self.weighings, wait).await?;
        for line in judgment.seen.iter().map(String::as_str).chain(judgment.wrong.iter().map(String::as_str))
        {
            report::say(line);
        }
        let passed = judgment.wrong.is_empty();
        report::say(if passed {
            "the flock's book tells the truth"
        } else {
            "the flock's book does not tell the truth"
        });
        Ok(passed)
    }

    pub(crate) fn settings(self) -> verify::Settings {
        verify::Settings {
            ledger: self.ledger,
            ids_file: self.ids_file,
            cloud: Some(self.cloud),
            cloud_events: self.cloud_events,
            database_url: self.database_url,
            edge: self.edge,
            api_key: self.api_key,
            tenant: self.tenant,
            sessions_file: self.sessions_file,
            expects_inference: self.expect_inference,
            senders: Senders { unwatched: self.unwatched.into_iter().collect(), derives_values: false },
            wait: Duration::from_secs(self.wait_seconds.min(86_400)),
            json: self.json,
            run_file: self.run_file,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  farmiq-loadtest chaos --seed 7 --minutes 3 --list
  farmiq-loadtest chaos --seed 7 --minutes 3 --engine target/debug/farmiq-edge --json run.json
  farmiq-loadtest chaos --seed 7 --minutes 1 --only engine-kill,postmaster-kill --keep /var/tmp/seed-7

A run makes a PostgreSQL cluster of its own, starts the engine, the pretend cloud and devices of every kind, and does
to them what the seed decides; one line tells each fault. The same seed, length and --only give the same plan. The
last faults end before a quiet phase, after which everything must work again, and everything that was acknowledged
must be there: see verify --help. Exit 1 when something differs.

It needs PostgreSQL's programs (Debian: postgresql), and as root the user postgres. A full disk needs the right to
mount a tmpfs, a step of the clock needs libfaketime; without them these faults are skipped, and the run says so.
--keep keeps logs, ledger and the cloud's events; the database is gone with the run.")]
pub(crate) struct ChaosArgs {
    /// Decides the faults and their times.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long devices are at work, the quiet phase at the end included.
    #[arg(long, default_value_t = 3.0, value_parser = parse_minutes)]
    minutes: f64,
    /// The program farmiq-edge; without it the one beside this program.
    #[arg(long)]
    engine: Option<PathBuf>,
    /// An empty directory where the files of the run stay.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Only these faults.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Kind>,
    /// Show the plan and leave.
    #[arg(long)]
    list: bool,
    /// Write the run as JSON, for a report.
    #[arg(long)]
    json: Option<PathBuf>,
    /// How soon after the last fault devices must be answered again.
    #[arg(long, default_value_t = 30)]
    recovery_seconds: u64,
    /// How long everything that waits may take to arrive in the end.
    #[arg(long, default_value_t = 120)]
    wait_seconds: u64,
}

impl ChaosArgs {
    pub(crate) fn settings(self) -> chaos::Settings {
        chaos::Settings {
            seed: self.seed,
            lasts: Duration::from_secs_f64(self.minutes * 60.0),
            engine: self.engine,
            keep: self.keep,
            only: self.only,
            lists: self.list,
            json: self.json,
            recovery_max: Duration::from_secs(self.recovery_seconds.min(3600)),
            wait: Duration::from_secs(self.wait_seconds.min(86_400)),
        }
    }
}

/// Long enough for one fault between a beginning and an end without any.
fn parse_minutes(text: &str) -> Result<f64, String> {
    let minutes = text.parse::<f64>().map_err(|error| error.to_string())?;
    let range = 0.4..=1440.0;
    if range.contains(&minutes) { Ok(minutes) } else { Err("between 0.4 and 1440 minutes".to_owned()) }
}
