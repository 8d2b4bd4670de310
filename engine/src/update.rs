//! `farmiq-edge update`: another program in the place of the installed one, and the way back.
//!
//! ```text
//! stage   the new program lies beside the installed one and is checked against the configuration in use
//! note    says what is going on, so that an update that was cut off can be finished
//! swap    the name of the program leads to the new one, and the old one is kept
//! try     restart, and look from outside whether it gets ready and stays so
//! end     the note goes; or the old one is put back, restarted and looked at
//! ```
//!
//! Every step may be cut off by a kill: what was done is read from the note and from the checksums of the files.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::process::Command as Process;
use tokio::time::timeout;

use crate::cli::upkeep::Update;
use crate::config::{Config, Http, Loaded};

mod bundle;
mod place;
mod service;

use place::Place;
use service::{Patience, Setup};

/// Longest time the new program may take to look at the configuration and the machine.
const CHECK: Duration = Duration::from_secs(180);
/// Longest time a backup may take before an update.
const BACKUP: Duration = Duration::from_secs(6 * 3600);

/// Why there is no update.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// A file cannot be read or written.
    #[error("{attempt} {}", .path.display())]
    Files {
        /// What was tried.
        attempt: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Another update is at work.
    #[error("another update of {} is at work", .0.display())]
    Busy(PathBuf),
    /// Nothing was named, and no update was cut off.
    #[error("name the new program: no update was cut off that could be finished")]
    Nothing,
    /// There is no program to go back to.
    #[error("{} is not there: no update has kept a program to go back to", .0.display())]
    NothingKept(PathBuf),
    /// The bundle is not what was packed.
    #[error("{}: {what}; nothing was changed", .path.display())]
    Bundle {
        /// The bundle.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The program is another one than was promised.
    #[error("{} has the SHA-256 {found}, not the one that was named; nothing was changed", .path.display())]
    Checksum {
        /// The program.
        path: PathBuf,
        /// Its checksum.
        found: String,
    },
    /// The new program does not fit.
    #[error("the new program is not fit for this box ({check}); nothing was changed\n{said}")]
    Unfit {
        /// Which check it failed.
        check: &'static str,
        /// What it said.
        said: String,
    },
    /// Nobody said how to restart.
    #[error(
        "there is no systemd here: name a command that restarts the engine with --restart; nothing was changed"
    )]
    NoRestart,
    /// The backup failed.
    #[error("the backup before the update failed; nothing was changed\n{0}")]
    Backup(String),
    /// The new program did not get ready, and the old one works again.
    #[error(
        "the new program did not get ready ({why}): the old one is back and ready; the new one is kept as {}",
        .failed.display()
    )]
    WentBack {
        /// What was seen last.
        why: String,
        /// The new program.
        failed: PathBuf,
    },
    /// Neither program gets ready.
    #[error(
        "the new program did not get ready ({why}), and the old one, which is back in its place, does not either ({now}): \
         `farmiq-edge doctor` and the log of the engine say more; `farmiq-edge update` looks again"
    )]
    Down {
        /// What was seen last of the new program.
        why: String,
        /// And of the old one.
        now: String,
    },
}

/// What came of an update.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The new program runs.
    Updated {
        /// What it says it is.
        version: String,
        /// The program before.
        kept: PathBuf,
    },
    /// It was the same program.
    Same {
        /// What it says it is.
        version: String,
    },
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Updated { version, kept } => write!(
                f,
                "{version} runs and is ready; the program before is {}, and `farmiq-edge update --back` returns to it",
                kept.display()
            ),
            Self::Same { version } => {
                write!(f, "this very {version} is in place already; nothing was changed")
            }
        }
    }
}

/// How far an update is; written before each step that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stage {
    /// The new program gets its try.
    Trial,
    /// The old one comes back.
    Back,
}

/// What whoever finds a cut-off update must know.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Note {
    stage: Stage,
    /// What the new program says it is.
    version: String,
    /// SHA-256 of the new program.
    new: String,
    /// SHA-256 of the old one.
    old: String,
    /// Why it comes back.
    why: Option<String>,
    restart: String,
    patience: Patience,
    /// Where the engine is asked.
    listen: std::net::SocketAddr,
    is_encrypted: bool,
}

