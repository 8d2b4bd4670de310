//! The settings of a private cluster: durable, and sized for a small box.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// The file of our settings inside the cluster; written again at each start.
const FILE: &str = "farmiq.conf";
const MIB: u64 = 1024 * 1024;

/// Makes the cluster read our settings. What an operator adds below that line, or sets with ALTER SYSTEM, wins.
pub(super) fn include_ours(cluster: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).open(cluster.join("postgresql.conf"))?;
    writeln!(file, "\ninclude_if_exists = '{FILE}'\n\n# Add your own settings below this line.")?;
    file.sync_all()
}

/// Writes the settings for the next start.
pub(super) fn write(cluster: &Path, socket_directory: &Path) -> io::Result<()> {
    let path = cluster.join(FILE);
    fs::write(&path, text(socket_directory, memory_mib()))?;
    // Root writes it, the owner of the cluster reads it.
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644))
}

fn memory_mib() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram * u64::from(info.mem_unit) / MIB
}

fn text(socket_directory: &Path, memory_mib: u64) -> String {
    let socket_directory = socket_directory.display().to_string().replace('\'', "''");
    let buffers = (memory_mib / 8).clamp(128, 1024);
    let cache = (memory_mib / 2).max(256);
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
max_wal_size = 2GB
min_wal_size = 256MB
checkpoint_timeout = 15min
wal_compression = off
wal_buffers = 16MB

shared_buffers = {buffers}MB
effective_cache_size = {cache}MB
work_mem = 8MB
maintenance_work_mem = 64MB
random_page_cost = 1.1

# Often and a little: the outbox changes each row twice, the history tables only grow.
autovacuum_max_workers = 2
autovacuum_naptime = 10s
autovacuum_vacuum_scale_factor = 0.05
autovacuum_analyze_scale_factor = 0.05
autovacuum_vacuum_cost_limit = 1000

timezone = 'UTC'
log_timezone = 'UTC'

# One file per weekday, written over a week later.
logging_collector = on
log_directory = 'log'
log_filename = 'postgresql-%a.log'
log_truncate_on_rotation = on
log_rotation_age = 1d
log_rotation_size = 0
log_line_prefix = '%m [%p] '
",
        port = super::PORT
    )
}
