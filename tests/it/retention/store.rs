//! Whose images are those in the store? What no row knows goes only where that is certain.

use std::sync::Arc;

use actors::media::store::MARKER;
use actors::retention::PassOrder;
use schema::id::Uuid;
use tests::postgres::Database;
use tests::wait::until;

use super::{House, NEVER_ENOUGH, WET, now};

/// A person says that all images are ours.
const ADOPT: PassOrder = PassOrder { adopts_store: true, ..WET };
/// A person says that what no row knows may go.
const CONFIRM: PassOrder = PassOrder { confirms_orphans: true, ..WET };

impl House {
    /// Images that are known, so that few that are not are few of many.
    async fn known_images(&self, count: usize) {
        for number in 0..count {
            self.image(&format!("known-{number}"), 20, None).await;
            self.age(&self.path(&format!("known-{number}")), 20);
        }
    }

    /// The error of a pass.
    async fn refusal(&self) -> String {
        self.hub(|_| ()).pass(WET).await.error().expect("something is not deleted")
    }

    fn marker(&self) -> Option<String> {
        std::fs::read_to_string(self.root.path().join(MARKER)).ok()
    }

    /// Another database over the same directory.
    async fn neighbor(&self) -> House {
        let house = House::beside(Database::fresh_at(now()).await, Arc::clone(&self.root), now()).await;
        house.reading("new", 0).await;
        house
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_nobody_knows_go_after_a_week_if_the_engine_could_have_named_them() {
    let house = House::new().await;
    house.known_images(30).await;
    house.old_file("forgotten", 8);
    house.old_file("recent", 6);
    house.old_file("offered", 30);
    let foreign =
        ["lost+found/foreign.jpg", "t-001/f/b/s/IMG_1.jpg", "t-001/f/b/s/20260212T093215.052Z_me.jpg"];
    let drafts = [Uuid::from_u128(1), Uuid::from_u128(2)].map(|id| format!("t-001/f/b/s/.{id}.part"));
    for path in foreign.iter().copied().chain(drafts.iter().map(String::as_str)) {
        house.file_at(path);
    }
    foreign.iter().for_each(|path| house.age(path, 300));
    house.age(&drafts[0], 2);
    house
        .db
        .execute(&format!(
            "INSERT INTO media_uploads (media_id, tenant_id, farm_id, barn_id, device_id, bucket, object_key, content_type,
                path, status, expires_at, created_at)
             VALUES (gen_random_uuid(), 't-001', 'f', 'b', 'd', 'b', 'k', 'image/jpeg', '{}', 'uploaded', now(), now())",
            house.path("offered")
        ))
        .await;
    let report = house.pass().await;
    assert_eq!(report.deleted_files, 2, "the forgotten one, and the draft of the day before yesterday");
    let left = house.files();
    for name in ["known-0", "recent", "offered", "foreign.jpg", "IMG_1.jpg", "20260212T093215.052Z_me.jpg"] {
        assert!(left.contains(&name.to_owned()), "{name}: {left:?}");
    }
    assert_eq!(left.len(), 30 + 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_never_came_goes_with_its_file() {
    let house = House::new().await;
    for (name, days_ago, status) in
        [("late", 8, "expired"), ("young", 6, "expired"), ("open", 8, "presigned")]
    {
        house.old_file(name, 8);
        let at = (house.now - chrono::Duration::days(days_ago)).to_rfc3339();
        house
            .db
            .execute(&format!(
                "INSERT INTO media_uploads (media_id, tenant_id, farm_id, barn_id, device_id, bucket, object_key, content_type,
                    path, status, expires_at, created_at)
                 VALUES (gen_random_uuid(), 't-001', 'f', 'b', 'd', 'b', '{name}', 'image/jpeg', '{}', '{status}', '{at}', '{at}')",
                house.path(name)
            ))
            .await;
    }
    let report = house.pass().await;
    assert_eq!((report.deleted_files, report.deleted_rows.get("media_uploads")), (1, Some(&1)));
    assert_eq!(house.files(), ["open", "young"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_database_beside_the_images_of_another_deletes_none() {
    let first = House::new().await;
    first.known_images(10).await;
    // With the marker of the other, and without any.
    for has_marker in [true, false] {
        if !has_marker {
            std::fs::remove_file(first.root.path().join(MARKER)).expect("it was there");
        }
        let second = first.neighbor().await;
        let refusal = second.refusal().await;
        assert!(refusal.contains(if has_marker { "other databases" } else { "no marker" }), "{refusal}");
        assert_eq!(first.files().len(), 10);
        assert_eq!(second.marker().is_some(), has_marker, "a store is not marked beside images of others");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_adopts_a_store_and_says_that_much_may_go() {
    let first = House::new().await;
    first.known_images(10).await;
    let second = first.neighbor().await;
    second.refusal().await;
    let hub = second.hub(|_| ());
    let report = hub.pass(PassOrder { is_dry_run: Some(true), ..ADOPT }).await;
    assert!(report.error().expect("a dry run changes nothing").contains("other databases"), "{report:?}");
    let report = hub.pass(ADOPT).await;
    assert!(report.error().expect("they are many").contains("10 of 10 are kept"), "{report:?}");
    assert_eq!(hub.troubles().keys().copied().collect::<Vec<_>>(), ["orphans"]);
    let report = hub.pass(CONFIRM).await;
    assert_eq!((report.error(), report.deleted_files, hub.troubles().len()), (None, 10, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_databases_on_one_directory_delete_no_file_that_they_do_not_know() {
    let first = House::new().await;
    first.known_images(30).await;
    let second = first.neighbor().await;
    for number in 0..30 {
        second.image(&format!("theirs-{number}"), 20, None).await;
    }
    // Each of them has lost one, which is little.
    for house in [&first, &second] {
        house
            .db
            .execute("DELETE FROM media_objects WHERE object_key IN ('tenants/known-0', 'tenants/theirs-0')")
            .await;
    }
    for number in 0..30 {
        second.age(&second.path(&format!("theirs-{number}")), 20);
    }
    for round in 0..2 {
        for house in [&second, &first] {
            assert!(house.refusal().await.contains("other databases"), "round {round}");
        }
    }
    assert_eq!(first.files().len(), 60);
    // Each still deletes what is its own and old.
    first.image("old", 91, None).await;
    let report = first.hub(|_| ()).pass(WET).await;
    assert_eq!((report.deleted_files, first.files().len()), (1, 60));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_and_a_copy_delete_no_file_that_came_after_them() {
    for change in ["marks_count = marks_count - 1", "database_key = 'of another server'"] {
        let house = House::new().await;
        house.known_images(30).await;
        house.pass().await;
        // What a backup does not know, and does not know of itself.
        house.db.execute("DELETE FROM media_objects WHERE object_key = 'tenants/known-0'").await;
        house.db.execute(&format!("UPDATE media_store SET {change}")).await;
        for _ in 0..2 {
            assert!(house.refusal().await.contains("copied or restored"), "{change}");
        }
        assert_eq!(house.files().len(), 30, "{change}");
        let report = house.hub(|_| ()).pass(ADOPT).await;
        assert_eq!((report.error(), report.deleted_files), (None, 1), "{change}");
        house.pass().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_restored_from_a_backup_is_still_ours() {
    let house = House::new().await;
    let old = house.marker().expect("it is marked");
    house.pass().await;
    std::fs::write(house.root.path().join(MARKER), old).expect("it can be written");
    house.pass().await;
    house.pass().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_directory_costs_neither_a_file_nor_a_row() {
    let house = House::new().await;
    house.image("old", 91, None).await;
    house.session("done", "finalized").await;
    house.image("done", 20, Some("done")).await;
    house.known_images(5).await;
    let emergency = |settings: &mut actors::retention::RetentionSettings| {
        settings.free_bytes_min = NEVER_ENOUGH;
        settings.is_emergency_delete = true;
    };
    let empty = tempfile::tempdir().expect("a directory");
    let elsewhere = tempfile::tempdir().expect("a directory");
    // One level above the images, as it were.
    std::fs::create_dir_all(elsewhere.path().join("media/t-001/f/b/s")).expect("it can be made");
    for name in house.files() {
        let place = elsewhere.path().join("media").join(house.path(&name));
        std::fs::write(place, "bytes").expect("it can be written");
    }
    let before = (house.rows().await, house.files());
    for place in [elsewhere.path(), empty.path()] {
        let report = house.hub_at(place, emergency).pass(WET).await;
        assert!(report.error().expect("it is said").contains("no marker"), "{report:?}");
        assert_eq!((house.rows().await, house.files()), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_barn_of_an_older_program_has_its_store_marked_at_the_first_pass() {
    let house = House::beside(
        Database::fresh_at(now()).await,
        Arc::new(tempfile::tempdir().expect("a directory")),
        now(),
    )
    .await;
    house.known_images(30).await;
    house.old_file("forgotten", 8);
    house.reading("new", 0).await;
    house.pass().await;
    assert!(house.marker().is_some());
    assert_eq!(house.files().len(), 30, "what the older program left behind is swept up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_pass_that_is_cut_anywhere_costs_no_store_its_marker() {
    let house = House::beside(
        Database::fresh_at(now()).await,
        Arc::new(tempfile::tempdir().expect("a directory")),
        now(),
    )
    .await;
    house.reading("new", 0).await;
    for polls in (1..).step_by(2) {
        let is_marked_at_once = super::poll_times(house.hub(|_| ()).pass(WET), polls).await;
        let locks = "SELECT count(*) FROM pg_locks JOIN pg_database AS d ON d.oid = database
            WHERE locktype = 'advisory' AND datname = current_database()";
        until("the cut pass is forgotten", async || house.db.count(locks).await == 0).await;
        house.known_images(2).await;
        house.pass().await;
        assert!(house.marker().is_some(), "cut after {polls} polls");
        if is_marked_at_once {
            break;
        }
        house.db.execute("DELETE FROM media_store; DELETE FROM media_objects").await;
        for entry in std::fs::read_dir(house.root.path()).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
                .expect("it is ours");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_marker_that_is_deleted_is_missed() {
    let house = House::new().await;
    house.known_images(30).await;
    house.old_file("forgotten", 8);
    std::fs::remove_file(house.root.path().join(MARKER)).expect("it was there");
    for _ in 0..2 {
        assert!(house.refusal().await.contains("no marker"));
    }
    assert_eq!((house.files().len(), house.marker()), (31, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_an_emergency_no_image_goes_early_that_another_database_may_know() {
    let house = House::new().await;
    house.session("done", "finalized").await;
    house.image("done", 20, Some("done")).await;
    house.neighbor().await.refusal().await;
    let report = house
        .hub(|settings| {
            settings.free_bytes_min = NEVER_ENOUGH;
            settings.is_emergency_delete = true;
        })
        .pass(WET)
        .await;
    assert_eq!((report.deleted_files, house.rows().await), (0, vec!["done".to_owned()]));
}
