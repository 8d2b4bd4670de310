//! One run of the server of a private cluster: started or adopted, watched, and stopped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout};

use super::process::{self, Found};
use super::server_log::{self, ServerLog};
use super::{Cluster, ClusterError, PORT, PidFile, Read, Stage, files, limits, settings};

/// Time between two looks at a server that starts, runs or stops.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Longest time for what is left of a server to go, once it is told to.
const CLEARING: Duration = Duration::from_secs(5);
/// Longest time for a server that says it is ready to answer a connection.
const ANSWER: Duration = Duration::from_secs(10);
/// What a client of PostgreSQL may send first, and a server answers with one byte: its length, and the number that asks
/// for encryption (PostgreSQL's manual, "Message Formats", `SSLRequest`).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// Longest time for a server to end in order that is to be started anew.
const ANEW: Duration = Duration::from_secs(10);
/// Of the time to stop, what is kept to end at once a server that does not end in order.
const AT_ONCE: Duration = Duration::from_secs(2);
/// Room for two segments of the server's log: without it the server may be unable to write the next one.
const ROOM_MIB_MIN: u64 = 32;
/// What the first output of a server goes to, before it has its log.
const START_LOG: &str = "start.log";
/// Where a process says how gladly the system may end it for want of memory.
const OOM_SCORE: &str = "/proc/self/oom_score_adj";

/// A server that runs, or ran a moment ago.
#[derive(Debug)]
pub(super) struct Server {
    pid: u32,
    /// Its process, unless it was adopted.
    child: Option<Child>,
    /// What it logged before it ran.
    log: ServerLog,
}

impl Server {
    /// How it ended, once it has.
    fn ended(&mut self, directory: &Path) -> Option<String> {
        match &mut self.child {
            Some(child) => match child.try_wait() {
                Ok(status) => status.map(|status| status.to_string()),
                Err(error) => Some(error.to_string()),
            },
            None => (process::find(self.pid, directory) != Found::Ours).then(|| "it is gone".to_owned()),
        }
    }
}

impl Cluster {
    /// Starts the server, or adopts one that lives, and waits until it takes connections. What a killed one left is
    /// cleared away.
    pub(super) async fn start_or_adopt(&mut self) -> Result<(), ClusterError> {
        self.server = None;
        self.stage.send_replace(Stage::Starting);
        self.make_private_directory(&self.directory)?;
        match PidFile::read(&self.directory) {
            Read::Absent => {}
            Read::Written(file) if process::find(file.pid, &self.directory) == Found::Ours => {
                if self.adopt(file.pid).await? {
                    return Ok(());
                }
                self.clear_away().await?;
            }
            Read::Written(_) => {
                self.stage.send_replace(Stage::Recovering);
                self.clear_away().await?;
            }
            Read::Torn => {
                tracing::warn!("postmaster.pid is empty or torn, as after a power cut");
                self.stage.send_replace(Stage::Recovering);
                self.clear_away().await?;
            }
        }
        self.start_server().await
    }

    /// Waits for a server that lives already. `false` when it ended meanwhile, or had to be stopped since it cannot be
    /// reached where its socket should be.
    async fn adopt(&mut self, pid: u32) -> Result<bool, ClusterError> {
        let log = ServerLog::end(&self.directory);
        self.server = Some(Server { pid, child: None, log });
        while process::find(pid, &self.directory) == Found::Ours {
            match PidFile::read(&self.directory) {
                Read::Written(file) if file.pid == pid && file.is_ready => {
                    if file.socket_directory == self.socket_directory && self.answers(pid).await {
                        tracing::info!(directory = %self.directory.display(), "adopted the running PostgreSQL");
                        return Ok(true);
                    }
                    tracing::warn!(
                        pid,
                        "the running PostgreSQL cannot be reached at its socket, starting it anew"
                    );
                    self.stop(Instant::now() + ANEW).await;
                    return Ok(false);
                }
                Read::Written(_) | Read::Absent | Read::Torn => sleep(LOOK_AGAIN).await,
            }
        }
        Ok(false)
    }

