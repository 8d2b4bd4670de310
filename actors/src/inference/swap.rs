//! Hot swap: a changed model package is loaded beside the one in use, tried on its self-test image, then switched to. A
//! broken one changes nothing but the fault that is shown. And rest: a network that no image needs is put away.

use std::convert::Infallible;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::InferenceHub;
use super::model::{Model, ModelError, Source};
use super::settings::Overrides;
use crate::chore::Chore;

/// How often the files are looked at. A package is loaded when it did not change between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// When and where a network rests.
#[derive(Clone, Debug)]
pub struct Rest {
    /// It goes when no image has needed it for so long.
    pub idle: Duration,
    /// Where a copy of it is kept meanwhile, unless it is part of the program.
    pub directory: PathBuf,
}

impl Rest {
    /// Lets a network that was just loaded rest. It reads and writes files: call it off the runtime.
    pub fn allow(&self, model: &Model) {
        if let Err(error) = model.keep_in(&self.directory) {
            let explanation = error.explanation();
            tracing::warn!(model = %model.source(), error = explanation, "the network stays in memory");
        }
    }
}

/// Watches the files of a package, and whether images need it.
#[derive(Clone)]
pub struct ModelWatch {
    hub: InferenceHub,
    source: Source,
    overrides: Overrides,
    /// `None` when the network stays in memory.
    rest: Option<Rest>,
    /// The files that were loaded or found broken last.
    known: Fingerprint,
    /// The files at the last look.
    seen: Fingerprint,
}

/// Which files lie there: for each its inode, size and time of change; `None` for one that is missing.
type Fingerprint = Vec<Option<(u64, u64, i64, i64)>>;

impl ModelWatch {
    /// A watch over the package that the hub's model was just loaded from.
    #[must_use]
    pub fn new(hub: InferenceHub, overrides: Overrides, rest: Option<Rest>) -> Self {
        let source = hub.model().source().clone();
        let known = fingerprint(&source);
        Self { hub, source, overrides, rest, seen: known.clone(), known }
    }

    async fn load(&self) {
        match self.load_off_the_runtime().await {
            Ok(model) => {
                let (old, new) = (self.hub.model_version(), model.version().to_owned());
                self.hub.switch(model);
                tracing::info!(old = *old, new, model = %self.source, "model switched");
            }
            Err(error) => {
                let explanation = error.explanation();
                tracing::error!(model = %self.source, error = explanation, in_use = *self.hub.model_version(),
                    "new model is broken, the old one stays");
                self.hub.note_fault(explanation);
            }
        }
    }

    async fn load_off_the_runtime(&self) -> Result<Model, ModelError> {
        let (source, overrides, rest) = (self.source.clone(), self.overrides.clone(), self.rest.clone());
        let load = move || {
            let model = Model::load_blocking(source, &overrides)?;
            if let Some(rest) = rest {
                rest.allow(&model);
            }
            Ok(model)
        };
        tokio::task::spawn_blocking(load).await.unwrap_or(Err(ModelError::Panicked))
    }
}

impl Chore for ModelWatch {
    const NAME: &'static str = "model";
    type Error = Infallible;

    async fn run(&mut self) -> Result<Duration, Infallible> {
        let now = fingerprint(&self.source);
        let is_settled = now == self.seen;
        self.seen.clone_from(&now);
        if is_settled && now != self.known {
            self.known = now;
            self.load().await;
        }
        if let Some(rest) = &self.rest
            && self.hub.model().put_away(rest.idle)
        {
            tracing::debug!(model = %self.source, "network put away");
        }
        Ok(LOOK_EVERY)
    }
}

fn fingerprint(source: &Source) -> Fingerprint {
    let Source::File(path) = source else { return Vec::new() };
    let settings = path.with_extension("toml");
    let image = std::fs::read_to_string(&settings).ok().and_then(|text| {
        let settings_table: toml::Table = text.parse().ok()?;
        let image = settings_table.get("self_test")?.get("image")?.as_str()?;
        Some(settings.with_file_name(image))
    });
    let of = |path: &Path| {
        let file = path.metadata().ok()?;
        Some((file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
    };
    [Some(path.clone()), Some(settings), image].iter().map(|path| of(path.as_deref()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_network_rests_when_nothing_needs_it_and_comes_back_for_an_image() {
        let load = || Model::load_blocking(Source::Bundled, &Overrides::default()).unwrap();
        let rest = |idle| Some(Rest { idle, directory: PathBuf::from("/nowhere") });
        let hub = InferenceHub::new(load(), false, None);
        let watch = |rest| ModelWatch::new(hub.clone(), Overrides::default(), rest);
        watch(rest(Duration::ZERO)).run().await.unwrap();
        assert!(hub.model().is_loaded(), "nothing was kept of it");
        rest(Duration::ZERO).unwrap().allow(&hub.model());
        watch(None).run().await.unwrap();
        watch(rest(Duration::from_secs(600))).run().await.unwrap();
        assert!(hub.model().is_loaded(), "it stays, or its time has not come");
        watch(rest(Duration::ZERO)).run().await.unwrap();
        assert!(!hub.model().is_loaded());
        let model = hub.model();
        let image = model.decode(&model.self_test_image().unwrap()).unwrap();
        model.predict(&image).unwrap();
        assert!(model.is_loaded());
        // One that takes over while the other rests is there at first.
        watch(rest(Duration::ZERO)).run().await.unwrap();
        hub.switch(load());
        assert!(hub.model().is_loaded());
    }
}
