//! The command line of alarms.

use clap::Subcommand;

/// Examples of the group.
pub const ALARM_EXAMPLES: &str = "\
Examples:
  farmiq-edge alarm try-way horn           the relay pulls for two seconds
  farmiq-edge alarm try-way phones --json  one marked message, and the receipt for a program

The engine that runs on this machine does it: it is asked over http.listen, with an operator
key of the configuration or the one that `up` has made.
Exit codes: 0 it is done, 1 it is not and the text says why, 2 a mistake in the configuration.";

/// What can be done about alarms.
#[derive(Debug, Subcommand)]
pub enum AlarmCommand {
    /// Send one message by a way out of the barn, marked as a test, and print the receipt.
    TryWay {
        /// Its name below alarms.ways.
        name: String,
        /// Say it for a program.
        #[arg(long)]
        json: bool,
    },
}
