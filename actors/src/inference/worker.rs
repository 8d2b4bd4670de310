//! One worker: leases a job, looks at its image, settles it, and again.
//!
//! Owns: the job in hand, and the work order that named it, which is settled after the job's commit.
//! Accepts: `Look` from itself.
//! Sends: hints to the other workers and to sync; orders of jobs that were given up.
//! Dies: of a panic in a decoder or a network. The attempt was counted when the job was claimed; the next incarnation
//! finds the job in hand and settles it as a failed attempt, so that a poisoned image ends as a dead letter.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use schema::clock::{Clock, Timestamp};
use schema::id;
use schema::metrics;
use schema::store::dead_letter::Source;
use schema::store::inference::claim::{self, Again, Claim, Lease, WAIT_MAX};
use schema::store::inference::{self, Job, NewResult};
use schema::store::outbox::put::NewEvent;
use schema::store::{Store, StoreError};
use schema::wire::event::{INFERENCE_COMPLETED, InferenceCompleted};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::image::ImageRefusal;
use super::model::{Model, ModelError};
use super::rabbitmq::{Orders, Outgoing, Taken, WorkOrder};
use super::stored::{self, BytesError};
use super::{Employed, InferenceHub, Prediction};
use crate::media::store::{MediaStore, ObjectRef};
use crate::sync::{SyncHub, backoff};

/// How often rows are looked at when nothing wakes a worker.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a worker that has orders looks at rows nevertheless, so that a job whose order was lost gets its turn.
const ROWS_EVERY: Duration = Duration::from_secs(5);
/// How often a worker looks for jobs whose lease ran out.
const EXPIRED_EVERY: Duration = Duration::from_secs(5);
/// The wait after the store of the images did not answer, which counts as no attempt.
const STORE_AWAY_WAIT: TimeDelta = TimeDelta::seconds(15);
/// The wait after the database did not answer.
const DATABASE_AWAY_WAIT: Duration = Duration::from_secs(2);
/// Bytes of an error that are kept with the job.
const ERROR_BYTES_MAX: usize = 500;

/// What workers share.
pub struct WorkerContext {
    /// The database.
    pub store: Store,
    /// Wall time.
    pub clock: Clock,
    /// The images.
    pub media: Arc<dyn MediaStore>,
    /// The model, and hints.
    pub hub: InferenceHub,
    /// Told of new events. Leases are held under its name, as those of the outbox are.
    pub sync: SyncHub,
    /// Attempts before a job is given up.
    pub attempts_max: i32,
    /// Seconds a job may be held.
    pub lease_seconds: i64,
    /// Filled once the jobs are taken back that an earlier life of this engine had in hand.
    pub taken_back: OnceCell<()>,
}

/// What a worker starts with. All its incarnations share it.
#[derive(Clone)]
pub struct Args {
    context: Arc<WorkerContext>,
    /// What an incarnation that died had in hand.
    in_hand: Arc<Mutex<Option<InHand>>>,
}

/// What a worker works on.
struct InHand {
    claim: Claim,
    /// The order that named the job; `None` for one that was found in the database.
    order: Option<Taken>,
}

impl Args {
    /// For a worker that has nothing in hand.
    #[must_use]
    pub fn new(context: Arc<WorkerContext>) -> Self {
        Self { context, in_hand: Arc::default() }
    }
}

/// The actor; see the head of this file.
pub struct InferenceWorker;

/// What a worker is told.
#[derive(Debug)]
pub enum Msg {
    /// Look for a job.
    Look,
}

/// A worker at work.
pub struct State {
    args: Args,
    expired_looked_at: Option<Instant>,
    rows_looked_at: Option<Instant>,
    _employed: Employed,
}

impl Actor for InferenceWorker {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        myself.send_message(Msg::Look)?;
        let employed = args.context.hub.employ();
        Ok(State { args, expired_looked_at: None, rows_looked_at: None, _employed: employed })
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        Msg::Look: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let hub = state.args.context.hub.clone();
        match state.look().await {
            Ok(true) => {}
            Ok(false) => hub.rest(LOOK_EVERY).await,
            Err(error) => {
                let cause = schema::store::cause(&error);
                tracing::warn!(%error, cause, "inference jobs not reached, trying again");
                hub.pause(DATABASE_AWAY_WAIT).await;
            }
        }
        if !hub.is_stopping() {
            // A worker that is being stopped takes no further messages.
            let _ = myself.send_message(Msg::Look);
        }
        Ok(())
    }
}

