//! The program as a process: what it prints, how it ends, and that it leaves nothing running.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

#[path = "program/box_under_test.rs"]
mod box_under_test;
#[path = "program/postgres.rs"]
mod postgres;

fn farmiq_edge(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farmiq-edge"));
    command.args(arguments).env_clear().env("PATH", "/usr/bin:/bin");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn a_mistake_in_the_configuration_ends_with_2_and_says_what_would_be_right() {
    let output = farmiq_edge(&["run"]).env("FARMIQ_OUTBOX__LEASE_SECOND", "1").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("did you mean FARMIQ_OUTBOX__LEASE_SECONDS?") && text.contains("database.url"),
        "{text}"
    );
}

#[test]
fn a_model_package_is_measured_or_what_is_wrong_with_it_is_said() {
    let check =
        |arguments: &[&str]| farmiq_edge(&[&["model", "check"], arguments].concat()).output().unwrap();
    let output = check(&["--workers", "1", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["version"].as_str().unwrap().starts_with("demo-"), "{report}");
    let [run] = report["runs"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert!(run["images"].as_u64() >= Some(1) && run["image_ms"].as_f64() > Some(0.0), "{report}");

    for (arguments, expected) in [
        (&["/nowhere.onnx"][..], "/nowhere.onnx: read the network /nowhere.onnx: No such file"),
        (&["--image", "/proc/version"], "/proc/version: the file is no JPEG, PNG or WebP image"),
    ] {
        let output = check(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn check_config_shows_what_is_in_effect_without_secrets() {
    let output =
        farmiq_edge(&["check-config"]).env("DATABASE_URL", "postgres://u:hush@h/d").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("# env DATABASE_URL") && !text.contains("hush"), "{text}");
}

#[test]
fn up_brings_its_own_database_and_a_signal_stops_everything_in_order() {
    let data_dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(data_dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let place = data_dir.path().to_str().unwrap();
    let listen = ["--http-listen", "127.0.0.1:0", "--mqtt-listen", "127.0.0.1:0"];
    let mut child = farmiq_edge(&[&["up", "--data-dir", place][..], &listen].concat()).spawn().unwrap();
    let mut greeting = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(greeting.any(|line| line.contains("private: psql")), "no greeting");
    let pid = rustix::process::Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let rest: Vec<_> = greeting.collect();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{rest:?}");
    assert!(!data_dir.path().join("postgres/postmaster.pid").exists(), "PostgreSQL still runs");
}
