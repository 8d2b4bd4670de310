//! A PostgreSQL server of this run alone, with everything that can be done to it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::Rng;
use rustix::process::Signal;
use tokio::process::Command;
use tokio_postgres::{Client, NoTls};

use super::process::{Process, Recipe, is_child, signal};

/// Size of the disk that can be filled, MiB: a fresh cluster, its log and some minutes of data.
const DISK_MIB: u64 = 512;
/// Longest wait until the server answers.
const START_MAX: Duration = Duration::from_secs(60);
/// How often it is asked.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// Longest wait for an answer of the server to what a fault asks of it.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Ports for listeners that come back.
const PORTS: std::ops::Range<u16> = 10_000..30_000;
/// The database and its owner.
const NAME: &str = "farmiq";
/// Name under which the engine connects.
const ENGINE: &str = "farmiq-edge%";

/// The server, and the small disk it lies on where there is one.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) process: Process,
    address: SocketAddr,
    disk: Option<Disk>,
}

/// A small disk of its own, which is taken away in the end.
#[derive(Debug)]
pub(crate) struct Disk {
    place: PathBuf,
}

impl Disk {
    /// Mounts one, where that is allowed.
    async fn mount(place: &Path) -> Result<Self> {
        std::fs::create_dir_all(place).with_context(|| format!("make {}", place.display()))?;
        let options = format!("size={DISK_MIB}m,mode=0755");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(place)).await?;
        Ok(Self { place: place.to_owned() })
    }

    fn filler(&self) -> PathBuf {
        self.place.join("filler")
    }

    /// Takes all room there is.
    pub(crate) async fn fill(&self) -> Result<u64> {
        let mut file =
            tokio::fs::File::create(self.filler()).await.context("make a file that fills the disk")?;
        let piece = vec![0; 1024 * 1024];
        let mut written = 0;
        loop {
            match tokio::io::AsyncWriteExt::write(&mut file, &piece).await {
                Ok(0) => break,
                Ok(count) => written += count as u64,
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
                Err(error) => return Err(error).context("fill the disk"),
            }
            if tokio::io::AsyncWriteExt::flush(&mut file).await.is_err() {
                break;
            }
        }
        Ok(written)
    }

    /// Gives the room back.
    pub(crate) async fn clear(&self) -> Result<()> {
        tokio::fs::remove_file(self.filler()).await.context("remove the file that fills the disk")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: what still has it open goes with its process.
        let unmounted = std::process::Command::new("umount").arg("-l").arg(&self.place).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            crate::report::note(format!("{} is still mounted", self.place.display()));
        }
    }
}

impl Cluster {
    /// Makes a cluster below `home` and starts its server; on a small disk when that is wanted and allowed.
    pub(crate) async fn start(home: &Path, wants_disk: bool) -> Result<Self> {
        let place = home.join("disk");
        std::fs::create_dir_all(&place).with_context(|| format!("make {}", place.display()))?;
        let disk = if wants_disk { Disk::mount(&place).await.ok() } else { None };
        let server = place.join("postgres");
        std::fs::create_dir_all(&server).context("make a directory for the server")?;
        let is_root = rustix::process::geteuid().is_root();
        if is_root {
            run(Command::new("chown").arg("postgres").arg(&server)).await?;
        }
        let binaries = binaries()?;
        let (program, mut arguments) = as_owner(is_root, &binaries.join("initdb"));
        arguments
            .extend(["-U", NAME, "-A", "trust", "-E", "UTF8", "--locale=C", "-D", "data"].map(str::to_owned));
        run(Command::new(program).args(arguments).current_dir(&server)).await?;
        let address = free_address()?;
        let (program, mut arguments) = as_owner(is_root, &binaries.join("postgres"));
        let port = address.port();
        arguments.extend(["-D".to_owned(), "data".to_owned()]);
        for setting in [
            "listen_addresses=127.0.0.1",
            &format!("port={port}"),
            "unix_socket_directories=",
            "max_connections=100",
            "max_wal_size=96MB",
            "min_wal_size=32MB",
            "log_line_prefix=%m [%p] ",
        ] {
            arguments.extend(["-c".to_owned(), setting.to_owned()]);
        }
        let recipe = Recipe {
            program,
            arguments,
            directory: server,
            log: home.join("postgres.log"),
            ..Recipe::default()
        };
        let cluster = Self { process: Process::start(recipe)?, address, disk };
        cluster.until_up("postgres").await?;
        let client = connect(&cluster.url_of("postgres")).await?;
        client.0.batch_execute("CREATE DATABASE farmiq").await.context("make a database")?;
        Ok(cluster)
    }

    /// Where the server listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The database, as a connection string that leads past every line with faults.
    pub(crate) fn url(&self) -> String {
        self.url_of(NAME)
    }

    fn url_of(&self, database: &str) -> String {
        format!("host=127.0.0.1 port={} user={NAME} dbname={database} connect_timeout=5", self.address.port())
    }

