//! Retention against a real database and a real directory: what goes, what stays, and what a cut pass leaves behind.

mod age;
mod bucket;
mod copies;
mod running;
mod store;

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use actors::media::filesystem::{FilesystemSettings, FilesystemStore};
use actors::media::store::{MARKER, MediaStore};
use actors::media::thumbnail::Thumbnails;
use actors::retention::report::Report;
use actors::retention::{PassOrder, RetentionHub, RetentionSettings};
use chrono::{DateTime, Duration, Utc};
use schema::clock::watch::ClockWatch;
use schema::clock::{Clock, Timestamp};
use schema::id::{self, Uuid};
use schema::store::partition;
use tempfile::TempDir;
use tests::postgres::{Database, connect, store};

const TENANT: &str = "t-001";
/// A pass that deletes, and one that counts.
const WET: PassOrder = PassOrder {
    is_dry_run: Some(false),
    confirms_clock: false,
    confirms_orphans: false,
    adopts_store: false,
};
const DRY: PassOrder = PassOrder { is_dry_run: Some(true), ..WET };
/// More free bytes than any disk has.
const NEVER_ENOUGH: u64 = u64::MAX;

fn now() -> Timestamp {
    DateTime::parse_from_rfc3339("2026-11-23T10:00:00Z").expect("a time").with_timezone(&Utc)
}

/// A database and a directory of images, in which retention is at home.
struct House {
    db: Database,
    root: Arc<TempDir>,
    now: Timestamp,
    /// What the files are called here, by their names on the disk.
    names: Mutex<HashMap<String, String>>,
}

impl House {
    async fn new() -> Self {
        Self::over(Database::fresh_at(now()).await, tempfile::tempdir().expect("a directory"), now()).await
    }

    /// A house at a time that has had a pass.
    async fn over(db: Database, root: TempDir, now: Timestamp) -> Self {
        let house = Self::beside(db, Arc::new(root), now).await;
        house.pass().await;
        // The pass has dropped those that were empty.
        house.make_months().await;
        house
    }

    /// A house that knows nothing of its images yet.
    async fn beside(db: Database, root: Arc<TempDir>, now: Timestamp) -> Self {
        let house = Self { db, root, now, names: Mutex::default() };
        house.make_months().await;
        house
    }

    /// Partitions since a year before.
    async fn make_months(&self) {
        for months in 1..12 {
            let then = self.now - Duration::days(30 * months);
            let make = async |conn: &mut _| partition::ensure_ahead(conn, then).await;
            self.db.store.run("test", make).await.expect("made");
        }
    }

    fn hub(&self, change: impl FnOnce(&mut RetentionSettings)) -> RetentionHub {
        self.hub_at(self.root.path(), change)
    }

    /// Retention over another directory.
    fn hub_at(&self, root: &Path, change: impl FnOnce(&mut RetentionSettings)) -> RetentionHub {
        let root = root.to_owned();
        let media = FilesystemStore::new(FilesystemSettings {
            root: root.clone(),
            public_base_url: "http://localhost".to_owned(),
            upload_secret: "secret".to_owned(),
        });
        self.hub_on(Arc::new(media), |settings| {
            settings.media_root = Some(root);
            change(settings);
        })
    }

    /// Retention over another place of images.
    fn hub_on(
        &self,
        media: Arc<dyn MediaStore>,
        change: impl FnOnce(&mut RetentionSettings),
    ) -> RetentionHub {
        let mut settings = RetentionSettings {
            database_free_bytes_min: 0,
            telemetry_raw_days: 90,
            telemetry_agg_days: 365,
            media_days: 90,
            outbox_acked_days: 30,
            interval_minutes: 60,
            is_dry_run: false,
            is_emergency_delete: false,
            free_bytes_min: 0,
            media_root: None,
            bucket: "farmiq-media".to_owned(),
            thumbnails: Thumbnails::unkept(),
        };
        change(&mut settings);
        let clock = Clock::manual(self.now);
        RetentionHub::new(settings, store(&self.db.url), ClockWatch::new(clock), media)
    }

