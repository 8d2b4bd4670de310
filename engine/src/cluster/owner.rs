//! The user a private cluster runs as: PostgreSQL refuses to be root.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use super::{ClusterError, mode};

/// Users to run the server as, best first; each needs a line in `/etc/passwd`, or `initdb` refuses.
const USERS: [&str; 2] = ["postgres", NOBODY];
/// The user of programs that have none of their own.
const NOBODY: &str = "nobody";

/// Another user than the one this process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Owner {
    /// Whom the server of this directory runs as: `None` when it is this process's own user.
    pub(super) fn of_cluster(directory: &Path) -> Result<Option<Self>, ClusterError> {
        let present = fs::metadata(directory).ok();
        if rustix::process::geteuid().is_root() {
            let of_directory = present.filter(|found| found.uid() != 0);
            return of_directory
                .map(Self::of)
                .or_else(Self::from_passwd)
                .map(Some)
                .ok_or(ClusterError::NoOwner);
        }
        match present {
            Some(found) if found.uid() != rustix::process::geteuid().as_raw() => Err(ClusterError::Foreign {
                path: directory.to_owned(),
                uid: found.uid(),
                mode: mode(&found),
                wanted: rustix::process::geteuid().as_raw(),
            }),
            _ => Ok(None),
        }
    }

    /// Checks that the owner can walk down to the directory.
    pub(super) fn check_reach(&self, directory: &Path) -> Result<(), ClusterError> {
        let blocks = |ancestor: &&Path| fs::metadata(ancestor).is_ok_and(|found| !self.may_enter(&found));
        match directory.ancestors().filter(blocks).last() {
            None => Ok(()),
            Some(blocked) => {
                Err(ClusterError::Unreachable { user: self.name.clone(), directory: blocked.to_owned() })
            }
        }
    }

    /// Warns when other programs run as the owner, too: whoever does can read and change the files of the database,
    /// and no credential would keep it out.
    pub(super) fn warn_if_shared(&self) {
        if self.name == NOBODY {
            tracing::warn!(
                "there is no user postgres, so PostgreSQL runs as nobody, and so may other programs, which can then \
                 read the database: before the first start, `useradd --system postgres`"
            );
        }
    }

    /// Makes a file or directory the owner's.
    pub(super) fn take(&self, path: &Path) -> io::Result<()> {
        chown(path, Some(self.uid), Some(self.gid))
    }

    fn of(found: Metadata) -> Self {
        Self { name: format!("with uid {}", found.uid()), uid: found.uid(), gid: found.gid() }
    }

    fn from_passwd() -> Option<Self> {
        let passwd = fs::read_to_string("/etc/passwd").ok()?;
        USERS.iter().find_map(|name| Self::in_passwd(name, &passwd))
    }

    fn in_passwd(name: &str, passwd: &str) -> Option<Self> {
        let mut fields =
            passwd.lines().map(|line| line.split(':')).find(|fields| fields.clone().next() == Some(name))?;
        let uid = fields.nth(2)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Self { name: name.to_owned(), uid, gid })
    }

    fn may_enter(&self, found: &Metadata) -> bool {
        let bit = match () {
            () if found.uid() == self.uid => 0o100,
            () if found.gid() == self.gid => 0o010,
            () => 0o001,
        };
        found.mode() & bit != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_read_from_the_list_of_users() {
        let passwd =
            "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65533:n:/:/x\npostgres:x:101:104:P,,,:/v:/b\n";
        let owner = Owner::in_passwd("postgres", passwd).unwrap();
        assert_eq!((owner.uid, owner.gid), (101, 104));
        assert_eq!(Owner::in_passwd("nobody", passwd).unwrap().gid, 65533);
        assert_eq!(Owner::in_passwd("post", passwd), None);
    }

    #[test]
    fn a_directory_that_the_user_cannot_enter_is_named() {
        use std::os::unix::fs::PermissionsExt;
        let outer = tempfile::tempdir().unwrap();
        let inner = outer.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let stranger = Owner { name: "stranger".into(), uid: 54321, gid: 54321 };
        fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let error = stranger.check_reach(&inner).unwrap_err();
        assert!(matches!(error, ClusterError::Unreachable { directory, .. } if directory == outer.path()));
        fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o711)).unwrap();
        stranger.check_reach(&inner).unwrap();
    }
}
