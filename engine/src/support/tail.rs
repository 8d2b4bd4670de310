//! The ends of logs.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Bytes of the end of a log.
const BYTES_MAX: u64 = 6 * 1024 * 1024;
/// Lines of it.
const LINES_MAX: usize = 10_000;
/// Files of the server's log.
const FILES_MAX: usize = 3;
/// What the server says that can hold no data of a row.
const LEVELS: [&str; 4] = [" LOG:  ", " FATAL:  ", " PANIC:  ", " WARNING:  "];
/// What it says of a statement that failed, which may quote a value.
const ERROR: &str = " ERROR:  ";

/// The last lines of a file.
pub(super) fn last_lines(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(BYTES_MAX)))?;
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(LINES_MAX);
    Ok(lines[first..].iter().map(|line| format!("{line}\n")).collect())
}

/// The newest lines of the server's log, without statements and their values; `None` when there is none.
pub(super) fn server_log(folder: &Path) -> io::Result<Option<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let mut text = String::new();
    for file in files.iter().skip(files.len().saturating_sub(FILES_MAX)) {
        text.extend(last_lines(file)?.lines().filter_map(without_values));
    }
    Ok(Some(end_of(&text, usize::try_from(BYTES_MAX).unwrap_or(usize::MAX)).to_owned()))
}

/// A line of the server's log; of an error what stands before the first value that it quotes.
fn without_values(line: &str) -> Option<String> {
    if LEVELS.iter().any(|level| line.contains(level)) {
        return Some(format!("{line}\n"));
    }
    let (_, said) = line.split_once(ERROR)?;
    let quoted = said.find(['"', '\'', '{', '(']).unwrap_or(said.len());
    let kept = line.len() - said.len() + quoted;
    Some(format!("{}\n", line[..kept].trim_end()))
}

/// The end of a text, beginning with a whole line.
pub(super) fn end_of(text: &str, bytes_max: usize) -> &str {
    if text.len() <= bytes_max {
        return text;
    }
    let mut start = text.len() - bytes_max;
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].split_once('\n').map_or("", |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_rows_do_not_pass() {
        let line = |text: &str| without_values(text);
        let log = "2026-11-30 11:30:00.000 UTC [7] LOG:  checkpoint complete";
        assert_eq!(line(log).as_deref(), Some(&*format!("{log}\n")));
        let error = "2026-11-30 [7] ERROR:  invalid input syntax for type json: \"hens\"";
        assert_eq!(
            line(error).as_deref(),
            Some("2026-11-30 [7] ERROR:  invalid input syntax for type json:\n")
        );
        for other in ["2026 [7] STATEMENT:  INSERT", "2026 [7] DETAIL:  Key (a)=(hens)", "\tVALUES ('hens')"]
        {
            assert_eq!(line(other), None, "{other}");
        }
    }

    #[test]
    fn the_end_of_a_text_begins_with_a_line() {
        assert_eq!(end_of("one\ntwo\nthree\n", 100), "one\ntwo\nthree\n");
        assert_eq!(end_of("one\ntwo\nthree\n", 9), "three\n");
        assert_eq!(end_of("üüüüüü", 3), "");
    }
}
