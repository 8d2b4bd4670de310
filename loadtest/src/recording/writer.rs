//! Writes recordings: compressed files that follow each other by size and by time.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use schema::clock::Timestamp;

use super::{Header, Message, Remark, micros_since};
use crate::lines::LineWriter;

/// How long lines stay in this process at most.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// When a file is full.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// Bytes of a file before compression.
    pub bytes_max: u64,
    /// Time a file covers.
    pub age_max: Duration,
}

/// A recording under way.
#[derive(Debug)]
pub struct Writer {
    /// The name of the files up to their number.
    stem: PathBuf,
    is_compressed: bool,
    rotation: Rotation,
    header: Header,
    open: Option<Part>,
    files: Vec<PathBuf>,
}

#[derive(Debug)]
struct Part {
    lines: LineWriter,
    bytes: u64,
    messages: u64,
    began_at: Instant,
    flushed_at: Instant,
}

impl Writer {
    /// A recording whose files are called `STEM-0001.jsonl.gz` and so on; the first is made at once.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(stem: &Path, is_compressed: bool, rotation: Rotation, header: Header) -> Result<Self> {
        let header = Header { part: 0, ..header };
        let mut writer =
            Self { stem: stem.to_owned(), is_compressed, rotation, header, open: None, files: Vec::new() };
        writer.open_next()?;
        Ok(writer)
    }

    /// Adds a message, to the next file if this one is full.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn write(&mut self, message: &Message) -> Result<()> {
        let line = message.to_line(self.header.started)?;
        self.write_line(&line)?;
        let part = self.open.as_mut().expect("a file is open after a line was written");
        part.messages += 1;
        Ok(())
    }

    /// Notes that nothing was heard between two times.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn write_gap(&mut self, from: Timestamp, until: Timestamp) -> Result<()> {
        let started = self.header.started;
        let gap =
            Remark::Gap { from_us: micros_since(started, from)?, until_us: micros_since(started, until)? };
        self.write_line(&serde_json::to_vec(&gap)?)
    }

    /// Hands what was written to the system now and then; called often.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn flush_when_due(&mut self) -> Result<()> {
        match &mut self.open {
            Some(part) if part.flushed_at.elapsed() >= FLUSH_EVERY => {
                part.flushed_at = Instant::now();
                part.lines.flush()
            }
            _ => Ok(()),
        }
    }

    /// Ends the recording in order; returns its files.
    ///
    /// # Errors
    /// When the disk does not take the rest.
    pub fn finish(mut self) -> Result<Vec<PathBuf>> {
        self.end_part()?;
        Ok(self.files)
    }

    /// The files so far.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    fn write_line(&mut self, line: &[u8]) -> Result<()> {
        let Rotation { bytes_max, age_max } = self.rotation;
        let is_full = self.open.as_ref().is_none_or(|part| {
            part.messages > 0 && (part.bytes >= bytes_max || part.began_at.elapsed() >= age_max)
        });
        if is_full {
            self.end_part()?;
            self.open_next()?;
        }
        let part = self.open.as_mut().expect("a file was just opened");
        part.bytes += line.len() as u64 + 1;
        part.lines.write_line(line)
    }

    fn open_next(&mut self) -> Result<()> {
        self.header.part += 1;
        let ending = if self.is_compressed { "jsonl.gz" } else { "jsonl" };
        let path = PathBuf::from(format!("{}-{:04}.{ending}", self.stem.display(), self.header.part));
        let mut lines = LineWriter::create(&path).context("begin a file of the recording")?;
        lines.write_line(&serde_json::to_vec(&self.header)?)?;
        let now = Instant::now();
        self.open = Some(Part { lines, bytes: 0, messages: 0, began_at: now, flushed_at: now });
        self.files.push(path);
        Ok(())
    }

    fn end_part(&mut self) -> Result<()> {
        let Some(mut part) = self.open.take() else { return Ok(()) };
        part.lines.write_line(&serde_json::to_vec(&Remark::End { messages: part.messages })?)?;
        part.lines.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::reader::{Reader, Remarks};
    use super::super::{FORMAT, VERSION};
    use super::*;
    use crate::mqtt::properties::Properties;
    use chrono::{TimeZone, Utc};

    #[test]
    fn a_recording_goes_through_its_files_and_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let started = Utc.with_ymd_and_hms(2026, 2, 12, 9, 0, 0).unwrap();
        let header = Header {
            format: FORMAT.into(),
            version: VERSION,
            started,
            broker: "b:1".into(),
            mqtt: "5".into(),
            topics: vec!["#".into()],
            redacted: false,
            part: 0,
        };
        let message = |number: u8| Message {
            at: started + chrono::Duration::microseconds(i64::from(number)),
            topic: format!("a/{number}"),
            qos: number % 3,
            is_retained: number == 1,
            payload: vec![b'a', number, if number == 2 { 0xFF } else { b'"' }].into(),
            properties: Properties { payload_format: (number == 3).then_some(1), ..Properties::default() },
            client: (number == 1).then(|| "d-1".to_owned()),
        };
        let messages: Vec<_> = (0..5).map(message).collect();
        let rotation = Rotation { bytes_max: 100, age_max: Duration::from_secs(3600) };
        let mut writer = Writer::create(&folder.path().join("rec"), true, rotation, header).unwrap();
        for message in &messages {
            writer.write(message).unwrap();
        }
        let files = writer.finish().unwrap();
        assert!(files.len() > 1 && files[0].ends_with("rec-0001.jsonl.gz"), "{files:?}");
        let mut reader = Reader::new(files);
        let mut read = Vec::new();
        while let Some(message) = reader.next_message().unwrap() {
            read.push(message);
        }
        assert_eq!(read, messages);
        assert_eq!(reader.remarks(), &Remarks::default());
    }
}
