//! A private PostgreSQL cluster in the data directory, for a box that has no database server of its own.
//!
//! It listens on a unix socket only, in a directory nobody else can enter. It outlives a crash of the engine: the
//! next start finds it running and adopts it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use rustix::fs::FlockOperation;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

mod binaries;
mod owner;
mod pid_file;
mod server_log;
mod settings;

use binaries::Binaries;
use owner::Owner;
use pid_file::PidFile;
use server_log::ServerLog;

/// The port in the socket's name; no TCP port is opened.
const PORT: u16 = 5432;
/// Bytes of a socket's path that the operating system takes, with the name PostgreSQL gives it.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Longest time one program of PostgreSQL may take; a recovery after a power cut is the slowest.
const PROGRAM_SECONDS_MAX: u64 = 300;
/// Longest time for the server to stop.
const STOP_SECONDS_MAX: u64 = 60;
/// Attempts to start while processes of a killed server are still leaving.
const START_ATTEMPTS_MAX: u32 = 20;
/// Time between two looks at a server that is starting or stopping.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Why there is no private cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No server program of a fitting version was found.
    #[error(
        "PostgreSQL {wanted} is not installed; on Debian or Ubuntu: `sudo apt-get install {package}`, then \
         `sudo systemctl disable --now postgresql` if its own server is not needed; \
         or set database.url to a server you have"
    )]
    NotInstalled {
        /// The version that is needed.
        wanted: String,
        /// What to install.
        package: String,
    },
    /// PostgreSQL refuses to run as root and there is no other user to run it as.
    #[error(
        "PostgreSQL does not run as root, and /etc/passwd has neither `postgres` nor `nobody` to run it as"
    )]
    NoOwner,
    /// The user the server runs as cannot get to the data.
    #[error(
        "the user {user} that PostgreSQL runs as cannot enter {}; choose another --data-dir, or `chmod a+x` it",
        .directory.display()
    )]
    Unreachable {
        /// The user.
        user: String,
        /// The directory in the way.
        directory: PathBuf,
    },
    /// Another engine holds the directory.
    #[error("another farmiq-edge uses {}; stop it, or choose another --data-dir", .0.display())]
    InUse(PathBuf),
    /// A directory is there that someone else made.
    #[error("{} belongs to another user (uid {uid}); run as that user, or choose another --data-dir", .path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// A file or directory could not be read or made.
    #[error("{attempt} {}", .path.display())]
    Files {
        /// What was tried.
        attempt: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A program of PostgreSQL failed.
    #[error("{program} failed: {output}")]
    Program {
        /// Which.
        program: &'static str,
        /// The end of what it said.
        output: String,
    },
}

/// A running cluster that this process holds.
#[derive(Debug)]
pub struct Cluster {
    binaries: Binaries,
    owner: Option<Owner>,
    directory: PathBuf,
    socket_directory: PathBuf,
    /// Held as long as the process lives, so that no two engines share a directory.
    _lock: File,
}

impl Cluster {
    /// Starts the cluster of this data directory, makes it first when it is not there, and waits until it answers.
    ///
    /// A server that still runs from an earlier engine is adopted. Dropping the cluster leaves the server running:
    /// only [`Cluster::stop`] ends it.
    ///
    /// # Errors
    /// When the programs of PostgreSQL are missing or fail, or the directory cannot be used; each says what to do.
    pub async fn start(data_dir: &Path) -> Result<Self, ClusterError> {
        fs::create_dir_all(data_dir).map_err(files("create", data_dir))?;
        let data_dir = fs::canonicalize(data_dir).map_err(files("find", data_dir))?;
        let lock = lock(&data_dir)?;
        let directory = data_dir.join("postgres");
        let owner = Owner::of_cluster(&directory)?;
        if let Some(owner) = &owner {
            owner.check_reach(&data_dir)?;
        }
        let binaries = Binaries::find(&directory).await?;
        let socket_directory = socket_directory(&data_dir, owner.as_ref());
        let mut cluster = Self { binaries, owner, directory, socket_directory, _lock: lock };
        cluster.bring_up(&data_dir).await?;
        Ok(cluster)
    }

    /// The connection string: for psql and for every driver that knows key-value strings.
    pub fn url(&self) -> String {
        url(&self.socket_directory)
    }

    /// The address of the server of a data directory; `None` while none runs there.
    pub fn running(data_dir: &Path) -> Option<String> {
        let directory = fs::canonicalize(data_dir).ok()?.join("postgres");
        let file = PidFile::read(&directory)?;
        file.is_ready.then(|| url(&file.socket_directory))
    }

