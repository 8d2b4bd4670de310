//! A model that is tried on stored pictures before it is used: what it says is put beside what the model in use said.
//!
//! The pictures are read one at a time, the newest first, while no job waits, and with a rest after each that is as long as
//! the look was. A trial is a row that knows how far it is, so that it goes on after a restart. Of several engines that read
//! for one trial each keeps what nobody has kept before it.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use schema::clock::Clock;
use schema::id::Uuid;
use schema::store::inference::trial::{self as rows, Finding, Picture, Said, Trial};
use schema::store::{Conn, Store, StoreError};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::InferenceHub;
use super::model::{Model, Source};
use super::settings::Overrides;
use super::stored::{self, BytesError};
use crate::chore::Chore;
use crate::flock::agreement::{Agreement, Moments};
use crate::media::store::{MediaStore, ObjectRef};

/// How often a trial is looked for, and whether jobs wait.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The least rest after a picture.
const REST_MIN: Duration = Duration::from_millis(50);
/// The rest after the store of the images did not answer.
const STORE_AWAY_REST: Duration = Duration::from_secs(15);
/// Bytes of a failure that are kept with its picture.
const FAILURE_BYTES_MAX: usize = 500;
/// Pictures that a report names.
pub const WORST_MAX: usize = 100;

/// Reads stored pictures with a candidate.
#[derive(Clone)]
pub struct TrialReader {
    /// The database.
    pub store: Store,
    /// Wall time.
    pub clock: Clock,
    /// The images.
    pub media: Arc<dyn MediaStore>,
    /// The model in use.
    pub hub: InferenceHub,
    /// What the configuration says instead of a package. The version is the package's own.
    pub overrides: Overrides,
    /// The candidate, while its trial goes on.
    pub candidate: Option<(Uuid, Arc<Model>)>,
}

impl Chore for TrialReader {
    const NAME: &'static str = "model_trial";
    type Error = StoreError;

    async fn run(&mut self) -> Result<Duration, StoreError> {
        let find = async |conn: &mut Conn| {
            let Some(trial) = rows::newest(conn).await?.filter(|trial| trial.state == "reading") else {
                return Ok(None);
            };
            Ok(Some((trial, rows::is_idle(conn).await?)))
        };
        let Some((trial, is_idle)) = self.store.run("model_trial", find).await? else {
            self.candidate = None;
            return Ok(LOOK_EVERY);
        };
        if !is_idle || self.hub.is_stopping() {
            return Ok(LOOK_EVERY);
        }
        let next = async |conn: &mut Conn| rows::next(conn, &trial).await;
        let picture = self.store.run("model_trial_next", next).await?;
        let Some(picture) = picture.filter(|_| trial.pictures < trial.pictures_max) else {
            self.end(&trial, "done", None).await?;
            return Ok(LOOK_EVERY);
        };
        let candidate = match self.candidate(&trial).await {
            Ok(candidate) => candidate,
            Err(fault) => {
                tracing::warn!(model = trial.path, fault, "the candidate cannot be tried");
                self.end(&trial, "broken", Some(&fault)).await?;
                return Ok(LOOK_EVERY);
            }
        };
        let began_at = Instant::now();
        self.look(&trial, &picture, candidate)
            .await
            .map(|is_read| if is_read { began_at.elapsed().max(REST_MIN) } else { STORE_AWAY_REST })
    }
}

impl TrialReader {
    /// The candidate of a trial: the very network that the trial began with.
    async fn candidate(&mut self, trial: &Trial) -> Result<Arc<Model>, String> {
        if let Some((_, model)) = self.candidate.as_ref().filter(|(id, _)| *id == trial.id) {
            return Ok(Arc::clone(model));
        }
        let Candidate { model, package_sha256 } = load(&trial.path, &self.overrides).await?;
        if package_sha256 != trial.package_sha256 {
            return Err("its files are others now: begin a new trial".to_owned());
        }
        let model = Arc::new(model);
        self.candidate = Some((trial.id, Arc::clone(&model)));
        Ok(model)
    }

    /// Looks at a picture; `false` when the store of the images does not answer.
    async fn look(&self, trial: &Trial, picture: &Picture, model: Arc<Model>) -> Result<bool, StoreError> {
        let object = ObjectRef { object_key: picture.object_key.clone(), path: picture.path.clone() };
        let said = match stored::read(&*self.media, &object).await {
            Ok(bytes) => see(model, bytes).await,
            Err(error @ (BytesError::Gone | BytesError::Refused(_))) => Err(error.to_string()),
            Err(error @ (BytesError::Cut { .. } | BytesError::Store(_))) => {
                tracing::debug!(%error, "a stored picture cannot be read now");
                return Ok(false);
            }
        };
        let said = said.map_err(|text| {
            let end = text.floor_char_boundary(FAILURE_BYTES_MAX);
            text[..end].replace('\0', " ")
        });
        let (version, now) = (self.hub.model_version(), self.clock.now());
        let keep = async |conn: &Conn| {
            let present = rows::present(conn, picture, &version).await?;
            let present = present.as_ref().map(|said| (version.as_str(), said));
            rows::add(conn, (trial, picture), &said, present, now).await
        };
        self.store
            .run("model_trial_add", async |conn| conn.transaction("model_trial_add", keep).await)
            .await?;
        Ok(true)
    }

