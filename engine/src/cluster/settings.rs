//! The settings of a private cluster: durable, and sized for a small box.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use super::limits::{Limits, Volume};
use super::server_log::FILE_MIB_MAX;

/// The file of our settings inside the cluster; written again at each start.
const FILE: &str = "farmiq.conf";
/// `max_wal_size` on the smallest volume and on the largest.
const LOG_MIB_LEAST: u64 = 256;
const LOG_MIB_MOST: u64 = 16 * 1024;
/// Less room in `/dev/shm` than this is not relied on.
const SHARED_MEMORY_MIB_MIN: u64 = 256;

/// Makes the cluster read our settings. What an operator adds below that line, or sets with ALTER SYSTEM, wins.
pub(super) fn include_ours(cluster: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).open(cluster.join("postgresql.conf"))?;
    writeln!(file, "\ninclude_if_exists = '{FILE}'\n\n# Add your own settings below this line.")?;
    file.sync_all()
}

/// Writes the settings for the next start.
pub(super) fn write(cluster: &Path, socket_directory: &Path) -> io::Result<()> {
    let path = cluster.join(FILE);
    fs::write(&path, text(socket_directory, Limits::around(cluster)))?;
    // Root writes it, the owner of the cluster reads it.
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644))
}

/// How much log the server may keep before it makes a checkpoint, MiB.
///
/// A checkpoint comes when about half of it is written (1 / (1 + 0.9), for it takes its time while the log goes on), and
/// every page that is changed after one goes into the log as a whole: random keys change nearly all pages of their
/// indexes each time, so the fewer the better. At 10,000 readings/s of 1,750 bytes of log each, 2 GB are reached every
/// minute, 8 GB every four and 16 GB every eight; at 200/s the fifteen minutes of `checkpoint_timeout` come before 1 GB.
/// On the other hand it takes room, and after a power cut it is read again: about a minute for each 4 GB that were
/// written. So it is a sixteenth of the volume (8 GB of 128, 16 of 256 and more), and never more than a quarter of what
/// is free.
fn log_mib_max(volume: Volume) -> u64 {
    (volume.size_mib / 16).min(volume.free_mib / 4).clamp(LOG_MIB_LEAST, LOG_MIB_MOST)
}

fn text(socket_directory: &Path, limits: Limits) -> String {
    let socket_directory = socket_directory.display().to_string().replace('\'', "''");
    let memory_mib = limits.memory_mib;
    let buffers = (memory_mib / 8).clamp(32, 1024);
    let cache = (memory_mib / 2).max(64);
    let log_buffers = (memory_mib / 64).clamp(4, 16);
    let work = (memory_mib / 128).clamp(2, 8);
    let maintenance = (memory_mib / 16).clamp(16, 64);
    let log_most = log_mib_max(limits.volume);
    // Segments up to here are used again instead of made anew.
    let log_least = (log_most / 8).max(80);
    let shared_memory = if limits.shared_memory_mib < SHARED_MEMORY_MIB_MIN { "sysv" } else { "posix" };
    format!(
        "# Written by farmiq-edge at each start: change postgresql.conf instead.

# Only the socket, in a directory of the server's own user.
listen_addresses = ''
unix_socket_directories = '{socket_directory}'
unix_socket_permissions = 0700
port = {port}
max_connections = 100

# What is acknowledged to a device is on disk.
fsync = on
synchronous_commit = on
full_page_writes = on

# Few, long checkpoints: each is followed by full page images, the dearest part of random keys.
# The images are not compressed: on two cores the processor is the limit, not the disk.
# A sixteenth of the volume, and at most a quarter of what is free.
max_wal_size = {log_most}MB
min_wal_size = {log_least}MB
checkpoint_timeout = 15min
checkpoint_completion_target = 0.9
wal_compression = off
wal_buffers = {log_buffers}MB

# Shares of the memory of this machine or container.
shared_buffers = {buffers}MB
effective_cache_size = {cache}MB
work_mem = {work}MB
maintenance_work_mem = {maintenance}MB
random_page_cost = 1.1
# Shared memory that comes and goes: not in a /dev/shm that is too small for it.
dynamic_shared_memory_type = {shared_memory}

# Often and a little: the outbox changes each row twice, the history tables only grow.
autovacuum_max_workers = 2
autovacuum_naptime = 10s
autovacuum_vacuum_scale_factor = 0.05
autovacuum_analyze_scale_factor = 0.05
autovacuum_vacuum_cost_limit = 1000

timezone = 'UTC'
log_timezone = 'UTC'

# A file a day, and another one when it is full; the engine removes old ones.
logging_collector = on
log_directory = 'log'
log_filename = 'postgresql-%Y%m%d-%H%M%S.log'
log_rotation_age = 1d
log_rotation_size = {FILE_MIB_MAX}MB
log_line_prefix = '%m [%p] '
",
        port = super::PORT
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_fit_the_memory_there_is() {
        let check = |memory_mib, shared_memory_mib, expected: [&str; 5]| {
            let volume = Volume { size_mib: 131_072, free_mib: 131_072 };
            let text = text(Path::new("/s"), Limits { memory_mib, shared_memory_mib, volume });
            for line in expected {
                assert!(text.lines().any(|found| found == line), "{memory_mib}: no {line} in {text}");
            }
        };
        let posix = "dynamic_shared_memory_type = posix";
        let sysv = "dynamic_shared_memory_type = sysv";
        let (buffers, cache) = ("shared_buffers = 1024MB", "effective_cache_size = 12000MB");
        check(24_000, 12_000, [buffers, cache, "work_mem = 8MB", "wal_buffers = 16MB", posix]);
        let (buffers, cache) = ("shared_buffers = 64MB", "effective_cache_size = 256MB");
        check(512, 64, [buffers, cache, "work_mem = 4MB", "maintenance_work_mem = 32MB", sysv]);
        check(
            128,
            0,
            [
                "shared_buffers = 32MB",
                "effective_cache_size = 64MB",
                "work_mem = 2MB",
                "wal_buffers = 4MB",
                sysv,
            ],
        );
    }
    #[test]
    fn the_log_takes_what_the_volume_can_spare() {
        let check = |size_mib, free_mib, expected: [&str; 2]| {
            let volume = Volume { size_mib, free_mib };
            let text = text(Path::new("/s"), Limits { memory_mib: 4_000, shared_memory_mib: 4_000, volume });
            for line in expected {
                assert!(text.lines().any(|found| found == line), "{size_mib}: no {line} in {text}");
            }
        };
        check(131_072, 100_000, ["max_wal_size = 8192MB", "min_wal_size = 1024MB"]);
        check(2_000_000, 1_000_000, ["max_wal_size = 16384MB", "min_wal_size = 2048MB"]);
        check(32_768, 30_000, ["max_wal_size = 2048MB", "min_wal_size = 256MB"]);
        check(8_192, 8_000, ["max_wal_size = 512MB", "min_wal_size = 80MB"]);
        // A large volume that is nearly full, and a place that nobody knows anything about.
        check(131_072, 6_000, ["max_wal_size = 1500MB", "min_wal_size = 187MB"]);
        check(0, 0, ["max_wal_size = 256MB", "min_wal_size = 80MB"]);
    }
}