    async fn pass(&self) -> Arc<Report> {
        let report = self.hub(|_| ()).pass(WET).await;
        assert_eq!(report.errors, Vec::<String>::new());
        report
    }

    /// A reading that came in when its device says it was made.
    async fn reading(&self, name: &str, days_ago: i64) {
        let at = (self.now - Duration::days(days_ago)).to_rfc3339();
        self.reading_at(name, &at, &at).await;
    }

    async fn reading_at(&self, name: &str, occurred_at: &str, ingested_at: &str) {
        self.db
            .execute(&format!(
                "INSERT INTO telemetry_raw (id, tenant_id, device_id, event_id, metric_type, metric_value, occurred_at, ingested_at)
                 VALUES (gen_random_uuid(), '{TENANT}', 'd-1', '{name}', 'temperature', 1, '{occurred_at}', '{ingested_at}')"
            ))
            .await;
    }

    /// An event that the cloud does not have yet.
    async fn unacked(&self, id: Uuid, event_type: &str, days_ago: i64, status: &str) {
        let at = (self.now - Duration::days(days_ago)).to_rfc3339();
        let failed_at = if status == "failed" { format!("'{at}'") } else { "NULL".to_owned() };
        self.db
            .execute(&format!(
                "INSERT INTO sync_outbox (id, tenant_id, device_id, event_type, occurred_at, payload_json, status, failed_at)
                 VALUES ('{id}', '{TENANT}', 'd-1', '{event_type}', '{at}', '{{}}', '{status}', {failed_at})"
            ))
            .await;
    }

