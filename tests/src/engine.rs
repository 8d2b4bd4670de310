//! The engine as a process: started, watched, killed, told to end, started again.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use http_body_util::Full;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::settings::Settings;
use crate::wait::{PATIENCE, until};

/// What the engine logs when everything is up.
const READY_LINE: &str = "\"farmiq-edge runs\"";
/// Log lines shown when a test fails.
const TAIL_LINES: usize = 60;

/// A process of the engine. It is killed with the test; when the test fails, the end of its log is shown.
pub struct Engine {
    /// What it was told.
    pub settings: Settings,
    program: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// From the wish to the end.
    pub took: Duration,
}

impl Engine {
    /// Starts the engine and waits until it runs.
    ///
    /// # Panics
    /// When the binary is not there or the engine ends instead.
    pub async fn start(settings: Settings) -> Self {
        let mut engine = Self::stopped(settings);
        engine.start_again().await;
        engine
    }

    /// An engine that does not run yet.
    #[must_use]
    pub fn stopped(settings: Settings) -> Self {
        Self::of(binary(), settings)
    }

    /// An engine of the previous version that does not run yet; `None` when it was not built, since the history of the
    /// repository is not here.
    #[must_use]
    pub fn previous(settings: Settings) -> Option<Self> {
        let commit = include_str!("../previous-commit").trim();
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/previous").join(commit);
        program.exists().then(|| Self::of(program, settings))
    }

    fn of(program: PathBuf, settings: Settings) -> Self {
        let log = settings.data_dir().join("log");
        Self { settings, program, log, child: None }
    }

    /// Starts the engine, whose last process is gone, and waits until it runs; says how long that took.
    ///
    /// # Panics
    /// When the engine ends instead.
    pub async fn start_again(&mut self) -> Duration {
        let started = Instant::now();
        let seen = self.log().len();
        self.spawn();
        until("the engine runs", async || {
            let child = self.child.as_mut().expect("it was just started");
            let ended = child.try_wait().expect("a child can be waited for");
            assert!(ended.is_none(), "the engine ended with {ended:?}");
            self.log()[seen..].contains(READY_LINE)
        })
        .await;
        started.elapsed()
    }

    /// Starts the engine and waits for nothing.
    ///
    /// # Panics
    /// When the binary is not there.
    pub fn spawn(&mut self) {
        self.spawn_as("run");
    }

    /// Starts the program with another command and its flags, and waits for nothing.
    ///
    /// # Panics
    /// When the binary is not there.
    pub fn spawn_as(&mut self, command: &str) {
        let log = || -> File {
            let file = OpenOptions::new().create(true).append(true).open(&self.log);
            file.expect("the log can be written")
        };
        let child = Command::new(&self.program)
            .args(command.split_whitespace())
            .env_clear()
            .envs(self.settings.variables())
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(log())
            .kill_on_drop(true)
            .spawn()
            .expect("the engine can be started");
        self.child = Some(child);
    }

