//! `farmiq-edge broker-config mosquitto`: password and ACL files for a Mosquitto that stands before the engine.
//!
//! Owns nothing: it reads who is let in, writes three files, and with `--watch` does so again whenever that changes.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use actors::credentials::mosquitto;
use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use schema::store::Store;
use schema::store::credential::{self, BrokerUser};
use schema::wire::topic::{DeviceTopics, FILTERS, OWN_FILTERS};
use tokio::time::{sleep, timeout};

use crate::cli::MosquittoFiles;
use crate::config::Config;
use crate::{device, tree};

/// The files are written again so often, whether somebody tells of a change or not.
const REWRITE_EVERY: Duration = Duration::from_secs(60);
/// Changes that come so close together are written together.
const GATHER: Duration = Duration::from_millis(200);
/// Wait before the database is asked again.
const RETRY: Duration = Duration::from_secs(2);
/// Who may read the files: their owner, and the group of their directory.
const FILE_MODE: u32 = 0o640;

/// What Mosquitto is told.
#[derive(Debug, PartialEq, Eq)]
pub struct Files {
    /// Name and content of each file.
    pub files: [(&'static str, String); 3],
    /// Devices that are left out until they get a new password.
    pub without_hash: Vec<String>,
    /// Devices whose names its files cannot hold.
    pub unspeakable: Vec<String>,
}

/// Writes the files once, or as often as something changes.
///
/// # Errors
/// When the database or the directory cannot be used; with `watch` only when that is so at the start.
pub async fn run(wish: &MosquittoFiles, config: &Config) -> anyhow::Result<String> {
    let config = device::with_database(config)?;
    let store = tree::store_alone(&config)?;
    // Whoever listens first and looks then misses nothing.
    let mut news = if wish.watch { store.access_news().await.ok() } else { None };
    let mut told = write(wish, &config, &store).await?;
    if !wish.watch {
        return Ok(told.report);
    }
    tracing::info!(directory = %wish.out.display(), "watching who may come in");
    for line in told.report.lines() {
        tracing::info!("{line}");
    }
    loop {
        match &mut news {
            None => {
                sleep(RETRY).await;
                news = store.access_news().await.ok();
            }
            Some(listening) => match timeout(REWRITE_EVERY, listening.next()).await {
                Ok(Err(_)) => news = None,
                Ok(Ok(_)) => while let Ok(Ok(_)) = timeout(GATHER, listening.next()).await {},
                Err(_) => {}
            },
        }
        match write(wish, &config, &store).await {
            Ok(again) if again.report != told.report || again.has_changed => {
                for line in again.report.lines() {
                    tracing::info!("{line}");
                }
                told = again;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(error = format!("{error:#}"), "files not written, trying again"),
        }
    }
}

struct Written {
    report: String,
    has_changed: bool,
}

async fn write(wish: &MosquittoFiles, config: &Config, store: &Store) -> anyhow::Result<Written> {
    let users = store.run("broker_users", async |conn| credential::broker_users(conn).await).await;
    let users = users.context("read who may come in")?;
    let files = files(&users, engine_user(config)?, &wish.out);
    std::fs::create_dir_all(&wish.out).with_context(|| format!("make {}", wish.out.display()))?;
    let mut has_changed = false;
    for (name, content) in &files.files {
        let path = wish.out.join(name);
        has_changed |= replace(&path, content).with_context(|| format!("write {}", path.display()))?;
    }
    let mut report = String::new();
    let listed = users.len() - files.without_hash.len() - files.unspeakable.len();
    let _ = writeln!(report, "{listed} devices may log in at Mosquitto by {}", wish.out.display());
    for device in &files.without_hash {
        let _ = writeln!(report, "left out: {device} has a password that was not made here; rotate it");
    }
    for device in &files.unspeakable {
        let _ = writeln!(report, "left out: {device} has a name that Mosquitto's files cannot hold");
    }
    if has_changed && let Some(pid_file) = &wish.pid_file {
        match signal(pid_file) {
            Ok(()) => report.push_str("Mosquitto was told to read them\n"),
            Err(error) => {
                let _ = writeln!(report, "Mosquitto was not told: {error:#}");
            }
        }
    }
    Ok(Written { report, has_changed })
}

/// The user and password of the engine itself.
fn engine_user(config: &Config) -> anyhow::Result<(String, String)> {
    let mqtt = &config.mqtt;
    let named =
        mqtt.username.clone().zip(mqtt.password.as_ref().map(|password| password.expose().to_owned()));
    let Some((username, password)) = named.or_else(|| mqtt.url.credentials()) else {
        bail!(
            "the engine needs a login of its own at the broker: set mqtt.username and mqtt.password (or password_file)"
        );
    };
    if username.contains([':', '\n', '\r'])
        || username.trim() != username
        || username.is_empty()
        || password.is_empty()
    {
        bail!(
            "mqtt.username must have no colon, no line break and no space at its ends, and mqtt.password must not be empty"
        );
    }
    Ok((username, password))
}

/// Makes the files of these users and the engine.
#[must_use]
pub fn files(users: &[BrokerUser], (engine, password): (String, String), out: &Path) -> Files {
    let (mut passwords, mut acl) = (String::new(), String::new());
    let (mut without_hash, mut unspeakable) = (Vec::new(), Vec::new());
    let head = "# Written by farmiq-edge broker-config; changes are lost.\n";
    acl.push_str(head);
    // The salt follows from name and password, so that the file stays as it is while they do.
    let _ = writeln!(passwords, "{engine}:{}", mosquitto::hash_steadily(&engine, &password));
    let _ = writeln!(acl, "\nuser {engine}");
    for filter in FILTERS {
        let _ = writeln!(acl, "topic read {filter}");
    }
    for filter in OWN_FILTERS {
        let _ = writeln!(acl, "topic write {filter}");
    }
    for user in users {
        let name = format!("{} of {}", user.device_id, user.tenant_id);
        let ids = [
            Some(&user.tenant_id),
            Some(&user.device_id),
            user.farm_id.as_ref(),
            user.barn_id.as_ref(),
            user.station_id.as_ref(),
        ];
        let is_speakable =
            ids.into_iter().flatten().all(|id| schema::id::is_id(id) && id.trim() == id.as_str());
        let is_named = !user.username.contains([':', '\n', '\r']) && user.username.trim() == user.username;
        if !is_speakable || !is_named || user.username == engine {
            unspeakable.push(name);
            continue;
        }
        let Some(hash) = &user.mosquitto_hash else {
            without_hash.push(name);
            continue;
        };
        let _ = writeln!(passwords, "{}:{hash}", user.username);
        let topics = DeviceTopics::of(
            &user.tenant_id,
            user.farm_id.as_deref(),
            user.barn_id.as_deref(),
            &user.device_id,
            user.station_id.as_deref(),
        );
        let _ = writeln!(acl, "\nuser {}", user.username);
        for filter in &topics.publishes {
            let _ = writeln!(acl, "topic write {filter}");
        }
        let _ = writeln!(acl, "topic readwrite {}", topics.status);
        for filter in &topics.hears {
            let _ = writeln!(acl, "topic read {filter}");
        }
    }
    let conf = format!(
        "{head}# Nobody comes in without a password, and nobody writes but below his own topics.\n\
         allow_anonymous false\n\
         password_file {out}/passwords\n\
         acl_file {out}/acl\n",
        out = out.display()
    );
    Files {
        files: [("passwords", passwords), ("acl", acl), ("access.conf", conf)],
        without_hash,
        unspeakable,
    }
}

/// Puts a file in the place of another in one step; false when it is the same already.
fn replace(path: &Path, content: &str) -> io::Result<bool> {
    if std::fs::read(path).is_ok_and(|before| before == content.as_bytes()) {
        return Ok(false);
    }
    let directory = path.parent().unwrap_or(Path::new("."));
    let draft: PathBuf = path.with_extension("draft");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(&draft)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    // Mosquitto reads them as a member of the group that the directory belongs to; where this is not ours to give, it
    // has been arranged otherwise.
    drop(std::os::unix::fs::chown(&draft, None, Some(directory.metadata()?.gid())));
    std::fs::rename(&draft, path)?;
    Ok(true)
}

/// Tells a running Mosquitto to read its files again.
fn signal(pid_file: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(pid_file).with_context(|| format!("read {}", pid_file.display()))?;
    let pid = text.trim().parse().ok().and_then(Pid::from_raw);
    let pid = pid.with_context(|| format!("{} holds no process id", pid_file.display()))?;
    kill_process(pid, Signal::HUP).context("signal Mosquitto")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(device: &str, hash: Option<&str>, station: Option<&str>) -> BrokerUser {
        BrokerUser {
            username: format!("t/{device}"),
            mosquitto_hash: hash.map(str::to_owned),
            tenant_id: "t".to_owned(),
            device_id: device.to_owned(),
            farm_id: Some("f".to_owned()),
            barn_id: None,
            station_id: station.map(str::to_owned),
        }
    }

    #[test]
    fn each_user_may_write_below_its_own_topics_and_the_engine_reads() {
        let users =
            [user("d", Some("$7$x"), Some("st")), user("legacy", None, None), user("d ", Some("$7$x"), None)];
        let files = files(&users, ("engine".to_owned(), "secret".to_owned()), Path::new("/out"));
        let [(_, passwords), (_, acl), (_, conf)] = &files.files;
        assert!(passwords.starts_with("engine:$7$101$"), "{passwords}");
        assert!(passwords.ends_with("\nt/d:$7$x\n"), "{passwords}");
        let of_device = "\nuser t/d\n\
            topic write iot/telemetry/t/f/+/d/+\n\
            topic write iot/event/t/f/+/d/+\n\
            topic write iot/weighvision/t/f/+/st/session/+/+\n\
            topic readwrite iot/status/t/f/+/d\n\
            topic read iot/command/t/f/+/d/+\n\
            topic read iot/engine/+/heartbeat\n";
        assert!(acl.ends_with(of_device), "{acl}");
        assert!(acl.contains("user engine\ntopic read iot/telemetry/+/+/+/+/+\n"), "{acl}");
        assert!(
            acl.contains("topic write iot/command/+/+/+/+/+\ntopic write iot/engine/+/heartbeat\n"),
            "{acl}"
        );
        assert!(!acl.contains("legacy") && !passwords.contains("secret"));
        assert_eq!(files.without_hash, ["legacy of t"]);
        assert_eq!(files.unspeakable, ["d  of t"]);
        assert!(conf.contains("password_file /out/passwords\n"), "{conf}");
    }

    #[test]
    fn a_file_is_replaced_in_one_step_and_only_when_it_has_changed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("acl");
        assert!(replace(&path, "one").expect("it can be written"));
        assert!(!replace(&path, "one").expect("it can be written"));
        assert!(replace(&path, "two").expect("it can be written"));
        let metadata = path.metadata().expect("it is there");
        assert_eq!(metadata.mode() & 0o777, FILE_MODE);
        assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 1);
    }
}
