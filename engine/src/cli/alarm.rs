//! The command line of alarms.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use schema::id::Uuid;

use super::id;

/// Examples of the group.
pub const ALARM_EXAMPLES: &str = "\
Examples:
  farmiq-edge alarm list                        what stands, the most urgent first
  farmiq-edge alarm ack ID                      I know: the siren falls silent
  farmiq-edge alarm shelve ID --minutes 30 --reason 'the house is washed'
  farmiq-edge alarm unshelve ID
  farmiq-edge alarm out-of-service ID --reason 'the probe is at the workshop'
  farmiq-edge alarm in-service ID
  farmiq-edge alarm rules --tenant t-001 --farm f-001 --barn b-001
  farmiq-edge alarm rule show ammonia --tenant t-001 --farm f-001 --barn b-001 > ammonia.json
  farmiq-edge alarm rule set ammonia.json --tenant t-001 --farm f-001 --barn b-001 \\
    --reason 'the vet says 15 ppm'
  farmiq-edge alarm mode catching --tenant t-001 --farm f-001 --barn b-001
  farmiq-edge alarm drill --tenant t-001 --farm f-001 --barn b-001
  farmiq-edge alarm drills                      the evidence: who answered, by which way, how fast
  farmiq-edge alarm try-way horn                one way alone: the relay pulls for two seconds

What is acknowledged rings again when the engine restarts while it stands. What is put aside
comes back by itself: a critical alarm after 30 minutes at most, any other after 8 hours. A rule
is never overwritten: each edit is a version with a name and a reason. docs/alarms.md has more.
The engine that runs on this machine does it: it is asked over http.listen, with an operator
key of the configuration or the one that `up` has made.
Exit codes: 0 it is done, 1 it is not and the text says why, 2 a mistake in the configuration.";

/// What can be done about alarms.
#[derive(Debug, Subcommand)]
pub enum AlarmCommand {
    /// List what stands, was not seen yet, or is put aside.
    List {
        /// Whose.
        #[command(flatten)]
        of: OfTenant,
        /// Only those of this barn and of the box.
        #[arg(long, value_name = "ID", value_parser = id)]
        barn: Option<String>,
        /// Only those in this state: UNACK, ACKED, RTNUN, SHLVD, DSUPR, OOSRV or NORM.
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
    },
    /// Show one, what happened to it, and who was told.
    Show {
        /// Its id, as `alarm list` shows it.
        alarm: Uuid,
        /// Whose.
        #[command(flatten)]
        of: OfTenant,
    },
    /// Say that somebody knows: what sounds falls silent.
    Ack {
        /// Its id, as `alarm list` shows it.
        alarm: Uuid,
        /// The occurrence that was looked at; another one is not acknowledged.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
        occurrence: Option<i32>,
        /// Whose.
        #[command(flatten)]
        of: OfTenant,
    },
    /// Put one aside for a while; it comes back by itself.
    Shelve {
        /// Its id, as `alarm list` shows it.
        alarm: Uuid,
        /// For how long: 30 at most for a critical one, 480 for any other.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=480))]
        minutes: i32,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Whose.
        #[command(flatten)]
        of: OfTenant,
    },
    /// Take one up again before its time.
    Unshelve {
        /// Its id, as `alarm list` shows it.
        alarm: Uuid,
        /// Whose.
        #[command(flatten)]
        of: OfTenant,
    },
    /// Take the sensor of one out of service: it is listed and never heard, until it is put back.
    OutOfService {
        /// Its id, as `alarm list` shows it.
        alarm: Uuid,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Whose.
        #[command(flatten)]
        of: OfTenant,
    },
    /// Put the sensor of one back into service; what stands rings.
    InService {
        /// Its id, as `alarm list` shows it.
        alarm: Uuid,
        /// Whose.
        #[command(flatten)]
        of: OfTenant,
    },
    /// List the rules of a barn.
    Rules(OfBarn),
    /// Look at a rule, and edit it.
    #[command(subcommand)]
    Rule(RuleCommand),
    /// Say what a house is doing, or ask: empty, pre_heat, growing or catching.
    Mode {
        /// What it is doing from now on; without it, it is asked.
        #[arg(value_name = "MODE", value_parser = ["empty", "pre_heat", "growing", "catching"])]
        mode: Option<String>,
        /// Why.
        #[arg(long, value_name = "TEXT", requires = "mode")]
        reason: Option<String>,
        /// Where.
        #[command(flatten)]
        of: OfBarn,
    },
    /// Begin a drill: every way out is used in earnest, and somebody has to acknowledge it.
    Drill(OfBarn),
    /// List drills and how they went, the newest first.
    Drills {
        /// Whose.
        #[command(flatten)]
        of: OfTenant,
        /// Only those of this barn.
        #[arg(long, value_name = "ID", value_parser = id)]
        barn: Option<String>,
    },
    /// Send one message by a way out of the barn, marked as a test, and print the receipt.
    TryWay {
        /// Its name below alarms.ways.
        name: String,
        /// Say it for a program.
        #[arg(long)]
        json: bool,
    },
}

/// What can be done about a rule.
#[derive(Debug, Subcommand)]
pub enum RuleCommand {
    /// Print a rule as JSON, to edit it.
    Show {
        /// Its name.
        rule: String,
        /// Where.
        #[command(flatten)]
        of: OfBarn,
    },
    /// Bring an edited rule as a new version; one of another name is a new rule.
    Set {
        /// A file with the whole rule as JSON, such as `rule show` prints it.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// The version that was edited; if there is a newer one by now, nothing is done.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
        version: Option<i32>,
        /// Where.
        #[command(flatten)]
        of: OfBarn,
    },
    /// List the versions of a rule, the newest first.
    History {
        /// Its name.
        rule: String,
        /// Where.
        #[command(flatten)]
        of: OfBarn,
    },
}

/// Whose alarms.
#[derive(Debug, Args)]
pub struct OfTenant {
    /// Their tenant [default: that of the operator key, or every one].
    #[arg(long, value_name = "ID", value_parser = id)]
    pub tenant: Option<String>,
    /// Say it for a program.
    #[arg(long)]
    pub json: bool,
}

/// Of which barn.
#[derive(Debug, Args)]
pub struct OfBarn {
    /// Its tenant.
    #[arg(long, value_name = "ID", value_parser = id)]
    pub tenant: String,
    /// Its farm.
    #[arg(long, value_name = "ID", value_parser = id)]
    pub farm: String,
    /// The barn.
    #[arg(long, value_name = "ID", value_parser = id)]
    pub barn: String,
    /// Say it for a program.
    #[arg(long)]
    pub json: bool,
}