    async fn session(&self, name: &str, status: &str) {
        let ended = if status == "finalized" { "now(), 'e'" } else { "NULL, NULL" };
        self.db
            .execute(&format!(
                "INSERT INTO weight_sessions (id, tenant_id, session_id, farm_id, barn_id, device_id, station_id, status,
                    start_at, created_event_id, created_at, updated_at, end_at, finalized_event_id)
                 VALUES (gen_random_uuid(), '{TENANT}', '{name}', 'f', 'b', 'd-1', 's', '{status}', now(), 'c', now(), now(), {ended})"
            ))
            .await;
    }

    /// An image with its file, and with its session where it names one.
    async fn image(&self, name: &str, days_ago: i64, session: Option<&str>) -> Uuid {
        let (id, at) = (id::new_id(), (self.now - Duration::days(days_ago)).to_rfc3339());
        let path = self.file(name);
        let session = session.map_or("NULL".to_owned(), |session| format!("'{session}'"));
        self.db
            .execute(&format!(
                "INSERT INTO media_objects (id, tenant_id, farm_id, barn_id, device_id, session_id, bucket, object_key, path,
                    mime_type, size_bytes, captured_at, created_at)
                 VALUES ('{id}', '{TENANT}', 'f', 'b', 'd-1', {session}, 'farmiq-media', 'tenants/{name}', '{path}',
                    'image/jpeg', 5, '{at}', '{at}')"
            ))
            .await;
        id
    }

    /// The path of the file that is called so here.
    fn path(&self, name: &str) -> String {
        let on_disk =
            format!("20260212T093215.052Z_{}.jpg", Uuid::new_v5(&id::MEDIA_NAMESPACE, name.as_bytes()));
        self.names.lock().expect("no panic").insert(on_disk.clone(), name.to_owned());
        format!("{TENANT}/f/b/s/{on_disk}")
    }

    /// A file, as an image has it, and its path.
    fn file(&self, name: &str) -> String {
        let path = self.path(name);
        self.file_at(&path);
        path
    }

    /// A file of any name.
    fn file_at(&self, path: &str) {
        let place = self.root.path().join(path);
        std::fs::create_dir_all(place.parent().expect("a directory")).expect("it can be made");
        std::fs::write(place, "bytes").expect("it can be written");
    }

    /// A file that was written so many days ago.
    fn old_file(&self, name: &str, days_ago: i64) {
        let path = self.file(name);
        self.age(&path, days_ago);
    }

    /// Makes a file so many days old.
    fn age(&self, path: &str, days_ago: i64) {
        let file = std::fs::File::options().write(true).open(self.root.path().join(path));
        let at = self.now - Duration::days(days_ago);
        file.expect("it is there").set_modified(at.into()).expect("its time can be set");
    }

    /// The names of the images that have a row.
    async fn rows(&self) -> Vec<String> {
        let sql = "SELECT substr(object_key, 9) FROM media_objects ORDER BY 1";
        self.db.client.query(sql, &[]).await.expect("it is right").iter().map(|row| row.get(0)).collect()
    }

    /// What all files are called here; those that have no such name, by their names on the disk.
    fn files(&self) -> Vec<String> {
        let known = self.names.lock().expect("no panic");
        let mut names: Vec<_> = walk(self.root.path())
            .iter()
            .map(|path| path.file_name().expect("a name").to_string_lossy().into_owned())
            .filter(|name| name != MARKER)
            .map(|name| known.get(&name).cloned().unwrap_or(name))
            .collect();
        names.sort();
        names
    }

    /// Rows of all kinds that are old enough, and some that are held.
    async fn old_things(&self) {
        let long_ago = (self.now - Duration::days(400)).to_rfc3339();
        self.reading("old", 150).await;
        self.reading("odd", 2000).await;
        // Far enough from the other to lie in another month at any time.
        self.reading("held", 210).await;
        self.unacked(id::new_id(), "telemetry.ingested", 210, "failed").await;
        let day = partition::acked_table((self.now - Duration::days(40)).date_naive());
        self.db
            .execute(&format!(
                "INSERT INTO device_events (id, tenant_id, farm_id, barn_id, device_id, event_id, event_type, occurred_at, ingested_at)
                 SELECT gen_random_uuid(), '{TENANT}', 'f', 'b', 'd-1', 'e' || i, 'door.opened', now, now
                 FROM generate_series(1, 3) AS i, (VALUES ('{}'::timestamptz), ('{long_ago}')) AS v (now);
                 CREATE TABLE {day} () INHERITS (sync_outbox);
                 INSERT INTO {day} (id, seq, tenant_id, event_type, payload_json, status, acked_at)
                 SELECT gen_random_uuid(), i, '{TENANT}', 'x', '{{}}', 'acked', '{long_ago}' FROM generate_series(1, 7) AS i;
                 INSERT INTO telemetry_agg (id, tenant_id, device_id, \"window\", bucket_start_at, bucket_end_at, metric_type,
                    avg_value, min_value, max_value, count, created_at)
                 SELECT gen_random_uuid(), '{TENANT}', 'd' || i, '1m', '{long_ago}', '{long_ago}', 'm', 1, 1, 1, 1, '{long_ago}'
                 FROM generate_series(1, 4500) AS i;
                 INSERT INTO media_uploads (media_id, tenant_id, farm_id, barn_id, device_id, bucket, object_key, content_type,
                    status, expires_at, created_at)
                 SELECT gen_random_uuid(), '{TENANT}', 'f', 'b', 'd', 'b', 'k' || i, 'image/jpeg', 'expired', '{long_ago}', now()
                 FROM generate_series(1, 5) AS i;
                 INSERT INTO dead_letters (id, tenant_id, source, reason, event_type, body_json, first_seen_at, dead_at, redriven_at)
                 SELECT gen_random_uuid(), '{TENANT}', 'media', 'r', 'e', '{{}}', '2020-01-01', '2020-01-01', '{long_ago}'
                 FROM generate_series(1, 6)",
                (self.now - Duration::days(150)).to_rfc3339()
            ))
            .await;
        self.session("open", "created").await;
        self.session("done", "finalized").await;
        self.image("held", 91, Some("open")).await;
        self.age(&self.path("held"), 91);
        for number in 0..120 {
            self.image(&format!("old-{number}"), 91, Some("done")).await;
        }
        self.old_file("forgotten", 8);
    }

    async fn readings(&self) -> Vec<String> {
        let sql = "SELECT event_id FROM telemetry_raw ORDER BY 1";
        self.db.client.query(sql, &[]).await.expect("it is right").iter().map(|row| row.get(0)).collect()
    }
}

