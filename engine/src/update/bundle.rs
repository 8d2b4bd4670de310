//! Bundles of `deploy/bin/bundle`: one file, or what it was unpacked into, with the checksums of everything in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::UpdateError;

/// The program in a bundle.
const PROGRAM: &str = "program/farmiq-edge";
/// The checksums of its files, and the signature of this list.
const LIST: &str = "SHA256SUMS";
const SIGNATURE: &str = "SHA256SUMS.sig";
/// What the signature is for.
const NAMESPACE: &str = "farmiq";
/// Longest time a program may take to unpack or verify.
const UNPACK: Duration = Duration::from_secs(600);

/// Whether this is a bundle, and not a program.
pub(super) fn is_bundle(source: &Path) -> bool {
    const ENDINGS: [&str; 3] = [".tar.zst", ".tar.gz", ".tar"];
    let name = source.to_string_lossy();
    source.is_dir() || ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// The program of a bundle and its checksum.
pub(super) struct Unpacked {
    bundle: PathBuf,
    pub(super) program: PathBuf,
    expected: String,
    /// Where it was unpacked to; removed with it.
    _scratch: Option<Scratch>,
}

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Unpacked {
    /// Takes the program out of a bundle. With a file of signers, the list of checksums must be signed by one of them.
    pub(super) async fn of(bundle: &Path, signers: Option<&Path>) -> Result<Self, UpdateError> {
        let refuse = |what: String| UpdateError::Bundle { path: bundle.to_owned(), what };
        let scratch = if bundle.is_dir() { None } else { Some(unpack(bundle).await.map_err(refuse)?) };
        let folder = match &scratch {
            None => bundle.to_owned(),
            Some(Scratch(place)) => only_folder(place).ok_or_else(|| refuse("it is no bundle".to_owned()))?,
        };
        let list =
            fs::read_to_string(folder.join(LIST)).map_err(|error| refuse(format!("{LIST}: {error}")))?;
        if let Some(signers) = signers {
            verify(&folder, signers).await.map_err(refuse)?;
        }
        let expected =
            checksum_of(&list, PROGRAM).ok_or_else(|| refuse(format!("{LIST} has no {PROGRAM}")))?;
        Ok(Self { bundle: bundle.to_owned(), program: folder.join(PROGRAM), expected, _scratch: scratch })
    }

    /// Compares what was copied out of it with what was packed.
    pub(super) fn verify(&self, digest: &str) -> Result<(), UpdateError> {
        if digest == self.expected {
            return Ok(());
        }
        let what = format!("{PROGRAM} is not what was packed");
        Err(UpdateError::Bundle { path: self.bundle.clone(), what })
    }
}

/// Takes the program and the checksums out of a packed bundle; the rest may be large.
async fn unpack(bundle: &Path) -> Result<Scratch, String> {
    let place = std::env::temp_dir().join(format!("farmiq-edge-update-{}", std::process::id()));
    fs::create_dir(&place).map_err(|error| format!("{}: {error}", place.display()))?;
    let scratch = Scratch(place);
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(bundle).arg("-C").arg(&scratch.0).arg("--no-same-owner").arg("--wildcards");
    tar.args([format!("*/{PROGRAM}"), format!("*/{LIST}*")]);
    ask(tar, None).await?;
    Ok(scratch)
}

fn only_folder(place: &Path) -> Option<PathBuf> {
    let mut folders = fs::read_dir(place).ok()?.flatten().map(|entry| entry.path());
    folders.next().filter(|folder| folder.is_dir())
}

/// The checksum of a file in the output of sha256sum.
fn checksum_of(list: &str, name: &str) -> Option<String> {
    let line = |line: &str| {
        let (digest, file) = line.split_once([' ', '*'])?;
        let file = file.trim_start_matches([' ', '*']).trim_start_matches("./");
        (file == name).then(|| digest.to_owned())
    };
    list.lines().find_map(line)
}

/// Checks who signed the list, as `ssh-keygen -Y verify` does.
async fn verify(folder: &Path, signers: &Path) -> Result<(), String> {
    let signature = folder.join(SIGNATURE);
    if !signature.exists() {
        return Err(format!("{LIST} is not signed"));
    }
    let mut find = Command::new("ssh-keygen");
    find.args(["-Y", "find-principals", "-s"]).arg(&signature).arg("-f").arg(signers);
    let found =
        ask(find, None).await.map_err(|_| format!("the signer is not one of {}", signers.display()))?;
    let text = String::from_utf8_lossy(&found.stdout).into_owned();
    let identity = text.lines().next().unwrap_or_default().to_owned();
    let mut verify = Command::new("ssh-keygen");
    verify
        .args(["-Y", "verify", "-n", NAMESPACE, "-I", &identity, "-f"])
        .arg(signers)
        .arg("-s")
        .arg(&signature);
    let list = fs::File::open(folder.join(LIST)).map_err(|error| error.to_string())?;
    ask(verify, Some(list)).await.map_err(|_| "its signature is wrong".to_owned()).map(drop)
}

/// Runs a program to its end; what it complained of when it failed.
async fn ask(mut command: Command, input: Option<fs::File>) -> Result<Output, String> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    command.stdin(input.map_or_else(Stdio::null, Stdio::from)).kill_on_drop(true);
    let output = timeout(UNPACK, command.output()).await.map_err(|_| format!("{name} takes too long"))?;
    let output = output.map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(output);
    }
    Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_very_file() {
        let list =
            "aa  ./docs/program/farmiq-edge\nbb  ./program/farmiq-edge\ncc *./program/farmiq-edge.old\n";
        assert_eq!(checksum_of(list, PROGRAM).as_deref(), Some("bb"));
        assert_eq!(checksum_of("aa  ./x\n", PROGRAM), None);
    }

    #[test]
    fn a_folder_and_an_archive_are_bundles_and_a_program_is_none() {
        assert!(is_bundle(Path::new("/tmp")) && is_bundle(Path::new("farmiq-0.2.0-x86_64.tar.zst")));
        assert!(!is_bundle(Path::new("/usr/bin/farmiq-edge")));
    }
}