    /// The disk that can be filled; `None` when this machine does not let us mount one.
    pub(crate) fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }

    async fn until_up(&self, database: &str) -> Result<()> {
        let started = Instant::now();
        while connect(&self.url_of(database)).await.is_err() {
            if started.elapsed() > START_MAX {
                bail!("PostgreSQL does not answer:\n{}", self.process.log().await);
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        Ok(())
    }

    /// Waits until the server answers again.
    pub(crate) async fn until_back(&self) -> Result<()> {
        self.until_up(NAME).await
    }

    /// The server process of one of the engine's connections.
    pub(crate) async fn backend(&self, number: u32) -> Result<u32> {
        let sql =
            "SELECT pid FROM pg_stat_activity WHERE application_name LIKE $1 ORDER BY backend_start, pid";
        let (client, _tasks) = connect(&self.url()).await?;
        let rows = client.query(sql, &[&ENGINE]).await.context("list the engine's connections")?;
        ensure!(!rows.is_empty(), "the engine has no connection");
        let pid: i32 = rows[number as usize % rows.len()].get(0);
        let pid = u32::try_from(pid).context("a process id")?;
        ensure!(is_child(pid, self.process.pid().await?), "the server's process is not in sight");
        Ok(pid)
    }

    /// Sends a signal to a server process.
    pub(crate) fn signal(&self, backend: u32, word: Signal) -> Result<()> {
        signal(backend, word)
    }

    /// Ends every connection of engines, and says how many there were.
    pub(crate) async fn terminate_backends(&self) -> Result<i64> {
        let sql =
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE $1";
        let (client, _tasks) = connect(&self.url()).await?;
        Ok(client.query_one(sql, &[&ENGINE]).await.context("end the engine's connections")?.get(0))
    }

    /// Lets new transactions only read, or write again.
    pub(crate) async fn set_read_only(&self, is_read_only: bool) -> Result<()> {
        let state = if is_read_only { "on" } else { "off" };
        let (client, _tasks) = connect(&self.url()).await?;
        for sql in
            [&format!("ALTER SYSTEM SET default_transaction_read_only = {state}"), "SELECT pg_reload_conf()"]
        {
            client.batch_execute(sql).await.context("change a setting of the server")?;
        }
        Ok(())
    }

    /// Ids of events that wait for the cloud, the oldest first.
    pub(crate) async fn waiting_ids(&self, count: i64) -> Result<Vec<String>> {
        let sql = "SELECT id::text FROM ONLY sync_outbox WHERE failed_at IS NULL ORDER BY seq DESC LIMIT $1";
        self.texts(sql, count).await
    }

    /// Whether a picture is in the hand of a model.
    pub(crate) async fn is_inferring(&self) -> Result<bool> {
        let sql = "SELECT id::text FROM inference_jobs WHERE status = 'processing' LIMIT $1";
        Ok(!self.texts(sql, 1).await?.is_empty())
    }

    async fn texts(&self, sql: &str, count: i64) -> Result<Vec<String>> {
        let (client, _tasks) = connect(&self.url()).await?;
        let rows = tokio::time::timeout(ANSWER_MAX, client.query(sql, &[&count])).await;
        let rows = rows.context("the server does not answer")?.context("ask the server")?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// What the server says of its version.
    pub(crate) async fn version(&self) -> Result<String> {
        let (client, _tasks) = connect(&self.url()).await?;
        let row = client.query_one("SELECT current_setting('server_version')", &[]).await;
        Ok(format!("PostgreSQL {}", row.context("ask the server for its version")?.get::<_, String>(0)))
    }

    /// Runs a script.
    pub(crate) async fn execute(&self, sql: &str) -> Result<()> {
        let (client, _tasks) = connect(&self.url()).await?;
        client.batch_execute(sql).await.context("run a script")
    }
}

type Tasks = tokio::task::JoinSet<()>;

async fn connect(url: &str) -> Result<(Client, Tasks)> {
    let connecting = tokio::time::timeout(ANSWER_MAX, tokio_postgres::connect(url, NoTls)).await;
    let (client, connection) =
        connecting.context("the server does not answer")?.context("connect to the server")?;
    let mut tasks = Tasks::new();
    tasks.spawn(async move { drop(connection.await) });
    Ok((client, tasks))
}

/// PostgreSQL refuses to run as root.
fn as_owner(is_root: bool, program: &Path) -> (PathBuf, Vec<String>) {
    let program = program.to_owned();
    if !is_root {
        return (program, Vec::new());
    }
    let mut arguments =
        ["--reuid", "postgres", "--regid", "postgres", "--clear-groups"].map(str::to_owned).to_vec();
    arguments.push(program.display().to_string());
    (PathBuf::from("setpriv"), arguments)
}

async fn run(command: &mut Command) -> Result<()> {
    let output =
        command.output().await.with_context(|| format!("run {:?}", command.as_std().get_program()))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{:?} failed: {errors}", command.as_std().get_program());
    Ok(())
}

/// The newest PostgreSQL of the distribution.
fn binaries() -> Result<PathBuf> {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let major = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = installed.map(|entry| entry.path()).max_by_key(major);
    Ok(newest.context("PostgreSQL is not installed: apt-get install postgresql")?.join("bin"))
}

/// An address of this machine that was free a moment ago, below the ports that the system gives to clients: whoever is
/// started again there must not find it taken.
pub(crate) fn free_address() -> Result<SocketAddr> {
    let address = |_| SocketAddr::from((Ipv4Addr::LOCALHOST, rand::rng().random_range(PORTS)));
    let is_free = |address: &SocketAddr| TcpListener::bind(address).is_ok();
    (0..100).map(address).find(is_free).context("find a free port")
}
