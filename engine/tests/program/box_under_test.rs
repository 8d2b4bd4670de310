//! A whole box: the program with everything embedded, on an address of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use schema::clock::Clock;

/// Longest wait for anything: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// A box, and what it said so far.
pub(crate) struct BoxUnderTest {
    data_dir: Arc<tempfile::TempDir>,
    address: Ipv4Addr,
    child: Child,
    said: Arc<Mutex<String>>,
    listeners: Vec<JoinHandle<()>>,
}

/// A data directory that the server's user can reach, as root has to run it as another one.
pub(crate) fn data_dir() -> Arc<tempfile::TempDir> {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).expect("its mode");
    Arc::new(directory)
}

impl BoxUnderTest {
    /// Starts one with a new data directory.
    pub(crate) fn start() -> Self {
        Self::start_in(data_dir(), &[])
    }

    /// Starts one in this directory, by this command before its own.
    pub(crate) fn start_in(data_dir: Arc<tempfile::TempDir>, wrapper: &[&str]) -> Self {
        // Each test is a process of its own, and so has an address of its own.
        let [_, high, middle, low] = std::process::id().to_be_bytes();
        let address = Ipv4Addr::new(127, 128 | high, middle, low);
        let program = [
            env!("CARGO_BIN_EXE_farmiq-edge"),
            "up",
            "--data-dir",
            data_dir.path().to_str().expect("a plain path"),
        ];
        let line = [wrapper, &program].concat();
        let mut command = Command::new(line[0]);
        command.args(&line[1..]).args(["--http-listen", &format!("{address}:3000")]);
        command.args(["--mqtt-listen", &format!("{address}:1883")]).env_clear();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("FARMIQ_AUTH__MODE", "compat");
        command.env("FARMIQ_METRICS__STATSD_ADDRESS", "").env("FARMIQ_RETENTION__FREE_DISK_GB_MIN", "0");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program");
        let said = Arc::new(Mutex::new(String::new()));
        let (log, greeting) =
            (child.stdout.take().expect("its log"), child.stderr.take().expect("its greeting"));
        let listeners = vec![listen(log, Arc::clone(&said)), listen(greeting, Arc::clone(&said))];
        Self { data_dir, address, child, said, listeners }
    }

    pub(crate) fn data_dir(&self) -> Arc<tempfile::TempDir> {
        Arc::clone(&self.data_dir)
    }

