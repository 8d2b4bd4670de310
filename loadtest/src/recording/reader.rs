//! Reads recordings and buffer files of devices, message by message.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use schema::clock::Timestamp;

use super::{DeviceLine, Header, Line, Message, Remark};
use crate::lines::LineReader;

/// What was found in the files besides messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remarks {
    /// Files without their end, and what was left out of them.
    pub cut: Vec<String>,
    /// Gaps in which the recorder was not connected, and their length in microseconds.
    pub gaps: u64,
    /// Microseconds of all gaps.
    pub gaps_us: u64,
}

/// The messages of one or more files, one after the other.
#[derive(Debug)]
pub struct Reader {
    files: std::vec::IntoIter<PathBuf>,
    open: Option<File>,
    last_at: Timestamp,
    remarks: Remarks,
}

#[derive(Debug)]
struct File {
    lines: LineReader,
    /// `None` for the buffer file of a device.
    header: Option<Header>,
    has_end: bool,
}

/// A first line: whatever has a format is a header.
#[derive(Deserialize)]
struct MaybeHeader {
    format: Option<String>,
}

impl Reader {
    /// Reads these files in this order.
    #[must_use]
    pub fn new(files: Vec<PathBuf>) -> Self {
        Self {
            files: files.into_iter(),
            open: None,
            last_at: Timestamp::UNIX_EPOCH,
            remarks: Remarks::default(),
        }
    }

    /// What was found besides messages so far.
    #[must_use]
    pub fn remarks(&self) -> &Remarks {
        &self.remarks
    }

    /// The next message; `None` after the last file. Times never run backwards: a message that is older than the one
    /// before it is given the time of that.
    ///
    /// # Errors
    /// The first line that is no message, by its file, number and flaw. A last line that was cut short is no error.
    pub fn next_message(&mut self) -> Result<Option<Message>> {
        loop {
            if self.open.is_none() {
                let Some(path) = self.files.next() else { return Ok(None) };
                self.open = Some(File { lines: LineReader::open(&path)?, header: None, has_end: false });
            }
            let file = self.open.as_mut().expect("a file was just opened");
            match file.read(self.last_at, &mut self.remarks)? {
                Some(mut message) => {
                    message.at = message.at.max(self.last_at);
                    self.last_at = message.at;
                    return Ok(Some(message));
                }
                None => self.open = None,
            }
        }
    }
}

impl File {
    /// The next message of this file.
    fn read(&mut self, last_at: Timestamp, remarks: &mut Remarks) -> Result<Option<Message>> {
        let path = self.lines.path().to_owned();
        loop {
            let Some(line) = self.lines.next_line()? else {
                let lacks_end = self.header.is_some() && !self.has_end;
                if lacks_end || self.lines.is_cut() {
                    remarks.cut.push(format!("{} was not ended in order", path.display()));
                }
                return Ok(None);
            };
            let (number, is_whole) = (line.number, line.is_whole);
            let parsed = parse(line.bytes, number, self.header.as_ref(), last_at);
            match parsed {
                Ok(Parsed::Message(message)) => return Ok(Some(message)),
                Ok(Parsed::Header(header)) => self.header = Some(header),
                Ok(Parsed::Remark(Remark::Gap { from_us, until_us })) => {
                    remarks.gaps += 1;
                    remarks.gaps_us += until_us.saturating_sub(from_us);
                }
                Ok(Parsed::Remark(Remark::End { .. })) => self.has_end = true,
                Err(_) if !is_whole => {
                    remarks
                        .cut
                        .push(format!("{} was cut in line {number}, which is left out", path.display()));
                    return Ok(None);
                }
                Err(error) => return Err(error).with_context(|| at(&path, number)),
            }
        }
    }
}

enum Parsed {
    Header(Header),
    Message(Message),
    Remark(Remark),
}

fn parse(bytes: &[u8], number: u64, header: Option<&Header>, last_at: Timestamp) -> Result<Parsed> {
    if let Some(header) = header {
        return parse_line(bytes, header);
    }
    if number == 1 && serde_json::from_slice::<MaybeHeader>(bytes).is_ok_and(|it| it.format.is_some()) {
        let header: Header = serde_json::from_slice(bytes).context("read the header")?;
        header.check()?;
        return Ok(Parsed::Header(header));
    }
    let line: DeviceLine =
        serde_json::from_slice(bytes).context("expected {topic, payload, qos, retain, ts}")?;
    Message::of_device(line, last_at).map(Parsed::Message)
}

