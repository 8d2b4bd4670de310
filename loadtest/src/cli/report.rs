//! Options of `report`.

use std::path::PathBuf;

use clap::Args;

use loadtest::page;
use loadtest::threshold::Threshold;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  farmiq-loadtest report run.json --html report.html --csv report.csv
  farmiq-loadtest report replay.json verify.json --ledger ledger.jsonl.gz --html report.html
  farmiq-loadtest report run.json --fail-if 'p99>50ms' --fail-if 'refused>0' --fail-if 'rate<1000'

Figures of --fail-if: any count of the runs (acknowledged, refused, unanswered, reconnects, ...), rate, seconds, and
p50, p90, p99, p99.9, max from when messages were due; sent.p99, connect.p99, delivery.p99 for the other latencies.
A figure that no run has is an error, exit 2. Exit 1 when a run failed or a threshold holds.")]
pub(crate) struct ReportArgs {
    /// Files that replay, barn and others wrote with --run-file.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Ledgers to sum up in the report.
    #[arg(long)]
    ledger: Vec<PathBuf>,
    /// Write one HTML file that needs nothing else.
    #[arg(long)]
    html: Option<PathBuf>,
    /// Write the curves as CSV.
    #[arg(long)]
    csv: Option<PathBuf>,
    /// Exit 1 if this holds, such as 'p99>50ms'. May be repeated.
    #[arg(long)]
    fail_if: Vec<Threshold>,
    /// Title of the page.
    #[arg(long, default_value = "FarmIQ load test")]
    title: String,
}

impl ReportArgs {
    pub(crate) fn settings(self) -> page::Settings {
        page::Settings {
            runs: self.runs,
            ledgers: self.ledger,
            html: self.html,
            csv: self.csv,
            fail_if: self.fail_if,
            title: self.title,
        }
    }
}
