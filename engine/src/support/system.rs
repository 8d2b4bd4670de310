//! The machine, as it says itself what it is and how it fares.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use schema::clock::Timestamp;
use schema::wire::time::format;

use crate::config::Config;

/// Files of the system that are shown as they are.
const FILES: [&str; 14] = [
    "/etc/os-release",
    "/proc/version",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/pressure/cpu",
    "/proc/pressure/io",
    "/proc/pressure/memory",
    "/proc/self/cgroup",
    "/proc/self/limits",
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/cpu.max",
    "/sys/fs/cgroup/pids.max",
    "/sys/devices/system/clocksource/clocksource0/current_clocksource",
];

/// Who writes this, and when.
pub(super) fn version(config: &Config, now: Timestamp) -> String {
    let edge = &config.edge;
    format!(
        "farmiq-edge {}\ncommit {}\nedge.id {}\nwritten at {}\n",
        env!("CARGO_PKG_VERSION"),
        edge.commit,
        edge.id,
        format(now)
    )
}

/// The machine, its limits, and its volumes.
pub(super) fn describe(config: &Config) -> String {
    let mut text = String::new();
    for file in FILES {
        let Ok(contents) = fs::read_to_string(file) else { continue };
        let _ = writeln!(text, "== {file}\n{}\n", contents.trim_end());
    }
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let _ = writeln!(text, "== processors that may be used\n{processors}\n\n== volumes");
    for (name, place) in
        [("data", &config.edge.data_dir), ("images", &config.media.root), ("system", &config.ops.disk_path)]
    {
        let _ = writeln!(text, "{}", volume(name, place));
    }
    text
}

fn volume(name: &str, place: &Path) -> String {
    const MIB: u64 = 1024 * 1024;
    match actors::disk::space(place) {
        Ok(space) => format!(
            "{name} {}: {} MiB free of {} MiB",
            place.display(),
            space.free_bytes / MIB,
            space.total_bytes / MIB
        ),
        Err(error) => format!("{name} {}: {error}", place.display()),
    }
}
