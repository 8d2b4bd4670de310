//! Hot swap: a changed model package is loaded beside the one in use, tried on its self-test image, then switched to. A
//! broken one changes nothing but the fault that is shown.

use std::convert::Infallible;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::InferenceHub;
use super::model::{Model, Source};
use super::settings::Overrides;
use crate::chore::Chore;

/// How often the files are looked at. A package is loaded when it did not change between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Watches the files of a package.
#[derive(Clone)]
pub struct ModelWatch {
    hub: InferenceHub,
    source: Source,
    overrides: Overrides,
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
    pub fn new(hub: InferenceHub, overrides: Overrides) -> Self {
        let source = hub.model().source().clone();
        let known = fingerprint(&source);
        Self { hub, source, overrides, seen: known.clone(), known }
    }

    async fn load(&self) {
        match Model::load(self.source.clone(), self.overrides.clone()).await {
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
