//! Who does what a command does, for the audit log.

use schema::store::audit::Author;

/// Whoever typed the command.
pub(crate) fn author() -> Author {
    let uid = rustix::process::getuid().as_raw();
    let host = rustix::system::uname();
    Author { actor: format!("shell:{uid}"), origin: host.nodename().to_string_lossy().into_owned() }
}
