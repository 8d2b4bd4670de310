//! The command line of what a box needs in the course of its years: backups, restores, support.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Judged;
use crate::config::Flag;
use crate::{backup, restore, support};

const BACKUP_EXAMPLES: &str = "\
Examples:
  openssl rand -hex 32 > backup.key                              once; keep a copy elsewhere
  farmiq-edge backup --to /mnt/usb --passphrase-file backup.key
  farmiq-edge backup --to s3://farm-backups/barn-1 --passphrase-file backup.key
  farmiq-edge backup --list --to /mnt/usb --passphrase-file backup.key

It copies the private database of `farmiq-edge up` while the engine works, compares every
byte of the copy with the server's checksums, and writes it encrypted, then the images that
the place does not have yet, the configuration file and the secrets that the box made. With
backup.target and backup.passphrase_file set, `farmiq-edge backup` is all that a timer has
to run. Without the passphrase nobody can restore. A database that is named by
database.url has backups of its own: docs/backup.md.
Exit codes: 0 the backup is whole, 1 it is not and the text says why, 2 a mistake in the configuration.";

const RESTORE_EXAMPLES: &str = "\
Examples:
  farmiq-edge restore --drill --from /mnt/usb --passphrase-file backup.key
  farmiq-edge restore --from /mnt/usb --passphrase-file backup.key
  farmiq-edge restore --from s3://farm-backups/barn-1 --passphrase-file backup.key --backup 20261130T020000Z

A backup goes into an empty data directory alone; nothing is ever written over. With
--drill it goes into a scratch directory, PostgreSQL is started on it, everything is counted
and compared, and all of it is removed again, while the engine works. Do so every quarter.
Exit codes: 0 everything is there, 1 something is not and the text says what, 2 a mistake in the configuration.";

const SUPPORT_EXAMPLES: &str = "\
Examples:
  farmiq-edge support --up                          for a box that `up` runs
  farmiq-edge support --config edge.toml            for one that `run` runs
  farmiq-edge support --up --log /var/log/farmiq.log --out help.tar.gz

It writes one archive of at most 20 MB: version, configuration, what the doctor finds, what
the running engine says of itself, the last lines of the logs, sizes and activity of the
database, and the machine. Secrets are masked, payloads and images are not in it. It is of
use also when the engine or its database is away: what cannot be had is named.
Exit codes: 0 the archive is written, 1 it is not, 2 a mistake in the configuration.";

const UPGRADE_EXAMPLES: &str = "\
Examples:
  sudo apt-get install postgresql-17        beside the version there is
  systemctl stop farmiq-edge
  farmiq-edge backup                        should anything go wrong
  farmiq-edge cluster upgrade --to 17
  systemctl start farmiq-edge
  farmiq-edge cluster forget-old            after some days

The database is copied into one of the new version beside the old one, which needs 1.2 times
its room, and takes its place in one step. Whatever cuts it off before leaves the old one as
it was: start the engine, or try again. The old one is kept as postgres.15, for example,
until it is forgotten. To go back, stop the engine, move postgres away and postgres.15 to
postgres; what came in since the upgrade is in the one that was moved away.
Exit codes: 0 it is done, 1 it is not and the text says why.";

const UPDATE_EXAMPLES: &str = "\
Examples:
  sudo farmiq-edge update ./farmiq-edge-0.2.0
  sudo farmiq-edge update farmiq-0.2.0-x86_64.tar.zst --signer /etc/farmiq-edge/signers --backup
  sudo farmiq-edge update                     finish one that was cut off
  sudo farmiq-edge update --back              the program before
  farmiq-edge update ./farmiq-edge-0.2.0 --restart '/opt/farmiq/restart'

The new program is copied beside the installed one and must pass `check-config` and `doctor`
with the configuration of the engine that runs here; until then nothing is changed. Then it
takes the place of the installed one in one step, the engine is restarted (systemctl restart
farmiq-edge, or the command given with --restart, which returns once the new process is
started), and is asked over HTTP. When it is not ready in time, or does not stay so, the old
program comes back, is restarted and asked as well; the one that failed is kept as
farmiq-edge.failed. The old one is kept as farmiq-edge.old. An update that is cut off, by a
kill or a power cut, is finished by the next `farmiq-edge update`.

A bundle is a file of deploy/bin/bundle, or the folder it was unpacked into; its checksums
are always compared, and its signature where --signer names who may sign (as for
ssh-keygen -Y verify). docs/upgrade.md has the rest.
Exit codes: 0 the new program runs and is ready, 1 it does not and the text says what runs.";

