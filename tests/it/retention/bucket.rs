//! Retention of images in a bucket.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actors::media::s3::{S3Settings, S3Store};
use actors::media::store::{MARKER, MediaStore};
use chrono::Duration;
use tests::objects::{ACCESS_KEY, BUCKET, Objects, SECRET_KEY};
use tests::postgres::connect;
use tests::wait::until;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{House, TENANT, WET, now};

/// A bucket at an address.
fn bucket(url: &str) -> Arc<S3Store> {
    Arc::new(S3Store::new(&S3Settings {
        endpoint: Some(url.to_owned()),
        presign_endpoint: None,
        access_key: ACCESS_KEY.to_owned(),
        secret_key: SECRET_KEY.to_owned(),
        region: "us-east-1".to_owned(),
        bucket: BUCKET.to_owned(),
        is_bucket_made: true,
    }))
}

/// A house with a bucket, and the server of it.
struct Warehouse {
    house: House,
    objects: Objects,
    bucket: Arc<S3Store>,
}

impl Warehouse {
    async fn new() -> Self {
        let (house, objects) = (House::new().await, Objects::start().await);
        let bucket = bucket(&objects.url());
        bucket.probe().await.expect("the bucket is made");
        let place = Self { house, objects, bucket };
        assert_eq!(place.pass().await.error(), None);
        place
    }

    /// An old image with its object.
    async fn image(&self, name: &str, session: Option<&str>) {
        self.house.image(name, 91, session).await;
        self.object(&format!("tenants/{name}"), 91);
    }

    /// An object that was written so many days ago.
    fn object(&self, key: &str, days_ago: i64) {
        let place = self.objects.place(key);
        std::fs::create_dir_all(place.parent().expect("a directory")).expect("it can be made");
        let file = std::fs::File::create(place).expect("it can be made");
        file.set_len(5).expect("it can grow");
        file.set_modified((now() - Duration::days(days_ago)).into()).expect("its time can be set");
    }

    fn has(&self, key: &str) -> bool {
        self.objects.place(key).exists()
    }

