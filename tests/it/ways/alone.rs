//! Ways that need nobody: a program. Relays have no chip on this machine, and are tested behind the trait of their lines.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use actors::alarm::way::program::{Program, ProgramSettings};
use actors::alarm::way::{DETAIL_BYTES_MAX, Failure, Language, MessageKind};
use serde_json::Value;
use tests::wait::until;
use tokio::time::Instant;

use super::{message, only};

/// A program of the test.
pub(crate) fn script(path: &Path, lines: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{lines}\n")).expect("a file can be written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
}

fn settings(path: &Path) -> ProgramSettings {
    ProgramSettings {
        command: vec![
            path.display().to_string(),
            "two words".to_owned(),
            "$(touch /tmp/never); *".to_owned(),
        ],
        to: vec!["+66811112222".to_owned()],
        language: Language::Th,
        timeout_seconds: 5,
    }
}

#[tokio::test]
async fn a_program_gets_the_message_as_json_and_its_arguments_as_they_are() {
    let home = tempfile::tempdir().expect("a directory");
    let (path, got) = (home.path().join("send"), home.path().join("got"));
    script(
        &path,
        &format!(
            "printf '%s|' \"$@\" > {0}.arguments; cat > {0}; echo sent as 4711; echo odd >&2",
            got.display()
        ),
    );
    let ways = only(Program::new("sms", settings(&path)));
    assert!(ways.reach("sms").await.expect("it is there").contains("can be run"));
    let receipt = ways.tell("sms", &message(MessageKind::Raised)).await.expect("it is told");
    assert_eq!(receipt.detail, "sent as 4711\nodd");
    let input: Value = serde_json::from_slice(&std::fs::read(&got).expect("a file")).expect("JSON");
    assert_eq!(input["to"][0], "+66811112222");
    assert_eq!(input["headline"], "Barn 1: โรงเรือนร้อนเกินไป");
    assert!(input["short"].as_str().expect("text").chars().count() <= 70);
    assert_eq!((&input["message"]["rule"], &input["message"]["value"]), (&"house_hot".into(), &35.2.into()));
    let arguments = std::fs::read_to_string(home.path().join("got.arguments")).expect("a file");
    assert_eq!(arguments, "two words|$(touch /tmp/never); *|", "no shell has seen them");
}

#[tokio::test]
async fn a_program_that_fails_hangs_or_talks_too_much_is_told_from_one_that_works() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("send");
    let failed = async |lines: &str| {
        script(&path, lines);
        let settings = ProgramSettings { timeout_seconds: 1, ..settings(&path) };
        only(Program::new("sms", settings)).tell("sms", &message(MessageKind::Drill)).await
    };
    let error = failed("echo no modem >&2; exit 3").await.expect_err("it says so");
    assert!(error.failure == Failure::Refused && error.what.contains("no modem"), "{error}");
    let receipt = failed("head -c 100000 /dev/zero | tr '\\0' x").await.expect("it ends");
    assert_eq!(receipt.detail.len(), DETAIL_BYTES_MAX);
    // One that does not read what it is told, and ends well, was told.
    failed("exec 0<&-; exit 0").await.expect("it ends");

    let pid = home.path().join("pid");
    let began_at = Instant::now();
    let hanging = format!("sleep 600 & echo $! > {}; wait", pid.display());
    let error = failed(&hanging).await.expect_err("it hangs");
    assert!(error.failure == Failure::TimedOut && began_at.elapsed() < Duration::from_secs(4), "{error}");
    let child = std::fs::read_to_string(&pid).expect("it was started");
    until("what it has started is gone, too", async || {
        // Gone, or dead and not buried yet.
        let status = std::fs::read_to_string(format!("/proc/{}/stat", child.trim()));
        status.map_or(true, |status| status.contains(") Z "))
    })
    .await;
    std::fs::remove_file(&path).expect("it is there");
    let ways = only(Program::new("sms", settings(&path)));
    assert_eq!(
        ways.tell("sms", &message(MessageKind::Raised)).await.expect_err("none").failure,
        Failure::Broken
    );
    assert_eq!(ways.reach("sms").await.expect_err("none").failure, Failure::Broken);
}
