//! What this machine, or the container around us, has to give to a cluster.

use std::fs;
use std::path::Path;

const MIB: u64 = 1024 * 1024;
/// Where the trees of control groups are mounted: the unified one, beside the older ones, and the older one of memory.
const UNIFIED: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
const MEMORY: &str = "/sys/fs/cgroup/memory";
/// Files of a group that limit its memory.
const UNIFIED_LIMITS: [&str; 2] = ["memory.max", "memory.high"];
const MEMORY_LIMITS: [&str; 1] = ["memory.limit_in_bytes"];
/// Where POSIX shared memory lives.
const SHARED_MEMORY: &str = "/dev/shm";

/// What there is to share out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Memory of the machine or of the container, whichever is less.
    pub(super) memory_mib: u64,
    /// Room in `/dev/shm`; 64 MiB in a container, unless somebody thought of it.
    pub(super) shared_memory_mib: u64,
    /// The volume of the cluster.
    pub(super) volume: Volume,
}

/// The size of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Volume {
    /// All of it.
    pub(super) size_mib: u64,
    /// Room that an ordinary user can still fill.
    pub(super) free_mib: u64,
}

impl Volume {
    /// The volume of a directory; nothing when that is not there.
    fn of(directory: &Path) -> Self {
        rustix::fs::statvfs(directory).map_or(Self { size_mib: 0, free_mib: 0 }, |volume| {
            let mib = |blocks: u64| blocks.saturating_mul(volume.f_frsize) / MIB;
            Self { size_mib: mib(volume.f_blocks), free_mib: mib(volume.f_bavail) }
        })
    }
}

impl Limits {
    /// What a cluster in this directory may share out.
    pub(super) fn around(cluster: &Path) -> Self {
        let info = rustix::system::sysinfo();
        let machine = info.totalram * u64::from(info.mem_unit);
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let memory = of_groups(&groups, &UNIFIED.map(Path::new), Path::new(MEMORY)).unwrap_or(u64::MAX);
        Self {
            memory_mib: machine.min(memory) / MIB,
            shared_memory_mib: room_mib(Path::new(SHARED_MEMORY)),
            volume: Volume::of(cluster),
        }
    }
}

/// Room that an ordinary user can still fill; 0 when the directory is not there.
pub(super) fn room_mib(directory: &Path) -> u64 {
    Volume::of(directory).free_mib
}

/// The least limit of the groups that `/proc/self/cgroup` names and of those around them, in bytes.
fn of_groups(groups: &str, unified: &[&Path], memory: &Path) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next()?, fields.next()?);
        if controllers.is_empty() {
            unified.iter().filter_map(|mount| least(mount, group, &UNIFIED_LIMITS)).min()
        } else if controllers.split(',').any(|controller| controller == "memory") {
            least(memory, group, &MEMORY_LIMITS)
        } else {
            None
        }
    });
    limits.min()
}

/// The least limit on the way from a group up to where the tree is mounted. A container may see its own group there
/// while it is told the name that the group has outside; what does not exist is skipped.
fn least(mount: &Path, group: &str, files: &[&str]) -> Option<u64> {
    let inner = mount.join(group.trim_start_matches('/'));
    let groups = inner.ancestors().take_while(|ancestor| ancestor.starts_with(mount));
    let texts = groups.flat_map(|group| files.iter().map(move |file| fs::read_to_string(group.join(file))));
    // `max` is no number, and no limit.
    texts.filter_map(|text| text.ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_of_the_groups_around_us_counts() {
        let tree = tempfile::tempdir().unwrap();
        let (unified, memory) = (tree.path().join("unified"), tree.path().join("memory"));
        let put = |path: &str, text: &str| {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("unified/kube/pod/box/memory.max", "max\n");
        put("unified/kube/pod/memory.max", "536870912\n");
        put("unified/kube/memory.max", "8589934592\n");
        put("unified/soft/memory.high", "268435456\n");
        put("memory/docker/id/memory.limit_in_bytes", "1073741824\n");
        put("memory/memory.limit_in_bytes", "9223372036854771712\n");
        let check = |groups: &str, expected_mib: Option<u64>| {
            let found = of_groups(groups, &[&unified], &memory);
            assert_eq!(found.map(|bytes| bytes / MIB), expected_mib, "{groups}");
        };
        check("0::/kube/pod/box\n", Some(512));
        check("0::/soft\n", Some(256));
        check("0::/elsewhere\n", None);
        check("0::/\n", None);
        check("9:name=systemd:/\n4:memory:/docker/id\n1:cpu,cpuacct:/\n0::/kube\n", Some(1024));
        check("4:cpuset,memory:/docker/id\n", Some(1024));
        // The container sees its own group as the whole tree.
        check("4:memory:/docker/other\n", Some(9_223_372_036_854_771_712 / MIB));
        check("", None);
    }

    #[test]
    fn this_machine_has_memory() {
        let limits = Limits::around(Path::new("/"));
        assert!(limits.memory_mib > 0 && limits.volume.size_mib >= limits.volume.free_mib);
        assert_eq!(room_mib(Path::new("/nowhere")), 0);
    }
}