/// What became of an attempt.
#[derive(Clone, Copy)]
enum Outcome {
    /// There is a result.
    Completed,
    /// The job is tried again.
    Retried,
    /// The job was given up.
    Failed,
    /// The lease had run out, and somebody else has the job.
    Late,
}

impl Outcome {
    /// The label of the metrics.
    fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Retried => "retried",
            Self::Failed => "failed",
            Self::Late => "late",
        }
    }
}

/// Why an attempt failed.
struct Failure {
    /// For a program.
    code: &'static str,
    /// For a person.
    text: String,
    /// What follows from it.
    blame: Blame,
}

/// Who is to blame for a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blame {
    /// The world around the job: the attempt does not count.
    World,
    /// Perhaps the job: it is tried so many times.
    Job,
    /// The image for sure: it will be the same next time.
    Image,
}

impl State {
    /// Works on one job; `false` when none is due.
    async fn look(&mut self) -> Result<bool, StoreError> {
        let context = Arc::clone(&self.args.context);
        context.taken_back.get_or_try_init(|| context.take_back()).await?;
        self.bury_the_dead().await?;
        self.take_back_expired().await?;
        let Some(next) = self.next().await? else { return Ok(false) };
        // There may be more for the others.
        context.hub.wake();
        let claim = next.claim.clone();
        self.hold(Some(next));
        let started = Instant::now();
        let seen = context.attempt(&claim.job).await;
        let settled = match seen {
            Ok((model, prediction)) => context.complete(&claim, &model, &prediction).await,
            Err(failure) => context.fail(&claim, &failure).await,
        };
        // When settling failed, the lease runs out, and the order goes back.
        let in_hand = self.hold(None);
        let outcome = settled?;
        metrics::inference_duration_seconds(outcome.as_str()).record(started.elapsed());
        context.settled(&claim.job, in_hand.and_then(|in_hand| in_hand.order), outcome);
        Ok(true)
    }

    /// The job that the next order names. Without orders, and now and then with them, the one that is due in the database.
    async fn next(&mut self) -> Result<Option<InHand>, StoreError> {
        let context = &self.args.context;
        let are_rows_next = self.rows_looked_at.is_none_or(|at| at.elapsed() >= ROWS_EVERY);
        while !are_rows_next && let Some(order) = context.hub.orders().and_then(Orders::take) {
            if let Some(claim) = context.claim_ordered(&order.order).await? {
                metrics::inference_orders("taken").increment(1);
                return Ok(Some(InHand { claim, order: Some(order) }));
            }
            metrics::inference_orders("stale").increment(1);
            order.done();
        }
        self.rows_looked_at = Some(Instant::now());
        Ok(context.claim().await?.map(|claim| InHand { claim, order: None }))
    }

    /// Settles what the last incarnation had in hand when it died.
    async fn bury_the_dead(&self) -> Result<(), StoreError> {
        let Some(InHand { claim, order }) = self.hold(None) else { return Ok(()) };
        let failure = Failure {
            code: "WORKER_DIED",
            text: "the worker died while it looked at the image".to_owned(),
            blame: Blame::Job,
        };
        let context = &self.args.context;
        let outcome = context.fail(&claim, &failure).await?;
        context.settled(&claim.job, order, outcome);
        Ok(())
    }

    async fn take_back_expired(&mut self) -> Result<(), StoreError> {
        if self.expired_looked_at.is_some_and(|at| at.elapsed() < EXPIRED_EVERY) {
            return Ok(());
        }
        self.expired_looked_at = Some(Instant::now());
        let context = &self.args.context;
        let (now, lease_max) = (context.clock.now(), context.lease_max());
        let expired = async |conn: &mut _| claim::expired(conn, now, lease_max).await;
        let expired = context.store.run("inference_expired", expired).await?;
        context.fail_all(expired, "LEASE_EXPIRED", "the worker did not come back in time").await
    }

    fn hold(&self, in_hand: Option<InHand>) -> Option<InHand> {
        // A panic while this is locked cannot be: nothing is done under the lock.
        std::mem::replace(&mut *self.args.in_hand.lock().unwrap_or_else(PoisonError::into_inner), in_hand)
    }
}

impl WorkerContext {
    async fn claim(&self) -> Result<Option<Claim>, StoreError> {
        let holder = self.sync.holder().await?;
        let (lease, now) = (self.lease(&holder), self.clock.now());
        self.store.run("inference_claim", async |conn| claim::claim(conn, lease, now).await).await
    }

