//! Processes of PostgreSQL as `/proc` shows them: whether a server lives, whose it is, and how it is told to end.

use std::fs;
use std::io;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// The directory of all processes.
const PROC: &str = "/proc";

/// What a process id of a server leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// The server of the directory.
    Ours,
    /// Some other process.
    Stranger,
    /// Nothing, or what is left of a process until its parent asks how it ended.
    Nothing,
}

/// What lives under this number, when it was the number of a server of the directory.
///
/// A server has its directory as its working directory. To see that of another user's process takes the capability
/// CAP_SYS_PTRACE, which containers do not have; then the command line decides, which everybody may read. A process
/// of which nothing may be seen counts as the server: its files are never taken from a living one.
pub(super) fn find(pid: u32, directory: &Path) -> Found {
    if !exists(pid) || is_zombie(pid) {
        return Found::Nothing;
    }
    match fs::read_link(format!("{PROC}/{pid}/cwd")) {
        Ok(cwd) if cwd == directory => Found::Ours,
        Ok(_) => Found::Stranger,
        Err(_) => match fs::read(format!("{PROC}/{pid}/cmdline")) {
            Ok(line) if !may_be_server(&line, directory) => Found::Stranger,
            Ok(_) | Err(_) => Found::Ours,
        },
    }
}

/// The processes that have the directory as their working directory: a server with its children, or children whose
/// server is gone. Those of another user stay unseen without CAP_SYS_PTRACE.
pub(super) fn all_of(directory: &Path) -> Vec<u32> {
    let entries = fs::read_dir(PROC).into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let has_it = |pid: &u32| fs::read_link(format!("{PROC}/{pid}/cwd")).is_ok_and(|cwd| cwd == directory);
    pids.filter(has_it).filter(|pid| !is_zombie(*pid)).collect()
}

/// Whether a process is alive.
pub(super) fn is_alive(pid: u32) -> bool {
    exists(pid) && !is_zombie(pid)
}

/// Sends a signal; a process that is gone has what was wanted of it.
pub(super) fn signal(pid: u32, signal: Signal) -> io::Result<()> {
    let Some(pid) = to_pid(pid) else { return Ok(()) };
    match kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn exists(pid: u32) -> bool {
    let Some(pid) = to_pid(pid) else { return false };
    test_kill_process(pid) != Err(rustix::io::Errno::SRCH)
}

/// Whether a process has ended and only waits for its parent to ask how: `kill` finds it all the same.
fn is_zombie(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("{PROC}/{pid}/stat")).unwrap_or_default();
    // The name stands in parentheses and may hold any character.
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next());
    matches!(state, Some("Z" | "X"))
}

/// Whether a command line is that of a server which may be the one of the directory. Its children write a title of
/// their own over theirs.
fn may_be_server(line: &[u8], directory: &Path) -> bool {
    let mut arguments = line.split(|byte| *byte == 0);
    let program = arguments.next().unwrap_or_default();
    if !matches!(program.rsplit(|byte| *byte == b'/').next(), Some(b"postgres" | b"postmaster")) {
        return false;
    }
    let named = arguments.skip_while(|argument| *argument != b"-D").nth(1);
    named.is_none_or(|named| named == directory.as_os_str().as_encoded_bytes())
}

fn to_pid(pid: u32) -> Option<Pid> {
    pid.try_into().ok().and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_tells_the_server_of_a_directory_from_others() {
        let check = |line: &str, expected: bool| {
            let line = line.replace(' ', "\0");
            assert_eq!(may_be_server(line.as_bytes(), Path::new("/data/postgres")), expected, "{line}");
        };
        check("/usr/lib/postgresql/15/bin/postgres -D /data/postgres", true);
        check("/usr/lib/postgresql/15/bin/postgres -D /data/postgres -c fsync=on", true);
        check("/usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/15/main", false);
        check("postgres", true);
        check("postgres: walwriter ", false);
        check("/usr/bin/farmiq-edge up", false);
        check("", false);
    }

    #[test]
    fn this_process_lives_and_is_nobodys_server() {
        let own = std::process::id();
        assert!(is_alive(own));
        assert_eq!(find(own, Path::new("/nowhere")), Found::Stranger);
        assert_eq!(find(own, &std::env::current_dir().unwrap()), Found::Ours);
        assert!(all_of(&std::env::current_dir().unwrap()).contains(&own));
        assert_eq!(find(u32::MAX, Path::new("/nowhere")), Found::Nothing);
    }

    #[test]
    fn a_process_that_waits_to_be_buried_counts_as_gone() {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        while is_alive(child.id()) {
            std::thread::yield_now();
        }
        assert_eq!(find(child.id(), Path::new("/")), Found::Nothing);
        child.wait().unwrap();
    }
}
