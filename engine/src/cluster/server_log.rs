//! What programs of PostgreSQL said before they failed, and the log of the server.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The directory of the log in that of the cluster.
const DIRECTORY: &str = "log";
/// Bytes of the end of a log that are looked at.
const TAIL_BYTES_MAX: u64 = 64 * 1024;
/// Lines of a reason.
const LINES_MAX: usize = 6;
/// Files of the log that are kept; the server begins another one each day and after [`FILE_MIB_MAX`].
const FILES_MAX: usize = 14;
/// Size of a file of the log.
pub(super) const FILE_MIB_MAX: u64 = 10;
/// What a line says that tells why a program failed.
const REASONS: [&str; 11] = [
    "unrecognized configuration parameter",
    "invalid value for parameter",
    "PANIC:",
    "FATAL:",
    "ERROR:",
    "error:",
    "could not",
    "Could not",
    "terminated by signal",
    "DETAIL:",
    "HINT:",
];
/// What a line says that tells nothing of it: where the log is, who asked in vain meanwhile, and a guess that frightens
/// whoever reads it after a second power cut.
const NOISE: [&str; 5] = [
    "Future log output will appear",
    "the database system is starting up",
    "the database system is not yet accepting connections",
    "Consistent recovery state has not been yet reached",
    "This probably means that some data is corrupted",
];
/// What a line says that tells why a server ended which served before: refused statements are daily business.
const LAST_WORDS: [&str; 3] = ["PANIC:", "terminated by signal", "No space left on device"];

/// A place in what the server logged.
#[derive(Debug)]
pub(super) struct ServerLog {
    directory: PathBuf,
    newest: Option<(PathBuf, u64)>,
}

impl ServerLog {
    /// The end of the log of the server in this directory.
    pub(super) fn end(cluster: &Path) -> Self {
        let directory = cluster.join(DIRECTORY);
        Self { newest: newest_file(&directory), directory }
    }

    /// What was logged after this place; its end, when that is much.
    pub(super) fn what_followed(&self) -> String {
        let Some((path, length)) = newest_file(&self.directory) else { return String::new() };
        let seen = self.newest.as_ref().filter(|(seen, _)| *seen == path).map_or(0, |(_, length)| *length);
        // A file that became shorter was begun again.
        let seen = if seen > length { 0 } else { seen };
        read_from(&path, seen.max(length.saturating_sub(TAIL_BYTES_MAX))).unwrap_or_default()
    }

    /// Removes all but the newest files.
    pub(super) fn prune(cluster: &Path) {
        let mut files = files(&cluster.join(DIRECTORY));
        files.sort_by_key(|(_, found)| std::cmp::Reverse((found.mtime(), found.mtime_nsec())));
        for (path, _) in files.into_iter().skip(FILES_MAX) {
            if let Err(error) = fs::remove_file(&path) {
                tracing::debug!(%error, path = %path.display(), "remove an old log of PostgreSQL");
            }
        }
    }
}

/// Why a program failed: the lines of its output that say so, else its last ones, else how it ended. What it says on
/// stderr goes before its progress on stdout.
pub(super) fn reason(stderr: &str, stdout: &str, ended: &str) -> String {
    let reason =
        [stderr, stdout].into_iter().map(|text| lines_with(text, &REASONS)).find(|found| !found.is_empty());
    let last =
        || [stderr, stdout].into_iter().map(|text| lines_with(text, &[""])).find(|found| !found.is_empty());
    reason.or_else(last).unwrap_or_else(|| format!("{ended}, and it said nothing"))
}

/// What a server said of its own end, if it did.
pub(super) fn last_words(text: &str) -> Option<String> {
    Some(lines_with(text, &LAST_WORDS)).filter(|words| !words.is_empty())
}

/// The last lines that hold one of these words, without the time and process before them.
fn lines_with(text: &str, words: &[&str]) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines().map(|line| without_prefix(line.trim())).filter(|line| !line.is_empty()) {
        let is_noise = NOISE.iter().any(|noise| line.contains(noise));
        if !is_noise && words.iter().any(|word| line.contains(word)) && lines.last() != Some(&line) {
            lines.push(line);
        }
    }
    lines[lines.len().saturating_sub(LINES_MAX)..].join("; ")
}