    /// The process id.
    ///
    /// # Panics
    /// When no process runs.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().and_then(Child::id).expect("the engine runs")
    }

    /// Whether the process still lives.
    ///
    /// # Panics
    /// When the system does not know its own child.
    pub fn is_alive(&mut self) -> bool {
        let child = self.child.as_mut().expect("the engine was started");
        child.try_wait().expect("a child can be waited for").is_none()
    }

    /// Kills the process without warning, and waits until it is gone.
    ///
    /// # Panics
    /// When no process runs.
    pub async fn kill(&mut self) {
        let mut child = self.child.take().expect("the engine runs");
        child.kill().await.expect("a child can be killed");
    }

    /// Asks the process to end.
    ///
    /// # Panics
    /// When no process runs.
    pub fn ask_to_end(&self) {
        signal(self.pid(), Signal::TERM);
    }

    /// Asks the process to end, and waits until it has.
    ///
    /// # Panics
    /// When it never ends.
    pub async fn terminate(&mut self) -> Ended {
        let started = Instant::now();
        self.ask_to_end();
        let mut child = self.child.take().expect("it was just signalled");
        let status = tokio::time::timeout(PATIENCE, child.wait()).await.expect("the engine ends");
        Ended { code: status.expect("a child can be waited for").code(), took: started.elapsed() }
    }

    /// Resident memory, bytes.
    ///
    /// # Panics
    /// When no process runs.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("the engine runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.expect("a process has memory") * 1024
    }

    /// Everything logged so far, by all processes of this engine.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The sum of a metric over all its labels, or over those that contain `label`.
    ///
    /// # Panics
    /// When the engine does not answer.
    pub async fn metric(&self, name: &str, label: &str) -> f64 {
        let (status, text) = self.get("/metrics").await;
        assert_eq!(status, 200, "{text}");
        sum_of_metric(&text, name, label)
    }

    /// What the engine answers to a GET of JSON.
    ///
    /// # Panics
    /// When it answers no JSON.
    pub async fn json(&self, path: &str) -> Value {
        let (_, text) = self.get(path).await;
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}"))
    }

    async fn get(&self, path: &str) -> (u16, String) {
        get(self.settings.http, path).await
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        let age = if is_outdated() { " (the binary is older than its sources: cargo build)" } else { "" };
        #[expect(clippy::print_stderr, reason = "it explains the failure")]
        {
            eprintln!("--- the engine's last lines{age}\n{tail}\n---");
        }
    }
}

/// Sends a signal to a process.
///
/// # Panics
/// When it is gone.
pub fn signal(pid: u32, signal: Signal) {
    kill_process(process_id(pid), signal).expect("the process lives");
}

/// Stops a process where it stands, and waits until each of its threads has: one that is on a processor goes on for a moment.
///
/// # Panics
/// When it is gone.
pub async fn stand_still(pid: u32) {
    signal(pid, Signal::STOP);
    let is_still = |thread: &std::path::Path| {
        // The name before the last bracket may hold anything; the state comes after it.
        let stat = std::fs::read_to_string(thread.join("stat")).unwrap_or_default();
        stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('T'))
    };
    until("every thread stands still", async || {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
        threads.filter_map(Result::ok).all(|thread| is_still(&thread.path()))
    })
    .await;
}

/// A process id as the system takes it.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn process_id(pid: u32) -> Pid {
    i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id")
}

/// Fetches a path from an engine.
///
/// # Panics
/// When nobody answers.
pub async fn get(http: std::net::SocketAddr, path: &str) -> (u16, String) {
    let request = hyper::Request::get(path).header("host", "edge").body(Full::default());
    let request = request.expect("a path");
    let (status, body) =
        loadtest::http::call(&format!("http://{http}"), request).await.expect("the engine answers");
    (status, String::from_utf8_lossy(&body).into_owned())
}

/// The sum of a metric in a Prometheus text, over the lines whose labels contain `label`.
#[must_use]
pub fn sum_of_metric(text: &str, name: &str, label: &str) -> f64 {
    let value = |line: &str| {
        let (head, value) = line.rsplit_once(' ')?;
        let is_asked = head.split('{').next() == Some(name) && head.contains(label);
        is_asked.then(|| value.parse::<f64>().ok())?
    };
    text.lines().filter(|line| !line.starts_with('#')).filter_map(value).sum()
}

/// Whether a source the compiler read for the binary was changed since.
fn is_outdated() -> bool {
    let changed = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    let sources = std::fs::read_to_string(binary().with_extension("d")).unwrap_or_default();
    let built_at = changed(&binary());
    sources.split_whitespace().skip(1).any(|source| changed(Path::new(source)) > built_at)
}

/// The binary beside the test executable.
///
/// # Panics
/// When it is not built.
#[must_use]
pub fn binary() -> PathBuf {
    let me = std::env::current_exe().expect("a test is a program");
    let profile = me.parent().and_then(Path::parent).expect("it lies in target/PROFILE/deps");
    let binary = profile.join("farmiq-edge");
    assert!(binary.exists(), "{} is not built: run `cargo build --workspace`", binary.display());
    binary
}
