//! What Linux knows about other processes: CPU time, memory, family.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

/// Length of a clock tick in `/proc`: Linux shows 100 ticks per second to programs on every architecture in use.
const TICK: Duration = Duration::from_millis(10);

/// Resident memory in KiB.
///
/// # Errors
/// When the process is gone.
pub(crate) fn resident_kib(pid: u32) -> Result<u64> {
    status_kib(pid, "VmRSS:")
}

/// The most resident memory it ever had, in KiB.
///
/// # Errors
/// When the process is gone.
pub(crate) fn resident_kib_max(pid: u32) -> Result<u64> {
    status_kib(pid, "VmHWM:")
}

fn status_kib(pid: u32, key: &str) -> Result<u64> {
    let status = read(pid, "status")?;
    let rest = status.lines().find_map(|line| line.strip_prefix(key));
    let number = rest.and_then(|rest| rest.split_whitespace().next());
    number.with_context(|| format!("no {key} line"))?.parse().with_context(|| format!("read {key}"))
}

/// CPU time of one process, its own and that of children that ended.
///
/// # Errors
/// When the process is gone.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    let ticks: u64 = fields(pid)?[11..15].iter().map(|field| field.parse::<u64>().unwrap_or(0)).sum();
    Ok(TICK * u32::try_from(ticks).unwrap_or(u32::MAX))
}

/// The parent of a process.
///
/// # Errors
/// When the process is gone or is not on this machine.
pub(crate) fn parent(pid: u32) -> Result<u32> {
    fields(pid)?[1].parse().context("read the parent's id")
}

/// CPU time of a process, its children that live and its children that ended.
///
/// # Errors
/// When the process is gone.
pub(crate) fn family_cpu(pid: u32) -> Result<Duration> {
    let mut total = cpu(pid)?;
    for child in children(pid)? {
        // A child that ends between listing and reading is counted with its parent next time.
        total += cpu(child).unwrap_or_default();
    }
    Ok(total)
}

/// How often the threads of a process went to sleep of their own accord, and so woke up again. Threads that ended are not
/// counted.
///
/// # Errors
/// When the process is gone.
pub(crate) fn wakeups(pid: u32) -> Result<u64> {
    let tasks =
        std::fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("list threads of {pid}"))?;
    let of_task = |task: std::io::Result<std::fs::DirEntry>| {
        let status = std::fs::read_to_string(task.ok()?.path().join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse::<u64>().ok()
    };
    Ok(tasks.filter_map(of_task).sum())
}

/// The same of a process and its children together.
///
/// # Errors
/// When the process is gone.
pub(crate) fn family_wakeups(pid: u32) -> Result<u64> {
    let children = children(pid)?;
    Ok(wakeups(pid)? + children.into_iter().filter_map(|child| wakeups(child).ok()).sum::<u64>())
}

/// Memory of a process and its children in KiB. What they share is counted once where the system tells how much that
/// is, and with each of them elsewhere.
///
/// # Errors
/// When the process is gone.
pub(crate) fn family_kib(pid: u32) -> Result<u64> {
    let own_kib = |pid| proportional_kib(pid).or_else(|_| resident_kib(pid));
    let mut total = own_kib(pid)?;
    for child in children(pid)? {
        total += own_kib(child).unwrap_or(0);
    }
    Ok(total)
}

/// Memory in KiB, of which what is shared counts by its share.
fn proportional_kib(pid: u32) -> Result<u64> {
    let text = read(pid, "smaps_rollup")?;
    let rest = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss: line")?;
    rest.split_whitespace().next().context("no number")?.parse().context("read Pss:")
}

/// The name of a process.
///
/// # Errors
/// When the process is gone.
pub(crate) fn name(pid: u32) -> Result<String> {
    Ok(read(pid, "comm")?.trim().to_owned())
}

/// The processes that a process has started and that live.
///
/// # Errors
/// When there is no list of processes.
pub(crate) fn children(pid: u32) -> Result<Vec<u32>> {
    let processes = std::fs::read_dir("/proc").context("list /proc")?;
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    Ok(pids.filter(|child| parent(*child).is_ok_and(|of| of == pid)).collect())
}

/// Open file handles of a process.
///
/// # Errors
/// When the process is gone or is somebody else's.
pub(crate) fn open_files(pid: u32) -> Result<usize> {
    let files =
        std::fs::read_dir(format!("/proc/{pid}/fd")).with_context(|| format!("list files of {pid}"))?;
    Ok(files.count())
}

/// The fields of `stat` after the name, which may hold spaces and brackets itself: state, parent, ...
fn fields(pid: u32) -> Result<Vec<String>> {
    let stat = read(pid, "stat")?;
    let (_, rest) = stat.rsplit_once(')').context("no name in stat")?;
    let fields: Vec<_> = rest.split_whitespace().map(str::to_owned).collect();
    anyhow::ensure!(fields.len() > 15, "stat has only {} fields", fields.len());
    Ok(fields)
}

fn read(pid: u32, file: &str) -> Result<String> {
    let path = PathBuf::from(format!("/proc/{pid}/{file}"));
    std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

/// The machine in one line: cores, memory, kernel.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse::<u64>().ok())
        .unwrap_or(0);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores, {:.1} GiB, Linux {}", kib_to_mib(kib) / 1024.0, kernel.trim())
}

/// KiB as MiB.
#[expect(clippy::cast_precision_loss, reason = "memory sizes stay far below 2^52 KiB")]
pub(crate) fn kib_to_mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_process_has_memory_a_parent_and_a_name() {
        let me = std::process::id();
        assert!(resident_kib(me).unwrap() > 100);
        assert!(resident_kib_max(me).unwrap() > 100);
        assert!(parent(me).unwrap() > 0);
        assert!(!name(me).unwrap().is_empty());
        assert!(family_cpu(parent(me).unwrap()).is_ok());
        let before = wakeups(me).unwrap();
        assert!(family_wakeups(me).unwrap() >= before);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(cpu(u32::MAX).is_err());
    }
}
