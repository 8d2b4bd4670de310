//! Another program in the place of the installed one: taken up, refused, put back, and cut off anywhere.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::Signal;
use tempfile::TempDir;
use tests::engine::{binary, get, process_id};
use tests::postgres::Database;
use tests::settings::Settings;
use tests::wait::until;
use tokio::process::{Child, Command};

/// Starts the installed program again, as a service manager would. With a number in `hold`, the call of that number waits
/// before it does anything, until the file is gone or its caller is.
const RESTART: &str = r#"
cd "$(dirname "$0")"
call=$(( $(cat calls 2>/dev/null || echo 0) + 1 )); echo $call >calls
while [ "$(cat hold 2>/dev/null)" = $call ]; do [ -d /proc/$PPID ] || exit 1; sleep 0.05; done
if [ -f pid ]; then
    kill -TERM "$(cat pid)" 2>/dev/null
    while readlink "/proc/$(cat pid)/exe" >/dev/null; do sleep 0.05; done
fi
env -i sh -c 'set -a; . ./variables; exec setsid ./farmiq-edge run' >>log 2>&1 </dev/null &
echo $! >pid
"#;

/// A box with an installed program that runs.
struct Site {
    _db: Database,
    settings: Settings,
    home: TempDir,
}

/// How a command of the program ended.
struct Said {
    is_success: bool,
    text: String,
}

impl Site {
    async fn start() -> Self {
        let db = Database::fresh().await;
        let site = Self {
            settings: Settings::of(&db.url),
            _db: db,
            home: tempfile::tempdir().expect("a directory"),
        };
        fs::copy(binary(), site.program()).expect("a copy of the program");
        let lines: Vec<String> =
            site.settings.variables().map(|(name, value)| format!("{name}='{value}'\n")).collect();
        fs::write(site.at("variables"), lines.concat()).expect("a file");
        fs::write(site.at("restart"), RESTART).expect("a file");
        let started = Command::new("sh").arg(site.at("restart")).status().await.expect("sh");
        assert!(started.success());
        until("the engine is ready", async || site.is_ready().await).await;
        site
    }

    fn at(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn program(&self) -> PathBuf {
        self.at("farmiq-edge")
    }

    /// The same program with another checksum.
    fn another(&self, name: &str) -> PathBuf {
        let path = self.at(name);
        fs::copy(binary(), &path).expect("a copy of the program");
        let mut file = fs::File::options().append(true).open(&path).expect("a file");
        std::io::Write::write_all(&mut file, name.as_bytes()).expect("a longer file");
        path
    }

    /// A program that does as the real one does, but for one command.
    fn broken(&self, command: &str) -> PathBuf {
        let path = self.at("broken");
        let real = binary().display().to_string();
        let script = format!(
            "#!/bin/sh\n[ \"$1\" != {command} ] || {{ echo 'as planned'; exit 2; }}\nexec {real} \"$@\"\n"
        );
        fs::write(&path, script).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
        path
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program());
        command.arg("update").args(arguments).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.kill_on_drop(true).stdin(Stdio::null());
        command
    }

    /// Runs `update`; a named program is restarted by the script, a cut-off update knows it.
    async fn update(&self, arguments: &[&str]) -> Said {
        let restart = format!("sh {}", self.at("restart").display());
        let patience = ["--ready-seconds", "30", "--steady-seconds", "1", "--restart", &restart];
        let all = if arguments.is_empty() { vec![] } else { [arguments, &patience].concat() };
        let output = self.command(&all).output().await.expect("the program can be run");
        let text = [output.stdout, output.stderr].concat();
        Said { is_success: output.status.success(), text: String::from_utf8_lossy(&text).into_owned() }
    }

