//! A process that is started again whenever it ends, as a service manager would, except while a fault holds it down.

use std::fs::{File, OpenOptions};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, MutexGuard};

use crate::bench::process::{children, parent};

/// How often it is looked whether the process still lives.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Wait before a process that ended by itself is started again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// The longest an ordered end may take before the process is killed.
const END_MAX: Duration = Duration::from_secs(20);

/// How to start it: program, arguments, environment, directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recipe {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// Nothing else of our environment is handed on.
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) directory: PathBuf,
    /// Everything it says is appended here.
    pub(crate) log: PathBuf,
}

impl Recipe {
    fn spawn(&self) -> Result<Child> {
        let log = || -> Result<File> {
            let file = OpenOptions::new().create(true).append(true).open(&self.log);
            file.with_context(|| format!("open {}", self.log.display()))
        };
        Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(log()?)
            .stderr(log()?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))
    }
}

#[derive(Debug)]
struct State {
    recipe: Recipe,
    child: Option<Child>,
    /// Whether it is to run.
    is_wanted: bool,
    /// Ends that nobody asked for.
    surprises: Vec<(Instant, ExitStatus)>,
}

/// The process. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Process(Mutex<State>);

/// How a process ended that was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Its exit code; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    /// From the wish to the end.
    pub(crate) took: Duration,
}

impl Process {
    pub(crate) fn start(recipe: Recipe) -> Result<Self> {
        let child = Some(recipe.spawn()?);
        Ok(Self(Mutex::new(State { recipe, child, is_wanted: true, surprises: Vec::new() })))
    }

    /// Starts it again whenever it has ended; never comes to an end itself.
    pub(crate) async fn look_after(&self) -> Result<()> {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let mut state = self.0.lock().await;
            let Some(child) = &mut state.child else { continue };
            let Some(status) = child.try_wait().context("look after a process")? else { continue };
            state.child = None;
            if !state.is_wanted {
                continue;
            }
            state.surprises.push((Instant::now(), status));
            drop(state);
            tokio::time::sleep(AGAIN_AFTER).await;
            self.start_if_wanted(&mut self.0.lock().await)?;
        }
    }

    fn start_if_wanted(&self, state: &mut MutexGuard<'_, State>) -> Result<()> {
        if state.is_wanted && state.child.is_none() {
            state.child = Some(state.recipe.spawn()?);
        }
        Ok(())
    }

    /// Kills it, and keeps it from being started until [`Process::up`].
    pub(crate) async fn kill(&self) -> Result<()> {
        let mut state = self.0.lock().await;
        state.is_wanted = false;
        if let Some(mut child) = state.child.take() {
            child.kill().await.context("kill a process")?;
        }
        Ok(())
    }

    /// Asks it to end and waits until it has; kills it when it does not. Keeps it down as well.
    pub(crate) async fn end(&self) -> Result<Ended> {
        let mut state = self.0.lock().await;
        state.is_wanted = false;
        let Some(mut child) = state.child.take() else {
            return Ok(Ended { code: None, took: Duration::ZERO });
        };
        let started = Instant::now();
        if let Some(pid) = child.id() {
            signal(pid, Signal::TERM)?;
        }
        let status = match tokio::time::timeout(END_MAX, child.wait()).await {
            Ok(status) => status.context("wait for the end of a process")?,
            Err(_) => {
                child.kill().await.context("kill a process that does not end")?;
                return Ok(Ended { code: None, took: started.elapsed() });
            }
        };
        Ok(Ended { code: status.code(), took: started.elapsed() })
    }

    /// Lets it run again.
    pub(crate) async fn up(&self) -> Result<()> {
        let mut state = self.0.lock().await;
        state.is_wanted = true;
        self.start_if_wanted(&mut state)
    }

    /// Changes a variable of its environment for its next start.
    pub(crate) async fn set(&self, name: &str, value: &str) {
        let mut state = self.0.lock().await;
        state.recipe.variables.retain(|(other, _)| other != name);
        state.recipe.variables.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) async fn pid(&self) -> Result<u32> {
        let state = self.0.lock().await;
        state.child.as_ref().and_then(Child::id).context("the process does not run")
    }

    /// Stops the process and its children, or lets them go on; those that are gone are left alone.
    pub(crate) async fn freeze(&self, is_frozen: bool) -> Result<()> {
        let pid = self.pid().await?;
        let mut family = vec![pid];
        family.extend(children(pid)?);
        if !is_frozen {
            family.reverse();
        }
        let word = if is_frozen { Signal::STOP } else { Signal::CONT };
        for member in family {
            drop(signal(member, word));
        }
        Ok(())
    }

    /// Ends that nobody asked for.
    pub(crate) async fn surprises(&self) -> Vec<(Instant, ExitStatus)> {
        self.0.lock().await.surprises.clone()
    }

    /// Everything it has said.
    pub(crate) async fn log(&self) -> String {
        let path = self.0.lock().await.recipe.log.clone();
        std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

/// Sends a signal to a process.
///
/// # Errors
/// When it is gone.
pub(crate) fn signal(pid: u32, signal: Signal) -> Result<()> {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { bail!("{pid} is no process") };
    kill_process(pid, signal).with_context(|| format!("send {signal:?} to {pid:?}"))
}

/// Whether a process is a child of another one.
pub(crate) fn is_child(pid: u32, of: u32) -> bool {
    parent(pid).is_ok_and(|parent| parent == of)
}
