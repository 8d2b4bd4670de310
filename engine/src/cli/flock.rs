//! The arguments of `farmiq-edge flock` and `farmiq-edge standard`.

use std::path::PathBuf;

use chrono::NaiveDate;
use clap::{Args, Subcommand};
use schema::id::Uuid;

use super::id;

pub(super) const FLOCK_EXAMPLES: &str = "\
Examples:
  farmiq-edge flock barn --tenant t-001 --farm f-001 --barn b-001 --time-zone Asia/Bangkok
  farmiq-edge flock add --tenant t-001 --farm f-001 --barn b-001 --batch 2026-01 \\
    --line ROSS308 --placed-on 2026-01-05 --birds 20000 --area-m2 1350 --target-g 2800
  farmiq-edge flock list --tenant t-001
  farmiq-edge flock record --tenant t-001 --flock ID --kind MORTALITY --value 12 --cause heat
  farmiq-edge flock correct --tenant t-001 --flock ID --record ID --kind MORTALITY --value 10
  farmiq-edge flock days --tenant t-001 --flock ID --csv > days.csv
  farmiq-edge flock forecast --tenant t-001 --flock ID
  farmiq-edge flock compare --tenant t-001 --flock ID

Days begin at the barn's midnight. What was written down is never changed: a correction is a
row of its own. Days are made anew by the engine that runs on the database. docs/flock.md has
the formulas. The database is that of the configuration; without one, the private one of a
`farmiq-edge up` that runs on this machine.
Exit codes: 0 it is done, 1 it is not and the text says why.";

pub(super) const STANDARD_EXAMPLES: &str = "\
Examples:
  farmiq-edge standard list
  farmiq-edge standard import own.csv --tenant t-001 --name 'Own target 2026' --line ROSS308 \\
    --source 'our last six flocks' --year 2026 --dry-run
  farmiq-edge standard derive --tenant t-001 --name 'Own target 2026' --line ROSS308 --dry-run

The file has the columns age_day, body_weight_g and cum_feed_intake_g, one line a day.
What is derived is the mean of the site's own finished flocks on days with 30 weighings and more.
Exit codes: 0 it is done, 1 it is not and the text says why.";

/// What can be done about flocks.
#[derive(Debug, Subcommand)]
pub enum FlockCommand {
    /// Say what a barn is called and where it is.
    Barn(BarnArgs),
    /// Place a flock.
    Add(FlockAdd),
    /// List flocks, the newest first.
    List {
        /// Only those of this tenant.
        #[arg(long, value_name = "ID", value_parser = id)]
        tenant: Option<String>,
        /// Only those that have not ended.
        #[arg(long)]
        present: bool,
        /// Say it for a program.
        #[arg(long)]
        json: bool,
    },
    /// Show a flock as it is on its last day.
    Show(FlockName),
    /// End a flock.
    End {
        /// Which flock.
        #[command(flatten)]
        flock: FlockName,
        /// Its last day with birds.
        #[arg(long, value_name = "DATE")]
        day: NaiveDate,
    },
    /// Write something down.
    Record {
        /// Which flock.
        #[command(flatten)]
        flock: FlockName,
        /// What.
        #[command(flatten)]
        record: RecordArgs,
    },
    /// Say what a record should have said, or that there was nothing to write down.
    Correct {
        /// Which flock.
        #[command(flatten)]
        flock: FlockName,
        /// The wrong record.
        #[arg(long, value_name = "ID")]
        record: Uuid,
        /// Take it away.
        #[arg(long, conflicts_with = "kind", required_unless_present = "kind")]
        void: bool,
        /// What it should have told of.
        #[arg(long, value_name = "KIND")]
        kind: Option<String>,
        /// How much.
        #[arg(long, value_name = "N")]
        value: Option<f64>,
    },
    /// List what was written down, newest first.
    Records(FlockName),
    /// Show the days of a flock.
    Days {
        /// Which flock.
        #[command(flatten)]
        flock: FlockName,
        /// As CSV, with everything that is known.
        #[arg(long, conflicts_with = "json")]
        csv: bool,
    },
    /// Say when a flock will have its target weight.
    Forecast {
        /// Which flock.
        #[command(flatten)]
        flock: FlockName,
        /// For another weight, grams.
        #[arg(long, value_name = "G")]
        target_g: Option<f64>,
    },
    /// Compare what cameras saw with what the scales said.
    Compare(FlockName),
}

/// Which barn, and what is to be known of it.
#[derive(Debug, Args)]
pub struct BarnArgs {
    /// Its tenant.
    #[arg(long, value_name = "ID", value_parser = id)]
    pub tenant: String,
    /// Its farm.
    #[arg(long, value_name = "ID", value_parser = id)]
    pub farm: String,
    /// The barn.
    #[arg(long, value_name = "ID", value_parser = id)]
    pub barn: String,
    /// A name of the IANA database, such as Asia/Bangkok.
    #[arg(long, value_name = "ZONE")]
    pub time_zone: String,
    /// What people call it [default: its id].
    #[arg(long, value_name = "TEXT")]
    pub name: Option<String>,
    /// A language tag.
    #[arg(long, value_name = "TAG", default_value = "en")]
    pub language: String,
}

/// Which flock.
#[derive(Debug, Args)]
pub struct FlockName {
    /// Its tenant.
    #[arg(long, value_name = "ID", value_parser = id)]
    pub tenant: String,
    /// Its id, as `flock list` shows it.
    #[arg(long, value_name = "ID")]
    pub flock: Uuid,
    /// Say it for a program.
    #[arg(long)]
    pub json: bool,
}