    /// Starts `update` without waiting for it.
    fn begin(&self, from: &Path) -> Child {
        let restart = format!("sh {}", self.at("restart").display());
        let from = from.display().to_string();
        let mut command =
            self.command(&[&from, "--ready-seconds", "30", "--steady-seconds", "1", "--restart", &restart]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program can be run")
    }

    /// Has the restart of this number, counted from the start of the box, wait.
    fn hold(&self, call: u32) {
        fs::write(self.at("hold"), call.to_string()).expect("a file");
    }

    /// How often it was restarted so far, the start counted.
    fn calls(&self) -> u32 {
        fs::read_to_string(self.at("calls"))
            .ok()
            .and_then(|calls| calls.trim().parse().ok())
            .unwrap_or_default()
    }

    fn note(&self) -> String {
        fs::read_to_string(self.at("farmiq-edge.update")).unwrap_or_default()
    }

    async fn is_ready(&self) -> bool {
        let is_open = tokio::net::TcpStream::connect(self.settings.http).await.is_ok();
        is_open && get(self.settings.http, "/api/ready").await.0 == 200
    }

    /// Checks that this program is installed, runs and is ready.
    async fn check_runs(&self, program: &Path) {
        assert!(is_same(&self.program(), program), "another program than {} is installed", program.display());
        let pid = self.pid().expect("an engine was started");
        let running = fs::metadata(format!("/proc/{pid}/exe")).expect("it runs");
        let installed = fs::metadata(self.program()).expect("it is there");
        assert_eq!(running.ino(), installed.ino(), "the running program is not the installed one");
        until("it is ready", async || self.is_ready().await).await;
        assert_eq!(self.note(), "", "the note is still there");
    }

    fn pid(&self) -> Option<u32> {
        fs::read_to_string(self.at("pid")).ok()?.trim().parse().ok()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            // It may be gone.
            let _ = rustix::process::kill_process(process_id(pid), Signal::KILL);
        }
        if std::thread::panicking() {
            let log = fs::read_to_string(self.at("log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(20).collect();
            #[expect(clippy::print_stderr, reason = "it explains the failure")]
            {
                eprintln!("--- the engine's last lines, newest first\n{}\n---", tail.join("\n"));
            }
        }
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    fs::read(one).expect("a file") == fs::read(other).expect("a file")
}

/// A bundle with this program, packed and signed; returns it and who may sign.
async fn bundle(site: &Site, program: &Path) -> (PathBuf, PathBuf) {
    let script = r#"
cd "$1"; rm -rf bundle bundle.tar.zst; mkdir -p bundle/program; cp "$2" bundle/program/farmiq-edge
[ -f key ] || ssh-keygen -q -t ed25519 -N '' -C barn -f key
echo "releases $(cut -d' ' -f1,2 key.pub)" >signers
cd bundle && find . -type f ! -name SHA256SUMS -print0 | xargs -0 sha256sum >SHA256SUMS
ssh-keygen -q -Y sign -n farmiq -f ../key SHA256SUMS 2>/dev/null
cd .. && tar -cf - bundle | zstd -q -1 -o bundle.tar.zst
"#;
    let mut command = Command::new("bash");
    command.args(["-euc", script, "bundle"]).arg(site.home.path()).arg(program);
    assert!(command.status().await.expect("bash").success());
    (site.at("bundle.tar.zst"), site.at("signers"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_program_takes_over_and_the_old_one_comes_back_when_it_is_asked_for() {
    let site = Site::start().await;
    let new = site.another("new-release");
    let said = site.update(&[text(&new)]).await;
    assert!(said.is_success && said.text.contains("runs and is ready"), "{}", said.text);
    site.check_runs(&new).await;
    assert!(is_same(&site.at("farmiq-edge.old"), &binary()), "the old one is not kept");
    let said = site.update(&[text(&new)]).await;
    assert!(said.is_success && said.text.contains("is in place already"), "{}", said.text);
    let said = site.update(&["--back"]).await;
    assert!(said.is_success, "{}", said.text);
    site.check_runs(&binary()).await;
    assert!(is_same(&site.at("farmiq-edge.old"), &new), "the newer one is not kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_taken_when_its_checksums_and_its_signer_are_right() {
    let site = Site::start().await;
    let new = site.another("new-release");
    let (packed, signers) = bundle(&site, &new).await;
    let other = site.at("other-signers");
    fs::write(
        &other,
        "releases ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n",
    )
    .unwrap();
    let said = site.update(&[text(&packed), "--signer", text(&other)]).await;
    assert!(!said.is_success && said.text.contains("the signer is not one of"), "{}", said.text);
    let unpacked = site.at("bundle");
    let list = fs::read_to_string(unpacked.join("SHA256SUMS")).unwrap();
    fs::write(unpacked.join("SHA256SUMS"), list.replacen(['0', '1', '2', '3'], "4", 1)).unwrap();
    let said = site.update(&[text(&unpacked), "--signer", text(&signers)]).await;
    assert!(!said.is_success && said.text.contains("its signature is wrong"), "{}", said.text);
    fs::write(unpacked.join("SHA256SUMS"), list).unwrap();
    let mut program = fs::read(unpacked.join("program/farmiq-edge")).unwrap();
    *program.last_mut().unwrap() ^= 1;
    fs::write(unpacked.join("program/farmiq-edge"), program).unwrap();
    let said = site.update(&[text(&unpacked), "--signer", text(&signers)]).await;
    assert!(!said.is_success && said.text.contains("is not what was packed"), "{}", said.text);
    site.check_runs(&binary()).await;
    let said = site.update(&[text(&packed), "--signer", text(&signers)]).await;
    assert!(said.is_success, "{}", said.text);
    site.check_runs(&new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_fit_changes_nothing_and_one_that_does_not_get_ready_gives_way() {
    let site = Site::start().await;
    let pid = site.pid();
    for (command, check) in
        [("--version", "(--version)"), ("check-config", "(check-config)"), ("doctor", "(doctor)")]
    {
        let said = site.update(&[text(&site.broken(command))]).await;
        let is_told = said.text.contains(check) && said.text.contains("as planned");
        assert!(!said.is_success && is_told, "{command}: {}", said.text);
    }
    let said = site.update(&[text(&site.another("promised")), "--sha256", "00ff"]).await;
    assert!(!said.is_success && said.text.contains("not the one that was named"), "{}", said.text);
    assert_eq!(site.pid(), pid, "it was restarted");
    site.check_runs(&binary()).await;
    assert!(!site.at("farmiq-edge.new").exists() && !site.at("farmiq-edge.old").exists());

    let broken = site.broken("run");
    let said = site.update(&[text(&broken)]).await;
    assert!(!said.is_success && said.text.contains("the old one is back and ready"), "{}", said.text);
    site.check_runs(&binary()).await;
    assert!(is_same(&site.at("farmiq-edge.failed"), &broken), "the one that failed is not kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_comes_before_the_update_and_without_one_nothing_is_changed() {
    let site = Site::start().await;
    let pid = site.pid();
    // No directory for copies is set.
    let said = site.update(&[text(&site.another("newer")), "--backup"]).await;
    assert!(!said.is_success && said.text.contains("the backup before the update failed"), "{}", said.text);
    assert_eq!(site.pid(), pid, "it was restarted");
    site.check_runs(&binary()).await;
    assert!(
        !site.at("farmiq-edge.new").exists() && site.note().is_empty(),
        "something is left of the update"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_is_killed_anywhere_is_finished_by_the_next() {
    let site = Site::start().await;
    let new = site.another("new-release");
    // While the new program is copied or checked.
    let mut update = site.begin(&new);
    until("it is staged", async || site.at("farmiq-edge.new").exists()).await;
    update.kill().await.unwrap();
    let said = site.update(&[]).await;
    assert!(!said.is_success && said.text.contains("no update was cut off"), "{}", said.text);
    site.check_runs(&binary()).await;
    // While it is in place and not yet started.
    site.hold(2);
    let mut update = site.begin(&new);
    until("it restarts", async || site.calls() == 2).await;
    assert!(is_same(&site.program(), &new) && !site.note().is_empty());
    update.kill().await.unwrap();
    assert!(site.is_ready().await, "the old program runs on");
    let said = site.update(&[]).await;
    assert!(said.is_success && said.text.contains("runs and is ready"), "{}", said.text);
    site.check_runs(&new).await;
    // Between the two names: the note is there, the swap is not.
    let calls = site.calls();
    site.hold(calls + 1);
    let third = site.another("third-release");
    let mut update = site.begin(&third);
    until("it restarts", async || site.calls() == calls + 1).await;
    update.kill().await.unwrap();
    fs::rename(site.program(), site.at("farmiq-edge.new")).unwrap();
    fs::copy(site.at("farmiq-edge.old"), site.program()).unwrap();
    let said = site.update(&[]).await;
    assert!(said.is_success, "{}", said.text);
    site.check_runs(&third).await;
    // While the old one comes back.
    let calls = site.calls();
    site.hold(calls + 2);
    let mut update = site.begin(&site.broken("run"));
    until("the old one comes back", async || site.calls() == calls + 2).await;
    assert!(site.note().contains("\"back\""), "{}", site.note());
    update.kill().await.unwrap();
    let said = site.update(&[]).await;
    assert!(!said.is_success && said.text.contains("the old one is back and ready"), "{}", said.text);
    site.check_runs(&third).await;
}
