//! Inference: weight from images.
//!
//! A job is a row. Workers lease it, look at its image with the current model, and store what the model says, with the
//! event and the note in the session, in one transaction. RabbitMQ may tell workers of jobs; the rows stay the truth.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use schema::id::Uuid;
use tokio::sync::watch;

use crate::wake::Wake;

pub mod area;
pub mod image;
pub mod model;
mod network;
mod output;
pub mod queue;
pub mod rabbitmq;
mod redrive;
pub mod settings;
mod stored;
pub mod swap;
pub mod trial;
pub mod worker;

pub use output::{Found, Prediction};

use model::Model;
use rabbitmq::{Orders, Outgoing, WorkOrder};

/// What others need of inference. Cloning shares it.
#[derive(Clone, Debug)]
pub struct InferenceHub(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    model: ArcSwap<Model>,
    /// Why the newest package is not the one in use.
    fault: ArcSwapOption<String>,
    wake: Wake,
    /// `None` when the database alone is the queue.
    orders: Option<Orders>,
    is_stopping: watch::Sender<bool>,
    is_on_complete: bool,
    workers: AtomicUsize,
}

impl InferenceHub {
    /// A hub that works with `model`; `is_on_complete` says whether a completed image makes a job, and `orders` carry
    /// word of it to workers elsewhere.
    #[must_use]
    pub fn new(model: Model, is_on_complete: bool, orders: Option<Orders>) -> Self {
        Self(Arc::new(Shared {
            model: ArcSwap::from_pointee(model),
            fault: ArcSwapOption::empty(),
            wake: Wake::default(),
            orders,
            is_stopping: watch::Sender::new(false),
            is_on_complete,
            workers: AtomicUsize::new(0),
        }))
    }

    /// The model in use.
    #[must_use]
    pub fn model(&self) -> Arc<Model> {
        self.0.model.load_full()
    }

    /// The version of the model that new jobs are for.
    #[must_use]
    pub fn model_version(&self) -> Arc<String> {
        Arc::new(self.0.model.load().version().to_owned())
    }

    /// Why the newest package is not in use; `None` when it is.
    #[must_use]
    pub fn fault(&self) -> Option<Arc<String>> {
        self.0.fault.load_full()
    }

    /// Whether a completed image makes a job.
    #[must_use]
    pub fn is_on_complete(&self) -> bool {
        self.0.is_on_complete
    }

    /// How many workers there are in this process.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.0.workers.load(Ordering::Relaxed)
    }

    /// Tells the workers of a job, once it is committed. A lost word costs a moment.
    pub fn announce(&self, tenant_id: &str, job_id: Uuid, is_interactive: bool) {
        let order = || WorkOrder { tenant_id: tenant_id.to_owned(), job_id };
        let send = |orders: &Orders| orders.send(Outgoing::Job { order: order(), is_interactive });
        let is_sent = self.orders().is_some_and(send);
        if !is_sent {
            self.wake();
        }
    }

    /// Tells the workers of this process that jobs may be due.
    pub(crate) fn wake(&self) {
        self.0.wake.wake();
    }

    /// The way of the work orders; `None` when the database alone is the queue.
    #[must_use]
    pub fn orders(&self) -> Option<&Orders> {
        self.0.orders.as_ref()
    }

    /// Has the workers take no further job.
    pub fn stop(&self) {
        self.0.is_stopping.send_replace(true);
    }

    /// Looks at images with another model from now on; those under way end with the old one.
    pub(crate) fn switch(&self, model: Model) {
        self.0.model.store(Arc::new(model));
        self.0.fault.store(None);
    }

    /// Notes that the newest package cannot be used.
    pub(crate) fn note_fault(&self, explanation: String) {
        self.0.fault.store(Some(Arc::new(explanation)));
    }

    /// Counts a worker for as long as it keeps the answer.
    pub(crate) fn employ(&self) -> Employed {
        self.0.workers.fetch_add(1, Ordering::Relaxed);
        Employed(self.clone())
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.0.is_stopping.borrow()
    }

    /// Waits for a hint, at most so long; not at all once the hub stops.
    pub(crate) async fn rest(&self, at_most: Duration) {
        tokio::select! {
            () = self.0.wake.wait(at_most) => {}
            () = self.stopping() => {}
        }
    }

    /// Waits so long whatever comes; not at all once the hub stops.
    pub(crate) async fn pause(&self, length: Duration) {
        drop(tokio::time::timeout(length, self.stopping()).await);
    }

    async fn stopping(&self) {
        // The sender lives in the hub.
        let _ = self.0.is_stopping.subscribe().wait_for(|is_stopping| *is_stopping).await;
    }
}

/// A worker that lives, however it dies.
#[derive(Debug)]
pub(crate) struct Employed(InferenceHub);

impl Drop for Employed {
    fn drop(&mut self) {
        self.0.0.workers.fetch_sub(1, Ordering::Relaxed);
    }
}
