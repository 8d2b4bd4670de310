//! A PostgreSQL server of one test alone, which can be stopped, frozen and started again.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::Signal;
use schema::clock::Clock;
use schema::store::partition;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio_postgres::Client;

use crate::certificates::Authority;
use crate::engine::{process_id, signal};
use crate::postgres::{self, Database};
use crate::settings::free_address;
use crate::wait::{PATIENCE, until};

/// A server process. It is killed with the test.
pub struct Server {
    directory: TempDir,
    binaries: PathBuf,
    /// Where it listens besides its socket: nowhere until it is encrypted.
    listen: &'static str,
    port: u16,
    child: Option<Child>,
}

impl Server {
    /// Makes a cluster and starts its server.
    ///
    /// # Panics
    /// When PostgreSQL is not installed.
    pub async fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("farmiq-server.").tempdir_in("/tmp");
        let directory = directory.expect("a directory can be made");
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(directory.path())).await;
        }
        let binaries = binaries();
        let data = directory.path().join("data");
        let arguments = ["-U", "farmiq", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "-D"];
        run(as_owner(&binaries.join("initdb"), directory.path()).args(arguments).arg(data)).await;
        let mut server = Self { directory, binaries, listen: "", port: 5432, child: None };
        server.start_again().await;
        server
    }

    /// Where the server is, as a connection string.
    #[must_use]
    pub fn url(&self) -> String {
        let Self { directory, port, .. } = self;
        format!("host={} port={port} user=farmiq dbname=postgres", directory.path().display())
    }

    /// The tables of the engine, in this server.
    ///
    /// # Panics
    /// When they cannot be made.
    pub async fn database(&self) -> Database {
        let store = postgres::store(&self.url());
        store.migrate().await.expect("the migrations are right");
        let now = Clock::system().now();
        let made = store.run("partitions", async |conn| partition::ensure_ahead(conn, now).await).await;
        made.expect("partitions can be made");
        Database { client: self.connect().await, store, url: self.url() }
    }

    /// A new connection.
    ///
    /// # Panics
    /// When the server does not answer.
    pub async fn connect(&self) -> Client {
        postgres::connect(&self.url()).await
    }

    /// Starts the stopped server, and waits until it answers.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_again(&mut self) {
        let place = self.directory.path();
        let sockets = format!("unix_socket_directories={}", place.display());
        let log = std::fs::OpenOptions::new().create(true).append(true).open(place.join("log"));
        let child = as_owner(&self.binaries.join("postgres"), place)
            .arg("-D")
            .arg(place.join("data"))
            .args(["-c", &format!("listen_addresses={}", self.listen), "-c", &format!("port={}", self.port)])
            .args(["-c", &sockets, "-c", "max_connections=100"])
            .stdout(Stdio::null())
            .stderr(log.expect("the log can be written"))
            .kill_on_drop(true)
            .spawn();
        self.child = Some(child.expect("the server can be started"));
        let url = self.url();
        until("the server answers", async || {
            tokio_postgres::connect(&url, tokio_postgres::NoTls).await.is_ok()
        })
        .await;
    }

    /// Starts the server anew with an encrypted port of this machine, for users with a password or, if they are named
    /// `certified`, with a certificate of this authority. Says which port that is.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn encrypt(&mut self, authority: &Authority) -> u16 {
        let data = self.directory.path().join("data");
        let (cert, key) = authority.server().pem();
        let settings =
            "ssl = on\nssl_cert_file = 'cert.pem'\nssl_key_file = 'key.pem'\nssl_ca_file = 'ca.pem'\n";
        let rules =
            "local all all trust\nhostssl all certified all cert\nhostssl all all all scram-sha-256\n";
        for (name, text) in [
            ("cert.pem", cert.as_str()),
            ("key.pem", &key),
            ("ca.pem", &authority.pem()),
            ("postgresql.auto.conf", settings),
            ("pg_hba.conf", rules),
        ] {
            let path = data.join(name);
            std::fs::write(&path, text).expect("a file can be written");
            let mode = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(&path, mode).expect("a file can be kept from others");
            if is_root() {
                run(Command::new("chown").arg("postgres").arg(&path)).await;
            }
        }
        self.stop_at_once().await;
        self.listen = "127.0.0.1";
        self.port = free_address().port();
        self.start_again().await;
        self.port
    }

    /// Stops the server as a crash would: nothing is finished, every connection breaks.
    ///
    /// # Panics
    /// When it does not run.
    pub async fn stop_at_once(&mut self) {
        signal(self.pid(), Signal::QUIT);
        let mut child = self.child.take().expect("it was just signalled");
        let ended = tokio::time::timeout(PATIENCE, child.wait()).await.expect("the server stops");
        ended.expect("a child can be waited for");
    }

    /// Freezes the server: connections stand, and nobody answers.
    ///
    /// # Panics
    /// When it does not run.
    pub fn freeze(&self) {
        freeze(self.pid());
    }

    /// Lets a frozen server go on.
    ///
    /// # Panics
    /// When it does not run.
    pub fn thaw(&self) {
        thaw(self.pid());
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().and_then(Child::id).expect("the server runs")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its children end when they miss it; a frozen one would stay for ever.
        if let Some(pid) = self.child.as_ref().and_then(Child::id) {
            for child in children(pid) {
                // One that is gone already needs no signal.
                let _ = rustix::process::kill_process(process_id(child), Signal::KILL);
            }
        }
    }
}

/// Freezes a process and those it has started.
///
/// # Panics
/// When it does not run.
pub fn freeze(pid: u32) {
    // The parent first, so that it starts no more children.
    signal(pid, Signal::STOP);
    for child in children(pid) {
        signal(child, Signal::STOP);
    }
}

/// Lets a frozen process go on.
///
/// # Panics
/// When it does not run.
pub fn thaw(pid: u32) {
    for child in children(pid) {
        signal(child, Signal::CONT);
    }
    signal(pid, Signal::CONT);
}

/// The processes a process has started.
fn children(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").expect("there is a list of processes");
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything; state and parent come behind it.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A program that runs as somebody the server accepts, since it refuses to run as root.
fn as_owner(program: &Path, place: &Path) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir(place);
    command
}

async fn run(command: &mut Command) {
    let output = command.output().await.expect("the program is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The newest PostgreSQL of the distribution.
fn binaries() -> PathBuf {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let major = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = installed.map(|entry| entry.path()).max_by_key(major);
    newest.expect("PostgreSQL is installed: apt-get install postgresql").join("bin")
}
