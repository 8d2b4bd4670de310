//! Weighing stations at an engine, of both kinds, and what must have come of their work.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use loadtest::barn::station_ids;
use loadtest::cloud::PretendCloud;
use loadtest::device::{Place, Station};
use loadtest::publisher::Meter;
use loadtest::station::{Access, AnyStation, Course, Tally, Weighed};
use loadtest::verify;
use sha2::{Digest, Sha256};
use tokio_postgres::Client;

use crate::barn::STATIONS;
use crate::device::{TENANT, login};

/// All stations that are let in, of both kinds. The first half behaves well, the second has its bad habits in every
/// weighing.
pub fn stations(mqtt: SocketAddr, edge: &str) -> impl Iterator<Item = AnyStation> {
    let (meter, tally) = (Arc::new(Meter::default()), Arc::new(Tally::default()));
    station_ids(STATIONS).enumerate().map(move |(index, (station, device))| {
        let access = Access {
            broker: mqtt.to_string(),
            tls: None,
            edge: edge.to_owned(),
            login: login(&device),
            meter: Arc::clone(&meter),
            tally: Arc::clone(&tally),
        };
        let place = Place { tenant: TENANT.into(), farm: "f-001".into(), barn: "b-001".into() };
        let bad_share = if index < STATIONS / 2 { 0.0 } else { 1.0 };
        AnyStation::new(index, Station { place, station, device }, &access, bad_share)
    })
}

/// What the cloud lacks of these weighings or has too often, by session, picture and event.
#[must_use]
pub fn faults_in_cloud(cloud: &PretendCloud, courses: &[Course]) -> Vec<String> {
    let weighings: Vec<Weighed> = courses.iter().map(|course| course.weighed.clone()).collect();
    let mut faults = verify::faults(&weighings, &cloud.sessions(TENANT), &cloud.images(TENANT), true);
    let arrived: HashSet<_> = cloud.ids(TENANT).into_iter().collect();
    let expected = weighings.iter().flat_map(|weighed| &weighed.event_ids);
    let expected = expected.map(|event_id| schema::id::outbox_id(TENANT, event_id).to_string());
    faults.extend(expected.filter(|id| !arrived.contains(id)).map(|id| format!("event {id} is missing")));
    faults
}

/// Checks the rows of a weighing: the session with its end, its weight and a result of its pictures, and each picture
/// completed, read, and in the store as it was uploaded.
///
/// # Panics
/// When anything differs.
pub async fn check_rows(client: &Client, course: &Course, stored: impl Fn(&StoredImage) -> Vec<u8>) {
    let Weighed { session_id, true_kg, weights, media_ids, .. } = &course.weighed;
    let sql = "SELECT s.status, s.image_count, s.final_weight_kg, r.session_id = s.session_id FROM weight_sessions AS s
        LEFT JOIN inference_results AS r ON r.tenant_id = s.tenant_id AND r.id::text = s.inference_result_id
        WHERE s.tenant_id = $1 AND s.session_id = $2";
    let row = client.query_one(sql, &[&TENANT, session_id]).await.expect("the session is there once");
    let (status, images, weight_kg): (String, i32, Option<f64>) = (row.get(0), row.get(1), row.get(2));
    let expected_kg = (*weights > 0).then_some(*true_kg);
    assert_eq!((status.as_str(), images, weight_kg), ("finalized", media_ids.len() as i32, expected_kg));
    assert_eq!(row.get::<_, Option<bool>>(3), Some(true), "{session_id} has a result of one of its pictures");
    for (upload, _) in &course.uploads {
        let image = StoredImage::of(client, &upload.image.media_id).await;
        assert_eq!(image.object_key, upload.object_key);
        assert_eq!(image.session_id.as_deref(), Some(session_id.as_str()));
        assert_eq!(image.size_bytes, upload.image.size_bytes as i64);
        assert_eq!(hex::encode(Sha256::digest(stored(&image))), upload.image.sha256, "{}", image.object_key);
    }
}

/// A picture that is completed and read.
#[derive(Debug)]
pub struct StoredImage {
    /// Its key.
    pub object_key: String,
    /// Where it lies below the root of a directory.
    pub path: Option<String>,
    /// Its session.
    pub session_id: Option<String>,
    /// Its size.
    pub size_bytes: i64,
    /// The weight that was read from it.
    pub predicted_kg: f64,
}

impl StoredImage {
    /// The one picture of this id.
    ///
    /// # Panics
    /// When it is not there, not completed, or not read exactly once.
    pub async fn of(client: &Client, media_id: &str) -> Self {
        let sql = "SELECT o.object_key, o.path, o.session_id, o.size_bytes, r.predicted_weight_kg
            FROM media_objects AS o JOIN media_uploads AS u ON u.tenant_id = o.tenant_id AND u.media_id = o.id
            JOIN inference_jobs AS j ON j.tenant_id = o.tenant_id AND j.media_id = o.id
            JOIN inference_results AS r ON r.tenant_id = o.tenant_id AND r.media_id = o.id::text AND r.id = j.result_id
            WHERE o.tenant_id = $1 AND o.id::text = $2 AND u.status = 'completed' AND j.status = 'completed'";
        let row = client.query_one(sql, &[&TENANT, &media_id]).await;
        let row = row.unwrap_or_else(|error| panic!("image {media_id} is not there once: {error}"));
        Self {
            object_key: row.get(0),
            path: row.get(1),
            session_id: row.get(2),
            size_bytes: row.get(3),
            predicted_kg: row.get(4),
        }
    }
}