    async fn pass(&self) -> Arc<actors::retention::report::Report> {
        self.house.hub_on(self.bucket.clone(), |_| ()).pass(WET).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_wait_for_a_bucket_that_is_away_and_go_when_it_is_back() {
    let mut place = Warehouse::new().await;
    place.house.session("open", "created").await;
    place.image("open", Some("open")).await;
    for name in ["old-1", "old-2", "old-3"] {
        place.image(name, None).await;
    }
    // An object that somebody else deleted is no obstacle.
    place.house.image("old-lost", 91, None).await;
    place.objects.stop().await;
    let report = place.pass().await;
    assert!(report.error().expect("it is said").contains("store: "), "{report:?}");
    assert_eq!(report.deleted_files, 0);
    assert_eq!(place.house.rows().await, ["old-1", "old-2", "old-3", "old-lost", "open"]);
    place.objects.start_again().await;
    let report = place.pass().await;
    assert_eq!((report.error(), report.deleted_files, report.freed_bytes), (None, 3, 15));
    assert_eq!(place.house.rows().await, ["open"]);
    let left = ["old-1", "old-2", "old-3", "open"].map(|name| place.has(&format!("tenants/{name}")));
    assert_eq!(left, [false, false, false, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_goes_before_its_row() {
    let place = Warehouse::new().await;
    place.image("old", None).await;
    let holder = connect(&place.house.db.url).await;
    holder.batch_execute("BEGIN; SELECT FROM media_objects FOR UPDATE").await.expect("the row is held");
    let pass = place.pass();
    let look = async {
        until("the object goes", async || !place.has("tenants/old")).await;
        assert_eq!(place.house.rows().await, ["old"]);
        holder.batch_execute("COMMIT").await.expect("the row is let go");
    };
    let (report, ()) = tokio::join!(pass, look);
    assert_eq!(report.error(), None);
    assert_eq!(place.house.rows().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_up_is_not_asked_for_every_image() {
    let house = House::new().await;
    for number in 0..60 {
        house.image(&format!("old-{number}"), 91, None).await;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let calls = Arc::new(AtomicUsize::new(0));
    let mut server = JoinSet::new();
    let counter = Arc::clone(&calls);
    server.spawn(async move {
        while listener.accept().await.is_ok() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    let report = house.hub_on(bucket(&url), |_| ()).pass(WET).await;
    assert!(report.error().is_some(), "{report:?}");
    let calls = calls.load(Ordering::Relaxed);
    // One image, the bucket itself and the listing, each with its retry.
    assert!((1..20).contains(&calls), "{calls} calls for 60 images");
    assert_eq!(house.rows().await.len(), 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_nobody_knows_go_unless_they_are_of_another_barn() {
    let place = Warehouse::new().await;
    let db = &place.house.db;
    // Ids as people write them, and a device that may be anywhere on its farm.
    for (tenant, device, farm, barn) in
        [(TENANT, "wv-001", "'f 1'", "'b-001'"), ("ฟาร์ม", "wv-001", "'f-001'", "NULL")]
    {
        db.execute(&format!(
            "INSERT INTO device_allowlist (tenant_id, device_id, farm_id, barn_id) VALUES ('{tenant}', '{device}', {farm}, {barn})"
        ))
        .await;
    }
    let key = |tenant: &str, farm: &str, barn: &str, number: u128| {
        let id = schema::id::Uuid::from_u128(number);
        format!("tenants/{tenant}/farms/{farm}/barns/{barn}/devices/wv-001/images/2026/02/12/{id}.jpg")
    };
    let ours = |number| key(TENANT, "f_1", "b-001", number);
    for number in 0..18 {
        place.object(&ours(number), 6);
    }
    let offered = ours(18);
    place.object(&offered, 30);
    db.execute(&format!(
        "INSERT INTO media_uploads (media_id, tenant_id, farm_id, barn_id, device_id, bucket, object_key, content_type, status,
            expires_at, created_at)
         VALUES (gen_random_uuid(), '{TENANT}', 'f 1', 'b-001', 'wv-001', '{BUCKET}', '{offered}', 'image/jpeg', 'presigned', now(), now())"
    ))
    .await;
    let forgotten = [ours(19), key("_____", "f-001", "b-9", 20)];
    let foreign = [
        key(TENANT, "f_1", "b-002", 21),
        key(TENANT, "f_1", "b-0011", 22),
        key("_____", "f-002", "b-9", 23),
        format!("tenants/{TENANT}/farms/f_1/barns/b-001/devices/wv-001/images/2026/02/12/mine.jpg"),
        "backup/foreign.jpg".to_owned(),
    ];
    for lost in forgotten.iter().chain(&foreign) {
        place.object(lost, 300);
    }
    let report = place.pass().await;
    assert_eq!((report.error(), report.deleted_files), (None, 2));
    assert!(forgotten.iter().all(|key| !place.has(key)));
    for kept in (0..18).map(ours).chain([offered]).chain(foreign) {
        assert!(place.has(&kept), "{kept}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_without_its_marker_or_with_that_of_others_loses_no_object() {
    let place = Warehouse::new().await;
    place.house.db.allow_device(TENANT, "wv-001", "f-001", "b-001").await;
    let key = |number: u128| {
        let id = schema::id::Uuid::from_u128(number);
        format!("tenants/{TENANT}/farms/f-001/barns/b-001/devices/wv-001/images/2026/02/12/{id}.jpg")
    };
    for number in 0..20 {
        place.object(&key(number), if number == 0 { 30 } else { 1 });
    }
    let marker = place.objects.place(MARKER);
    let text = std::fs::read(&marker).expect("the bucket is marked");
    std::fs::remove_file(&marker).expect("it was there");
    let report = place.pass().await;
    assert!(report.error().expect("it is said").contains("no marker"), "{report:?}");
    std::fs::write(&marker, "d0b9a1b2-6b39-4d3e-93a2-0b4a3a8b7c11 3\n").expect("it can be written");
    let report = place.pass().await;
    assert!(report.error().expect("it is said").contains("other databases"), "{report:?}");
    assert!(place.has(&key(0)));
    std::fs::write(&marker, text).expect("it can be written");
    let report = place.pass().await;
    assert_eq!((report.error(), report.deleted_files), (None, 1));
    assert!(!place.has(&key(0)));
}
