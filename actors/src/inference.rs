//! Inference: weight from images.
//!
//! A job is a row. Workers lease it, look at its image with the current model, and store what the model says, with the
//! event and the note in the session, in one transaction.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::watch;

use crate::wake::Wake;

pub mod image;
pub mod model;
mod output;
pub mod queue;
pub mod swap;
pub mod worker;

pub use output::{Found, Prediction};

use model::Model;

/// What others need of inference. Cloning shares it.
#[derive(Clone, Debug)]
pub struct InferenceHub(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    model: ArcSwap<Model>,
    /// Why the newest package is not the one in use.
    fault: ArcSwapOption<String>,
    wake: Wake,
    is_stopping: watch::Sender<bool>,
    is_on_complete: bool,
}

impl InferenceHub {
    /// A hub that works with `model`; `is_on_complete` says whether a completed image makes a job.
    #[must_use]
    pub fn new(model: Model, is_on_complete: bool) -> Self {
        Self(Arc::new(Shared {
            model: ArcSwap::from_pointee(model),
            fault: ArcSwapOption::empty(),
            wake: Wake::default(),
            is_stopping: watch::Sender::new(false),
            is_on_complete,
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

    /// Tells the workers that jobs may be due.
    pub fn wake(&self) {
        self.0.wake.wake();
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

    pub(crate) fn is_stopping(&self) -> bool {
        *self.0.is_stopping.borrow()
    }

    /// Waits for a hint, at most so long; not at all once the hub stops.
    pub(crate) async fn rest(&self, at_most: Duration) {
        let mut is_stopping = self.0.is_stopping.subscribe();
        tokio::select! {
            () = self.0.wake.wait(at_most) => {}
            // The sender lives in the hub.
            _ = is_stopping.wait_for(|is_stopping| *is_stopping) => {}
        }
    }
}
