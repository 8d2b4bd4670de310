//! Stations with pictures: what they uploaded stands in the ledger with the hash of its bytes, and each weighing that went
//! through in a file of its own.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;

use schema::clock::Clock;

use super::crowd::Shared;
use crate::device::{Station, Weighing};
use crate::ids::new_event_id;
use crate::ledger::{Entry, Outcome};
use crate::lines::LineWriter;
use crate::render::random_weight_kg;
use crate::station::{Access, AnyStation, Course};
use crate::verify::message::IMAGE_TOPIC;

/// Wait before a capture that failed is made again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Share of weighings in which a station says things twice or in the wrong order.
const BAD_SHARE: f64 = 0.3;

/// A station and what it needs.
pub(crate) struct Rounds {
    pub(crate) index: usize,
    pub(crate) station: Station,
    pub(crate) access: Access,
    pub(crate) shared: Shared,
    pub(crate) every: Duration,
    /// Where weighings that went through are written.
    pub(crate) file: PathBuf,
}

/// Weighs until `stop` becomes true; a weighing under way is finished, for everything works by then.
pub(crate) async fn weigh(rounds: Rounds, mut stop: watch::Receiver<bool>) -> Result<()> {
    let Rounds { index, station, access, shared, every, file } = rounds;
    let mut random = StdRng::from_os_rng();
    let mut station = AnyStation::new(index, station, &access, BAD_SHARE);
    let mut weighings = LineWriter::append(&file).context("open the file of weighings")?;
    while !*stop.borrow() {
        let session = new_event_id(&mut random);
        let weight_kg = random_weight_kg(&mut random);
        let weighing = Weighing { session: &session, weight_kg, at: Clock::system().now() };
        match station.weigh(weighing).await {
            Ok(course) => {
                shared.ledger.append(&entries(&shared, &course))?;
                weighings.write_line(&serde_json::to_vec(&course.weighed)?)?;
                weighings.flush()?;
            }
            Err(_) => tokio::time::sleep(AGAIN_AFTER).await,
        }
        let wait = every.mul_f64(random.random_range(0.5..1.5));
        // Whoever is told to stop does not wait for the next bird.
        drop(tokio::time::timeout(wait, stop.wait_for(|is_stopped| *is_stopped)).await);
    }
    station.close().await;
    weighings.finish()
}

/// The pictures of a weighing, each taken over with status 2xx.
fn entries(shared: &Shared, course: &Course) -> Vec<Entry> {
    let entry = |(upload, at): &(crate::station::Upload, _)| Entry {
        at: *at,
        tenant_id: Some(shared.place.tenant.clone()),
        device_id: None,
        event_id: Some(upload.image.media_id.clone()),
        topic: format!("{IMAGE_TOPIC}{}", upload.image.media_id),
        sha256: upload.image.sha256.clone(),
        outcome: Outcome::Acknowledged,
        reason_code: 0,
        event_type: None,
    };
    course.uploads.iter().map(entry).collect()
}