fn walk(place: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(place).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_of_readings_goes_once_it_is_over_and_acknowledged() {
    let house = House::new().await;
    // 90 days before the present lies in August: July is over, August is not.
    for (name, days_ago) in [("new", 1), ("august", 114), ("july", 116), ("june", 150), ("may", 180)] {
        house.reading(name, days_ago).await;
    }
    house.unacked(id::new_id(), "telemetry.ingested", 150, "pending").await;
    house.unacked(id::new_id(), "telemetry.ingested", 180, "failed").await;
    // Neither an event of another type nor one of another month holds July.
    house.unacked(id::new_id(), "weighvision.session.finalized", 116, "pending").await;
    let report = house.pass().await;
    assert_eq!(house.readings().await, ["august", "june", "may", "new"]);
    assert_eq!(report.deleted_rows.get("telemetry_raw"), Some(&1));
    house.db.execute("DELETE FROM sync_outbox").await;
    house.pass().await;
    assert_eq!(house.readings().await, ["august", "new"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn readings_of_odd_times_go_one_by_one() {
    let house = House::new().await;
    for (name, days_ago) in [("gone", 2000), ("waits", 2000), ("failed", 2000), ("future", -2000)] {
        house.reading(name, days_ago).await;
    }
    house.unacked(id::outbox_id(TENANT, "waits"), "telemetry.ingested", 2000, "sent").await;
    house.unacked(id::outbox_id(TENANT, "failed"), "telemetry.ingested", 2000, "failed").await;
    assert_eq!(house.db.count("SELECT count(*) FROM telemetry_raw_default").await, 4);
    house.pass().await;
    assert_eq!(house.readings().await, ["failed", "future", "waits"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn device_events_go_like_readings() {
    let house = House::new().await;
    for (name, days_ago) in [("new", 1), ("july", 116), ("june", 150), ("odd", 2000)] {
        let at = (now() - Duration::days(days_ago)).to_rfc3339();
        house
            .db
            .execute(&format!(
                "INSERT INTO device_events (id, tenant_id, farm_id, barn_id, device_id, event_id, event_type, occurred_at, ingested_at)
                 VALUES (gen_random_uuid(), '{TENANT}', 'f', 'b', 'd-1', '{name}', 'door.opened', '{at}', '{at}')"
            ))
            .await;
    }
    house.unacked(id::new_id(), "door.opened", 150, "pending").await;
    house.unacked(id::new_id(), "telemetry.ingested", 116, "pending").await;
    let report = house.pass().await;
    let left = "SELECT count(*) FROM device_events WHERE event_id IN ('new', 'june')";
    assert_eq!(house.db.count(left).await, 2);
    assert_eq!(report.deleted_rows.get("device_events"), Some(&2));
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_outbox_rows_go_by_the_day_and_others_never() {
    let house = House::new().await;
    for (id, days_ago) in [(1, 31), (2, 30), (3, 1)] {
        let at = now() - Duration::days(days_ago);
        let table = partition::acked_table(at.date_naive());
        house
            .db
            .execute(&format!(
                "CREATE TABLE IF NOT EXISTS {table} () INHERITS (sync_outbox);
                 INSERT INTO {table} (id, seq, tenant_id, event_type, payload_json, status, acked_at)
                 VALUES ('00000000-0000-4000-8000-00000000000{id}', {id}, '{TENANT}', 'x', '{{}}', 'acked', '{}')",
                at.to_rfc3339()
            ))
            .await;
    }
    for status in ["pending", "claimed", "sent", "failed"] {
        house.unacked(id::new_id(), "telemetry.ingested", 4000, status).await;
    }
    let report = house.pass().await;
    assert_eq!(report.deleted_rows.get("sync_outbox"), Some(&1));
    assert_eq!(house.db.count("SELECT count(*) FROM sync_outbox WHERE status = 'acked'").await, 2);
    assert_eq!(house.db.count("SELECT count(*) FROM sync_outbox WHERE status <> 'acked'").await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn aggregates_uploads_and_letters_go_when_their_time_has_come() {
    let house = House::new().await;
    let day = |days: i64, hours: i64| (now() - Duration::days(days) + Duration::hours(hours)).to_rfc3339();
    for (window, end, made) in [
        ("1m", day(365, -1), day(365, -1)),
        ("1h", day(365, 1), day(365, 1)),
        ("1d", day(366, 0), day(366, 0)),
        ("1d", day(364, 0), day(364, 0)),
        // Of readings that a device has stamped in the past: they stay as long as all others.
        ("1m", day(15_000, 0), day(0, -1)),
        ("1d", day(400, 0), day(364, 0)),
    ] {
        house
            .db
            .execute(&format!(
                "INSERT INTO telemetry_agg (id, tenant_id, device_id, \"window\", bucket_start_at, bucket_end_at, metric_type,
                    avg_value, min_value, max_value, count, created_at)
                 VALUES (gen_random_uuid(), '{TENANT}', 'd', '{window}', '{end}'::timestamptz - interval '1 minute', '{end}', 'm', 1, 1, 1, 1, '{made}')"
            ))
            .await;
    }
    for (status, expires, completed) in [
        ("completed", day(7, 0), format!("'{}'", day(7, -1))),
        ("completed", day(8, 0), format!("'{}'", day(7, 1))),
        ("expired", day(7, -1), "NULL".to_owned()),
        ("expired", day(7, 1), "NULL".to_owned()),
        ("presigned", day(9, 0), "NULL".to_owned()),
        ("uploaded", day(9, 0), "NULL".to_owned()),
    ] {
        let id = id::new_id();
        house
            .db
            .execute(&format!(
                "INSERT INTO media_uploads (media_id, tenant_id, farm_id, barn_id, device_id, bucket, object_key, content_type,
                    status, expires_at, completed_at, created_at)
                 VALUES ('{id}', '{TENANT}', 'f', 'b', 'd', 'b', '{id}', 'image/jpeg', '{status}', '{expires}', {completed}, now())"
            ))
            .await;
    }
    for redriven in ["NULL".to_owned(), format!("'{}'", day(30, 1)), format!("'{}'", day(30, -1))] {
        house
            .db
            .execute(&format!(
                "INSERT INTO dead_letters (id, tenant_id, source, reason, event_type, body_json, first_seen_at, dead_at, redriven_at)
                 VALUES (gen_random_uuid(), '{TENANT}', 'media', 'r', 'e', '{{}}', '2020-01-01', '2020-01-01', {redriven})"
            ))
            .await;
    }
    let report = house.pass().await;
    let deleted: Vec<_> = report.deleted_rows.iter().map(|(table, rows)| (*table, *rows)).collect();
    assert_eq!(deleted, [("dead_letters", 1), ("media_uploads", 2), ("telemetry_agg", 2)]);
    assert_eq!(
        house.db.count("SELECT count(*) FROM media_uploads WHERE status IN ('presigned', 'uploaded')").await,
        2
    );
    assert_eq!(house.db.count("SELECT count(*) FROM dead_letters WHERE redriven_at IS NULL").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn images_go_unless_a_session_is_open_or_the_cloud_waits() {
    let house = House::new().await;
    house.session("open", "created").await;
    house.session("done", "finalized").await;
    house.session("off", "cancelled").await;
    house.image("new", 89, None).await;
    house.image("old", 91, None).await;
    house.image("old-done", 91, Some("done")).await;
    house.image("old-off", 91, Some("off")).await;
    house.image("old-unknown", 91, Some("nobody")).await;
    house.image("old-open", 91, Some("open")).await;
    let bound = house.image("old-bound", 91, None).await;
    house
        .db
        .execute(&format!(
            "INSERT INTO session_media_bindings (id, tenant_id, session_id, media_object_id, occurred_at, event_id, created_at)
             VALUES (gen_random_uuid(), '{TENANT}', 'open', '{bound}', now(), 'e', now())"
        ))
        .await;
    let unacked = house.image("old-unacked", 91, Some("done")).await;
    house.unacked(id::media_stored_event_id(unacked), "media.stored", 91, "failed").await;
    let lost = house.image("old-lost", 91, None).await;
    std::fs::remove_file(house.root.path().join(house.path("old-lost"))).expect("it was there");
    let report = house.pass().await;
    let left = ["new", "old-bound", "old-open", "old-unacked"];
    assert_eq!(house.rows().await, left, "{lost}");
    assert_eq!(house.files(), left);
    assert_eq!((report.deleted_files, report.freed_bytes), (4, 20));
    assert_eq!(report.deleted_rows.get("media_objects"), Some(&5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_deleted_waits_and_stops_nobody() {
    let house = House::new().await;
    house.image("stuck", 92, None).await;
    house.image("loose", 91, None).await;
    // A path that leaves the directory is refused, whoever runs the test.
    house
        .db
        .execute("UPDATE media_objects SET path = '../stuck.jpg' WHERE object_key = 'tenants/stuck'")
        .await;
    let report = house.hub(|_| ()).pass(WET).await;
    assert_eq!(house.rows().await, ["stuck"]);
    assert!(report.error().expect("it is said").contains("1 files"), "{report:?}");
    house.db.execute(&format!("UPDATE media_objects SET path = '{}'", house.path("stuck"))).await;
    house.pass().await;
    assert_eq!((house.rows().await, house.files()), (Vec::new(), Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_an_emergency_only_images_of_finalized_sessions_go() {
    let house = House::new().await;
    house.session("open", "created").await;
    house.session("done", "finalized").await;
    house.image("monitoring", 20, None).await;
    house.image("open", 20, Some("open")).await;
    house.image("done", 20, Some("done")).await;
    let full = |settings: &mut RetentionSettings| settings.free_bytes_min = NEVER_ENOUGH;
    house.hub(full).pass(WET).await;
    assert_eq!(house.rows().await, ["done", "monitoring", "open"], "nothing goes unless it is wanted");
    let emergency = |settings: &mut RetentionSettings| {
        full(settings);
        settings.is_emergency_delete = true;
    };
    house.hub(|settings| settings.is_emergency_delete = true).pass(WET).await;
    assert_eq!(house.rows().await, ["done", "monitoring", "open"], "nothing goes while there is room");
    house.hub(emergency).pass(WET).await;
    assert_eq!(house.rows().await, ["monitoring", "open"]);
    assert_eq!(house.files(), ["monitoring", "open"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_counts_what_a_pass_deletes_and_changes_nothing() {
    let house = House::new().await;
    house.old_things().await;
    let everything = async || {
        let mut counts = Vec::new();
        for table in [
            "telemetry_raw",
            "device_events",
            "sync_outbox",
            "telemetry_agg",
            "media_uploads",
            "dead_letters",
            "media_objects",
            "pg_inherits",
        ] {
            counts.push((table, house.db.count(&format!("SELECT count(*) FROM {table}")).await));
        }
        (counts, house.files())
    };
    let before = everything().await;
    let dry = house.hub(|_| ()).pass(DRY).await;
    assert_eq!(everything().await, before);
    let wet = house.pass().await;
    assert_eq!((&dry.deleted_rows, dry.deleted_files), (&wet.deleted_rows, wet.deleted_files));
    let deleted: Vec<_> = wet.deleted_rows.iter().map(|(table, rows)| (*table, *rows)).collect();
    let expected = [
        ("dead_letters", 6),
        ("device_events", 6),
        ("media_objects", 120),
        ("media_uploads", 5),
        ("sync_outbox", 7),
        ("telemetry_agg", 4500),
        ("telemetry_raw", 2),
    ];
    assert_eq!((deleted, wet.deleted_files), (expected.to_vec(), 121));
    assert_eq!(
        (house.readings().await, house.rows().await),
        (vec!["held".to_owned()], vec!["held".to_owned()])
    );
    assert_eq!(house.files(), ["held"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_of_an_emergency_counts_no_image_twice() {
    let house = House::new().await;
    house.session("done", "finalized").await;
    house.image("old", 91, Some("done")).await;
    house.image("early", 20, Some("done")).await;
    house.image("monitoring", 20, None).await;
    let emergency = |settings: &mut RetentionSettings| {
        settings.free_bytes_min = NEVER_ENOUGH;
        settings.is_emergency_delete = true;
    };
    let dry = house.hub(emergency).pass(DRY).await;
    assert_eq!(house.rows().await.len(), 3);
    let wet = house.hub(emergency).pass(WET).await;
    assert_eq!((&dry.deleted_rows, dry.deleted_files), (&wet.deleted_rows, wet.deleted_files));
    assert_eq!((wet.deleted_files, house.rows().await), (2, vec!["monitoring".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_of_an_emergency_ends_where_there_would_be_room() {
    let house = House::new().await;
    house.session("done", "finalized").await;
    for number in 0..60 {
        house.image(&format!("early-{number}"), 20, Some("done")).await;
    }
    // One of them would be enough, and they go a chunk at a time.
    house.db.execute("UPDATE media_objects SET size_bytes = 1::bigint << 50").await;
    let emergency = |settings: &mut RetentionSettings| {
        settings.free_bytes_min = 1 << 50;
        settings.is_emergency_delete = true;
    };
    assert_eq!(house.hub(emergency).pass(DRY).await.deleted_files, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_engine_at_a_time_runs_a_pass() {
    let house = House::new().await;
    house.image("old", 91, None).await;
    let other = connect(&house.db.url).await;
    let lock = "SELECT pg_advisory_lock(hashtextextended('farmiq/retention', 0))";
    other.batch_execute(lock).await.expect("it is free");
    let report = house.hub(|_| ()).pass(WET).await;
    assert!(report.error().expect("it is said").contains("another engine"), "{report:?}");
    assert_eq!(house.rows().await, ["old"]);
    other.batch_execute("SELECT pg_advisory_unlock_all()").await.expect("it was held");
    house.pass().await;
    assert_eq!(house.rows().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_a_month_is_waited_for_only_briefly() {
    let house = House::new().await;
    house.reading("old", 150).await;
    let reader = connect(&house.db.url).await;
    reader.batch_execute("BEGIN; SELECT count(*) FROM telemetry_raw").await.expect("it reads");
    let report = house.hub(|_| ()).pass(WET).await;
    assert!(report.error().expect("it is said").contains("in use"), "{report:?}");
    assert_eq!(house.readings().await, ["old"]);
    reader.batch_execute("COMMIT").await.expect("it ends");
    house.pass().await;
    assert_eq!(house.readings().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_that_is_cut_anywhere_leaves_no_file_without_a_row_and_is_finished_by_the_next() {
    let house = House::new().await;
    house.session("open", "created").await;
    house.image("open", 91, Some("open")).await;
    for number in 0..120 {
        house.image(&format!("old-{number}"), 91, None).await;
    }
    house.reading("old", 150).await;
    house.reading("odd", 2000).await;
    let mut polls = 1;
    loop {
        let hub = house.hub(|_| ());
        let is_over = poll_times(hub.pass(WET), polls).await;
        let rows = house.rows().await;
        assert!(
            house.files().iter().all(|file| rows.contains(file)),
            "a file without a row after {polls} polls"
        );
        assert!(rows.contains(&"open".to_owned()));
        if is_over && rows.len() == 1 {
            break;
        }
        polls += 7;
    }
    assert_eq!((house.files(), house.readings().await), (vec!["open".to_owned()], Vec::new()));
}

/// Drives work for so many polls, then drops it. Says whether it came to its end.
async fn poll_times<T>(work: impl Future<Output = T>, times: usize) -> bool {
    let (mut work, mut left) = (pin!(work), times);
    poll_fn(|context| {
        if work.as_mut().poll(context).is_ready() {
            return Poll::Ready(true);
        }
        left -= 1;
        if left == 0 { Poll::Ready(false) } else { Poll::Pending }
    })
    .await
}