    async fn claim_ordered(&self, order: &WorkOrder) -> Result<Option<Claim>, StoreError> {
        let holder = self.sync.holder().await?;
        let (lease, now) = (self.lease(&holder), self.clock.now());
        let key = (&*order.tenant_id, order.job_id);
        self.store.run("inference_claim", async |conn| claim::claim_one(conn, key, lease, now).await).await
    }

    fn lease<'a>(&self, holder: &'a str) -> Lease<'a> {
        Lease { holder, length: self.lease_max() }
    }

    fn lease_max(&self) -> TimeDelta {
        TimeDelta::seconds(self.lease_seconds)
    }

    /// Takes back what an earlier life of this engine had in hand when it died. No worker of this life has a job yet, and
    /// no other living engine has its name.
    async fn take_back(&self) -> Result<(), StoreError> {
        let holder = self.sync.holder().await?;
        let held = async |conn: &mut _| claim::held(conn, &holder).await;
        let held = self.store.run("inference_held", held).await?;
        self.fail_all(held, "ENGINE_DIED", "the engine died while it looked at the image").await
    }

    async fn fail_all(&self, claims: Vec<Claim>, code: &'static str, text: &str) -> Result<(), StoreError> {
        for claim in claims {
            let failure = Failure { code, text: text.to_owned(), blame: Blame::Job };
            let outcome = self.fail(&claim, &failure).await?;
            self.settled(&claim.job, None, outcome);
        }
        Ok(())
    }

    /// Counts what became of an attempt and settles its order, after the commit.
    fn settled(&self, job: &Job, order: Option<Taken>, outcome: Outcome) {
        metrics::inference_jobs(outcome.as_str()).increment(1);
        let is_failed = matches!(outcome, Outcome::Failed);
        match (order, self.hub.orders()) {
            (Some(order), _) if is_failed => order.bury(),
            (Some(order), _) => order.done(),
            (None, Some(orders)) if is_failed => {
                orders.send(Outgoing::Dead(WorkOrder::of(job)));
            }
            (None, _) => {}
        }
    }

    /// Looks at the image of a job. A panic on the way is the worker's.
    async fn attempt(&self, job: &Job) -> Result<(Arc<Model>, Prediction), Failure> {
        let bytes = self.read(job).await?;
        let model = self.hub.model();
        let look = move || -> Result<_, Failure> {
            let image = model.decode(&bytes)?;
            let prediction = model.predict(&image)?;
            Ok((model, prediction))
        };
        match tokio::task::spawn_blocking(look).await {
            Ok(outcome) => outcome,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => {
                Err(Failure { code: "STOPPED", text: "the engine stops".to_owned(), blame: Blame::World })
            }
        }
    }

    async fn read(&self, job: &Job) -> Result<Vec<u8>, Failure> {
        let find = async |conn: &mut _| {
            inference::image(conn, &job.tenant_id, Some(job.media_id), &job.object_key).await
        };
        let found = self.store.run("inference_image", find).await.map_err(|error| Failure {
            code: "DATABASE_UNAVAILABLE",
            text: error.to_string(),
            blame: Blame::World,
        })?;
        let object = found.map(|image| ObjectRef { object_key: image.object_key, path: image.path });
        let object = object.ok_or(BytesError::Gone)?;
        Ok(stored::read(&*self.media, &object).await?)
    }

    /// Stores what the model said.
    async fn complete(
        &self,
        claim: &Claim,
        model: &Model,
        prediction: &Prediction,
    ) -> Result<Outcome, StoreError> {
        let (job, now) = (&claim.job, self.clock.now());
        let result = NewResult {
            predicted_weight_kg: prediction.weight_kg,
            confidence: prediction.confidence,
            model_version: model.version().to_owned(),
            metadata: metadata(model, prediction),
        };
        let event = |job: &Job| event(job, &result, now);
        let settle = async |conn: &mut _| claim::complete(conn, claim, &result, event, now).await;
        if !self.store.run("inference_complete", settle).await? {
            tracing::warn!(job_id = %job.id, trace_id = job.trace_id, attempt_count = claim.attempt, "inference result came after its lease");
            return Ok(Outcome::Late);
        }
        // A clock that was set back meanwhile makes it nothing.
        let since_asked = (self.clock.now() - job.created_at).to_std().unwrap_or_default();
        metrics::inference_pipeline_seconds().record(since_asked);
        self.sync.wake();
        tracing::debug!(job_id = %job.id, tenant_id = job.tenant_id, media_id = %job.media_id, trace_id = job.trace_id, "image looked at");
        Ok(Outcome::Completed)
    }

    /// Has the job tried again, or gives it up.
    async fn fail(&self, claim: &Claim, failure: &Failure) -> Result<Outcome, StoreError> {
        let (job, now) = (&claim.job, self.clock.now());
        let Failure { code, text, blame } = failure;
        let error = cut(&format!("{code}: {text}"));
        let is_last = match blame {
            Blame::World => false,
            Blame::Job => claim.attempt >= self.attempts_max,
            Blame::Image => true,
        };
        if is_last {
            let settle = async |conn: &mut _| claim::give_up(conn, claim, code, &error, now).await;
            if self.store.run("inference_give_up", settle).await? {
                metrics::dead_letters_added(Source::Inference, code).increment(1);
                tracing::warn!(job_id = %job.id, tenant_id = job.tenant_id, media_id = %job.media_id, reason = code,
                    error, trace_id = job.trace_id, attempt_count = claim.attempt, "inference job given up");
                return Ok(Outcome::Failed);
            }
            return Ok(Outcome::Late);
        }
        let again = if *blame == Blame::World {
            Again { at: now + STORE_AWAY_WAIT, is_counted: false }
        } else {
            let attempt = u32::try_from(claim.attempt).unwrap_or(1);
            let wait = backoff::wait(attempt, WAIT_MAX.to_std().unwrap_or_default());
            Again { at: now + TimeDelta::from_std(wait).unwrap_or(STORE_AWAY_WAIT), is_counted: true }
        };
        let settle = async |conn: &mut _| claim::put_off(conn, claim, &error, again, now).await;
        let is_mine = self.store.run("inference_put_off", settle).await?;
        tracing::info!(job_id = %job.id, error, trace_id = job.trace_id, attempt_count = claim.attempt, "inference attempt failed");
        Ok(if is_mine { Outcome::Retried } else { Outcome::Late })
    }
}