impl Note {
    fn http(&self) -> Http {
        let tls_cert = self.is_encrypted.then(PathBuf::new);
        Http { listen: self.listen, tls_cert, ..Config::default().http }
    }
}

/// Does what is wished. `own` is the configuration of this command, for a box on which no engine runs; `tell` shows the steps.
///
/// # Errors
/// When the new program is not fit, or did not get ready; each says what runs now.
pub async fn run(wish: &Update, own: &Loaded, tell: &impl Fn(&str)) -> Result<Outcome, UpdateError> {
    let place = Place::of(wish.program.as_deref())?;
    let _hold = place.hold()?;
    let finished = match place.note() {
        // Neither the one nor the other got ready: a third may.
        Some(note) if note.stage == Stage::Back && wish.from.is_some() => {
            put_back(&place, &note)?;
            place.remove_note()?;
            None
        }
        Some(note) => {
            tell("an update was cut off; finishing it first");
            Some(finish(&place, note, tell).await?)
        }
        None => None,
    };
    let source = match (&wish.from, wish.back) {
        // An update that was cut off is what `--back` would undo only once it is over.
        (None, false) => return finished.flatten().ok_or(UpdateError::Nothing),
        (Some(from), _) => from.clone(),
        (None, true) => {
            Some(place.old()).filter(|old| old.exists()).ok_or(UpdateError::NothingKept(place.old()))?
        }
    };
    let setup = Setup::find(&place.program, wish, own);
    let restart = service::restart_command(wish.restart.as_deref()).ok_or(UpdateError::NoRestart)?;
    let new = stage(&place, &source, wish).await?;
    let version = check(&place, &setup, wish, tell).await?;
    let old = place.digest(&place.program)?;
    if new == old {
        place.remove_staged();
        return Ok(Outcome::Same { version });
    }
    if wish.backup {
        tell("backing up");
        let said = ask(&place.program, &["backup"], &setup, BACKUP).await;
        said.map_err(|said| {
            place.remove_staged();
            UpdateError::Backup(said)
        })?;
    }
    let patience = Patience { ready_seconds: wish.ready_seconds, steady_seconds: wish.steady_seconds };
    let Http { listen, tls_cert, .. } = &setup.http;
    let (listen, is_encrypted) = (*listen, tls_cert.is_some());
    let note =
        Note { stage: Stage::Trial, version, new, old, why: None, restart, patience, listen, is_encrypted };
    place.write_note(&note)?;
    try_new(&place, note, tell).await
}

/// Finishes an update that was cut off; `None` when it had not begun to change anything.
async fn finish(place: &Place, note: Note, tell: &impl Fn(&str)) -> Result<Option<Outcome>, UpdateError> {
    if note.stage == Stage::Back {
        let why = note.why.clone().unwrap_or_default();
        return Err(go_back(place, note, why, tell).await?);
    }
    let is_swapped = place.digest(&place.program)? == note.new;
    let is_staged = || place.digest(&place.staged()).is_ok_and(|digest| digest == note.new);
    if is_swapped || is_staged() {
        return try_new(place, note, tell).await.map(Some);
    }
    place.remove_note()?;
    Ok(None)
}

/// Puts the new program in place, if it is not yet, and gives it its try.
async fn try_new(place: &Place, note: Note, tell: &impl Fn(&str)) -> Result<Outcome, UpdateError> {
    if place.digest(&place.program)? != note.new {
        place.swap_in()?;
    }
    tell(&format!("{} is in place; restarting", note.version));
    match service::try_out(&place.program, &note.http(), &note.restart, note.patience).await {
        Ok(()) => {
            place.remove_note()?;
            Ok(Outcome::Updated { version: note.version, kept: place.old() })
        }
        Err(why) => {
            let note = Note { stage: Stage::Back, why: Some(why.clone()), ..note };
            place.write_note(&note)?;
            Err(go_back(place, note, why, tell).await?)
        }
    }
}