    /// Stops the server: running statements are ended, everything committed is on disk.
    ///
    /// # Errors
    /// When it does not stop in time; it goes on stopping by itself.
    pub async fn stop(self) -> Result<(), ClusterError> {
        let seconds = STOP_SECONDS_MAX.to_string();
        self.run("pg_ctl", &["stop", "--mode=fast", "--wait", "--timeout", &seconds, "-D", &self.data()], "")
            .await?;
        Ok(())
    }

    async fn bring_up(&mut self, data_dir: &Path) -> Result<(), ClusterError> {
        if !self.directory.join("PG_VERSION").exists() {
            self.create(data_dir).await?;
        }
        match self.wait_while_in_transition().await? {
            Server::Ready { socket_directory } => {
                tracing::info!(directory = %self.directory.display(), "adopted the running PostgreSQL");
                self.socket_directory = socket_directory;
                Ok(())
            }
            Server::Absent => self.start_server().await,
        }
    }

    /// Makes the cluster beside its place and moves it there when it is whole, so that a crash leaves nothing half made.
    async fn create(&self, data_dir: &Path) -> Result<(), ClusterError> {
        let draft = data_dir.join("postgres.draft");
        if draft.exists() {
            fs::remove_dir_all(&draft).map_err(files("remove", &draft))?;
        }
        self.make_private_directory(&draft)?;
        let draft_text = draft.display().to_string();
        let arguments = [
            "--username=postgres",
            "--encoding=UTF8",
            "--no-locale",
            "--auth-local=trust",
            "--auth-host=reject",
        ];
        self.run("initdb", &[&arguments[..], &["-D", &draft_text]].concat(), "").await?;
        let database = "CREATE ROLE farmiq LOGIN;\nCREATE DATABASE farmiq OWNER farmiq;\n";
        self.run(
            "postgres",
            &["--single", "-c", "exit_on_error=true", "-D", &draft_text, "postgres"],
            database,
        )
        .await?;
        settings::include_ours(&draft).map_err(files("write the settings in", &draft))?;
        fs::rename(&draft, &self.directory).map_err(files("move into place", &self.directory))?;
        sync_directory(data_dir).map_err(files("sync", data_dir))?;
        tracing::info!(directory = %self.directory.display(), postgres = self.binaries.major, "made a PostgreSQL cluster");
        Ok(())
    }

    async fn start_server(&self) -> Result<(), ClusterError> {
        self.make_private_directory(&self.socket_directory)?;
        // No server of this cluster runs, and no other may use this directory: what a killed one left is stale.
        for left_behind in [format!(".s.PGSQL.{PORT}.lock"), format!(".s.PGSQL.{PORT}")] {
            let _ = fs::remove_file(self.socket_directory.join(left_behind));
        }
        let written = settings::write(&self.directory, &self.socket_directory);
        written.map_err(files("write the settings in", &self.directory))?;
        let seconds = PROGRAM_SECONDS_MAX.to_string();
        let start_log = self.directory.join("start.log").display().to_string();
        let arguments = ["start", "--wait", "--timeout", &seconds, "-D", &self.data(), "--log", &start_log];
        for attempt in 1.. {
            let before = ServerLog::end(&self.directory);
            let Err(error) = self.run("pg_ctl", &arguments, "").await else { break };
            let said = before.what_followed().unwrap_or_else(|| error.to_string());
            let orphans_are_leaving = said.contains("still in use");
            if !orphans_are_leaving || attempt == START_ATTEMPTS_MAX {
                return Err(ClusterError::Program { program: "postgres", output: tail(&said) });
            }
            sleep(LOOK_AGAIN).await;
        }
        tracing::info!(directory = %self.directory.display(), postgres = self.binaries.major, "started PostgreSQL");
        Ok(())
    }

    /// Waits until a server that is starting or stopping has finished doing so.
    async fn wait_while_in_transition(&self) -> Result<Server, ClusterError> {
        let deadline = Instant::now() + Duration::from_secs(PROGRAM_SECONDS_MAX);
        loop {
            match PidFile::read(&self.directory) {
                None => return Ok(Server::Absent),
                Some(pid_file) if !pid_file.is_of(&self.directory) => {
                    pid_file.remove_if_taken_over(&self.directory)?;
                    return Ok(Server::Absent);
                }
                Some(PidFile { is_ready: true, socket_directory, .. }) => {
                    return Ok(Server::Ready { socket_directory });
                }
                Some(_) if Instant::now() < deadline => sleep(LOOK_AGAIN).await,
                Some(pid_file) => {
                    let output =
                        format!("the server with process id {} neither starts nor stops", pid_file.pid);
                    return Err(ClusterError::Program { program: "postgres", output });
                }
            }
        }
    }

