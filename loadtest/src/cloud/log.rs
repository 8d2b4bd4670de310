//! What the pretend cloud decided about each event, as lines of a file: the cloud's own account, which a judge reads.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::lines::{LineReader, LineWriter};

/// One line: an event that was taken for the first time, or the id of one that was refused and may come again.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Decision<'a> {
    /// Number of the batch in which the event came.
    #[serde(default)]
    pub batch: u64,
    /// The event as it came, when it was taken.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub event: Option<&'a RawValue>,
    /// Its id, when it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// The file while it is written.
#[derive(Debug)]
pub(crate) struct EventLog(LineWriter);

impl EventLog {
    /// A new file.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        LineWriter::create(path).map(Self).context("open the file of events")
    }

    pub(crate) fn accepted(&mut self, batch: u64, event: &RawValue) {
        self.write(&Decision { batch, event: Some(event), refused: None });
    }

    pub(crate) fn refused(&mut self, event_id: &str) {
        self.write(&Decision { refused: Some(event_id.to_owned()), ..Decision::default() });
    }

    pub(crate) fn flush(&mut self) {
        self.0.flush().expect("the file of events can be written");
    }

    fn write(&mut self, decision: &Decision<'_>) {
        let line = serde_json::to_vec(decision).expect("a decision is JSON");
        self.0.write_line(&line).expect("the file of events can be written");
    }
}

/// Reads the file in its order; a last line that was cut short is left out.
///
/// # Errors
/// When the file cannot be read or holds something else.
pub fn read(path: &Path, mut take: impl FnMut(Decision<'_>) -> Result<()>) -> Result<()> {
    let mut lines = LineReader::open(path).context("open the file of events")?;
    while let Some(line) = lines.next_line()? {
        match serde_json::from_slice(line.bytes) {
            Ok(decision) => take(decision)?,
            Err(_) if !line.is_whole => break,
            Err(error) => {
                let number = line.number;
                return Err(error).with_context(|| format!("line {number} of {}", path.display()));
            }
        }
    }
    Ok(())
}
