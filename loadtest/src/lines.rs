//! Files of lines, compressed when their names end in `.gz`, that can be read although a crash cut them short.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

/// Bytes of a line at most: an MQTT message of the largest size, as base64, is shorter than this.
const LINE_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// How a gzip file begins.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Writes lines.
#[derive(Debug)]
pub struct LineWriter {
    path: PathBuf,
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    Plain(BufWriter<File>),
    Gzip(GzEncoder<BufWriter<File>>),
}

impl LineWriter {
    /// A new file; one of that name is replaced.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(path: &Path) -> Result<Self> {
        Self::to(path, File::options().write(true).create(true).truncate(true))
    }

    /// A file that is written further, and made when it is not there.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn append(path: &Path) -> Result<Self> {
        Self::to(path, File::options().append(true).create(true))
    }

    fn to(path: &Path, options: &std::fs::OpenOptions) -> Result<Self> {
        let file = options.open(path).with_context(|| format!("open {}", path.display()))?;
        let file = BufWriter::new(file);
        let is_gzip = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gz"));
        let sink = if is_gzip {
            Sink::Gzip(GzEncoder::new(file, Compression::default()))
        } else {
            Sink::Plain(file)
        };
        Ok(Self { path: path.to_owned(), sink })
    }

    /// Adds a line, which must not hold a line feed.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn write_line(&mut self, line: &[u8]) -> Result<()> {
        let written = match &mut self.sink {
            Sink::Plain(file) => file.write_all(line).and_then(|()| file.write_all(b"\n")),
            Sink::Gzip(file) => file.write_all(line).and_then(|()| file.write_all(b"\n")),
        };
        written.with_context(|| format!("write to {}", self.path.display()))
    }

    /// Hands everything written so far to the system: it is then in the file even if this process is killed. Costs a
    /// compressed file some bytes each time.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn flush(&mut self) -> Result<()> {
        let flushed = match &mut self.sink {
            Sink::Plain(file) => file.flush(),
            Sink::Gzip(file) => file.flush(),
        };
        flushed.with_context(|| format!("write to {}", self.path.display()))
    }

    /// Whether [`LineWriter::flush`] costs space.
    #[must_use]
    pub fn is_compressed(&self) -> bool {
        matches!(self.sink, Sink::Gzip(_))
    }

    /// Ends the file in order.
    ///
    /// # Errors
    /// When the disk does not take the rest.
    pub fn finish(self) -> Result<()> {
        let finished = match self.sink {
            Sink::Plain(mut file) => file.flush(),
            Sink::Gzip(file) => file.finish().and_then(|mut file| file.flush()),
        };
        finished.with_context(|| format!("end {}", self.path.display()))
    }
}

/// A line as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its number in the file, from one.
    pub number: u64,
    /// Its bytes, without the line feed.
    pub bytes: &'a [u8],
    /// Whether a line feed ended it. Without one the file was cut here, or its writer leaves out the last.
    pub is_whole: bool,
}

/// Reads lines, one at a time, so that a file may be larger than the memory.
pub struct LineReader {
    path: PathBuf,
    reader: Box<dyn BufRead + Send>,
    line: Vec<u8>,
    number: u64,
    is_cut: bool,
}

impl std::fmt::Debug for LineReader {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("LineReader").field("path", &self.path).field("number", &self.number).finish()
    }
}

impl LineReader {
    /// Opens a file; whether it is compressed is seen from its first bytes.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let mut file = BufReader::with_capacity(64 * 1024, file);
        let start = file.fill_buf().with_context(|| format!("read {}", path.display()))?;
        let is_gzip = start.starts_with(&GZIP_MAGIC);
        let reader: Box<dyn BufRead + Send> =
            if is_gzip { Box::new(BufReader::new(MultiGzDecoder::new(file))) } else { Box::new(file) };
        Ok(Self { path: path.to_owned(), reader, line: Vec::new(), number: 0, is_cut: false })
    }

    /// The next line that is not empty; `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read, is no text of lines, or its compression is damaged before its end.
    pub fn next_line(&mut self) -> Result<Option<Line<'_>>> {
        loop {
            self.line.clear();
            let mut limited = (&mut self.reader).take(LINE_BYTES_MAX);
            match limited.read_until(b'\n', &mut self.line) {
                Ok(_) => {}
                // What the compressor had not written yet when it was killed.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => self.is_cut = true,
                Err(error) => return Err(error).with_context(|| format!("read {}", self.path.display())),
            }
            if self.line.is_empty() {
                return Ok(None);
            }
            self.number += 1;
            let is_whole = self.line.last() == Some(&b'\n');
            if self.line.len() as u64 >= LINE_BYTES_MAX && !is_whole {
                bail!("line {} of {} is too long", self.number, self.path.display());
            }
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        let is_whole = self.line.last() == Some(&b'\n');
        Ok(Some(Line { number: self.number, bytes: self.line.trim_ascii_end(), is_whole }))
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the compressed file ended before its time.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &Path) -> (Vec<(u64, String, bool)>, bool) {
        let mut reader = LineReader::open(path).unwrap();
        let mut found = Vec::new();
        while let Some(line) = reader.next_line().unwrap() {
            found.push((line.number, String::from_utf8(line.bytes.to_vec()).unwrap(), line.is_whole));
        }
        (found, reader.is_cut())
    }

    #[test]
    fn what_is_written_is_read_whether_compressed_or_not() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.jsonl", "a.jsonl.gz"] {
            let path = folder.path().join(name);
            for text in ["one", "two"] {
                let mut writer = LineWriter::append(&path).unwrap();
                writer.write_line(text.as_bytes()).unwrap();
                writer.finish().unwrap();
            }
            let expected = vec![(1, "one".to_owned(), true), (2, "two".to_owned(), true)];
            assert_eq!(lines(&path), (expected, false), "{name}");
            let is_gzip = std::fs::read(&path).unwrap().starts_with(&GZIP_MAGIC);
            assert_eq!(is_gzip, name.ends_with(".gz"));
        }
    }

    #[test]
    fn a_file_whose_writer_was_killed_is_read_up_to_its_last_flush() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("killed.gz");
        let mut writer = LineWriter::create(&path).unwrap();
        writer.write_line(b"one").unwrap();
        writer.flush().unwrap();
        let so_far = std::fs::read(&path).unwrap();
        writer.finish().unwrap();
        std::fs::write(&path, so_far).unwrap();
        assert_eq!(lines(&path), (vec![(1, "one".to_owned(), true)], true));
    }

    #[test]
    fn a_last_line_without_its_end_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut");
        std::fs::write(&path, "one\n\ntw").unwrap();
        assert_eq!(lines(&path).0, [(1, "one".to_owned(), true), (3, "tw".to_owned(), false)]);
    }
}