/// What can be done about the private cluster of `up`.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Bring it to a newer major version of PostgreSQL; the old one is kept.
    #[command(after_help = UPGRADE_EXAMPLES)]
    Upgrade {
        /// The version [default: the newest that is installed].
        #[arg(long, value_name = "MAJOR")]
        to: Option<u32>,
        /// The data directory of the `up` [default: as for `up`].
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
    /// Remove the old one that an upgrade kept.
    ForgetOld {
        /// The data directory of the `up` [default: as for `up`].
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
}

impl ClusterCommand {
    /// The data directory that was named.
    pub(super) fn data_dir(&self) -> Option<&PathBuf> {
        match self {
            Self::Upgrade { data_dir, .. } | Self::ForgetOld { data_dir } => data_dir.as_ref(),
        }
    }
}

/// Which program to put in place, and how.
#[derive(Debug, Args)]
#[command(after_help = UPDATE_EXAMPLES)]
pub struct Update {
    /// The new program: its file, or a bundle [default: finish an update that was cut off].
    #[arg(value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// Go back to the program before the last update.
    #[arg(long, conflicts_with_all = ["from", "sha256", "signer"])]
    pub back: bool,
    /// The SHA-256 that the new program must have.
    #[arg(long, value_name = "HEX", requires = "from")]
    pub sha256: Option<String>,
    /// Who may sign a bundle: a file of allowed signers. Without it a signature is not looked at.
    #[arg(long, value_name = "FILE", requires = "from")]
    pub signer: Option<PathBuf>,
    /// Run `farmiq-edge backup` first; its settings must be in the configuration.
    #[arg(long)]
    pub backup: bool,
    /// The command that restarts the engine, run by sh [default: systemctl restart farmiq-edge].
    #[arg(long, value_name = "COMMAND")]
    pub restart: Option<String>,
    /// Seconds until the engine must be ready: longer where the database has much of its log to read again.
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=7200))]
    pub ready_seconds: u64,
    /// Seconds that it must then stay ready.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub steady_seconds: u64,
    /// Take it though its `doctor` says FAIL: for something that was so before.
    #[arg(long)]
    pub skip_doctor: bool,
    /// The installed program [default: this one].
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
    /// Whose configuration it is checked against when no engine runs here.
    #[command(flatten)]
    pub judged: Judged,
}

/// Where a backup goes.
#[derive(Debug, Args)]
#[command(after_help = BACKUP_EXAMPLES)]
pub struct Backup {
    /// A directory that exists, or s3://BUCKET/PREFIX [default: backup.target].
    #[arg(long, value_name = "PLACE")]
    pub to: Option<String>,
    /// The file of the passphrase [default: backup.passphrase].
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Backups that are kept [default: backup.keep].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub keep: Option<u16>,
    /// Where the copy of the database lies until it is written [default: backup.draft in the data directory].
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
    /// List the backups of the place instead.
    #[arg(long)]
    pub list: bool,
    /// Say it for a program.
    #[arg(long)]
    pub json: bool,
    /// The data directory of the `up` [default: as for `up`].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// Where a backup comes from, and what becomes of it.
#[derive(Debug, Args)]
#[command(after_help = RESTORE_EXAMPLES)]
pub struct Restore {
    /// A directory, or s3://BUCKET/PREFIX [default: backup.target].
    #[arg(long, value_name = "PLACE")]
    pub from: Option<String>,
    /// The file of the passphrase [default: backup.passphrase].
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Which backup, as `backup --list` names it [default: the newest].
    #[arg(long, value_name = "ID", value_parser = backup_id)]
    pub backup: Option<String>,
    /// Only try it: restore into a scratch directory, check, report, and remove it.
    #[arg(long)]
    pub drill: bool,
    /// The scratch directory of a drill, empty or not there yet [default: drill in the data directory].
    #[arg(long, value_name = "DIR", requires = "drill")]
    pub scratch: Option<PathBuf>,
    /// Say it for a program.
    #[arg(long)]
    pub json: bool,
    /// The data directory of the `up` [default: as for `up`].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// What goes into a support archive, and where to.
#[derive(Debug, Args)]
#[command(after_help = SUPPORT_EXAMPLES)]
pub struct Support {
    /// The file to write [default: farmiq-support-NAME-TIME.tar.gz here].
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// The engine's log, where it goes to a file [default: the journal of farmiq-edge].
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Say it for a program.
    #[arg(long)]
    pub json: bool,
    /// Whose configuration it is about.
    #[command(flatten)]
    pub judged: Judged,
}

impl Support {
    /// What is wished.
    #[must_use]
    pub fn wish(&self) -> support::Wish {
        support::Wish { out: self.out.clone(), log: self.log.clone() }
    }
}

impl Backup {
    /// What is wished.
    #[must_use]
    pub fn wish(&self) -> backup::Wish {
        backup::Wish {
            target: self.to.clone(),
            passphrase_file: self.passphrase_file.clone(),
            keep: self.keep.map(usize::from),
            scratch: self.scratch.clone(),
        }
    }
}

impl Restore {
    /// What is wished.
    #[must_use]
    pub fn wish(&self) -> restore::Wish {
        restore::Wish {
            source: self.from.clone(),
            passphrase_file: self.passphrase_file.clone(),
            backup: self.backup.clone(),
            is_drill: self.drill,
            scratch: self.scratch.clone(),
        }
    }
}

/// The flag of a data directory, as a value of the configuration.
pub(super) fn data_dir(path: Option<&PathBuf>) -> Vec<Flag> {
    let flag = |path: &PathBuf| Flag {
        name: "--data-dir",
        path: "edge.data_dir",
        value: path.display().to_string(),
    };
    path.map(flag).into_iter().collect()
}

/// Reads the name of a backup, which becomes part of a path.
fn backup_id(text: &str) -> Result<String, String> {
    let is_id = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_id { Ok(text.to_owned()) } else { Err("a name such as 20261130T020000Z".to_owned()) }
}
