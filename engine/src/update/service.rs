//! The engine as it is run on this box: what it was started with, how it is restarted, and how it looks from outside.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use clap::Parser;
use serde::{Deserialize, Serialize};
use tokio::process::Command as Process;
use tokio::time::{Instant, sleep, timeout_at};

use crate::cli::upkeep::Update;
use crate::cli::{Cli, Command};
use crate::config::{self, Environment, Http, Loaded};
use crate::health::{self, Question};

/// How the engine of the package is restarted.
const SYSTEMCTL: &str = "systemctl restart farmiq-edge";
/// Where there is systemd, there is this.
const SYSTEMD: &str = "/run/systemd/system";
/// Time between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// What systemd tells a service alone: a command that runs beside it must not speak for it.
const OF_SYSTEMD: [&str; 4] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "INVOCATION_ID"];

/// How long an engine is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Patience {
    /// Seconds until it is ready at the latest.
    pub(super) ready_seconds: u64,
    /// Seconds it must then stay so.
    pub(super) steady_seconds: u64,
}

/// What the engine of this box is run with.
pub(super) struct Setup {
    /// The variables of its environment, with the flags of its command line among them.
    pub(super) variables: BTreeMap<String, String>,
    /// The user and group it runs as, when they are not ours.
    pub(super) other_user: Option<(u32, u32)>,
    /// Where it is asked.
    pub(super) http: Http,
    /// The process; `None` when none runs.
    pid: Option<u32>,
    file: Option<PathBuf>,
    is_up: bool,
}

impl Setup {
    /// That of the process that runs this program, else that of this command.
    pub(super) fn find(program: &Path, wish: &Update, own: &Loaded) -> Self {
        let found = processes_of(program).into_iter().filter_map(Self::of_process);
        // A worker beside an engine is not what the box is there for.
        found.min_by_key(|(rank, _)| *rank).map_or_else(|| Self::of_command(wish, own), |(_, setup)| setup)
    }

    fn of_process(pid: u32) -> Option<(u8, Self)> {
        let words = |file: &str| -> Option<Vec<String>> {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).ok()?;
            let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
            Some(words.map(|word| String::from_utf8_lossy(word).into_owned()).collect())
        };
        let environ = words("environ")?;
        let mut variables: BTreeMap<String, String> = environ
            .iter()
            .filter_map(|word| word.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        OF_SYSTEMD.iter().for_each(|name| drop(variables.remove(*name)));
        let cli = Cli::try_parse_from(words("cmdline")?).ok()?;
        if !cli.command.is_long_running() {
            return None;
        }
        let rank = u8::from(matches!(cli.command, Command::Worker(_)));
        let environment: Environment =
            variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let inputs = cli.inputs(environment);
        let http = config::load(&inputs).ok()?.config.http;
        for flag in &inputs.flags {
            variables.insert(variable(flag.path), flag.value.clone());
        }
        let status = fs::metadata(format!("/proc/{pid}")).ok()?;
        let is_ours = status.uid() == rustix::process::geteuid().as_raw();
        let other_user = (!is_ours).then_some((status.uid(), status.gid()));
        let is_up = matches!(cli.command, Command::Up(_));
        Some((rank, Self { variables, other_user, http, pid: Some(pid), file: cli.config, is_up }))
    }

    fn of_command(wish: &Update, own: &Loaded) -> Self {
        let mut variables: BTreeMap<String, String> = Environment::of_process()
            .pairs()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        if let Some(data_dir) = &wish.judged.data_dir {
            variables.insert(variable("edge.data_dir"), data_dir.display().to_string());
        }
        Self {
            variables,
            other_user: None,
            http: own.config.http.clone(),
            pid: None,
            file: own.file.clone(),
            is_up: wish.judged.up,
        }
    }

    /// The arguments with which a program judges this setup.
    pub(super) fn judging<'a>(&'a self, command: &'a str) -> Vec<&'a str> {
        let mut arguments = vec![command];
        if self.is_up {
            arguments.push("--up");
        }
        if let Some(file) = self.file.as_deref().and_then(Path::to_str) {
            arguments.extend(["--config", file]);
        }
        arguments
    }

    /// Whose setup it is, in words.
    pub(super) fn describe(&self) -> String {
        match self.pid {
            Some(pid) => format!("the configuration of process {pid}"),
            None => "the configuration of this shell, since no engine runs".to_owned(),
        }
    }
}

/// The variable of a key of the configuration.
fn variable(path: &str) -> String {
    format!("FARMIQ_{}", path.to_uppercase().replace('.', "__"))
}

/// Processes that run this very file, ours not counted.
fn processes_of(program: &Path) -> Vec<u32> {
    let Ok(wanted) = fs::metadata(program) else { return Vec::new() };
    let runs_it = |pid: &u32| {
        let running = fs::metadata(format!("/proc/{pid}/exe"));
        running.is_ok_and(|running| (running.dev(), running.ino()) == (wanted.dev(), wanted.ino()))
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| *pid != std::process::id()).filter(runs_it).collect()
}

/// The command that restarts the engine: the one that is named, else that of the package where there is systemd.
pub(super) fn restart_command(named: Option<&str>) -> Option<String> {
    let of_package = || Path::new(SYSTEMD).exists().then(|| SYSTEMCTL.to_owned());
    named.map(str::to_owned).or_else(of_package)
}

/// Restarts, and looks from outside until the engine has been ready for as long as it must; says what was seen instead.
pub(super) async fn try_out(
    program: &Path,
    http: &Http,
    restart: &str,
    patience: Patience,
) -> Result<(), String> {
    let by = Instant::now() + Duration::from_secs(patience.ready_seconds);
    let steady = Duration::from_secs(patience.steady_seconds);
    let mut command = Process::new("sh");
    command.args(["-c", restart]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    let ended = timeout_at(by, command.kill_on_drop(true).status()).await;
    let ended = ended.map_err(|_| format!("`{restart}` did not end in {} s", patience.ready_seconds))?;
    let ended = ended.map_err(|error| format!("`{restart}`: {error}"))?;
    if !ended.success() {
        return Err(format!("`{restart}`: {ended}"));
    }
    let mut ready_since = None;
    loop {
        match look(program, http).await {
            Ok(()) => {
                let since = *ready_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= steady {
                    return Ok(());
                }
            }
            Err(why) if Instant::now() >= by => return Err(why),
            Err(_) => ready_since = None,
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Whether this very program runs, and the engine says that it is ready.
async fn look(program: &Path, http: &Http) -> Result<(), String> {
    if processes_of(program).is_empty() {
        return Err(format!("no process runs {}", program.display()));
    }
    health::ask(http, Question::IsReady).await.map(drop).map_err(|error| error.to_string())
}
