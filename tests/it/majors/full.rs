//! The disk is full in the middle of an upgrade.

use tests::volume::Volume;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_fills_the_disk_gives_the_room_back_and_the_old_cluster_starts() {
    let Some(programs) = newer_programs() else {
        println!("skipped: no newer PostgreSQL in target/venv, see tests/requirements.txt");
        return;
    };
    let settings = settings();
    let Some(volume) = Volume::mount(settings.data_dir(), "4g") else {
        println!("skipped: this user may not mount a volume of its own");
        return;
    };
    let with_newer = settings.clone().with_variable("PATH", &format!("{}:/usr/bin:/bin", programs.display()));
    let mut engine = Engine::stopped(settings.clone());
    let client = up(&mut engine).await;
    let old = version(&client).await;
    admit(&client).await;
    let mut device = Device::connect(settings.mqtt, "d-1").await;
    for _ in 0..50 {
        device.put(&reading("d-1", &new_event_id())).await;
    }
    assert_eq!(engine.terminate().await.code, Some(0));

    let upgrade = cluster(&with_newer, &["upgrade"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let upgrade = upgrade.expect("it can be started");
    let draft = settings.data_dir().join("postgres.upgrade");
    until("the copy is under way", async || draft.join("pg_upgrade_output.d").exists()).await;
    volume.fill();
    let output = upgrade.wait_with_output().await.expect("it ends");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("the old cluster is as it was"), "{text}");
    assert!(!draft.exists(), "the copy still takes the room");

    // Without a byte more than the copy gave back.
    let client = up(&mut engine).await;
    assert_eq!((version(&client).await, readings(&client).await), (old, 50));
    assert_eq!(engine.terminate().await.code, Some(0));
    volume.grow("4g");
    let (is_done, text) = said(cluster(&with_newer, &["upgrade"])).await;
    assert!(is_done, "{text}");
}