    /// What it logged and showed so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().expect("no listener panics").clone()
    }

    /// Waits until something holds, and fails with what was said when it never does.
    pub(crate) fn until(&self, what: &str, mut holds: impl FnMut() -> bool) -> Duration {
        let since = Instant::now();
        while !holds() {
            assert!(since.elapsed() < PATIENCE, "never {what}; it said:\n{}", self.said());
            std::thread::yield_now();
        }
        since.elapsed()
    }

    pub(crate) fn until_ready(&self) -> Duration {
        self.until("ready", || self.get("/api/ready").is_some_and(|(status, _)| status == 200))
    }

    /// Asks over HTTP: the status and what comes with it; `None` when nobody answers.
    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        self.http(&format!("GET {path} HTTP/1.1\r\n"), "")
    }

    /// Asks over HTTP as the operator with this key.
    pub(crate) fn get_as(&self, path: &str, key: &str) -> Option<(u16, String)> {
        self.http(&format!("GET {path} HTTP/1.1\r\nx-api-key: {key}\r\n"), "")
    }

    /// Stores a reading; whether that was acknowledged.
    pub(crate) fn store_reading(&self, event_id: &str) -> bool {
        let now = Clock::system().now().to_rfc3339();
        let body = format!(
            r#"{{"events":[{{"event_id":"{event_id}","tenant_id":"t-001","device_id":"d-001","event_type":"telemetry.reading",
                "ts":"{now}","payload":{{"metric":"temperature","value":21.5,"unit":"celsius"}}}}]}}"#
        );
        let head = "POST /api/v1/telemetry/readings HTTP/1.1\r\nx-tenant-id: t-001\r\ncontent-type: application/json\r\n";
        let answer = self.http(head, &body);
        answer.is_some_and(|(status, body)| status == 200 && body.contains(r#""ingested_count":1"#))
    }

    fn http(&self, head: &str, body: &str) -> Option<(u16, String)> {
        let address = SocketAddr::from((self.address, 3000));
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let length = body.len();
        write!(stream, "{head}host: box\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
            .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// A command of the program for this box.
    pub(crate) fn program(&self, arguments: &[&str]) -> Command {
        let mut command = super::farmiq_edge(arguments);
        command.env("FARMIQ_EDGE__DATA_DIR", self.data_dir.path());
        command.env("FARMIQ_HTTP__LISTEN", format!("{}:3000", self.address));
        command
    }

    /// Lets the device in that [`Self::store_reading`] speaks for.
    pub(crate) fn let_device_in(&self) {
        let device = ["--tenant", "t-001", "--farm", "f-001", "--barn", "b-001", "--device", "d-001"];
        let output = self.program(&[&["device", "add"][..], &device].concat()).output().expect("the program");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// What its private database answers.
    pub(crate) fn ask(&self, sql: &str) -> String {
        let socket = self.data_dir.path().join("socket");
        let url = format!("host={} user=farmiq dbname=farmiq", socket.display());
        let output = Command::new("psql").args([&url, "-XAtc", sql]).output().expect("psql");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    /// The directory of its cluster.
    pub(crate) fn cluster(&self) -> PathBuf {
        self.data_dir.path().join("postgres")
    }

    /// The process id of its PostgreSQL, once one runs.
    pub(crate) fn postmaster(&self) -> Option<u32> {
        let text = std::fs::read_to_string(self.cluster().join("postmaster.pid")).ok()?;
        text.lines().next()?.parse().ok()
    }

    /// Kills its PostgreSQL.
    pub(crate) fn kill_postmaster(&self) -> u32 {
        let pid = self.postmaster().expect("PostgreSQL runs");
        send(pid, Signal::KILL);
        pid
    }

    /// The process id of the program, inside of what it was started through.
    pub(crate) fn program_id(&self) -> u32 {
        let started = self.child.id();
        let name = std::fs::read_to_string(format!("/proc/{started}/comm")).expect("it runs");
        if name.trim() == "unshare" { children_of(started)[0] } else { started }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send(self.program_id(), signal);
    }

    /// Kills the program.
    pub(crate) fn kill(mut self) -> Arc<tempfile::TempDir> {
        self.child.kill().expect("it runs");
        self.child.wait().expect("a child of ours");
        Arc::clone(&self.data_dir)
    }

    /// Asks it to stop, and waits for that: how it ended, after how long, and all it said.
    pub(crate) fn stop(mut self) -> (ExitStatus, Duration, String) {
        let since = Instant::now();
        self.signal(Signal::TERM);
        let status = self.child.wait().expect("a child of ours");
        let took = since.elapsed();
        self.listeners.drain(..).for_each(|listener| listener.join().expect("no listener panics"));
        let said = self.said.lock().expect("no listener panics").clone();
        (status, took, said)
    }
}

impl Drop for BoxUnderTest {
    /// A test that failed leaves nothing running.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.child.kill();
            // The number may be one of another namespace, where it is somebody else's.
            let is_server = |pid: &u32| {
                std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == self.cluster())
            };
            let server = self.postmaster().filter(is_server);
            if let Some(pid) = server.and_then(|pid| Pid::from_raw(pid.try_into().ok()?)) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// Keeps what comes out of the program, line by line.
fn listen(from: impl Read + Send + 'static, said: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            said.lock().expect("no reader panics").push_str(&(line + "\n"));
        }
    })
}

pub(crate) fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.try_into().expect("a process id")).expect("a process id");
    kill_process(pid, signal).expect("it may be signaled");
}

/// The children of a process, also those that have ended and were not buried.
pub(crate) fn children_of(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children =
        tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    children
        .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}
