//! `up` looks after its PostgreSQL: whatever happens to it, and wherever the box runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use super::box_under_test::{BoxUnderTest, children_of, data_dir, send};

/// What SIGTERM may take at most.
const STOP_MAX: Duration = Duration::from_secs(10);

#[test]
fn a_killed_server_is_started_again_and_nothing_is_lost() {
    let up = BoxUnderTest::start();
    up.until_ready();
    up.let_device_in();
    let is_over = AtomicBool::new(false);
    let acknowledged = std::thread::scope(|scope| {
        let publishers: Vec<_> = (0..4)
            .map(|publisher| {
                let (up, is_over) = (&up, &is_over);
                scope.spawn(move || {
                    let numbers = (0..).take_while(|_| !is_over.load(Ordering::Relaxed));
                    let ids = numbers.map(|number| format!("e-{publisher}-{number}"));
                    ids.filter(|id| up.store_reading(id)).collect::<Vec<_>>()
                })
            })
            .collect();
        for _ in 0..3 {
            let before = readings(&up);
            up.until("stored more", || readings(&up) > before);
            let killed = up.kill_postmaster();
            let is_another = || up.postmaster().is_some_and(|pid| pid != killed);
            up.until("started again", || {
                is_another() && up.get("/api/ready").is_some_and(|(status, _)| status == 200)
            });
        }
        is_over.store(true, Ordering::Relaxed);
        publishers.into_iter().flat_map(|publisher| publisher.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(!acknowledged.is_empty());
    let stored = up.ask("SELECT string_agg(event_id, ' ') FROM telemetry_raw");
    let stored: std::collections::HashSet<_> = stored.split(' ').collect();
    let lost: Vec<_> = acknowledged.iter().filter(|id| !stored.contains(id.as_str())).collect();
    assert!(lost.is_empty(), "{} of {} acknowledged are lost: {lost:?}", lost.len(), acknowledged.len());
    let (status, took, said) = up.stop();
    assert!(status.code() == Some(0) && took < STOP_MAX, "{status} after {took:?}: {said}");
    assert_eq!(said.matches("PostgreSQL ended, starting it again").count(), 3, "{said}");
    assert!(said.contains("SIGKILL"), "the reason is not told: {said}");
}

#[test]
fn a_box_knows_its_disk_and_says_once_that_it_is_not_ready_and_once_that_it_is_again() {
    let up = BoxUnderTest::start();
    up.until_ready();
    let metric =
        |line: &str| up.get("/metrics").is_some_and(|(_, text)| text.lines().any(|is| is.starts_with(line)));
    up.until("the volume of the database shown", || metric("disk_used_ratio{volume=\"db\"} 0."));
    assert!(metric("engine_ready 1"));
    let killed = up.kill_postmaster();
    up.until("seen as not ready", || up.get("/api/ready").is_some_and(|(status, _)| status == 503));
    up.until("started again", || up.postmaster().is_some_and(|pid| pid != killed));
    up.until_ready();
    let (_, _, said) = up.stop();
    // Both were asked for many times.
    assert_eq!(said.matches("not ready any more").count(), 1, "{said}");
    assert_eq!(said.matches("ready again").count(), 1, "{said}");
    assert!(!said.contains("request answered"), "{said}");
}

#[test]
fn a_user_without_a_name_is_told_what_to_do() {
    let wrapper = ["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups"];
    if !rustix::process::geteuid().is_root() || !is_allowed(&wrapper) {
        return;
    }
    let place = data_dir();
    std::os::unix::fs::chown(place.path(), Some(54321), Some(54321)).unwrap();
    let program = [env!("CARGO_BIN_EXE_farmiq-edge"), "up", "--data-dir", place.path().to_str().unwrap()];
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).args(program).env_clear().env("PATH", "/usr/bin:/bin");
    let output =
        command.args(["--http-listen", "127.0.0.1:0", "--mqtt-listen", "127.0.0.1:0"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("uid 54321, which has no line in /etc/passwd") && said.contains("useradd --system"),
        "{said}"
    );
}

/// How many readings it says it has; none while its database is away.
fn readings(up: &BoxUnderTest) -> u64 {
    let stats = up.get("/api/v1/telemetry/stats?tenant_id=t-001").map(|(_, body)| body).unwrap_or_default();
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap_or_default();
    stats["total_readings"].as_u64().unwrap_or(0)
}

#[test]
fn http_answers_before_the_database_is_there_and_says_what_it_waits_for() {
    let up = BoxUnderTest::start();
    up.until("alive", || up.get("/api/health").is_some_and(|(status, _)| status == 200));
    // HTTP is up before it is known that the database is still to be made.
    up.until("making its database", || {
        let (status, body) = up.get("/api/ready").unwrap();
        assert_eq!(status, 503, "{body}");
        body.contains(r#""waits_for":"initdb""#)
    });
    let health = |arguments: &[&str]| {
        let output = up.program(&[&["health"], arguments].concat()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(health(&[]), (Some(0), "healthy\n".to_owned()));
    let (code, line) = health(&["--ready"]);
    assert!(code == Some(1) && line.contains("503 Service Unavailable, it waits for: "), "{line}");
    up.until_ready();
    assert_eq!(health(&["--ready"]), (Some(0), "ready\n".to_owned()));
    let (status, _, said) = up.stop();
    assert_eq!(status.code(), Some(0), "{said}");
}

#[test]
fn health_says_that_nobody_answers() {
    let output = super::farmiq_edge(&["health", "--http-listen", "127.0.0.1:1"]).output().unwrap();
    let line = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.code() == Some(1) && line.starts_with("no engine answers on 127.0.0.1:1: "),
        "{line}"
    );
}

#[test]
fn a_signal_while_the_database_is_made_ends_the_program_in_order() {
    let up = BoxUnderTest::start();
    up.until("making its database", || up.get("/api/ready").is_some_and(|(_, body)| body.contains("initdb")));
    let data_dir = up.data_dir();
    let (status, took, said) = up.stop();
    assert!(status.code() == Some(0) && took < STOP_MAX, "{status} after {took:?}: {said}");
    let again = BoxUnderTest::start_in(data_dir, &[]);
    again.until_ready();
    let (status, _, said) = again.stop();
    assert_eq!(status.code(), Some(0), "{said}");
}

#[test]
fn a_signal_while_the_server_recovers_ends_the_program_in_order() {
    let up = BoxUnderTest::start();
    up.until_ready();
    up.ask("CREATE TABLE much AS SELECT n, repeat('x', 200) AS text FROM generate_series(1, 400000) n");
    let server = up.postmaster().expect("PostgreSQL runs");
    let data_dir = up.kill();
    send(server, Signal::KILL);
    let again = BoxUnderTest::start_in(data_dir, &[]);
    again.until("recovering", || again.get("/api/ready").is_some_and(|(_, body)| body.contains("recovery")));
    let data_dir = again.data_dir();
    let (status, took, said) = again.stop();
    assert!(status.code() == Some(0) && took < STOP_MAX, "{status} after {took:?}: {said}");
    let last = BoxUnderTest::start_in(data_dir, &[]);
    last.until_ready();
    assert_eq!(last.ask("SELECT count(*) FROM much"), "400000");
    let (status, _, said) = last.stop();
    assert_eq!(status.code(), Some(0), "{said}");
}

#[test]
fn a_signal_while_the_server_cannot_start_ends_the_program_in_order() {
    let up = BoxUnderTest::start();
    up.until_ready();
    // Only a file that a server reads at its start, so that the one that runs goes on until it is killed.
    let control = up.cluster().join("global/pg_control");
    let hidden = up.cluster().join("global/pg_control.hidden");
    fs::rename(&control, &hidden).unwrap();
    up.kill_postmaster();
    up.until("complaining", || up.said().contains("PostgreSQL does not start, trying again"));
    let ready = up.get("/api/ready").unwrap();
    assert_eq!((ready.0, up.get("/api/health").unwrap().0), (503, 200), "{}", ready.1);
    let data_dir = up.data_dir();
    let (status, took, said) = up.stop();
    assert!(status.code() == Some(0) && took < STOP_MAX, "{status} after {took:?}: {said}");
    assert!(said.contains("pg_control"), "the reason is not told: {said}");

    // And when a person has helped, it goes on by itself.
    let again = BoxUnderTest::start_in(data_dir, &[]);
    again.until("complaining", || again.said().contains("PostgreSQL does not start, trying again"));
    fs::rename(&hidden, &control).unwrap();
    again.until_ready();
    let (status, _, said) = again.stop();
    assert_eq!(status.code(), Some(0), "{said}");
}

#[test]
fn settings_that_postgres_refuses_end_the_program_with_the_reason() {
    let up = BoxUnderTest::start();
    up.until_ready();
    let (conf, data_dir) = (up.cluster().join("postgresql.conf"), up.data_dir());
    up.stop();
    let mut text = fs::read_to_string(&conf).unwrap();
    text.push_str("no_such_setting = on\n");
    fs::write(&conf, text).unwrap();
    let output = super::farmiq_edge(&["up", "--data-dir", data_dir.path().to_str().unwrap()])
        .args(["--http-listen", "127.0.0.1:0", "--mqtt-listen", "127.0.0.1:0"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let reason = r#"farmiq-edge: run the private database: postgres failed: unrecognized configuration parameter "no_such_setting""#;
    assert!(said.replace("LOG:  ", "").contains(reason), "{said}");
}

#[test]
fn a_volume_that_was_handed_to_a_group_and_a_torn_file_do_not_stop_the_next_start() {
    let up = BoxUnderTest::start();
    up.until_ready();
    let (data_dir, cluster) = (up.data_dir(), up.cluster());
    up.stop();
    let path = data_dir.path().to_str().unwrap();
    for command in [
        &["chmod", "-R", "g+rwX", path][..],
        &["find", path, "-type", "d", "-exec", "chmod", "g+s", "{}", "+"],
    ] {
        assert!(Command::new(command[0]).args(&command[1..]).status().unwrap().success());
    }
    fs::write(cluster.join("postmaster.pid"), "").unwrap();
    let again = BoxUnderTest::start_in(data_dir, &[]);
    again.until_ready();
    assert_eq!(fs::metadata(&cluster).unwrap().permissions().mode() & 0o7777, 0o700);
    let (status, _, said) = again.stop();
    assert_eq!(status.code(), Some(0), "{said}");
}

#[test]
fn as_the_first_process_of_a_container_it_buries_orphans_and_ends_in_order() {
    let wrapper = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    if !is_allowed(&wrapper) {
        return eprintln!("skipped: this user may not make pid namespaces");
    }
    let up = BoxUnderTest::start_in(data_dir(), &wrapper);
    up.until_ready();
    let first = up.program_id();
    let [engine] = children_of(first)[..] else { panic!("the first process has one child") };
    let server = children_of(engine)[0];
    send(server, Signal::KILL);
    up.until("started again", || children_of(engine).iter().any(|child| *child != server));
    up.until_ready();
    up.until("rid of its zombies", || children_of(first) == [engine]);
    let (status, took, said) = up.stop();
    assert!(status.code() == Some(0) && took < STOP_MAX, "{status} after {took:?}: {said}");
}

#[test]
fn without_the_right_to_look_at_other_users_processes_a_living_server_is_adopted() {
    let wrapper = ["setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"];
    if !rustix::process::geteuid().is_root() || !is_allowed(&wrapper) {
        return eprintln!("skipped: only root can give a capability up");
    }
    let up = BoxUnderTest::start();
    up.until_ready();
    let server = up.postmaster();
    let again = BoxUnderTest::start_in(up.kill(), &wrapper);
    again.until_ready();
    assert_eq!(again.postmaster(), server, "the living server was not adopted");
    again.kill_postmaster();
    again.until("started again", || again.postmaster().is_some_and(|pid| Some(pid) != server));
    again.until_ready();
    let (status, took, said) = again.stop();
    assert!(status.code() == Some(0) && took < STOP_MAX, "{status} after {took:?}: {said}");
}

/// Whether a command may run another one here.
fn is_allowed(wrapper: &[&str]) -> bool {
    let status = Command::new(wrapper[0]).args(&wrapper[1..]).arg("true").status();
    status.is_ok_and(|status| status.success())
}

#[test]
fn in_a_small_container_the_server_takes_its_share_and_no_more() {
    let Some(group) = MemoryGroup::make(512) else {
        return eprintln!("skipped: this user may not make groups that limit memory");
    };
    let up = BoxUnderTest::start_in(data_dir(), &group.wrapper());
    up.until_ready();
    assert_eq!(up.ask("SHOW shared_buffers"), "64MB");
    up.ask("CREATE TABLE much AS SELECT n, repeat('x', 200) AS text FROM generate_series(1, 400000) n");
    assert_eq!(up.ask("SELECT count(DISTINCT text) FROM much"), "1");
    let (status, took, said) = up.stop();
    assert!(status.code() == Some(0) && took < STOP_MAX, "{status} after {took:?}: {said}");
    assert!(!said.contains("PostgreSQL ended"), "{said}");
}

/// A control group whose processes have so much memory together.
struct MemoryGroup {
    path: PathBuf,
    enter: String,
}

impl MemoryGroup {
    fn make(limit_mib: u64) -> Option<Self> {
        let name = format!("farmiq-test-{}", std::process::id());
        [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")]
            .into_iter()
            .find_map(|(tree, limit)| {
                let path = Path::new(tree).join(&name);
                fs::create_dir(&path).ok()?;
                let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", path.display());
                let group = Self { path, enter };
                // Writing makes the file in a directory that is no group.
                let limit = group.path.join(limit);
                (limit.exists() && fs::write(limit, (limit_mib << 20).to_string()).is_ok()).then_some(group)
            })
    }

    fn wrapper(&self) -> [&str; 4] {
        ["sh", "-c", &self.enter, "sh"]
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // It cannot be removed while anything runs in it, which the test has told then.
        let _ = fs::remove_dir(&self.path);
    }
}

#[test]
fn a_hangup_has_keys_read_again_and_ends_nothing() {
    let data_dir = data_dir();
    let file = data_dir.path().join("edge.toml");
    let (before, after) = ("a-key-of-before-that-is-long-enough", "a-key-of-after-that-is-long-enough");
    let write = |key: &str, more: &str| {
        let keys = format!(
            r#"operator_keys = [{{ name = "ops", key = "{key}", role = "admin", tenants = ["*"] }}]"#
        );
        fs::write(&file, format!("[auth]\n{keys}\n{more}")).unwrap();
    };
    write(before, "");
    let config = format!("FARMIQ_CONFIG={}", file.display());
    let up = BoxUnderTest::start_in(data_dir, &["env", &config]);
    up.until("alive", || up.get("/api/health").is_some_and(|(status, _)| status == 200));
    up.signal(Signal::HUP);
    up.until("reading again while it starts", || up.said().contains("read the configuration again"));
    up.until_ready();
    let status = |key: &str| up.get_as("/metrics", key).map(|(status, _)| status);
    assert_eq!((status(before), status(after)), (Some(200), Some(401)));

    write(after, "[broker]\nconnections_max = 77\n");
    up.signal(Signal::HUP);
    up.until("taking up the key", || status(after) == Some(200));
    assert_eq!(status(before), Some(401));
    assert!(
        up.said().contains("broker.connections_max"),
        "what waits for a restart is not told: {}",
        up.said()
    );

    fs::write(&file, "[auth]\nadmin_enabled = 7\n").unwrap();
    up.signal(Signal::HUP);
    up.until("complaining", || up.said().contains("the one before stays in force"));
    assert_eq!(status(after), Some(200));
    let (status, _, said) = up.stop();
    assert_eq!(status.code(), Some(0), "{said}");
}
