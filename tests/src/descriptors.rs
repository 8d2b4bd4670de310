//! File descriptors of this process: each socket of a test is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Makes room for so many open files, in this process and in those that it starts from now on.
///
/// # Panics
/// When the system does not allow so many.
pub fn make_room(files: u64) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= files) {
        return;
    }
    let maximum = maximum.map(|maximum| maximum.max(files));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum });
    raised.unwrap_or_else(|error| panic!("{files} open files are needed, {maximum:?} allowed: {error}"));
}