    pub(super) async fn start_server(&mut self) -> Result<(), ClusterError> {
        self.make_private_directory(&self.socket_directory)?;
        // No server of this cluster runs, and no other may use this directory: what a killed one left is stale.
        for left_behind in [format!(".s.PGSQL.{PORT}.lock"), format!(".s.PGSQL.{PORT}")] {
            let _ = fs::remove_file(self.socket_directory.join(left_behind));
        }
        let written = settings::write(&self.directory, &self.socket_directory);
        written.map_err(files("write the settings in", &self.directory))?;
        ServerLog::prune(&self.directory);
        self.warn_once_of_little_room();
        self.spawn_server()?;
        loop {
            if let Some(ended) = self.ended() {
                return Err(ClusterError::Program {
                    program: "postgres",
                    output: self.why_it_failed(&ended),
                });
            }
            if self.is_ready() {
                break;
            }
            sleep(LOOK_AGAIN).await;
        }
        tracing::info!(directory = %self.directory.display(), postgres = self.binaries.major, "started PostgreSQL");
        Ok(())
    }

    /// Spawns the server as a child of ours, in a process group of its own: a Ctrl-C at the terminal is not for it.
    fn spawn_server(&mut self) -> Result<(), ClusterError> {
        let log = ServerLog::end(&self.directory);
        let start_log = self.directory.join(START_LOG);
        let output = File::create(&start_log).map_err(files("write", &start_log))?;
        let also = output.try_clone().map_err(files("write", &start_log))?;
        let mut command = self.command("postgres");
        command.arg("-D").arg(&self.directory).process_group(0);
        command.stdin(Stdio::null()).stdout(output).stderr(also);
        command.env("PG_OOM_ADJUST_FILE", OOM_SCORE).env("PG_OOM_ADJUST_VALUE", oom_score_of_children());
        let child = command.spawn().map_err(files("run", &self.binaries.path("postgres")))?;
        let pid = child.id().expect("a child that nobody waited for has a number");
        self.server = Some(Server { pid, child: Some(child), log });
        Ok(())
    }

