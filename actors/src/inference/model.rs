//! A model package: a network in an ONNX file, and a settings file that says what it takes and what its output means.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::image::DynamicImage;
use sha2::{Digest, Sha256};
use tract_onnx::prelude::*;

use super::image::{self, ImageRefusal};
use super::network::{Kept, Network};
use super::output::{self, Numbers, Prediction, View};
use super::settings::{Output, Overrides, Settings, SettingsError, Thresholds};

/// The version of a model that does not say.
const VERSION_DEFAULT: &str = "v1.0.0";
/// Versions of demonstration models begin so.
const DEMO_PREFIX: &str = "demo-";

/// Where a package comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The one that is part of the program.
    Bundled,
    /// An ONNX file; settings of the same name with the ending `.toml` stand beside it.
    File(PathBuf),
}

impl Source {
    /// The source of a configured path, which is an ONNX file or a directory with a `model.onnx`.
    #[must_use]
    pub fn of(path: Option<&Path>) -> Self {
        match path {
            None => Self::Bundled,
            Some(path) if path.is_dir() => Self::File(path.join("model.onnx")),
            Some(path) => Self::File(path.to_owned()),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bundled => f.write_str("bundled"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// Why a package cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file of it cannot be read.
    #[error("read {what} {path}")]
    Read {
        /// What it holds.
        what: &'static str,
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The settings are of no use.
    #[error("the settings {path}")]
    Settings {
        /// Their file.
        path: String,
        /// Why.
        #[source]
        source: SettingsError,
    },
    /// The network does not load, or does not take such an input.
    #[error("load the network: {0}")]
    Network(String),
    /// The network failed while it ran.
    #[error("run the network: {0}")]
    Run(String),
    /// The output is not what the settings say.
    #[error("the output of the network {0}")]
    Output(String),
    /// The self-test image cannot be decoded.
    #[error("read the image of the self-test")]
    SelfTestImage(#[source] ImageRefusal),
    /// The self-test gave another weight.
    #[error(
        "self-test: {image} shows {found}, {expected} is expected; is it the right network, and do input.colors, scale, \
         mean and std say what was done to the pixels in training?"
    )]
    SelfTest {
        /// The image file.
        image: String,
        /// What came out.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// The network brought down the thread it was tried on.
    #[error("the network panicked while it was tried")]
    Panicked,
    /// The network was put away and does not come back.
    #[error("load the network again: {0}")]
    Away(String),
    /// No copy of the network can be kept, from which it could come back.
    #[error("keep a copy of the network")]
    Keep(#[source] std::io::Error),
    /// The file is not any more what was loaded.
    #[error("the file changed while the network was loaded")]
    Changed,
}

impl ModelError {
    /// What is wrong, with its causes, for a person.
    #[must_use]
    pub fn explanation(&self) -> String {
        let causes = std::iter::successors(std::error::Error::source(self), |cause| cause.source());
        let causes: String = causes.map(|cause| format!(": {cause}")).collect();
        format!("{self}{causes}").trim_end().to_owned()
    }
}

/// The package that is part of the program.
const BUNDLED_ONNX: &[u8] = include_bytes!("../../model/model.onnx");
const BUNDLED_SETTINGS: &str = include_str!("../../model/model.toml");
const BUNDLED_SELF_TEST_IMAGE: &[u8] = include_bytes!("../../model/selftest.jpg");

/// What a package consists of.
struct Package {
    onnx: Vec<u8>,
    settings: Settings,
    self_test_image: Vec<u8>,
}

/// A model that has passed its self-test.
pub struct Model {
    version: String,
    source: Source,
    sha256: String,
    onnx_bytes: usize,
    settings: Settings,
    network: Network,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("version", &self.version).field("source", &self.source).finish()
    }
}

impl Model {
    /// Loads a package and runs its self-test, off the runtime: it takes a second of a processor and more.
    ///
    /// # Errors
    /// [`ModelError`].
    pub async fn load(source: Source, overrides: Overrides) -> Result<Self, ModelError> {
        let load = move || Self::load_blocking(source, &overrides);
        tokio::task::spawn_blocking(load).await.unwrap_or(Err(ModelError::Panicked))
    }

    /// The same while this thread waits.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn load_blocking(source: Source, overrides: &Overrides) -> Result<Self, ModelError> {
        // A network can panic on what it was not made for: on a thread of its own that ends nothing else.
        std::thread::scope(|scope| scope.spawn(|| Self::load_here(source, overrides)).join())
            .unwrap_or(Err(ModelError::Panicked))
    }

    fn load_here(source: Source, overrides: &Overrides) -> Result<Self, ModelError> {
        let Package { onnx, settings, self_test_image } = Package::read(&source, overrides)?;
        let network =
            Network::load(&onnx, &settings.input).map_err(|error| ModelError::Network(text(&error)))?;
        let model = Self {
            version: settings.version.clone().unwrap_or_else(|| VERSION_DEFAULT.to_owned()),
            source,
            sha256: hex::encode(Sha256::digest(&onnx)),
            onnx_bytes: onnx.len(),
            settings,
            network,
        };
        model.self_test(&self_test_image)?;
        Ok(model)
    }

    fn self_test(&self, image: &[u8]) -> Result<(), ModelError> {
        let image = self.decode(image).map_err(ModelError::SelfTestImage)?;
        let prediction = self.predict(&image)?;
        let test = &self.settings.self_test;
        if test.is_passed_by(prediction.weight_kg, prediction.boxes.as_ref().map(Vec::len)) {
            return Ok(());
        }
        Err(ModelError::SelfTest {
            image: test.image.clone(),
            found: prediction.to_string(),
            expected: test.expected(),
        })
    }

    /// Decodes an image as this model wants it. It keeps a processor busy: call it off the runtime.
    ///
    /// # Errors
    /// [`ImageRefusal`].
    pub fn decode(&self, bytes: &[u8]) -> Result<DynamicImage, ImageRefusal> {
        image::decode(bytes, self.settings.input.exif_orientation)
    }

    /// Looks at an image, with the network loaded again if it was put away. It keeps a processor busy: call it off the
    /// runtime.
    ///
    /// # Errors
    /// When the network does not come back, fails or gives no finite numbers.
    pub fn predict(&self, image: &DynamicImage) -> Result<Prediction, ModelError> {
        let input = &self.settings.input;
        let network = self.network.get().map_err(|error| ModelError::Away(text(&error)))?;
        let numbers = image::tensor(image, input);
        let run = || -> TractResult<Vec<Numbers>> {
            let tensor = Tensor::from_shape(&input.shape(), &numbers)?;
            let outputs = network.run(tvec!(tensor.into_tvalue()))?;
            outputs.iter().take(self.settings.output.outputs()).map(read_output).collect()
        };
        let outputs = run().map_err(|error| ModelError::Run(text(&error)))?;
        let first = outputs.first().ok_or_else(|| ModelError::Run("there is no output".to_owned()))?;
        let view = View { width: image.width(), height: image.height(), input };
        match &self.settings.output {
            Output::Regression(meaning) => output::regression(&first.values, meaning),
            Output::Detection(meaning) => output::detection(first, meaning, &view),
            Output::Yolo(meaning) => output::yolo(&outputs, meaning, &view),
        }
        .map_err(ModelError::Output)
    }

    /// Lets the network be put away. It comes back as it was, from the program or from a copy of the file in this
    /// directory, which has no name and goes with the process.
    ///
    /// # Errors
    /// When the copy cannot be made; the network stays then.
    pub fn keep_in(&self, directory: &Path) -> Result<(), ModelError> {
        let kept = match &self.source {
            Source::Bundled => Kept::Bundled(BUNDLED_ONNX),
            Source::File(path) => {
                let onnx = read("the network", path)?;
                if hex::encode(Sha256::digest(&onnx)) != self.sha256 {
                    return Err(ModelError::Changed);
                }
                Kept::copy(&onnx, directory).map_err(ModelError::Keep)?
            }
        };
        self.network.keep(kept);
        Ok(())
    }

    /// Puts the network away when no image has needed it for so long; says whether it did.
    pub fn put_away(&self, idle: Duration) -> bool {
        self.network.put_away(idle)
    }

    /// Whether the network is in memory; otherwise the next image loads it.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.network.is_loaded()
    }

    /// The version that results carry.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether it is a demonstration.
    #[must_use]
    pub fn is_demo(&self) -> bool {
        self.version.starts_with(DEMO_PREFIX)
    }

    /// What its package says of it.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where it came from.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The SHA-256 of the ONNX file, in hex.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The size of the ONNX file, bytes.
    #[must_use]
    pub fn onnx_bytes(&self) -> usize {
        self.onnx_bytes
    }

    /// The file of the image it was tried with, read again.
    ///
    /// # Errors
    /// [`ModelError::Read`].
    pub fn self_test_image(&self) -> Result<Vec<u8>, ModelError> {
        self_test_image(&self.source, &self.settings)
    }

    /// The thresholds in effect; a regression has no use for them.
    #[must_use]
    pub fn thresholds(&self) -> Thresholds {
        self.settings.thresholds
    }
}

impl Package {
    fn read(source: &Source, overrides: &Overrides) -> Result<Self, ModelError> {
        let (onnx, path, text) = match source {
            Source::Bundled => (BUNDLED_ONNX.to_vec(), source.to_string(), BUNDLED_SETTINGS.to_owned()),
            Source::File(path) => {
                let onnx = read("the network", path)?;
                let settings = path.with_extension("toml");
                let text =
                    String::from_utf8_lossy(&read("the settings of the network", &settings)?).into_owned();
                (onnx, settings.display().to_string(), text)
            }
        };
        let settings =
            Settings::read(&text, overrides).map_err(|source| ModelError::Settings { path, source })?;
        let self_test_image = self_test_image(source, &settings)?;
        Ok(Self { onnx, settings, self_test_image })
    }
}

fn self_test_image(source: &Source, settings: &Settings) -> Result<Vec<u8>, ModelError> {
    match source {
        Source::Bundled => Ok(BUNDLED_SELF_TEST_IMAGE.to_vec()),
        Source::File(path) => {
            read("the image of the self-test", &path.with_file_name(&settings.self_test.image))
        }
    }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, ModelError> {
    std::fs::read(path).map_err(|source| ModelError::Read { what, path: path.display().to_string(), source })
}

fn read_output(output: &TValue) -> TractResult<Numbers> {
    let output = output.cast_to::<f32>()?;
    let values = output.to_plain_array_view::<f32>()?.iter().copied().collect();
    Ok(Numbers { shape: output.shape().to_vec(), values })
}

/// An error of the network with its causes, on one line.
fn text(error: &TractError) -> String {
    format!("{error:#}").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: &str = "\
        version = 'v2'\n\
        self_test = { image = 'selftest.jpg', weight_kg_min = -1e9, weight_kg_max = 1e9 }\n\
        [output]\nmeaning = 'regression'\nconfidence = 0.5\n";

    /// A package of the bundled network and image with settings of its own.
    async fn load(settings: &str, change: impl FnOnce(&Path)) -> Result<Model, ModelError> {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        std::fs::write(place.join("model.onnx"), BUNDLED_ONNX).unwrap();
        std::fs::write(place.join("model.toml"), settings).unwrap();
        std::fs::write(place.join("selftest.jpg"), BUNDLED_SELF_TEST_IMAGE).unwrap();
        change(place);
        Model::load(Source::of(Some(place)), Overrides::default()).await
    }

    /// The settings above, with the bundled model's input.
    fn settings() -> String {
        let bundled: toml::Table = BUNDLED_SETTINGS.parse().unwrap();
        format!("{SETTINGS}[input]\n{}", toml::to_string(&bundled["input"]).unwrap())
    }

    #[tokio::test]
    async fn the_bundled_model_passes_its_self_test_and_says_that_it_is_a_demonstration() {
        let model = Model::load(Source::Bundled, Overrides::default()).await.unwrap();
        assert!(model.is_demo(), "{model:?}");
    }

    #[test]
    fn the_bundled_network_is_the_one_of_the_model_card_and_says_what_it_said_after_training() {
        let card = include_str!("../../model/MODEL_CARD.md");
        let model = Model::load_blocking(Source::Bundled, &Overrides::default()).unwrap();
        assert!(
            card.contains(&format!("| sha256 | `{}` |", model.sha256())),
            "train it again: the card is old"
        );
        let (_, said) = card.split_once("kg, the model says ").unwrap();
        let trained_kg: f64 = said.split_once(" kg").unwrap().0.parse().unwrap();
        let image = model.decode(&model.self_test_image().unwrap()).unwrap();
        let weight_kg = model.predict(&image).unwrap().weight_kg.unwrap();
        // Another decoder and another scaler; the self-test itself allows 0.05 kg.
        assert!((weight_kg - trained_kg).abs() < 0.01, "{weight_kg} kg, {trained_kg} kg after training");
    }

    #[tokio::test]
    async fn a_network_that_was_put_away_comes_back_as_it_was_whatever_became_of_its_file() {
        let place = tempfile::tempdir().unwrap();
        let onnx = place.path().join("model.onnx");
        std::fs::write(&onnx, BUNDLED_ONNX).unwrap();
        std::fs::write(place.path().join("model.toml"), settings()).unwrap();
        std::fs::write(place.path().join("selftest.jpg"), BUNDLED_SELF_TEST_IMAGE).unwrap();
        for source in [Source::Bundled, Source::File(onnx.clone())] {
            let model = Model::load_blocking(source.clone(), &Overrides::default()).unwrap();
            let image = model.decode(BUNDLED_SELF_TEST_IMAGE).unwrap();
            let before = model.predict(&image).unwrap().to_string();
            assert!(!model.put_away(Duration::ZERO), "nothing was kept, so it stays");
            assert!(model.keep_in(Path::new("/nowhere")).is_ok() == (source == Source::Bundled));
            model.keep_in(place.path()).unwrap();
            assert!(!model.put_away(Duration::from_secs(3600)), "it was needed a moment ago");
            if source != Source::Bundled {
                std::fs::write(&onnx, "no network").unwrap();
                assert!(matches!(model.keep_in(place.path()), Err(ModelError::Changed)));
            }
            assert!(model.is_loaded());
            assert!(model.put_away(Duration::ZERO));
            assert!(!model.is_loaded() && !model.put_away(Duration::ZERO));
            assert_eq!(model.predict(&image).unwrap().to_string(), before);
            assert!(model.is_loaded());
        }
    }

    #[tokio::test]
    async fn the_configured_version_goes_before_that_of_the_package() {
        let overrides = Overrides { version: Some("v9".into()), ..Overrides::default() };
        let model = Model::load(Source::Bundled, overrides).await.unwrap();
        assert_eq!((model.version(), model.is_demo()), ("v9", false));
    }

    #[tokio::test]
    async fn what_is_broken_in_a_package_is_named() {
        let check = async |settings: &str, change: fn(&Path), expected: &str| {
            let explanation = load(settings, change).await.unwrap_err().explanation();
            assert!(explanation.contains(expected), "{expected}: {explanation}");
        };
        let remove = |name: &'static str| move |place: &Path| std::fs::remove_file(place.join(name)).unwrap();
        let good = settings();
        assert_eq!(load(&good, |_| {}).await.unwrap().version(), "v2");
        assert!(load(&good, remove("model.onnx")).await.unwrap_err().explanation().contains("model.onnx"));
        assert!(
            load(&good, remove("selftest.jpg")).await.unwrap_err().explanation().contains("selftest.jpg")
        );
        assert!(load(&good, remove("model.toml")).await.unwrap_err().explanation().contains("model.toml"));
        check("", |_| {}, "missing field").await;
        check(&good.replace("confidence", "confidense"), |_| {}, "unknown field `confidense`").await;
        check(&good.replace("confidence = 0.5", ""), |_| {}, "output.confidence").await;
        check(&good.replace("= 'v2'", "= ''"), |_| {}, "version").await;
        check(&good.replace("width = ", "width = 99999"), |_| {}, "input.width").await;
        check(&good.replace("-1e9", "1e8"), |_| {}, "self-test: selftest.jpg shows").await;
        let cut = |place: &Path| {
            std::fs::write(place.join("model.onnx"), &BUNDLED_ONNX[..BUNDLED_ONNX.len() / 2]).unwrap()
        };
        check(&good, cut, "load the network").await;
        let misspell = |place: &Path| {
            let at = BUNDLED_ONNX.windows(4).position(|name| name == b"Gemm").unwrap();
            let onnx = [&BUNDLED_ONNX[..at], b"Germ", &BUNDLED_ONNX[at + 4..]].concat();
            std::fs::write(place.join("model.onnx"), onnx).unwrap();
        };
        check(&good, misspell, "load the network: the operator Germ is not known").await;
        let narrow = good.replace("width = 128", "width = 64");
        check(&narrow, |_| {}, "its input is 1 x 3 x 96 x 128, and the settings say 1 x 3 x 96 x 64").await;
        let index = good.replace("confidence = 0.5", "confidence_index = 1");
        check(&index, |_| {}, "the output of the network has 1 numbers and none at 1").await;
        let scribble = |place: &Path| std::fs::write(place.join("selftest.jpg"), "no image").unwrap();
        check(&good, scribble, "read the image of the self-test: the file is no JPEG").await;
    }
}
