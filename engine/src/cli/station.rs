//! The arguments of `farmiq-edge station`.

use clap::{Args, Subcommand};

use super::id;

pub(super) const STATION_EXAMPLES: &str = "\
Examples:
  farmiq-edge station add --tenant t-001 --farm f-001 --barn b-001 --station st-01
  farmiq-edge station list --tenant t-001
  farmiq-edge station revoke --tenant t-001 --station st-01

What is changed takes effect at once on every engine of the database. A station has no password:
devices speak for it, each with its own. The database is that of the configuration; without one,
the private one of a `farmiq-edge up` that runs on this machine.
Exit codes: 0 it is done, 1 it is not and the text says why.";

/// What can be done about stations.
#[derive(Debug, Subcommand)]
pub enum StationCommand {
    /// Let a station speak for a barn; one that is there already is moved, or comes back.
    Add {
        /// Which station.
        #[command(flatten)]
        name: StationName,
        /// Its farm.
        #[arg(long, value_name = "ID", value_parser = id)]
        farm: String,
        /// Its barn.
        #[arg(long, value_name = "ID", value_parser = id)]
        barn: String,
    },
    /// List stations.
    List {
        /// Only those of this tenant.
        #[arg(long, value_name = "ID", value_parser = id)]
        tenant: Option<String>,
        /// Say it for a program.
        #[arg(long)]
        json: bool,
    },
    /// Silence a station at once.
    Revoke(StationName),
}

/// Which station.
#[derive(Debug, Args)]
pub struct StationName {
    /// Its tenant.
    #[arg(long, value_name = "ID", value_parser = id)]
    pub tenant: String,
    /// The station.
    #[arg(long, value_name = "ID", value_parser = id)]
    pub station: String,
    /// Say it for a program.
    #[arg(long)]
    pub json: bool,
}
