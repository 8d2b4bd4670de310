//! The files of an update: the program, what lies beside it, and the note.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use sha2::{Digest, Sha256};

use super::{Note, UpdateError};

/// Bytes that are copied at once.
const CHUNK_BYTES: usize = 1 << 20;
/// Everybody may run the program, as the package has it.
const MODE: u32 = 0o755;

/// The program and its neighbors: `.new` waits, `.old` is kept, `.failed` did not get ready, `.update` is the note.
pub(super) struct Place {
    pub(super) program: PathBuf,
}

impl Place {
    /// The place of this program, or of the one that runs.
    pub(super) fn of(program: Option<&Path>) -> Result<Self, UpdateError> {
        let own = PathBuf::from("/proc/self/exe");
        let named = program.unwrap_or(&own);
        let program = fs::canonicalize(named).map_err(files("find", named))?;
        Ok(Self { program })
    }

    pub(super) fn staged(&self) -> PathBuf {
        self.beside("new")
    }

    pub(super) fn old(&self) -> PathBuf {
        self.beside("old")
    }

    pub(super) fn failed(&self) -> PathBuf {
        self.beside("failed")
    }

    fn note_file(&self) -> PathBuf {
        self.beside("update")
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.program.clone().into_os_string();
        name.push(".");
        name.push(ending);
        name.into()
    }

    fn directory(&self) -> &Path {
        self.program.parent().unwrap_or(Path::new("/"))
    }

    /// Keeps other updates out for as long as the answer lives. The lock is that of the directory, so that nothing is left behind.
    pub(super) fn hold(&self) -> Result<File, UpdateError> {
        let directory = File::open(self.directory()).map_err(files("open", self.directory()))?;
        match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(directory),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(UpdateError::Busy(self.program.clone())),
            Err(error) => Err(files("lock", self.directory())(error.into())),
        }
    }

    /// Copies a program to where it waits; says its SHA-256.
    pub(super) fn stage(&self, source: &Path) -> Result<String, UpdateError> {
        let (draft, new) = (self.beside("new.draft"), self.staged());
        let copied = copy(source, &draft).map_err(|(attempt, path, error)| files(attempt, &path)(error));
        let digest = copied.inspect_err(|_| {
            // Half a program on a full disk helps nobody.
            let _ = fs::remove_file(&draft);
        })?;
        fs::rename(&draft, &new).map_err(files("move into place", &new))?;
        Ok(digest)
    }

    pub(super) fn remove_staged(&self) {
        let _ = fs::remove_file(self.staged());
    }

    /// The SHA-256 of a file.
    pub(super) fn digest(&self, path: &Path) -> Result<String, UpdateError> {
        let mut hasher = Sha256::new();
        let file = File::open(path);
        file.and_then(|mut file| io::copy(&mut file, &mut hasher)).map_err(files("read", path))?;
        Ok(hex::encode(hasher.finalize()))
    }

    /// Keeps the installed program as the old one and puts the staged one in its place, in one step.
    pub(super) fn swap_in(&self) -> Result<(), UpdateError> {
        self.keep_as(&self.program, &self.old())?;
        fs::rename(self.staged(), &self.program)
            .map_err(files("put the new program in place as", &self.program))?;
        self.sync()
    }

    /// Keeps the installed program as the one that failed and puts the old one in its place, in one step.
    pub(super) fn swap_back(&self) -> Result<(), UpdateError> {
        self.keep_as(&self.program, &self.failed())?;
        self.keep_as(&self.old(), &self.program)?;
        self.sync()
    }

    /// The old program is in its place again: it is kept under no other name.
    pub(super) fn forget_old(&self) {
        let _ = fs::remove_file(self.old());
    }

    /// Gives a file a second name, which may lead elsewhere until then.
    fn keep_as(&self, from: &Path, to: &Path) -> Result<(), UpdateError> {
        let draft = self.beside("draft");
        let _ = fs::remove_file(&draft);
        // File systems without hard links get a copy.
        fs::hard_link(from, &draft)
            .or_else(|_| fs::copy(from, &draft).map(drop))
            .map_err(files("keep", from))?;
        fs::rename(&draft, to).map_err(files("move into place", to))
    }

    /// The note of an update that was cut off.
    pub(super) fn note(&self) -> Option<Note> {
        serde_json::from_slice(&fs::read(self.note_file()).ok()?).ok()
    }

    pub(super) fn write_note(&self, note: &Note) -> Result<(), UpdateError> {
        let (path, draft) = (self.note_file(), self.beside("update.draft"));
        let bytes = serde_json::to_vec(note).expect("texts and numbers become JSON");
        let write = || {
            let mut file = File::create(&draft)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&draft, &path)
        };
        write().map_err(files("write", &path))?;
        self.sync()
    }

    pub(super) fn remove_note(&self) -> Result<(), UpdateError> {
        let path = self.note_file();
        fs::remove_file(&path).map_err(files("remove", &path))?;
        self.sync()
    }

    /// Brings the names to the disk, so that a power cut finds them as they are.
    fn sync(&self) -> Result<(), UpdateError> {
        let directory = File::open(self.directory()).and_then(|directory| directory.sync_all());
        directory.map_err(files("sync", self.directory()))
    }
}

/// Copies a file and brings it to the disk; says its SHA-256, or what failed where.
fn copy(source: &Path, target: &Path) -> Result<String, (&'static str, PathBuf, io::Error)> {
    let at = |attempt, path: &Path| {
        let path = path.to_owned();
        move |error| (attempt, path, error)
    };
    let mut from = File::open(source).map_err(at("read", source))?;
    let mut options = File::options();
    let mut to = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(MODE)
        .open(target)
        .map_err(at("write", target))?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let bytes = from.read(&mut chunk).map_err(at("read", source))?;
        if bytes == 0 {
            break;
        }
        hasher.update(&chunk[..bytes]);
        to.write_all(&chunk[..bytes]).map_err(at("write", target))?;
    }
    // The mask of the shell does not decide who may run the engine.
    rustix::fs::fchmod(&to, rustix::fs::Mode::from_raw_mode(MODE))
        .map_err(|error| at("set the mode of", target)(error.into()))?;
    to.sync_all().map_err(at("write", target))?;
    Ok(hex::encode(hasher.finalize()))
}

pub(super) fn files(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> UpdateError {
    let path = path.to_owned();
    move |source| UpdateError::Files { attempt, path, source }
}
