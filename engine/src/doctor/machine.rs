//! The machine: room on its volumes, its clock, descriptors, and the name it goes by.

use std::path::Path;
use std::time::Duration;

use broker::DoorSettings;
use chrono::Datelike;
use rustix::process::{Resource, getrlimit};
use schema::clock::Clock;
use tokio::process::Command;
use tokio::time::timeout;

use super::{Finding, GIB, Verdict, nearest_existing};
use crate::config::{Config, Environment, Loaded, MqttMode, Origin};
use crate::runway::Runway;

/// Years in which this program can run; outside them the clock is wrong.
const YEARS: std::ops::Range<i32> = 2025..2100;
/// Longest wait for a program that says whether the clock is kept right.
const CLOCK_ANSWER: Duration = Duration::from_secs(3);
/// Descriptors that are wanted beside those of the connections: files, the database, the cloud, HTTP.
const DESCRIPTORS_SPARE: u64 = 512;
/// What the private database's log may take on its volume, GiB.
const WAL_GIB: u64 = 3;
/// Of the files that a volume can hold, at least one in so many must be free.
const FREE_FILES_SHARE: u64 = 100;

/// The volumes: those of the images, of the system, and of a private database.
pub(super) fn volumes(config: &Config) -> Vec<Finding> {
    let mut places = vec![
        (config.media.root.as_path(), config.retention.free_disk_gb_min, "until then uploads are refused"),
        (config.ops.disk_path.as_path(), 1, "a full volume stops everything that writes"),
    ];
    if config.database.url.is_none() {
        places.push((
            config.edge.data_dir.as_path(),
            WAL_GIB,
            "PostgreSQL ends when there is none for its log",
        ));
    }
    places.into_iter().map(|(place, free_gib_min, why)| volume(place, free_gib_min, why)).collect()
}

/// How long the cloud may stay away, as the engine measured it last; nothing where it has not yet.
pub(super) fn runway(config: &Config) -> Option<Finding> {
    let runway = Runway::read(&config.edge.data_dir)?;
    let text = format!("the cloud may stay away for {:.1} days: {}", runway.days, runway.arithmetic());
    if runway.is_enough() {
        return Some(Finding::ok("runway", text));
    }
    let advice = "give the volume of the database more room: the promise is seven days without the cloud";
    Some(Finding::new(Verdict::Warn, "runway", text, advice))
}

fn volume(place: &Path, free_gib_min: u64, why: &str) -> Finding {
    let existing = nearest_existing(place);
    let (space, files) = match (actors::disk::space(place), rustix::fs::statvfs(&existing)) {
        (Ok(space), Ok(files)) => (space, files),
        (Err(error), _) => return unseen(place, &error),
        (_, Err(error)) => return unseen(place, &error.into()),
    };
    // Some file systems have no fixed number of files and say zero.
    if files.f_files > 0 && files.f_favail < files.f_files / FREE_FILES_SHARE {
        let text =
            format!("{} has room for {} more files of {}", existing.display(), files.f_favail, files.f_files);
        let advice = "remove files, or move the data to a volume with more inodes (`df -i` shows them)";
        return Finding::new(Verdict::Fail, "disk", text, advice);
    }
    let text = format!("{} has {:.1} GiB free", existing.display(), space.free_bytes as f64 / GIB as f64);
    if space.free_bytes >= free_gib_min * GIB {
        return Finding::ok("disk", text);
    }
    Finding::new(Verdict::Warn, "disk", text, format!("make room, at least {free_gib_min} GiB: {why}"))
}

fn unseen(place: &Path, error: &std::io::Error) -> Finding {
    Finding::new(Verdict::Warn, "disk", format!("{}: {error}", place.display()), "check the path")
}

/// The clock, and whether somebody keeps it right.
pub(super) async fn clock() -> Finding {
    let now = Clock::system().now();
    let text = schema::wire::time::format(now);
    if !YEARS.contains(&now.year()) {
        let advice = "set the clock: `timedatectl set-ntp true`, or `date -u -s …`";
        return Finding::new(Verdict::Fail, "clock", text, advice);
    }
    match is_kept_right().await {
        Some(true) => Finding::ok("clock", format!("{text}, kept right by a time server")),
        Some(false) => {
            let advice = "`timedatectl set-ntp true`, or run chrony: deletions by age wait while the clock is not believable";
            Finding::new(Verdict::Warn, "clock", format!("{text}, and no time server keeps it right"), advice)
        }
        None => Finding::ok(
            "clock",
            format!("{text}; whether a time server keeps it right cannot be seen from here"),
        ),
    }
}

/// What systemd says of the clock; `None` in a container, and on machines without it.
async fn is_kept_right() -> Option<bool> {
    let mut command = Command::new("timedatectl");
    command.args(["show", "--property=NTPSynchronized", "--value"]).kill_on_drop(true);
    let output = timeout(CLOCK_ANSWER, command.output()).await.ok()?.ok()?;
    match String::from_utf8_lossy(&output.stdout).trim() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// Whether the process may open as many files and sockets as its settings promise.
pub(super) fn descriptors(config: &Config) -> Finding {
    let of_mqtt = match config.mqtt.mode {
        MqttMode::Embedded => DoorSettings::sockets_max(config.broker.connections_max),
        MqttMode::External => 0,
    };
    let wanted = u64::try_from(of_mqtt + config.database.pool_max).unwrap_or(u64::MAX) + DESCRIPTORS_SPARE;
    match getrlimit(Resource::Nofile).maximum {
        Some(limit) if limit < wanted => {
            let text = format!("at most {limit}, and broker.connections_max asks for {wanted}");
            let advice = "raise the limit (`LimitNOFILE=` of a unit, `ulimit -Hn`, or the container's), or lower broker.connections_max";
            Finding::new(Verdict::Warn, "descriptors", text, advice)
        }
        Some(limit) => Finding::ok("descriptors", format!("at most {limit}, {wanted} are wanted")),
        None => Finding::ok("descriptors", "no limit"),
    }
}

/// Whether the engine keeps its name when its container is replaced.
pub(super) fn name(loaded: &Loaded, environment: &Environment) -> Option<Finding> {
    let is_in_a_pod = environment.get("KUBERNETES_SERVICE_HOST").is_some();
    let id = &loaded.config.edge.id;
    let is_set = match loaded.origins.get("edge.id") {
        Some(Origin::File { .. } | Origin::Flag(_) | Origin::Preset) => true,
        Some(Origin::Variable(name)) => name != "HOSTNAME",
        Some(Origin::Default) | None => false,
    };
    (is_in_a_pod && !is_set).then(|| {
        let text =
            format!("\"{id}\" is the name of this pod: the cloud sees another barn after each restart");
        Finding::new(Verdict::Warn, "edge.id", text, "set FARMIQ_EDGE__ID")
    })
}
