//! The arguments of `farmiq-edge session`.

use clap::{Args, Subcommand};
use schema::clock::Timestamp;
use schema::id::Uuid;

use super::id;

pub(super) const SESSION_EXAMPLES: &str = "\
Examples:
  farmiq-edge session list --tenant t-001 --barn b-001 --from 2026-02-12
  farmiq-edge session list --tenant t-001 --flag disagree
  farmiq-edge session exclude --tenant t-001 --session 20260212_093215 --reason 'two birds'
  farmiq-edge session include --tenant t-001 --session 20260212_093215
  farmiq-edge session marks --tenant t-001 --session 20260212_093215

A weighing that is excluded stays as it is, also in the cloud; the statistics of its flock leave
it out, and its day is made anew by the engine that runs on the database. docs/weighing.md has
the flags. The database is that of the configuration; without one, the private one of a
`farmiq-edge up` that runs on this machine.
Exit codes: 0 it is done, 1 it is not and the text says why.";

/// What can be done about weighings.
#[derive(Debug, Subcommand)]
pub enum SessionCommand {
    /// List weighings, those weighed last first, with what a person should look at.
    List(SessionList),
    /// Keep a weighing, or one weight of it, out of the statistics.
    Exclude {
        /// Which weighing.
        #[command(flatten)]
        session: SessionName,
        /// Only this weight of it.
        #[arg(long, value_name = "ID")]
        weight: Option<Uuid>,
        /// Why.
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: String,
    },
    /// Take a weighing, or one weight of it, into the statistics again.
    Include {
        /// Which weighing.
        #[command(flatten)]
        session: SessionName,
        /// The weight that was excluded.
        #[arg(long, value_name = "ID")]
        weight: Option<Uuid>,
        /// Why.
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: Option<String>,
    },
    /// Note that a weighing has been looked at.
    Review {
        /// Which weighing.
        #[command(flatten)]
        session: SessionName,
        /// What there is to say.
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: Option<String>,
    },
    /// List what was said of a weighing, newest first.
    Marks(SessionName),
}

/// Which weighing.
#[derive(Debug, Args)]
pub struct SessionName {
    /// Its tenant.
    #[arg(long, value_name = "ID", value_parser = id)]
    pub tenant: String,
    /// The session.
    #[arg(long, value_name = "ID", value_parser = id)]
    pub session: String,
    /// Say it for a program.
    #[arg(long)]
    pub json: bool,
}

/// Which weighings are listed.
#[derive(Debug, Args)]
pub struct SessionList {
    /// Their tenant.
    #[arg(long, value_name = "ID", value_parser = id)]
    pub tenant: String,
    /// Only those of this barn.
    #[arg(long, value_name = "ID", value_parser = id)]
    pub barn: Option<String>,
    /// Only those that name this batch.
    #[arg(long, value_name = "ID", value_parser = id)]
    pub batch: Option<String>,
    /// Weighed then or later, such as 2026-02-12T09:00:00Z or 2026-02-12.
    #[arg(long, value_name = "TIME", value_parser = super::time)]
    pub from: Option<Timestamp>,
    /// Weighed before.
    #[arg(long, value_name = "TIME", value_parser = super::time)]
    pub to: Option<Timestamp>,
    /// Only those with this flag.
    #[arg(long, value_name = "FLAG", value_parser = flag)]
    pub flag: Option<String>,
    /// Weighings at most.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..=1000))]
    pub limit: i64,
    /// Say it for a program.
    #[arg(long)]
    pub json: bool,
}

fn reason(text: &str) -> Result<String, String> {
    let is_good = (1..=1024).contains(&text.len()) && !text.chars().any(char::is_control);
    is_good.then(|| text.to_owned()).ok_or_else(|| "1 to 1024 bytes without control characters".to_owned())
}

fn flag(text: &str) -> Result<String, String> {
    let words = actors::session::flag::Flag::ALL.iter().map(|(word, _)| *word);
    if words.clone().any(|word| word == text) {
        return Ok(text.to_owned());
    }
    Err(format!("one of {}", words.collect::<Vec<_>>().join(", ")))
}
