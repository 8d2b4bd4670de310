//! Devices written with paho-mqtt, the client library of the real ones.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinSet;

use crate::device::temperature_topic;
use crate::load::Ledger;
use crate::python::program;

/// Clients of the library in a process of their own, one per device `d-0`, `d-1`, …
pub struct Paho {
    /// What they offered and what was acknowledged.
    pub ledger: Arc<Ledger>,
    child: Child,
    reader: JoinSet<()>,
}

impl Paho {
    /// Starts the clients, which publish `readings` each at QoS 1, so many per second.
    ///
    /// # Panics
    /// When the library is not installed.
    #[must_use]
    pub fn start(mqtt: SocketAddr, clients: usize, readings: usize, per_second: f64) -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let topic = temperature_topic("{device}");
        let mut child = Command::new(program("python3"))
            .arg(here.join("devices.py"))
            .args([&mqtt.ip().to_string(), &mqtt.port().to_string(), &topic])
            .args([clients.to_string(), readings.to_string(), per_second.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("Python can be started");
        let ledger = Arc::new(Ledger::default());
        let output = child.stdout.take().expect("it was piped");
        let mut reader = JoinSet::new();
        reader.spawn(read(output, Arc::clone(&ledger)));
        Self { ledger, child, reader }
    }

    /// Waits until every reading was acknowledged and the clients have left.
    ///
    /// # Panics
    /// When a client fails.
    pub async fn finish(mut self) -> Arc<Ledger> {
        while let Some(ended) = self.reader.join_next().await {
            ended.expect("the output can be read");
        }
        let status = self.child.wait().await.expect("a child can be waited for");
        assert!(status.success(), "the clients ended with {status}");
        self.ledger
    }
}

/// Each line is a word and an event id.
async fn read(output: ChildStdout, ledger: Arc<Ledger>) {
    let mut lines = BufReader::new(output).lines();
    while let Some(line) = lines.next_line().await.expect("the clients write text") {
        match line.split_once(' ') {
            Some(("offered", id)) => ledger.offered(id),
            Some(("acked", id)) => ledger.acked(id),
            Some(_) | None => panic!("the clients wrote {line:?}"),
        }
    }
}
