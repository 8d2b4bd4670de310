//! A volume of its own, for a test that fills it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Room that a full volume still has, bytes: for what is under way while it is made smaller.
const SLACK_BYTES: u64 = 256 * 1024;

/// A volume in memory. It takes memory for what is in it alone, and goes with the test.
pub struct Volume(PathBuf);

impl Volume {
    /// Mounts one of this size, such as `2m`, in a directory; `None` when this user may not.
    ///
    /// # Panics
    /// When the directory cannot be made.
    #[must_use]
    pub fn mount(place: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(place).expect("a directory");
        let options = format!("size={size},mode=755");
        let mounted = run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs"], place);
        mounted.then(|| Self(place.to_owned()))
    }

    /// Takes all room away but a little.
    ///
    /// # Panics
    /// When the volume cannot be made smaller.
    pub fn fill(&self) {
        // Somebody may be writing: what was counted is less than what is there a moment later.
        let is_full = (0..1000).any(|_| {
            let volume = rustix::fs::statvfs(&self.0).expect("it is mounted");
            let used = (volume.f_blocks - volume.f_bfree) * volume.f_frsize;
            self.resize(&(used + SLACK_BYTES).to_string())
        });
        assert!(is_full, "{} cannot be filled", self.0.display());
    }

    /// Gives it this size.
    ///
    /// # Panics
    /// When it cannot have it.
    pub fn grow(&self, size: &str) {
        assert!(self.resize(size), "{} cannot grow", self.0.display());
    }

    fn resize(&self, size: &str) -> bool {
        run("mount", &["-o", &format!("remount,size={size}")], &self.0)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily, since a failed test may hold a file open.
        run("umount", &["-l"], &self.0);
    }
}

fn run(program: &str, arguments: &[&str], place: &Path) -> bool {
    let output = Command::new(program).args(arguments).arg(place).output();
    output.is_ok_and(|output| output.status.success())
}