impl From<ImageRefusal> for Failure {
    fn from(refusal: ImageRefusal) -> Self {
        let cause = std::error::Error::source(&refusal).map(|cause| format!(": {cause}"));
        let text = format!("{refusal}{}", cause.unwrap_or_default());
        Self { code: refusal.code(), text, blame: Blame::Image }
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        let is_away = matches!(error, ModelError::Away(_));
        // It worked before, with other images.
        let (code, blame) =
            if is_away { ("MODEL_UNAVAILABLE", Blame::World) } else { ("MODEL_FAILED", Blame::Job) };
        Self { code, text: error.explanation(), blame }
    }
}

impl From<BytesError> for Failure {
    fn from(error: BytesError) -> Self {
        let text = error.to_string();
        match error {
            BytesError::Gone => Self { code: "OBJECT_NOT_FOUND", text, blame: Blame::Job },
            BytesError::Refused(refusal) => refusal.into(),
            BytesError::Cut { .. } | BytesError::Store(_) => {
                Self { code: "STORAGE_UNAVAILABLE", text, blame: Blame::World }
            }
        }
    }
}

fn metadata(model: &Model, prediction: &Prediction) -> Value {
    let mut metadata = json!({ "model_sha256": model.sha256() });
    if model.is_demo() {
        metadata["demo"] = json!(true);
    }
    if let Some(boxes) = &prediction.boxes {
        metadata["count"] = json!(boxes.len());
        metadata["detections"] = json!(boxes);
    }
    metadata
}

fn event(job: &Job, result: &NewResult, now: Timestamp) -> NewEvent {
    let payload = InferenceCompleted {
        inference_result_id: job.id,
        media_id: job.media_id,
        session_id: job.session_id.as_deref(),
        predicted_weight_kg: result.predicted_weight_kg,
        confidence: result.confidence,
        model_version: &result.model_version,
        occurred_at: now,
        tenant_id: &job.tenant_id,
        farm_id: &job.farm_id,
        barn_id: &job.barn_id,
        device_id: &job.device_id,
    };
    NewEvent {
        id: job.id,
        tenant_id: job.tenant_id.clone(),
        farm_id: job.farm_id.clone(),
        barn_id: job.barn_id.clone(),
        device_id: job.device_id.clone(),
        station_id: None,
        session_id: job.session_id.clone(),
        event_type: INFERENCE_COMPLETED,
        occurred_at: now,
        order_at: None,
        trace_id: job.trace_id.clone().unwrap_or_else(|| id::new_id().to_string()),
        payload: serde_json::to_value(payload).expect("finite numbers and text are JSON"),
    }
}

fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(ERROR_BYTES_MAX);
    text[..end].replace('\0', " ")
}