    /// Waits until the server has ended, or cannot be reached any more and was stopped; says how that came.
    pub(super) async fn until_it_ends(&mut self) -> String {
        let socket = self.socket();
        loop {
            if let Some(ended) = self.ended() {
                let said = self
                    .server
                    .as_ref()
                    .and_then(|server| server_log::last_words(&server.log.what_followed()));
                return said.map_or(ended.clone(), |said| format!("{ended}: {said}"));
            }
            if !socket.exists() {
                self.stop(Instant::now() + ANEW).await;
                return format!("{} was taken away", socket.display());
            }
            let stage = if self.is_ready() { Stage::Ready } else { Stage::Recovering };
            self.stage.send_if_modified(|now| std::mem::replace(now, stage) != stage);
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Stops the server: in order, and at once when that takes too long; what is committed is on disk either way.
    pub(super) async fn stop(&mut self, by: Instant) {
        let Some(pid) = self.living() else { return };
        for (signal, until) in [(Signal::INT, by - AT_ONCE), (Signal::QUIT, by)] {
            self.signal(pid, signal).await;
            while process::is_alive(pid) {
                if Instant::now() >= until {
                    break;
                }
                sleep(LOOK_AGAIN).await;
            }
            if self.living().is_none() {
                self.server = None;
                return tracing::info!("stopped PostgreSQL");
            }
        }
        tracing::warn!(pid, "PostgreSQL does not end in time; it goes on ending by itself");
    }

    /// The process of the server while it lives.
    fn living(&mut self) -> Option<u32> {
        if let Some(server) = &mut self.server {
            let pid = server.pid;
            return server.ended(&self.directory).is_none().then_some(pid);
        }
        match PidFile::read(&self.directory) {
            Read::Written(file) => {
                Some(file.pid).filter(|pid| process::find(*pid, &self.directory) == Found::Ours)
            }
            Read::Absent | Read::Torn => None,
        }
    }

    /// Ends what is left of a server that is gone, such as its children, and takes its file away.
    pub(super) async fn clear_away(&mut self) -> Result<(), ClusterError> {
        self.server = None;
        let mut left = process::all_of(&self.directory);
        left.extend(self.listener().await);
        for signal in [Signal::QUIT, Signal::KILL] {
            let until = Instant::now() + CLEARING;
            left.retain(|pid| process::is_alive(*pid));
            for pid in &left {
                self.signal(*pid, signal).await;
            }
            while left.iter().any(|pid| process::is_alive(*pid)) && Instant::now() < until {
                sleep(LOOK_AGAIN).await;
            }
        }
        PidFile::remove(&self.directory).map_err(files("remove the stale postmaster.pid in", &self.directory))
    }

    /// Signals a process of the server. Who may not, though root, asks a program that runs as its user.
    pub(super) async fn signal(&self, pid: u32, signal: Signal) {
        if process::signal(pid, signal).is_ok() {
            return;
        }
        let name = match signal {
            Signal::INT => "INT",
            Signal::QUIT => "QUIT",
            _ => "KILL",
        };
        if let Err(error) = self.run("pg_ctl", &["kill", name, &pid.to_string()], "").await
            && process::is_alive(pid)
        {
            tracing::warn!(%error, pid, name, "signal PostgreSQL");
        }
    }

    /// Whether the server answers at the socket while it lives. One that was killed a moment ago still has its socket, and
    /// the system still takes connections for it.
    async fn answers(&self, pid: u32) -> bool {
        let until = Instant::now() + ANSWER;
        while process::find(pid, &self.directory) == Found::Ours && Instant::now() < until {
            if let Ok(true) = timeout(ANSWER, self.asks_and_hears()).await {
                return true;
            }
            sleep(LOOK_AGAIN).await;
        }
        false
    }

    /// Whether a question at the socket is answered, however long that takes.
    pub(super) async fn asks_and_hears(&self) -> bool {
        let Ok(mut stream) = UnixStream::connect(self.socket()).await else { return false };
        let mut answer = [0];
        stream.write_all(&SSL_REQUEST).await.is_ok() && stream.read_exact(&mut answer).await.is_ok()
    }

    fn socket(&self) -> PathBuf {
        self.socket_directory.join(format!(".s.PGSQL.{PORT}"))
    }

    /// The process that listens at the socket.
    async fn listener(&self) -> Option<u32> {
        let stream = timeout(ANSWER, UnixStream::connect(self.socket())).await.ok()?.ok()?;
        stream.peer_cred().ok()?.pid()?.try_into().ok()
    }

    fn ended(&mut self) -> Option<String> {
        self.server.as_mut()?.ended(&self.directory)
    }

    /// Whether the server that runs says that it takes connections.
    fn is_ready(&self) -> bool {
        let pid = self.server.as_ref().map(|server| server.pid);
        matches!(PidFile::read(&self.directory), Read::Written(file) if file.is_ready && Some(file.pid) == pid)
    }

    fn why_it_failed(&self, ended: &str) -> String {
        let first = fs::read(self.directory.join(START_LOG)).unwrap_or_default();
        let logged = self.server.as_ref().map(|server| server.log.what_followed()).unwrap_or_default();
        let said = format!("{}\n{logged}", String::from_utf8_lossy(&first));
        server_log::reason(&said, "", ended) + &self.room_if_little().unwrap_or_default()
    }

    fn warn_once_of_little_room(&mut self) {
        let little = self.room_if_little();
        if let (Some(room), false) = (&little, self.is_room_little) {
            tracing::warn!("PostgreSQL may stop for want of room{room}");
        }
        self.is_room_little = little.is_some();
    }

    fn room_if_little(&self) -> Option<String> {
        let log = self.directory.join("pg_wal");
        let room_mib = limits::room_mib(&log);
        (room_mib < ROOM_MIB_MIN).then(|| {
            format!(": {} has {room_mib} MiB free, and needs {ROOM_MIB_MIN} at least", log.display())
        })
    }
}

/// How gladly the system may end a child of the server: rather than the server itself, whose end is everybody's.
fn oom_score_of_children() -> String {
    const STEP: i32 = 100;
    const SCORE_MAX: i32 = 1000;
    let own = fs::read_to_string(OOM_SCORE).ok().and_then(|text| text.trim().parse::<i32>().ok());
    (own.unwrap_or(0) + STEP).min(SCORE_MAX).to_string()
}