/// Puts the old program back and looks at it; the answer says how that went.
async fn go_back(
    place: &Place,
    note: Note,
    why: String,
    tell: &impl Fn(&str),
) -> Result<UpdateError, UpdateError> {
    tell(&format!("not ready ({why}); the old program comes back"));
    put_back(place, &note)?;
    match service::try_out(&place.program, &note.http(), &note.restart, note.patience).await {
        Ok(()) => {
            place.remove_note()?;
            place.forget_old();
            Ok(UpdateError::WentBack { why, failed: place.failed() })
        }
        Err(now) => Ok(UpdateError::Down { why, now }),
    }
}

/// Has the name of the program lead to the old one again.
fn put_back(place: &Place, note: &Note) -> Result<(), UpdateError> {
    if place.digest(&place.program)? == note.new { place.swap_back() } else { Ok(()) }
}

/// Lays the new program beside the installed one; says its checksum.
async fn stage(place: &Place, source: &Path, wish: &Update) -> Result<String, UpdateError> {
    let digest = if bundle::is_bundle(source) {
        let unpacked = bundle::Unpacked::of(source, wish.signer.as_deref()).await?;
        let digest = place.stage(&unpacked.program)?;
        unpacked.verify(&digest)?;
        digest
    } else {
        place.stage(source)?
    };
    if wish.sha256.as_ref().is_some_and(|named| !named.eq_ignore_ascii_case(&digest)) {
        place.remove_staged();
        return Err(UpdateError::Checksum { path: source.to_owned(), found: digest });
    }
    Ok(digest)
}

/// Has the staged program look at the configuration and the machine; says what it says it is.
async fn check(
    place: &Place,
    setup: &Setup,
    wish: &Update,
    tell: &impl Fn(&str),
) -> Result<String, UpdateError> {
    let unfit = |check| {
        move |said| {
            place.remove_staged();
            UpdateError::Unfit { check, said }
        }
    };
    let version = ask(&place.staged(), &["--version"], setup, CHECK).await.map_err(unfit("--version"))?;
    let version = version.trim().to_owned();
    if !version.starts_with("farmiq-edge ") {
        return Err(unfit("--version")(version));
    }
    tell(&format!("checking {version} against {}", setup.describe()));
    ask(&place.staged(), &setup.judging("check-config"), setup, CHECK)
        .await
        .map_err(unfit("check-config"))?;
    if !wish.skip_doctor {
        let judged = ask(&place.staged(), &setup.judging("doctor"), setup, CHECK).await;
        judged.map_err(|report| only_failures(&report)).map_err(unfit("doctor"))?;
    }
    Ok(version)
}

/// Runs a program as the engine is run, and waits for its end; what it said, in either case.
async fn ask(program: &Path, arguments: &[&str], setup: &Setup, limit: Duration) -> Result<String, String> {
    let mut command = Process::new(program);
    command.args(arguments).env_clear().envs(setup.variables.iter()).kill_on_drop(true);
    command.stdin(std::process::Stdio::null());
    if let Some((uid, gid)) = setup.other_user {
        command.uid(uid).gid(gid);
    }
    let output = timeout(limit, command.output()).await;
    let output = output.map_err(|_| format!("no answer within {} s", limit.as_secs()))?;
    let output = output.map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    if output.status.success() {
        return Ok(stdout);
    }
    let said = format!("{stdout}{stderr}");
    Err(if said.trim().is_empty() { output.status.to_string() } else { said })
}

/// The lines of a doctor's report that say what does not work, with the advice below them; all of it where there are none.
fn only_failures(report: &str) -> String {
    let mut is_failure = false;
    let lines: Vec<&str> = report
        .lines()
        .filter(|line| {
            if !line.starts_with(char::is_whitespace) {
                is_failure = line.starts_with("FAIL");
            }
            is_failure
        })
        .collect();
    if lines.is_empty() { report.to_owned() } else { lines.join("\n") }
}
