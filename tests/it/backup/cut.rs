//! Backups and restores that are cut off: by a kill, and by a disk that is full.

use tests::engine::get;
use tests::server::{freeze, thaw};
use tests::volume::Volume;

use super::*;

/// Starts a restore, kills it once something is there, and checks that nobody takes what it left for a whole.
async fn kill_a_restore(settings: &Settings, from: &str, when: &str) {
    let place = settings.data_dir().join(when);
    let mut command = tokio::process::Command::new(binary());
    command.args(["restore", "--from", from]).env_clear().envs(settings.variables()).kill_on_drop(true);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut restore = command.spawn().expect("the program can be run");
    until(when, async || place.exists()).await;
    restore.kill().await.expect("it can be killed");
    assert!(settings.data_dir().join("restore.unfinished").exists(), "it had finished before it was killed");
    let said = refusal(settings, &["up"]).await;
    assert!(said.contains("was not finished: run `farmiq-edge restore` again"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_killed_is_never_taken_for_a_whole_and_begins_anew() {
    let stick = TempDir::new().expect("a directory");
    let to = stick.path().display().to_string();
    let settings = settings();
    let barn = Barn::start(settings.clone()).await;
    barn.admit().await;
    for _ in 0..3 {
        upload(settings.http).await;
    }
    let pictures = images(&settings.data_dir().join("media"));
    report(&settings, &["backup", "--to", &to]).await;
    barn.destroy().await;

    let again = elsewhere(&settings);
    // While the database is read, and after it is in place: its server starts to count.
    kill_a_restore(&again, &to, "postgres.restore/PG_VERSION").await;
    kill_a_restore(&again, &to, "postgres/PG_VERSION").await;
    let restored = report(&again, &["restore", "--from", &to]).await;
    assert_eq!((restored["images_missing"].clone(), restored["image_files"].clone()), (json!(0), json!(3)));
    assert_eq!(images(&again.data_dir().join("media")), pictures);
    let left: Vec<_> = ["restore.unfinished", "postgres.restore", "media/restore.unfinished"]
        .into_iter()
        .filter(|name| again.data_dir().join(name).exists())
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let barn = Barn::start(again).await;
    assert_eq!(column(&barn.client, "SELECT device_id::text FROM device_allowlist").await.len(), 10);
    barn.destroy().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stick_that_is_full_leaves_the_backups_before_as_they_were() {
    let stick = TempDir::new().expect("a directory");
    let Some(volume) = Volume::mount(stick.path(), "256m") else {
        println!("not tested: this user may not mount a volume of its own");
        return;
    };
    let to = stick.path().display().to_string();
    let settings = settings();
    let barn = Barn::start(settings.clone()).await;
    barn.admit().await;
    let first = report(&settings, &["backup", "--to", &to]).await;
    volume.fill();
    upload(settings.http).await;
    let said = refusal(&settings, &["backup", "--to", &to]).await;
    assert!(said.contains("No space left on device"), "{said}");
    assert!(!settings.data_dir().join("backup.draft").exists(), "the copy is still there");
    let listed = super::said(&run(&settings, &["backup", "--list", "--to", &to]).await);
    let ids: Vec<_> = listed.lines().filter(|line| line.contains('Z')).collect();
    assert!(ids.len() == 1 && listed.contains(first["id"].as_str().expect("a name")), "{listed}");
    let drill = report(&settings, &["restore", "--drill", "--from", &to]).await;
    assert_eq!(drill["backup"], first["id"]);
    volume.grow("256m");
    let second = report(&settings, &["backup", "--to", &to]).await;
    let drill = report(&settings, &["restore", "--drill", "--from", &to]).await;
    assert_eq!((drill["backup"].clone(), drill["image_files"].clone()), (second["id"].clone(), json!(1)));
    barn.destroy().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_whose_disk_a_backup_fills_works_again_by_itself() {
    let stick = TempDir::new().expect("a directory");
    let to = stick.path().display().to_string();
    let settings = settings();
    let Some(volume) = Volume::mount(settings.data_dir(), "4g") else {
        println!("not tested: this user may not mount a volume of its own");
        return;
    };
    let barn = Barn::start(settings.clone()).await;
    barn.admit().await;
    let mut command = tokio::process::Command::new(binary());
    command.args(["backup", "--to", &to]).env_clear().envs(settings.variables()).kill_on_drop(true);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let backup = command.spawn().expect("the program can be run");
    let draft = settings.data_dir().join("backup.draft");
    until("the copy is under way", async || draft.join("base").exists()).await;
    let copying = backup.id().expect("it runs");
    freeze(copying);
    volume.fill();
    thaw(copying);
    let output = backup.wait_with_output().await.expect("it ends");
    assert_eq!(output.status.code(), Some(1), "{}", super::said(&output));
    assert!(super::said(&output).contains("No space left on device"), "{}", super::said(&output));
    assert!(!draft.exists(), "the copy still takes the room");
    until("the box is ready", async || get(settings.http, "/api/ready").await.0 == 200).await;
    let listed = super::said(&run(&settings, &["backup", "--list", "--to", &to]).await);
    assert!(!listed.lines().any(|line| line.contains('Z')), "half a backup is listed: {listed}");
    volume.grow("4g");
    report(&settings, &["backup", "--to", &to]).await;
    barn.end().await;
}