/// A line of the server's log without `2026-02-12 09:00:00.123 UTC [4711] `.
fn without_prefix(line: &str) -> &str {
    match line.split_once("] ") {
        Some((prefix, rest)) if prefix.starts_with(|c: char| c.is_ascii_digit()) && prefix.contains(" [") => {
            rest.trim_start()
        }
        Some(_) | None => line,
    }
}

fn read_from(path: &Path, offset: u64) -> Option<String> {
    let mut file = File::open(path).ok()?;
    file.seek(SeekFrom::Start(offset)).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The file of a directory that was written last, and its length.
fn newest_file(directory: &Path) -> Option<(PathBuf, u64)> {
    let newest = files(directory).into_iter().max_by_key(|(_, found)| (found.mtime(), found.mtime_nsec()));
    newest.map(|(path, found)| (path, found.len()))
}

fn files(directory: &Path) -> Vec<(PathBuf, fs::Metadata)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_told_and_never_pushed_out_by_progress() {
        let progress = "The files belonging to this database system will be owned by user \"postgres\".\n\
            creating directory /d ... ok\ncreating subdirectories ... ok\nselecting dynamic shared memory\n\
            selecting default max_connections ... 100\nselecting default shared_buffers ... 128MB\n\
            creating configuration files ... ok\nrunning bootstrap script ... ";
        let stderr = "2026-11-30 09:00:00.000 UTC [12] FATAL:  could not write to file \"pg_wal/xlogtemp.12\": No space left \
            on device\nchild process exited with exit code 1\ninitdb: removing contents of data directory \"/d\"\n";
        let told = reason(stderr, progress, "exit status: 1");
        assert_eq!(told, "FATAL:  could not write to file \"pg_wal/xlogtemp.12\": No space left on device");
        let full = format!(
            "HINT:  Future log output will appear in directory \"log\".\n{stderr}\
             2026-11-30 09:00:01.000 UTC [13] FATAL:  the database system is starting up\n"
        );
        assert_eq!(reason(&full, "", "exit status: 1"), told);
        assert_eq!(reason("", "one\n\ntwo\n", "exit status: 1"), "one; two");
        assert_eq!(reason(" \n", "", "signal: 9 (SIGKILL)"), "signal: 9 (SIGKILL), and it said nothing");
    }

    #[test]
    fn a_server_that_was_killed_has_no_last_words_though_it_refused_statements() {
        let log = "2026-11-30 09:00:00 UTC [7] ERROR:  duplicate key\n2026-11-30 09:00:01 UTC [8] STATEMENT:  INSERT\n";
        assert_eq!(last_words(log), None);
        let full = format!(
            "{log}2026-11-30 09:00:02 UTC [9] PANIC:  could not write to log file: No space left on device\n"
        );
        assert_eq!(
            last_words(&full).unwrap(),
            "PANIC:  could not write to log file: No space left on device"
        );
    }

    #[test]
    fn what_followed_a_place_is_read_also_when_files_change_or_hold_odd_bytes() {
        let cluster = tempfile::tempdir().unwrap();
        let log = cluster.path().join(DIRECTORY);
        assert_eq!(ServerLog::end(cluster.path()).what_followed(), "");
        fs::create_dir(&log).unwrap();
        fs::write(log.join("a.log"), "before\n").unwrap();
        let place = ServerLog::end(cluster.path());
        assert_eq!(place.what_followed(), "");
        fs::write(log.join("a.log"), b"before\nafter \xff\n").unwrap();
        assert_eq!(place.what_followed(), "after \u{fffd}\n");
        fs::write(log.join("a.log"), "new\n").unwrap();
        assert_eq!(place.what_followed(), "new\n");
    }

    #[test]
    fn a_log_has_a_limited_number_of_files() {
        let cluster = tempfile::tempdir().unwrap();
        let log = cluster.path().join(DIRECTORY);
        fs::create_dir(&log).unwrap();
        for number in 0..FILES_MAX + 3 {
            fs::write(log.join(format!("{number}.log")), "x").unwrap();
        }
        ServerLog::prune(cluster.path());
        assert_eq!(fs::read_dir(&log).unwrap().count(), FILES_MAX);
    }
}