fn parse_line(bytes: &[u8], header: &Header) -> Result<Parsed> {
    match serde_json::from_slice::<Line>(bytes) {
        Ok(line) => Message::of_line(line, header.started).map(Parsed::Message),
        Err(error) => match serde_json::from_slice::<Remark>(bytes) {
            Ok(remark) => Ok(Parsed::Remark(remark)),
            Err(_) => bail!("no line of a recording: {error}"),
        },
    }
}

fn at(path: &Path, number: u64) -> String {
    format!("line {number} of {}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"topic":"iot/status/t/f/b/d","payload":"{}","qos":1,"retain":true,"ts":"2026-02-12T09:32:15.052269Z"}"#;
    const HEADER: &str = r#"{"format":"farmiq-recording","version":1,"started":"2026-02-12T09:00:00Z","broker":"b:1","mqtt":"5","topics":["iot/#"],"redacted":false,"part":1}"#;

    fn read(text: &str) -> Result<(Vec<Message>, Remarks)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.jsonl");
        std::fs::write(&path, text).unwrap();
        let mut reader = Reader::new(vec![path]);
        let mut messages = Vec::new();
        while let Some(message) = reader.next_message()? {
            messages.push(message);
        }
        Ok((messages, reader.remarks().clone()))
    }

    #[test]
    fn a_bad_line_is_named_by_its_number_and_flaw() {
        let check = |bad: &str, flaw: &str| {
            let text = format!("{:#}", read(&format!("{GOOD}\n\n{bad}\n")).unwrap_err());
            assert!(text.starts_with("line 3 of ") && text.contains(flaw), "{text}");
        };
        check("not json", "expected {topic, payload, qos, retain, ts}");
        check(&GOOD.replace(r#""{}""#, "{}"), "expected a string");
        check(&GOOD.replace(r#""qos":1"#, r#""qos":3"#), "qos is 3");
        check(&GOOD.replace("iot/status/t/f/b/d", "iot/#"), "not one a device may publish to");
        check(&GOOD.replace("2026-02-12T", "yesterday"), "is no time");
        let unknown = HEADER.replace(r#""version":1"#, r#""version":2"#) + "\n";
        assert!(format!("{:#}", read(&unknown).unwrap_err()).contains("version 2"));
    }

    #[test]
    fn a_device_file_keeps_bytes_and_times() {
        let later = GOOD.replace("15.052269", "17.052269");
        let (messages, remarks) = read(&format!("{GOOD}\n{later}\n{GOOD}")).unwrap();
        assert_eq!(&messages[0].payload[..], b"{}");
        assert!(messages[0].is_retained);
        let seconds: Vec<_> = messages.iter().map(|it| (it.at - messages[0].at).num_seconds()).collect();
        assert_eq!(seconds, [0, 2, 2]);
        assert_eq!(remarks, Remarks::default());
    }

    #[test]
    fn a_cut_recording_is_read_up_to_the_cut_and_says_so() {
        let line = r#"{"at_us":1500000,"topic":"x","qos":0,"payload_b64":"AP8="}"#;
        let gap = r#"{"gap":{"from_us":1,"until_us":4}}"#;
        let (messages, remarks) = read(&format!("{HEADER}\n{line}\n{gap}\n{}", &line[..20])).unwrap();
        assert_eq!(messages.len(), 1);
        assert_eq!((&messages[0].payload[..], messages[0].qos), (&[0, 0xFF][..], 0));
        assert_eq!(messages[0].at.to_rfc3339(), "2026-02-12T09:00:01.500+00:00");
        assert_eq!((remarks.cut.len(), remarks.gaps, remarks.gaps_us), (1, 1, 3));
        let (_, remarks) = read(&format!("{HEADER}\n{line}\n{{\"end\":{{\"messages\":1}}}}\n")).unwrap();
        assert_eq!(remarks, Remarks::default());
    }
}