    async fn end(&mut self, trial: &Trial, state: &str, fault: Option<&str>) -> Result<(), StoreError> {
        self.candidate = None;
        let now = self.clock.now();
        let end = async |conn: &mut Conn| rows::set_state(conn, trial.id, (state, fault), now).await;
        if self.store.run("model_trial_end", end).await? {
            tracing::info!(trial_id = %trial.id, state, "the trial of a model has ended");
        }
        Ok(())
    }
}

/// A model that may be used one day.
#[derive(Debug)]
pub struct Candidate {
    /// The model.
    pub model: Model,
    /// The SHA-256 of its network and its settings, in hex.
    pub package_sha256: String,
}

/// Loads a candidate.
///
/// # Errors
/// What is wrong with it, for a person.
pub async fn load(path: &str, overrides: &Overrides) -> Result<Candidate, String> {
    // The version that the configuration names is that of the model in use.
    let overrides = Overrides { version: None, ..overrides.clone() };
    let source = Source::of(Some(path.as_ref()));
    let settings = match &source {
        Source::File(path) => {
            tokio::fs::read(path.with_extension("toml")).await.map_err(|error| error.to_string())?
        }
        Source::Bundled => Vec::new(),
    };
    let model = Model::load(source, overrides).await.map_err(|error| error.explanation())?;
    let package_sha256 = Sha256::new_with_prefix(model.sha256()).chain_update(settings).finalize();
    Ok(Candidate { package_sha256: hex::encode(package_sha256), model })
}

/// What a model says of a picture. A network that panics says nothing.
async fn see(model: Arc<Model>, bytes: Vec<u8>) -> Result<Said, String> {
    let look = move || {
        let image = model.decode(&bytes).map_err(|refusal| refusal.to_string())?;
        let prediction = model.predict(&image).map_err(|error| error.explanation())?;
        let birds = prediction.boxes.as_ref().map(Vec::len);
        Ok(Said { weight_kg: prediction.weight_kg, birds: birds.and_then(|birds| i32::try_from(birds).ok()) })
    };
    let outcome = tokio::task::spawn_blocking(look).await;
    outcome.unwrap_or_else(|_| Err("the network panicked".to_owned()))
}

/// How two series of weights differ.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// Pairs.
    pub n: u32,
    /// In kilograms.
    pub kg: Option<Agreement>,
    /// In percent of the mean of both.
    pub percent: Option<Agreement>,
}

impl Difference {
    fn of(pairs: impl Iterator<Item = (f64, f64)>) -> Self {
        let (mut kilograms, mut percent) = (Moments::default(), Moments::default());
        // No bird weighs nothing or a ton; of such, percent say nothing.
        let is_weight = |kilograms: f64| (0.001..=1000.0).contains(&kilograms);
        for (one, other) in pairs.filter(|(one, other)| is_weight(*one) && is_weight(*other)) {
            kilograms = kilograms.with(one - other);
            percent = percent.with(100.0 * (one - other) / f64::midpoint(one, other));
        }
        Self { n: kilograms.n, kg: Agreement::of(kilograms), percent: Agreement::of(percent) }
    }
}

/// A picture of which two models say something else.
#[derive(Clone, Debug, Serialize)]
pub struct Apart {
    /// Tenant.
    pub tenant_id: String,
    /// The picture.
    pub media_id: Uuid,
    /// The camera.
    pub device_id: String,
    /// Its session.
    pub session_id: Option<String>,
    /// What the candidate says.
    pub candidate_kg: f64,
    /// What the model in use says.
    pub present_kg: f64,
    /// What the scale said.
    pub scale_kg: Option<f64>,
}

/// What a trial found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Pictures that were looked at.
    pub pictures: usize,
    /// Of which the candidate could say nothing: broken, or gone.
    pub failed: usize,
    /// Of which the model in use has no result.
    pub unread: usize,
    /// In which the candidate alone sees a bird.
    pub seen_by_candidate_only: usize,
    /// In which the model in use alone does.
    pub seen_by_present_only: usize,
    /// The versions that were in use.
    pub present_versions: Vec<String>,
    /// Candidate − model in use, over the pictures in which both see a bird.
    pub candidate_to_present: Difference,
    /// Candidate − scale, over the pictures of one bird of which both models and the scale say something.
    pub candidate_to_scale: Difference,
    /// Model in use − scale, over the same pictures.
    pub present_to_scale: Difference,
    /// Where the models differ most, the worst first.
    pub worst: Vec<Apart>,
}