/// A flock to place.
#[derive(Debug, Args)]
pub struct FlockAdd {
    /// Its tenant.
    #[arg(long, value_name = "ID", value_parser = id)]
    pub tenant: String,
    /// Its farm.
    #[arg(long, value_name = "ID", value_parser = id)]
    pub farm: String,
    /// Its barn.
    #[arg(long, value_name = "ID", value_parser = id)]
    pub barn: String,
    /// The name that weighing sessions know it by.
    #[arg(long, value_name = "ID", value_parser = id)]
    pub batch: String,
    /// Breed, such as ROSS308 or COBB500.
    #[arg(long, value_name = "CODE", value_parser = id)]
    pub line: String,
    /// AS_HATCHED, MALE or FEMALE.
    #[arg(long, value_name = "SEX", default_value = "AS_HATCHED", value_parser = ["AS_HATCHED", "MALE", "FEMALE"])]
    pub sex: String,
    /// Day 0.
    #[arg(long, value_name = "DATE")]
    pub placed_on: NaiveDate,
    /// Birds placed.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=10_000_000))]
    pub birds: i32,
    /// Usable floor.
    #[arg(long, value_name = "M2", value_parser = positive)]
    pub area_m2: Option<f64>,
    /// What a bird is to weigh in the end, grams.
    #[arg(long, value_name = "G", value_parser = positive)]
    pub target_g: Option<f64>,
    /// What it is compared with [default: the breeder's of its line and sex].
    #[arg(long, value_name = "ID")]
    pub standard: Option<Uuid>,
}

/// Something to write down.
#[derive(Debug, Args)]
pub struct RecordArgs {
    /// MORTALITY, CULL, THINNING (birds), FEED_DELIVERED, FEED_LEFT, FEED_RETURNED, FEED_INTAKE (kg), WATER_METER
    /// (liters), HAND_WEIGHING (mean of a bird, kg) or NOTE.
    #[arg(long, value_name = "KIND")]
    pub kind: String,
    /// How much.
    #[arg(long, value_name = "N")]
    pub value: Option<f64>,
    /// Of which day [default: today, where the barn is].
    #[arg(long, value_name = "DATE")]
    pub day: Option<NaiveDate>,
    /// MORNING or EVENING.
    #[arg(long, value_name = "PART", value_parser = ["MORNING", "EVENING"])]
    pub part: Option<String>,
    /// Birds of a hand weighing.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=10_000_000))]
    pub birds: Option<i32>,
    /// Why.
    #[arg(long, value_name = "TEXT")]
    pub cause: Option<String>,
    /// Anything else.
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
}

/// What can be done about standards.
#[derive(Debug, Subcommand)]
pub enum StandardCommand {
    /// List the breeders' standards, and those that were brought.
    List {
        /// Only those of this tenant, beside the breeders'.
        #[arg(long, value_name = "ID", value_parser = id)]
        tenant: Option<String>,
        /// Say it for a program.
        #[arg(long)]
        json: bool,
    },
    /// Bring a standard.
    Import(StandardImport),
    /// Make one of a site's own finished flocks.
    Derive(StandardDerive),
}

/// A standard to bring.
#[derive(Debug, Args)]
pub struct StandardImport {
    /// The CSV file.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Whose it will be.
    #[arg(long, value_name = "ID", value_parser = id)]
    pub tenant: String,
    /// What people call it.
    #[arg(long, value_name = "TEXT")]
    pub name: String,
    /// TARGET, STANDARD or REFERENCE.
    #[arg(long, value_name = "KIND", default_value = "TARGET", value_parser = ["TARGET", "STANDARD", "REFERENCE"])]
    pub kind: String,
    /// Breed.
    #[arg(long, value_name = "CODE", value_parser = id)]
    pub line: String,
    /// AS_HATCHED, MALE or FEMALE.
    #[arg(long, value_name = "SEX", default_value = "AS_HATCHED", value_parser = ["AS_HATCHED", "MALE", "FEMALE"])]
    pub sex: String,
    /// Who says so.
    #[arg(long, value_name = "TEXT")]
    pub source: String,
    /// When that was said.
    #[arg(long, value_name = "YEAR", value_parser = clap::value_parser!(i32).range(1900..=2200))]
    pub year: i32,
    /// Only say whether it could be brought.
    #[arg(long)]
    pub dry_run: bool,
}

/// Which finished flocks a standard is made of.
#[derive(Debug, Args)]
pub struct StandardDerive {
    /// Whose flocks, and whose it will be.
    #[arg(long, value_name = "ID", value_parser = id)]
    pub tenant: String,
    /// Only flocks of this farm.
    #[arg(long, value_name = "ID", value_parser = id)]
    pub farm: Option<String>,
    /// Only flocks of this barn.
    #[arg(long, value_name = "ID", value_parser = id)]
    pub barn: Option<String>,
    /// What people will call it.
    #[arg(long, value_name = "TEXT")]
    pub name: String,
    /// Breed.
    #[arg(long, value_name = "CODE", value_parser = id)]
    pub line: String,
    /// AS_HATCHED, MALE or FEMALE.
    #[arg(long, value_name = "SEX", default_value = "AS_HATCHED", value_parser = ["AS_HATCHED", "MALE", "FEMALE"])]
    pub sex: String,
    /// Fewest flocks that a day is made of.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=50))]
    pub flocks_min: u8,
    /// Only say what it would be.
    #[arg(long)]
    pub dry_run: bool,
}

/// Reads a number above zero.
fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| *number > 0.0 && *number <= 1e6);
    number.ok_or_else(|| "a number above 0, at most 1000000".to_owned())
}
