//! Inference: weight from images.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::wake::Wake;

/// What others need of inference. Cloning shares it.
#[derive(Clone, Debug)]
pub struct InferenceHub {
    model_version: Arc<ArcSwap<String>>,
    wake: Wake,
    is_on_complete: bool,
}

impl InferenceHub {
    /// A hub for the model of this version; `is_on_complete` says whether a completed image makes a job.
    #[must_use]
    pub fn new(model_version: &str, is_on_complete: bool) -> Self {
        let model_version = Arc::new(ArcSwap::from_pointee(model_version.to_owned()));
        Self { model_version, wake: Wake::default(), is_on_complete }
    }

    /// The version of the model that new jobs are for.
    #[must_use]
    pub fn model_version(&self) -> Arc<String> {
        self.model_version.load_full()
    }

    /// Whether a completed image makes a job.
    #[must_use]
    pub fn is_on_complete(&self) -> bool {
        self.is_on_complete
    }

    /// Tells the workers that jobs may be due.
    pub fn wake(&self) {
        self.wake.wake();
    }
}
