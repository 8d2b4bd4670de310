//! A private PostgreSQL cluster in the data directory, for a box that has no database server of its own.
//!
//! It listens on a unix socket only, in a directory nobody else can enter. It outlives a crash of the engine: the
//! next start finds it running and adopts it. While the engine runs, it looks after its server and starts it again.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::FlockOperation;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::timeout;

mod binaries;
pub mod copy;
mod keeper;
mod limits;
mod owner;
mod pid_file;
mod process;
mod server;
mod server_log;
mod settings;
pub mod upgrade;

use binaries::Binaries;
use owner::Owner;
use pid_file::{PidFile, Read};
use server::Server;

/// The port in the socket's name; no TCP port is opened.
const PORT: u16 = 5432;
/// Bytes of a socket's path that the operating system takes, with the name PostgreSQL gives it.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Longest time one program of PostgreSQL may take; making a cluster on a slow card takes the longest.
const PROGRAM_SECONDS_MAX: u64 = 300;
/// What `initdb` and `pg_upgrade` say to a user that the system's list of users does not have.
const NAMELESS: &str = "could not look up effective user ID";
/// The mode of directories that only their owner may enter.
const PRIVATE: u32 = 0o700;

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
    /// The user that a program of PostgreSQL runs as has no name.
    #[error(
        "PostgreSQL makes no database as uid {uid}, which has no line in /etc/passwd: give it one (`useradd --system --uid \
         {uid} farmiq`; in a container mount a file over /etc/passwd that has the line `farmiq:x:{uid}:{gid}::/:/sbin/nologin`), \
         or run as a user that has one, such as uid 10001 of the image"
    )]
    Nameless {
        /// The user.
        uid: u32,
        /// Its group.
        gid: u32,
    },
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
    /// There is no cluster.
    #[error("there is no PostgreSQL of a `farmiq-edge up` in {}", .0.display())]
    Absent(PathBuf),
    /// A restore into the directory was cut off.
    #[error(
        "a restore into {} was not finished: run `farmiq-edge restore` again, or empty the directory to begin anew",
        .0.display()
    )]
    Unfinished(PathBuf),
    /// Another engine holds the directory.
    #[error("another farmiq-edge uses {}; stop it, or choose another --data-dir", .0.display())]
    InUse(PathBuf),
    /// A directory is there that someone else made.
    #[error(
        "{} belongs to uid {uid} (mode {mode:04o}), and PostgreSQL would run as uid {wanted}: `chown -R {wanted} {}`, \
         or choose another --data-dir", .path.display(), .path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
        /// What its owner and others may do.
        mode: u32,
        /// Whose it should be.
        wanted: u32,
    },
    /// The modes of a directory cannot be put right.
    #[error(
        "{} has mode {mode:04o} (uid {uid}) and PostgreSQL insists on 0700, which cannot be set here: put the data \
         directory on a file system that keeps modes, such as ext4", .path.display()
    )]
    Open {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
        /// What its owner and others may do.
        mode: u32,
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

impl ClusterError {
    /// Whether trying again cannot help before a person does something.
    fn is_permanent(&self) -> bool {
        /// What PostgreSQL says of settings and files that it will refuse the next time, too.
        const HOPELESS: [&str; 8] = [
            "contains errors",
            "unrecognized configuration parameter",
            "invalid value for parameter",
            "incompatible with server",
            "incompatible with this installation",
            "could not locate a valid checkpoint record",
            "not a database cluster directory",
            "root\" execution of the PostgreSQL server is not permitted",
        ];
        match self {
            Self::NotInstalled { .. }
            | Self::NoOwner
            | Self::Nameless { .. }
            | Self::Absent(_)
            | Self::Unfinished(_)
            | Self::Unreachable { .. }
            | Self::InUse(_)
            | Self::Foreign { .. }
            | Self::Open { .. } => true,
            Self::Files { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            Self::Program { output, .. } => HOPELESS.iter().any(|words| output.contains(words)),
        }
    }
}

/// What a cluster is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It is being made.
    Making,
    /// Its server starts.
    Starting,
    /// Its server reads its log again, since it was not stopped in order.
    Recovering,
    /// Its server takes connections.
    Ready,
}

/// The cluster of a data directory, which no other engine can hold meanwhile. [`Cluster::keep`] runs its server.
#[derive(Debug)]
pub struct Cluster {
    binaries: Binaries,
    owner: Option<Owner>,
    data_dir: PathBuf,
    directory: PathBuf,
    socket_directory: PathBuf,
    stage: watch::Sender<Stage>,
    server: Option<Server>,
    /// Whether there was little room on the disk when the server was last started.
    is_room_little: bool,
    /// Held as long as the process lives, so that no two engines share a directory; `None` beside an engine that has it.
    lock: Option<Arc<File>>,
}

impl Cluster {
    /// Takes the cluster of this data directory, whether it is there yet or not; nothing is started.
    ///
    /// # Errors
    /// When the programs of PostgreSQL are missing, or the directory cannot be used; each says what to do.
    pub async fn hold(data_dir: &Path) -> Result<Self, ClusterError> {
        fs::create_dir_all(data_dir).map_err(files("create", data_dir))?;
        let data_dir = fs::canonicalize(data_dir).map_err(files("find", data_dir))?;
        let lock = lock(&data_dir)?;
        if data_dir.join(copy::UNFINISHED).exists() {
            return Err(ClusterError::Unfinished(data_dir));
        }
        Self::of(data_dir, Some(lock)).await
    }

    /// Takes the programs of the version that made a copy, which is to become this cluster.
    ///
    /// # Errors
    /// When they are not installed.
    pub async fn use_version_of(&mut self, copy: &Path) -> Result<(), ClusterError> {
        self.binaries = Binaries::find(copy).await?;
        Ok(())
    }

    /// The cluster of this data directory while another engine holds it and runs its server. Nothing may be started or
    /// stopped with it.
    async fn beside(data_dir: &Path) -> Result<Self, ClusterError> {
        Self::of(fs::canonicalize(data_dir).map_err(files("find", data_dir))?, None).await
    }

    async fn of(data_dir: PathBuf, lock: Option<File>) -> Result<Self, ClusterError> {
        let directory = data_dir.join("postgres");
        let owner = Owner::of_cluster(&directory)?;
        if let Some(owner) = &owner {
            owner.check_reach(&data_dir)?;
            owner.warn_if_shared();
        }
        let binaries = Binaries::find(&directory).await?;
        let socket_directory = socket_directory(&data_dir, owner.as_ref());
        let stage = watch::Sender::new(Stage::Starting);
        Ok(Self {
            binaries,
            owner,
            data_dir,
            directory,
            socket_directory,
            stage,
            server: None,
            is_room_little: false,
            lock: lock.map(Arc::new),
        })
    }

    /// Whether the cluster of this data directory could be started, in words; nothing is changed, and nothing taken.
    ///
    /// # Errors
    /// As [`Cluster::hold`].
    pub async fn examine(data_dir: &Path) -> Result<String, ClusterError> {
        let directory = data_dir.join("postgres");
        let owner = Owner::of_cluster(&directory)?;
        if let Some(owner) = owner.filter(|_| data_dir.exists()) {
            owner.check_reach(data_dir)?;
        }
        let Binaries { major, .. } = Binaries::find(&directory).await?;
        let state = if directory.exists() { "does not run now" } else { "is made by the first start" };
        Ok(format!("private, PostgreSQL {major} in {}, {state}", directory.display()))
    }

    /// The connection string: for psql and for every driver that knows key-value strings.
    pub fn url(&self) -> String {
        url(&self.socket_directory)
    }

    /// What it is busy with, now and later.
    pub fn stage(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    /// The address of the server of a data directory; `None` while none runs there.
    pub fn running(data_dir: &Path) -> Option<String> {
        let directory = fs::canonicalize(data_dir).ok()?.join("postgres");
        match PidFile::read(&directory) {
            Read::Written(file) if file.is_ready => Some(url(&file.socket_directory)),
            Read::Written(_) | Read::Absent | Read::Torn => None,
        }
    }

    /// Makes the cluster beside its place and moves it there when it is whole, so that a crash leaves nothing half made.
    async fn create(&self) -> Result<(), ClusterError> {
        let draft = self.data_dir.join("postgres.draft");
        if draft.exists() {
            fs::remove_dir_all(&draft).map_err(files("remove", &draft))?;
        }
        self.make_private_directory(&draft)?;
        let draft_text = draft.display().to_string();
        let arguments = [
            "--username=postgres",
            "--encoding=UTF8",
            "--no-locale",
            "--data-checksums",
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
        sync_directory(&self.data_dir).map_err(files("sync", &self.data_dir))?;
        tracing::info!(directory = %self.directory.display(), postgres = self.binaries.major, "made a PostgreSQL cluster");
        Ok(())
    }

    /// Runs a program of PostgreSQL as the owner, with nothing of our environment, and waits for its end.
    async fn run(
        &self,
        program: &'static str,
        arguments: &[&str],
        input: &str,
    ) -> Result<Output, ClusterError> {
        self.run_within(Duration::from_secs(PROGRAM_SECONDS_MAX), program, arguments, input).await
    }

    /// The same for a program that may take another time, since it depends on the amount of data.
    async fn run_within(
        &self,
        limit: Duration,
        program: &'static str,
        arguments: &[&str],
        input: &str,
    ) -> Result<Output, ClusterError> {
        self.run_in(Path::new("/"), limit, program, arguments, input).await
    }

    /// The same for a program that writes into the directory in which it runs.
    async fn run_in(
        &self,
        place: &Path,
        limit: Duration,
        program: &'static str,
        arguments: &[&str],
        input: &str,
    ) -> Result<Output, ClusterError> {
        let mut command = self.command(program);
        command.current_dir(place);
        let piped = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
        command.args(arguments).kill_on_drop(true);
        command.stdin(piped).stdout(Stdio::piped()).stderr(Stdio::piped());
        let finished = timeout(limit, async {
            let mut child = command.spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                // A program that failed reads no more; what it says tells why.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
            child.wait_with_output().await
        });
        let output = finished
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(files("run", &self.binaries.path(program)))?;
        if output.status.success() {
            return Ok(output);
        }
        let (stderr, stdout) =
            (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
        if stderr.contains(NAMELESS) {
            let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            let (uid, gid) = self.owner.as_ref().map_or(own, |owner| (owner.uid, owner.gid));
            return Err(ClusterError::Nameless { uid, gid });
        }
        let output = server_log::reason(&stderr, &stdout, &output.status.to_string());
        Err(ClusterError::Program { program, output })
    }

    /// A program of PostgreSQL that runs as the owner of the cluster, with nothing of our environment.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.path(program));
        command.env_clear().env("LC_ALL", "C").current_dir("/");
        if let Some(owner) = &self.owner {
            command.uid(owner.uid).gid(owner.gid);
        }
        command
    }

    /// Makes a directory that only the owner of the server can enter. One that is there and the owner's is made so
    /// again: a volume may have been opened to a group since.
    fn make_private_directory(&self, path: &Path) -> Result<(), ClusterError> {
        let made = fs::DirBuilder::new().recursive(false).mode(PRIVATE).create(path);
        match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(files("create", path)(error)),
            Ok(()) => {
                if let Some(owner) = &self.owner {
                    owner.take(path).map_err(files("hand over", path))?;
                }
            }
        }
        let found = self.check_owner(path)?;
        if mode(&found) == PRIVATE {
            return Ok(());
        }
        let is_opened = mode(&found) & 0o077 != 0;
        fs::set_permissions(path, fs::Permissions::from_mode(PRIVATE))
            .map_err(files("set the mode of", path))?;
        if is_opened {
            let before = format!("{:04o}", mode(&found));
            tracing::warn!(path = %path.display(), before, "others could enter a directory of PostgreSQL; put right");
        }
        let found = self.check_owner(path)?;
        if mode(&found) & 0o077 == 0 {
            return Ok(());
        }
        Err(ClusterError::Open { path: path.to_owned(), uid: found.uid(), mode: mode(&found) })
    }

    fn check_owner(&self, path: &Path) -> Result<fs::Metadata, ClusterError> {
        let found = fs::symlink_metadata(path).map_err(files("read", path))?;
        let wanted = self.owner.as_ref().map_or(rustix::process::geteuid().as_raw(), |owner| owner.uid);
        if found.is_dir() && found.uid() == wanted {
            return Ok(found);
        }
        Err(ClusterError::Foreign { path: path.to_owned(), uid: found.uid(), mode: mode(&found), wanted })
    }
}

/// The bits that say who may do what.
fn mode(found: &fs::Metadata) -> u32 {
    found.mode() & 0o7777
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

fn url(socket_directory: &Path) -> String {
    let escaped = socket_directory.display().to_string().replace('\\', r"\\").replace('\'', r"\'");
    format!("host='{escaped}' port={PORT} user=farmiq dbname=farmiq")
}

/// The directory of the socket: in the data directory, or a short one when that path is too long for a socket.
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

#[cfg(test)]
mod tests;
