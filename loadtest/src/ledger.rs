//! The ledger: one JSON line for each message of a run and what the broker said to it, for `verify` to judge by.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use schema::clock::Timestamp;

use crate::lines::{LineReader, LineWriter};

/// How long a compressed ledger keeps lines to itself at most.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// What became of a message, as far as its sender knows.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The broker took it over: it must not be lost.
    Acknowledged,
    /// The broker refused it for good: it must not be stored.
    Refused,
    /// It was sent and never answered, or sent at QoS 0: it may be stored or not.
    Unknown,
}

/// One message.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Entry {
    /// When the answer came, or when it was given up.
    pub at: Timestamp,
    /// Tenant, from the topic or the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    /// Device, from the topic or the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// Event id of the body; bodies without an envelope may have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    /// Topic.
    pub topic: String,
    /// Lower-case hex SHA-256 of the payload as it was sent.
    pub sha256: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Reason code of MQTT 5; 0 when there is none.
    #[serde(default)]
    pub reason_code: u8,
    /// Event type of the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
}

/// The hash of a payload as the ledger holds it.
#[must_use]
pub fn sha256(payload: &[u8]) -> String {
    hex::encode(Sha256::digest(payload))
}

/// A ledger under way, shared by everybody who publishes; without a file it takes notes of nothing.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Option<Arc<Mutex<Open>>>);

#[derive(Debug)]
struct Open {
    writer: Option<LineWriter>,
    flush_at: Instant,
}

impl Ledger {
    /// Opens the file, which is written further when it is there already.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self(None)) };
        let writer = Some(LineWriter::append(path).context("open the ledger")?);
        Ok(Self(Some(Arc::new(Mutex::new(Open { writer, flush_at: Instant::now() })))))
    }

    /// Whether somebody reads what is written.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Adds lines. What a plain file then holds stays, whatever happens to this process; a compressed one may lose the
    /// lines of the last second, which only makes `verify` look for less.
    ///
    /// # Errors
    /// When the disk does not take them.
    pub fn append(&self, entries: &[Entry]) -> Result<()> {
        let Some(open) = &self.0 else { return Ok(()) };
        if entries.is_empty() {
            return Ok(());
        }
        let mut open = open.lock().expect("writing a line does not panic");
        let is_due = Instant::now() >= open.flush_at;
        let Some(writer) = &mut open.writer else { return Ok(()) };
        for entry in entries {
            writer.write_line(&serde_json::to_vec(entry)?).context("append to the ledger")?;
        }
        if is_due || !writer.is_compressed() {
            writer.flush().context("append to the ledger")?;
            open.flush_at = Instant::now() + FLUSH_EVERY;
        }
        Ok(())
    }

    /// Ends the file in order; what is appended afterwards by another clone is dropped.
    ///
    /// # Errors
    /// When the disk does not take the rest.
    pub fn finish(&self) -> Result<()> {
        let Some(open) = &self.0 else { return Ok(()) };
        let writer = open.lock().expect("writing a line does not panic").writer.take();
        writer.map_or(Ok(()), |writer| writer.finish().context("end the ledger"))
    }
}

/// Reads a ledger line by line. A last line that a crash cut short is left out.
#[derive(Debug)]
pub struct Entries(LineReader);

impl Entries {
    /// Opens a ledger, compressed or not.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self(LineReader::open(path).context("open the ledger")?))
    }

    fn read(&mut self) -> Result<Option<Entry>> {
        let Some(line) = self.0.next_line()? else { return Ok(None) };
        match serde_json::from_slice(line.bytes) {
            Ok(entry) => Ok(Some(entry)),
            Err(_) if !line.is_whole => Ok(None),
            Err(error) => {
                let number = line.number;
                Err(error).with_context(|| format!("line {number} of {}", self.0.path().display()))
            }
        }
    }
}

impl Iterator for Entries {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schema::clock::Clock;
    use std::io::Write;

    fn entry(event_id: &str, outcome: Outcome) -> Entry {
        Entry {
            at: Clock::system().now(),
            tenant_id: Some("t".into()),
            device_id: Some("d".into()),
            event_id: Some(event_id.into()),
            topic: "iot/status/t/f/b/d".into(),
            sha256: sha256(b"{}"),
            outcome,
            reason_code: 0,
            event_type: None,
        }
    }

    #[test]
    fn a_ledger_is_written_on_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["ledger.jsonl", "ledger.jsonl.gz"] {
            let path = folder.path().join(name);
            let entries = [entry("one", Outcome::Acknowledged), entry("two", Outcome::Refused)];
            for entry in &entries {
                let ledger = Ledger::open(Some(&path)).unwrap();
                ledger.append(std::slice::from_ref(entry)).unwrap();
                ledger.finish().unwrap();
                ledger.append(&entries).unwrap();
            }
            let read: Result<Vec<_>> = Entries::open(&path).unwrap().collect();
            assert_eq!(read.unwrap(), entries, "{name}");
        }
    }

    #[test]
    fn only_the_last_line_may_be_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let ledger = Ledger::open(Some(&path)).unwrap();
        ledger.append(&[entry("one", Outcome::Unknown)]).unwrap();
        let mut file = std::fs::File::options().append(true).open(&path).unwrap();
        file.write_all(br#"{"at":"2026-"#).unwrap();
        assert_eq!(Entries::open(&path).unwrap().filter(Result::is_ok).count(), 1);
        file.write_all(b"\n").unwrap();
        assert!(Entries::open(&path).unwrap().any(|entry| entry.is_err()));
    }
}
