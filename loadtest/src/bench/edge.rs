//! An engine as a process of this program, told everything by its environment.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::http;

/// Longest wait until the engine says it is ready.
const READY_WAIT_MAX: Duration = Duration::from_secs(60);
/// How often it is asked.
const READY_ASK_EVERY: Duration = Duration::from_millis(50);
/// Lines of its log that are shown when it fails.
const LOG_LINES_SHOWN: usize = 20;

/// A running engine. Dropping it kills the process.
pub(crate) struct Edge {
    child: Child,
    broker: SocketAddr,
    http: SocketAddr,
    /// Its directory, with its log.
    dir: TempDir,
}

impl Edge {
    /// Starts the engine, with variables of its own. It inherits no environment, so that nothing but this decides.
    pub(crate) fn start(program: &Path, database_url: &str, variables: &[(&str, &str)]) -> Result<Self> {
        let dir = tempfile::tempdir().context("make a directory for the engine")?;
        let [broker, http] = free_addresses()?;
        let log = File::create(dir.path().join("log")).context("make the engine's log")?;
        let child = Command::new(program)
            .arg("run")
            .env_clear()
            .env("FARMIQ_DATABASE__URL", database_url)
            .env("FARMIQ_MQTT__MODE", "embedded")
            .env("FARMIQ_BROKER__LISTEN", broker.to_string())
            .env("FARMIQ_BROKER__ALLOW_ANONYMOUS", "true")
            .env("FARMIQ_HTTP__LISTEN", http.to_string())
            .env("FARMIQ_METRICS__STATSD_ADDRESS", "")
            .env("FARMIQ_LOG__LEVEL", "warn")
            .env("FARMIQ_EDGE__DATA_DIR", dir.path())
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the engine's log")?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        Ok(Self { child, broker, http, dir })
    }

    pub(crate) fn pid(&self) -> Result<u32> {
        self.child.id().context("the engine has ended")
    }

    pub(crate) fn broker(&self) -> SocketAddr {
        self.broker
    }

    /// Its HTTP API.
    pub(crate) fn base(&self) -> String {
        format!("http://{}", self.http)
    }

    /// Fails when the process has ended.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait().context("look after the engine")? {
            None => Ok(()),
            Some(status) => bail!("the engine ended: {status}"),
        }
    }

    pub(crate) async fn until_ready(&mut self) -> Result<()> {
        let started = Instant::now();
        while http::get_lines(&self.base(), "/api/ready", |_| {}).await.is_err() {
            self.check_alive().with_context(|| self.log_tail())?;
            if started.elapsed() > READY_WAIT_MAX {
                bail!("the engine is not ready after {READY_WAIT_MAX:?}:\n{}", self.log_tail());
            }
            tokio::time::sleep(READY_ASK_EVERY).await;
        }
        Ok(())
    }

    /// Kills the process, which has nothing left to do.
    pub(crate) async fn end(mut self) -> Result<()> {
        self.child.kill().await.context("end the engine")
    }

    /// The end of its log.
    pub(crate) fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}

/// Two addresses that were free a moment ago. Both are bound at once, for they must differ.
fn free_addresses() -> Result<[SocketAddr; 2]> {
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port");
    let (one, other) = (listen()?, listen()?);
    let address = |listener: &TcpListener| listener.local_addr().context("read the own address");
    Ok([address(&one)?, address(&other)?])
}
