//! The file in which a server says that it runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Its name in the directory of the cluster.
const NAME: &str = "postmaster.pid";

/// What a server says about itself in its directory; after a crash the file stays behind.
#[derive(Debug)]
pub(super) struct PidFile {
    /// The number of the server's process.
    pub(super) pid: u32,
    /// Where its socket is; empty until it is there.
    pub(super) socket_directory: PathBuf,
    /// Whether it takes connections.
    pub(super) is_ready: bool,
}

/// What stands in the place of the file.
#[derive(Debug)]
pub(super) enum Read {
    /// The file of a server, which may be gone.
    Written(PidFile),
    /// No file.
    Absent,
    /// A file that names no process: a power cut left it empty or half written.
    Torn,
}

impl PidFile {
    pub(super) fn read(directory: &Path) -> Read {
        match fs::read(directory.join(NAME)) {
            Ok(bytes) => Self::parse(&String::from_utf8_lossy(&bytes)).map_or(Read::Torn, Read::Written),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Read::Absent,
            Err(_) => Read::Torn,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        let line = |number: usize| lines.get(number).copied().unwrap_or_default();
        let pid = line(0).parse().ok().filter(|pid| *pid > 0)?;
        Some(Self { pid, socket_directory: line(4).into(), is_ready: line(7) == "ready" })
    }

    /// Takes the file of a server that is gone away: PostgreSQL does not start beside one that is torn, or whose
    /// number belongs to another process by now.
    pub(super) fn remove(directory: &Path) -> io::Result<()> {
        match fs::remove_file(directory.join(NAME)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_the_number_of_a_process_is_torn() {
        let directory = tempfile::tempdir().unwrap();
        let read = |text: &[u8]| {
            fs::write(directory.path().join(NAME), text).unwrap();
            PidFile::read(directory.path())
        };
        assert!(matches!(PidFile::read(directory.path()), Read::Absent));
        for torn in [&b""[..], b"\n", b"\0\0\0\0\0\0", b"0\n", b"-5\n", b"garbage\n/data\n", b"\xff\xfe"] {
            assert!(matches!(read(torn), Read::Torn), "{torn:?}");
        }
        let Read::Written(half) = read(b"4711\n/data/pos") else { panic!("it names a process") };
        assert!(half.pid == 4711 && !half.is_ready && half.socket_directory == Path::new(""));
        let Read::Written(whole) = read(b"4711\n/d\n1\n5432\n/s\n\n 1 2\nready   \n") else { panic!() };
        assert!(whole.is_ready && whole.socket_directory == Path::new("/s"));
        PidFile::remove(directory.path()).unwrap();
        PidFile::remove(directory.path()).unwrap();
    }
}