/// What comes of the findings of a trial, with so many of the worst pictures.
#[must_use]
pub fn report(findings: &[Finding], worst: usize) -> Report {
    let count = |is_it: &dyn Fn(&Finding) -> bool| findings.iter().filter(|found| is_it(found)).count();
    let is_compared = |found: &Finding| found.failure.is_none() && found.present_version.is_some();
    let both = || {
        let compared = findings.iter().filter(|found| is_compared(found));
        compared.filter_map(|found| Some((found, found.candidate_kg?, found.present_kg?)))
    };
    // Several birds in a picture are none on the scale.
    let is_one = |birds: Option<i32>| birds.is_none_or(|birds| birds == 1);
    let weighed = || {
        let alone = both().filter(|(found, ..)| is_one(found.candidate_birds) && is_one(found.present_birds));
        alone.filter_map(|(found, candidate, present)| Some((candidate, present, found.scale_kg?)))
    };
    let mut apart: Vec<Apart> = both()
        .map(|(found, candidate_kg, present_kg)| Apart {
            tenant_id: found.tenant_id.clone(),
            media_id: found.media_id,
            device_id: found.device_id.clone(),
            session_id: found.session_id.clone(),
            candidate_kg,
            present_kg,
            scale_kg: found.scale_kg,
        })
        .collect();
    let grams = |apart: &Apart| ((apart.candidate_kg - apart.present_kg).abs() * 1000.0).round() as u64;
    apart.sort_by_key(|apart| (Reverse(grams(apart)), apart.media_id));
    apart.truncate(worst.min(WORST_MAX));
    let mut present_versions: Vec<String> =
        findings.iter().filter_map(|found| found.present_version.clone()).collect();
    present_versions.sort_unstable();
    present_versions.dedup();
    Report {
        pictures: findings.len(),
        failed: count(&|found| found.failure.is_some()),
        unread: count(&|found| found.present_version.is_none()),
        seen_by_candidate_only: count(&|found| {
            is_compared(found) && found.candidate_kg.is_some() && found.present_kg.is_none()
        }),
        seen_by_present_only: count(&|found| {
            is_compared(found) && found.candidate_kg.is_none() && found.present_kg.is_some()
        }),
        present_versions,
        candidate_to_present: Difference::of(both().map(|(_, candidate, present)| (candidate, present))),
        candidate_to_scale: Difference::of(weighed().map(|(candidate, _, scale)| (candidate, scale))),
        present_to_scale: Difference::of(weighed().map(|(_, present, scale)| (present, scale))),
        worst: apart,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(candidate_kg: Option<f64>, present_kg: Option<f64>, scale_kg: Option<f64>) -> Finding {
        Finding {
            tenant_id: "t-001".to_owned(),
            media_id: schema::id::new_id(),
            device_id: "wv-001".to_owned(),
            session_id: None,
            candidate_kg,
            candidate_birds: None,
            failure: None,
            present_version: Some("v1".to_owned()),
            present_kg,
            present_birds: None,
            scale_kg,
        }
    }

    #[test]
    fn what_two_models_say_of_the_same_pictures_is_compared_and_nothing_else() {
        let mut findings = vec![
            found(Some(2.1), Some(2.0), Some(2.05)),
            found(Some(2.3), Some(2.0), Some(2.2)),
            found(Some(1.9), Some(1.8), None),
            found(Some(2.0), None, Some(2.0)),
            found(None, Some(2.0), Some(2.0)),
            found(None, None, None),
        ];
        // Two birds in a picture, a broken picture, and one that the model in use never saw.
        findings.push(Finding { candidate_birds: Some(2), ..found(Some(4.0), Some(2.0), Some(2.0)) });
        findings.push(Finding { failure: Some("cut".to_owned()), ..found(None, Some(2.0), None) });
        findings.push(Finding { present_version: None, ..found(Some(2.0), None, None) });
        let report = report(&findings, 2);
        assert_eq!((report.pictures, report.failed, report.unread), (9, 1, 1));
        assert_eq!((report.seen_by_candidate_only, report.seen_by_present_only), (1, 1));
        assert_eq!(report.candidate_to_present.n, 4);
        let bias = |difference: &Difference| difference.kg.unwrap().bias;
        assert!((bias(&report.candidate_to_present) - 2.5 / 4.0).abs() < 1e-9);
        assert_eq!((report.candidate_to_scale.n, report.present_to_scale.n), (2, 2));
        assert!((bias(&report.candidate_to_scale) - 0.075).abs() < 1e-9);
        assert!((bias(&report.present_to_scale) + 0.125).abs() < 1e-9);
        let worst: Vec<f64> = report.worst.iter().map(|apart| apart.candidate_kg).collect();
        assert_eq!(worst, [4.0, 2.3]);
        assert_eq!(report.present_versions, ["v1"]);
    }

    #[test]
    fn nothing_is_said_of_nothing() {
        let report = report(&[], 10);
        assert_eq!((report.pictures, report.candidate_to_present.n), (0, 0));
        assert!(report.candidate_to_present.kg.is_none() && report.worst.is_empty());
    }
}
