//! The arguments of `farmiq-edge console`.

use clap::{Args, Subcommand, ValueEnum};

use super::id;

pub(super) const CONSOLE_EXAMPLES: &str = "\
Examples:
  farmiq-edge console invite --name Somchai --role farmer
  farmiq-edge console invite --name 'Dr. Anong' --role viewer --tenant t-001 --minutes 60
  farmiq-edge console list
  farmiq-edge console end --name Somchai

An invitation is a code, shown as a picture that a phone's camera reads. It lets one browser in,
once; that login lasts 30 days, or a week without use. Whoever has an operator key needs none.
Roles: viewer looks; farmer besides answers alarms and keeps the book; engineer besides looks
after devices; admin does all of it. docs/console.md says more. The database is that of the
configuration; without one, the private one of a `farmiq-edge up` that runs on this machine.
Exit codes: 0 it is done, 1 it is not and the text says why.";

/// What can be done about the console.
#[derive(Debug, Subcommand)]
pub enum ConsoleCommand {
    /// Let a person in, once.
    Invite(Invite),
    /// List who is logged in.
    List {
        /// Say it for a program.
        #[arg(long)]
        json: bool,
    },
    /// End all logins of a person who was invited, and the codes that wait; within a second.
    End {
        /// Who.
        #[arg(long, value_name = "NAME")]
        name: String,
    },
}

/// A person to let in.
#[derive(Debug, Args)]
pub struct Invite {
    /// Who. What that person does is written down under this name.
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// What that person may do.
    #[arg(long, value_enum, default_value = "farmer")]
    pub role: Role,
    /// Only the barns of this tenant; may be given several times.
    #[arg(long, value_name = "ID", value_parser = id)]
    pub tenant: Vec<String>,
    /// How long the code waits.
    #[arg(long, value_name = "MINUTES", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1440))]
    pub minutes: u16,
    /// Where the console is, as a phone reaches it, such as http://192.168.1.20:3000.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Say it for a program.
    #[arg(long)]
    pub json: bool,
}

/// What somebody may do at the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Look.
    Viewer,
    /// Answer alarms and keep the book.
    Farmer,
    /// Look after devices and the box.
    Engineer,
    /// All of it.
    Admin,
}
