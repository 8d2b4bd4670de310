//! A program that carries the message, such as one that sends an SMS over a modem: JSON on its standard input, its
//! arguments from the settings, never a shell.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{DETAIL_BYTES_MAX, Failure, Language, Message, Receipt, Way, WayError, bounded};

/// Characters of an SMS that is sent in one piece, if all of them are of Unicode.
const SHORT_CHARS_MAX: usize = 70;

/// What a program is set to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgramSettings {
    /// The program, by its whole path, and its arguments.
    pub command: Vec<String>,
    /// Whom to tell, such as `["+66811112222"]`: handed to the program as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<String>,
    /// The language of the people.
    #[serde(default)]
    pub language: Language,
    /// How long it may run; then it is killed.
    #[serde(default = "timeout_seconds")]
    pub timeout_seconds: u64,
}

fn timeout_seconds() -> u64 {
    30
}

/// A program.
pub struct Program {
    name: String,
    settings: ProgramSettings,
}

impl Program {
    /// A way of this name.
    #[must_use]
    pub fn new(name: &str, settings: ProgramSettings) -> Self {
        Self { name: name.to_owned(), settings }
    }

    fn path(&self) -> Result<&Path, WayError> {
        let path = self.settings.command.first().map(Path::new).filter(|path| path.is_absolute());
        path.ok_or_else(|| {
            let what = "its command does not begin with the whole path of a program";
            WayError::new(&self.name, Failure::Broken, what, "write it such as [\"/usr/local/bin/send-sms\"]")
        })
    }

    fn input(&self, message: &Message) -> Vec<u8> {
        let language = self.settings.language;
        let headline = message.headline(language);
        let short: String = headline.chars().take(SHORT_CHARS_MAX).collect();
        let input = json!({
            "way": self.name,
            "to": self.settings.to,
            "language": language,
            "headline": headline,
            "short": short,
            "text": message.body(language),
            "message": message,
        });
        format!("{input}\n").into_bytes()
    }

    fn start(&self, path: &Path) -> Result<Child, WayError> {
        Command::new(path)
            .args(&self.settings.command[1..])
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LANG", "C.UTF-8")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            // Its children are in its group, and go with it when its time is over.
            .process_group(0)
            .spawn()
            .map_err(|error| {
                let what = format!("{} cannot be started: {error}", path.display());
                let advice = "see that it is there and that the user of the engine may run it";
                WayError::new(&self.name, Failure::Broken, what, advice)
            })
    }
}

/// The program and whatever it has started, until it ends by itself. It is killed when this is dropped before, also when the
/// whole telling is given up.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended in this moment.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Feeds the program and reads what it says; what it says beyond the bound is thrown away, so that it never waits for us.
async fn run(mut child: Child, input: Vec<u8>) -> std::io::Result<Output> {
    let (mut stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let Some(mut stdin) = stdin.take() {
            // Whoever does not want to know more has read enough.
            let _ = stdin.write_all(&input).await;
        }
    };
    let (status, (), stdout, stderr) = tokio::join!(child.wait(), feed, read(stdout), read(stderr));
    Ok(Output { status: status?, stdout, stderr })
}

async fn read(output: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let Some(mut output) = output else { return Vec::new() };
    let mut kept = Vec::new();
    let limit = u64::try_from(DETAIL_BYTES_MAX).unwrap_or(u64::MAX);
    // What cannot be read was not said.
    let _ = (&mut output).take(limit).read_to_end(&mut kept).await;
    let _ = tokio::io::copy(&mut output, &mut tokio::io::sink()).await;
    kept
}

fn said(output: &Output) -> String {
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
    bounded(&text.join("\n"))
}

#[async_trait]
impl Way for Program {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "program"
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(self.settings.timeout_seconds + 1)
    }

    async fn tell(&self, message: &Message) -> Result<Receipt, WayError> {
        let path = self.path()?;
        let child = self.start(path)?;
        let mut group = Group::of(&child);
        let run = run(child, self.input(message));
        let limit = Duration::from_secs(self.settings.timeout_seconds);
        let Ok(ended) = timeout(limit, run).await else {
            let what = format!("{} did not end within {} s and was killed", path.display(), limit.as_secs());
            let advice = "see whether its modem answers, or raise timeout_seconds";
            return Err(WayError::new(&self.name, Failure::TimedOut, what, advice));
        };
        group.0 = None;
        let output = ended.map_err(|error| {
            let what = format!("{}: {error}", path.display());
            WayError::new(&self.name, Failure::Broken, what, "look into the log of the system")
        })?;
        let detail = said(&output);
        if !output.status.success() {
            let what = format!("{} ended with {}: {detail}", path.display(), output.status);
            let advice = "run it by hand as the user of the engine, with a message on its standard input";
            return Err(WayError::new(&self.name, Failure::Refused, what, advice));
        }
        Ok(Receipt { way: self.name.clone(), detail, confirmed_by: None, latency_ms: 0 })
    }

    /// The program is there and may be run; whether its modem answers is known by a try.
    async fn reach(&self) -> Result<String, WayError> {
        let path: PathBuf = self.path()?.to_owned();
        match rustix::fs::access(&path, rustix::fs::Access::EXEC_OK) {
            Ok(()) => {
                Ok(format!("{} can be run; `farmiq-edge alarm try-way` tells the rest", path.display()))
            }
            Err(error) => {
                let what = format!("{}: {error}", path.display());
                let advice = "see that it is there and that the user of the engine may run it";
                Err(WayError::new(&self.name, Failure::Broken, what, advice))
            }
        }
    }
}
