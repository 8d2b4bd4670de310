//! Weighing stations of both kinds, well-behaved and not, the whole way on both backends: from the picture of a bird to
//! its weight in the session and at the cloud.

use loadtest::barn::station_ids;
use loadtest::cloud;
use loadtest::device::Weighing;
use loadtest::station::Course;
use schema::clock::Clock;
use tests::barn::{Barn, STATIONS};
use tests::device::{TENANT, new_event_id};
use tests::objects::Objects;
use tests::settings::Settings;
use tests::stations::{StoredImage, check_rows, faults_in_cloud, stations};
use tests::wait::until;
use tokio::task::JoinSet;

/// Birds that each station weighs.
const BIRDS: usize = 2;
/// The weight of each.
const WEIGHT_KG: f64 = 2.0;
/// A mean error that no number of unlucky pictures explains, kilograms; that of the bundled model is a quarter of it.
const ERROR_KG_MAX: f64 = 0.5;

/// A barn for stations that upload as fast as they can. Those that end sessions before they begin them have events that
/// are late by nature.
async fn barn(change: impl FnOnce(Settings) -> Settings) -> Barn {
    let lenient = cloud::Settings { tolerates_late: true, ..cloud::Settings::default() };
    let busy = |settings: Settings| {
        let base = format!("http://{}", settings.http);
        settings
            .set("media.public_base_url", &base)
            .set("media.presign_per_minute", "1000")
            .set("retention.free_disk_gb_min", "0")
    };
    Barn::start_judged(lenient, |settings| change(busy(settings))).await
}

/// All stations weigh side by side, and leave.
async fn weigh(barn: &Barn) -> Vec<Course> {
    let mut busy = JoinSet::new();
    for mut station in stations(barn.mqtt(), &format!("http://{}", barn.settings.http)) {
        busy.spawn(async move {
            let mut courses = Vec::new();
            for _ in 0..BIRDS {
                let session = new_event_id();
                let at = Clock::system().now();
                let weighing = Weighing { session: &session, weight_kg: WEIGHT_KG, at };
                courses.push(station.weigh(weighing).await.expect("the engine takes pictures"));
            }
            station.close().await;
            courses
        });
    }
    busy.join_all().await.into_iter().flatten().collect()
}

/// Everything the stations did is where it belongs, once. Says how well the weights were read.
async fn whole_way(barn: Barn, stored: impl Fn(&Barn, &StoredImage) -> Vec<u8>) -> String {
    let courses = weigh(&barn).await;
    assert_eq!(courses.len(), STATIONS * BIRDS);
    until("the cloud has every weighing", async || faults_in_cloud(&barn.cloud, &courses).is_empty()).await;
    for course in &courses {
        check_rows(&barn.db.client, course, |image| stored(&barn, image)).await;
    }
    check_nothing_else(&barn, &courses).await;
    let read = check_readings(&barn).await;
    check_devices(&barn).await;
    barn.finish().await;
    read
}

async fn check_nothing_else(barn: &Barn, courses: &[Course]) {
    let images: usize = courses.iter().map(|course| course.uploads.len()).sum();
    let weights: usize = courses.iter().map(|course| course.weighed.weights).sum();
    for (table, expected) in [
        ("weight_sessions", courses.len()),
        ("session_weights", weights),
        ("session_media_bindings", images),
        ("media_uploads", images),
        ("media_objects", images),
        ("inference_jobs", images),
        ("inference_results", images),
        ("session_parked", 0),
        ("dead_letters", 0),
        ("ingress_rejects", 0),
    ] {
        let rows = barn.db.count(&format!("SELECT count(*) FROM {table}")).await;
        assert_eq!(rows, expected as i64, "{table}");
    }
}

/// The cloud has the weights that were read, and they are those of the birds.
async fn check_readings(barn: &Barn) -> String {
    let mut errors_kg = Vec::new();
    for seen in barn.cloud.images(TENANT) {
        let image = StoredImage::of(&barn.db.client, &seen.media_id).await;
        // The last digits of a number do not survive every reader of JSON.
        let told_kg = seen.predicted_kg.expect("the cloud has a weight");
        assert!((told_kg - image.predicted_kg).abs() < 1e-9, "{told_kg} {image:?}");
        errors_kg.push((image.predicted_kg - WEIGHT_KG).abs());
    }
    let mean_kg = errors_kg.iter().sum::<f64>() / errors_kg.len() as f64;
    assert!(mean_kg < ERROR_KG_MAX, "{mean_kg}");
    format!("{} pictures, mean error {mean_kg:.3} kg", errors_kg.len())
}

/// The wills of agents went out whenever a session took their place; that they left in order is the last word.
async fn check_devices(barn: &Barn) {
    let lost = "SELECT count(*) FROM device_last_seen WHERE device_id = $1 AND state = 'offline'
        AND (health_json->>'camera_ok')::boolean AND NOT (health_json->>'mqtt_ok')::boolean";
    for (_, agent) in station_ids(STATIONS).skip(1).step_by(2) {
        let row = barn.db.client.query_one(lost, &[&agent]).await.expect("the query is right");
        assert_eq!(row.get::<_, i64>(0), 1, "{agent}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stations_weigh_the_whole_way_through_a_directory() {
    let barn = barn(|settings| settings).await;
    let read = whole_way(barn, |barn, image| {
        let path = image.path.as_ref().expect("a directory has paths");
        std::fs::read(barn.settings.data_dir().join("media").join(path)).expect("the image is there")
    })
    .await;
    println!("{read}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stations_weigh_the_whole_way_through_a_bucket() {
    let objects = Objects::start().await;
    let barn = barn(|settings| objects.of(settings)).await;
    until("the bucket is made", async || objects.place("").exists()).await;
    let place = |image: &StoredImage| objects.place(&image.object_key);
    let read = whole_way(barn, |_, image| std::fs::read(place(image)).expect("the image is there")).await;
    println!("{read}");
}