    /// Runs a program of PostgreSQL as the owner, with nothing of our environment, and waits for its end.
    async fn run(
        &self,
        program: &'static str,
        arguments: &[&str],
        input: &str,
    ) -> Result<Output, ClusterError> {
        let path = self.binaries.path(program);
        let mut command = Command::new(&path);
        let piped = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
        command.args(arguments).env_clear().env("LC_ALL", "C").current_dir("/").kill_on_drop(true);
        command.stdin(piped).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(owner) = &self.owner {
            command.uid(owner.uid).gid(owner.gid);
        }
        let finished = timeout(Duration::from_secs(PROGRAM_SECONDS_MAX + STOP_SECONDS_MAX), async {
            let mut child = command.spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(input.as_bytes()).await?;
            }
            child.wait_with_output().await
        });
        let output = finished
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(files("run", &path))?;
        if output.status.success() {
            return Ok(output);
        }
        let said = [output.stderr, output.stdout].concat();
        Err(ClusterError::Program { program, output: tail(&String::from_utf8_lossy(&said)) })
    }

    fn data(&self) -> String {
        self.directory.display().to_string()
    }

    /// Makes a directory that only the owner of the server can enter, or checks that one is there.
    fn make_private_directory(&self, path: &Path) -> Result<(), ClusterError> {
        let made = fs::DirBuilder::new().recursive(false).mode(0o700).create(path);
        match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(files("create", path)(error)),
            Ok(()) => {
                if let Some(owner) = &self.owner {
                    owner.take(path).map_err(files("hand over", path))?;
                }
            }
        }
        let found = fs::symlink_metadata(path).map_err(files("read", path))?;
        let expected = self.owner.as_ref().map_or(rustix::process::geteuid().as_raw(), |owner| owner.uid);
        let is_private = found.is_dir() && found.uid() == expected && found.mode() & 0o077 == 0;
        if is_private {
            Ok(())
        } else {
            Err(ClusterError::Foreign { path: path.to_owned(), uid: found.uid() })
        }
    }
}

/// What was found in the place of the server.
enum Server {
    /// It runs and takes connections on the socket in this directory.
    Ready { socket_directory: PathBuf },
    /// None runs.
    Absent,
}

fn lock(data_dir: &Path) -> Result<File, ClusterError> {
    let path = data_dir.join("farmiq-edge.lock");
    let mut file = File::options().create(true).append(true).open(&path).map_err(files("open", &path))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(ClusterError::InUse(data_dir.to_owned())),
        Err(error) => return Err(files("lock", &path)(error.into())),
    }
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// The directory of the socket: in the data directory, or a short one when that path is too long for a socket.
fn url(socket_directory: &Path) -> String {
    let escaped = socket_directory.display().to_string().replace('\\', r"\\").replace('\'', r"\'");
    format!("host='{escaped}' port={PORT} user=farmiq dbname=farmiq")
}

fn socket_directory(data_dir: &Path, owner: Option<&Owner>) -> PathBuf {
    let inside = data_dir.join("socket");
    let socket = inside.join(format!(".s.PGSQL.{PORT}"));
    if socket.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return inside;
    }
    let digest = hex::encode(&Sha256::digest(data_dir.as_os_str().as_encoded_bytes())[..4]);
    let uid = rustix::process::geteuid().as_raw();
    let of_user = PathBuf::from(format!("/run/user/{uid}"));
    let runtime = match owner {
        Some(_) => PathBuf::from("/run"),
        None if of_user.is_dir() => of_user,
        None => PathBuf::from("/tmp"),
    };
    runtime.join(format!("farmiq-edge-{uid}-{digest}"))
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn files(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ClusterError {
    let path = path.to_owned();
    move |source| ClusterError::Files { attempt, path, source }
}

/// The last lines of an output: where programs say what went wrong.
fn tail(output: &str) -> String {
    const LINES: usize = 6;
    let lines: Vec<_> = output.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].join("; ")
}

#[cfg(test)]
mod tests;
