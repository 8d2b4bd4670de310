//! Programs that speak in lines of JSON: a siren, an SMTP server.

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinSet;

use crate::python::program;
use crate::wait::until;

/// A program of `tests/clients`; it is killed with the test.
pub struct Told {
    said: Arc<Mutex<Vec<Value>>>,
    stdin: ChildStdin,
    child: Child,
    _reader: JoinSet<()>,
}

impl Told {
    /// Starts one.
    ///
    /// # Panics
    /// When Python is not installed.
    #[must_use]
    pub fn start(name: &str, arguments: &[&str]) -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name);
        let mut child = Command::new(program("python3"))
            .arg(file)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("Python can be started");
        let (stdin, stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let said: Arc<Mutex<Vec<Value>>> = Arc::default();
        let kept = Arc::clone(&said);
        let mut reader = JoinSet::new();
        reader.spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let said = serde_json::from_str(&line).expect("a line of JSON");
                kept.lock().expect("nobody panics").push(said);
            }
        });
        Self { said, stdin, child, _reader: reader }
    }

    /// Tells it a word.
    ///
    /// # Panics
    /// When it has ended.
    pub async fn tell(&mut self, word: &str) {
        self.stdin.write_all(format!("{word}\n").as_bytes()).await.expect("it lives");
    }

    /// What it said of this kind, so far.
    ///
    /// # Panics
    /// When a reader has panicked.
    #[must_use]
    pub fn said(&self, event: &str) -> Vec<Value> {
        let said = self.said.lock().expect("nobody panics");
        said.iter().filter(|said| said["event"] == event).cloned().collect()
    }

    /// Waits until it has said so many things of this kind, and returns the last of them.
    ///
    /// # Panics
    /// When it never does.
    pub async fn heard(&self, event: &str, count: usize) -> Value {
        until(&format!("it says {event} {count} times"), async || self.said(event).len() >= count).await;
        self.said(event)[count - 1].clone()
    }

    /// Kills it.
    ///
    /// # Panics
    /// When it has ended by itself.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("it lives");
    }
}
