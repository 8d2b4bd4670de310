//! A model package: a network in an ONNX file, and a settings file that says what it takes and what its output means.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::image::DynamicImage;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tract_onnx::prelude::*;

use super::image::{self, ImageRefusal};
use super::output::{self, Prediction};

/// The version of a model that does not say.
const VERSION_DEFAULT: &str = "v1.0.0";
/// Versions of demonstration models begin so.
const DEMO_PREFIX: &str = "demo-";
/// The longest version, bytes.
const VERSION_BYTES_MAX: usize = 100;
/// The largest side of an input, pixels.
const INPUT_SIDE_MAX: u32 = 4096;

/// What `model.toml` says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The version that results carry; `v1.0.0` unless given. One that begins with `demo-` marks a demonstration.
    pub version: Option<String>,
    /// What the network takes.
    pub input: Input,
    /// What its first output means.
    pub output: Output,
    /// The image the package is checked with before it is used.
    pub self_test: SelfTest,
}

/// What the network takes: one image, as 32-bit floats. Each number is (pixel / scale - mean) / std, the pixel being
/// from 0 to 255. The image is stretched to the size, with a triangle filter.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// The order of the dimensions.
    #[serde(default)]
    pub layout: Layout,
    /// The order of the channels.
    #[serde(default)]
    pub colors: Colors,
    /// What a pixel is divided by first.
    #[serde(default = "scale_default")]
    pub scale: f32,
    /// What is subtracted then, per channel; 0 unless given.
    #[serde(default)]
    pub mean: Vec<f32>,
    /// What it is divided by last, per channel; 1 unless given.
    #[serde(default)]
    pub std: Vec<f32>,
}

fn scale_default() -> f32 {
    255.0
}

/// The order of the dimensions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// 1, channels, height, width: PyTorch.
    #[default]
    Nchw,
    /// 1, height, width, channels: TensorFlow.
    Nhwc,
}

/// The order of the channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Colors {
    /// Red, green, blue.
    #[default]
    Rgb,
    /// Blue, green, red: OpenCV.
    Bgr,
    /// One channel of brightness.
    Gray,
}

impl Colors {
    /// How many channels there are.
    #[must_use]
    pub fn channels(self) -> usize {
        match self {
            Self::Rgb | Self::Bgr => 3,
            Self::Gray => 1,
        }
    }
}

/// What the first output means.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "meaning", rename_all = "lowercase", deny_unknown_fields)]
pub enum Output {
    /// The weight of the bird in the image, kg.
    Regression(Regression),
    /// A table of boxes around birds, each with its weight.
    Detection(Detection),
}

/// Which of the output's numbers is what.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Regression {
    /// The place of the weight, kg.
    #[serde(default)]
    pub weight_index: usize,
    /// The place of the confidence, from 0 to 1.
    pub confidence_index: Option<usize>,
    /// The confidence of every result, when the network has none of its own: for example the share of held-out images
    /// whose error was acceptable.
    pub confidence: Option<f64>,
}

/// Which column of the table is what. The table is `[1, boxes, columns]`, or `[boxes, columns]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detection {
    /// Whether the table is `[1, columns, boxes]` instead.
    #[serde(default)]
    pub is_transposed: bool,
    /// What the four numbers of a box are.
    pub box_format: BoxFormat,
    /// Whether these are shares of the width and height instead of pixels of the input.
    #[serde(default)]
    pub is_box_relative: bool,
    /// Columns of the four numbers.
    #[serde(default = "box_columns_default")]
    pub box_columns: [usize; 4],
    /// Column of the score, from 0 to 1.
    pub score_column: usize,
    /// Column of the number of the class.
    pub class_column: Option<usize>,
    /// Column of the weight, kg.
    pub weight_column: usize,
    /// Names of the classes, in the order of their numbers.
    #[serde(default)]
    pub classes: Vec<String>,
    /// Least score of a box.
    #[serde(default = "confidence_threshold_default")]
    pub confidence_threshold: f64,
    /// Overlap above which two boxes are one.
    #[serde(default = "nms_threshold_default")]
    pub nms_threshold: f64,
}

fn box_columns_default() -> [usize; 4] {
    [0, 1, 2, 3]
}

fn confidence_threshold_default() -> f64 {
    0.5
}

fn nms_threshold_default() -> f64 {
    0.4
}

/// What the four numbers of a box are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BoxFormat {
    /// x and y of the center, width, height.
    Center,
    /// Left, top, right, bottom.
    Corners,
}

/// The image the package is checked with, and the weight that must come out.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelfTest {
    /// The image file, beside the settings file.
    pub image: String,
    /// Least weight, kg.
    pub weight_kg_min: f64,
    /// Greatest weight, kg.
    pub weight_kg_max: f64,
}

/// What the configuration says instead of the package.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// The version to report.
    pub version: Option<String>,
    /// Least score of a box.
    pub confidence_threshold: Option<f64>,
    /// Overlap above which two boxes are one.
    pub nms_threshold: Option<f64>,
}

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
    #[error("read {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The settings file is no TOML, or has unknown, missing or mistyped keys.
    #[error("read the settings of the model")]
    Settings(#[from] toml::de::Error),
    /// A setting has a value that cannot be.
    #[error("{key} of the model's settings {problem}")]
    Setting {
        /// Which.
        key: &'static str,
        /// What is wrong.
        problem: String,
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
    #[error("self-test: the weight is {weight} and not from {min} to {max} kg")]
    SelfTest {
        /// What came out.
        weight: String,
        /// Least expected weight, kg.
        min: f64,
        /// Greatest expected weight, kg.
        max: f64,
    },
    /// The network brought down the thread it was tried on.
    #[error("the network panicked while it was tried")]
    Panicked,
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
    settings: Settings,
    network: Arc<TypedRunnableModel>,
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

    /// The same on this thread.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn load_blocking(source: Source, overrides: &Overrides) -> Result<Self, ModelError> {
        let Package { onnx, mut settings, self_test_image } = Package::read(&source)?;
        settings.apply(overrides);
        settings.check()?;
        let network =
            load_network(&onnx, &settings.input).map_err(|error| ModelError::Network(text(&error)))?;
        let model = Self {
            version: settings.version.clone().unwrap_or_else(|| VERSION_DEFAULT.to_owned()),
            source,
            sha256: hex::encode(Sha256::digest(&onnx)),
            settings,
            network,
        };
        model.self_test(&self_test_image)?;
        Ok(model)
    }

    fn self_test(&self, image: &[u8]) -> Result<(), ModelError> {
        let image = image::decode(image).map_err(ModelError::SelfTestImage)?;
        let weight_kg = self.predict(&image)?.weight_kg;
        let SelfTest { weight_kg_min: min, weight_kg_max: max, .. } = self.settings.self_test;
        if weight_kg.is_some_and(|weight_kg| (min..=max).contains(&weight_kg)) {
            return Ok(());
        }
        let weight = weight_kg.map_or_else(|| "unknown".to_owned(), |weight_kg| format!("{weight_kg:.3}"));
        Err(ModelError::SelfTest { weight, min, max })
    }

    /// Looks at an image. It keeps a processor busy: call it off the runtime.
    ///
    /// # Errors
    /// When the network fails or gives no finite numbers.
    pub fn predict(&self, image: &DynamicImage) -> Result<Prediction, ModelError> {
        let input = &self.settings.input;
        let numbers = image::tensor(image, input);
        let run = || -> TractResult<(Vec<usize>, Vec<f32>)> {
            let tensor = Tensor::from_shape(&input.shape(), &numbers)?;
            let outputs = self.network.run(tvec!(tensor.into_tvalue()))?;
            let output = outputs.first().ok_or_else(|| TractError::msg("there is no output"))?;
            let output = output.cast_to::<f32>()?;
            Ok((output.shape().to_vec(), output.to_plain_array_view::<f32>()?.iter().copied().collect()))
        };
        let (shape, numbers) = run().map_err(|error| ModelError::Run(text(&error)))?;
        match &self.settings.output {
            Output::Regression(meaning) => output::regression(&numbers, meaning),
            Output::Detection(meaning) => output::detection(&shape, &numbers, meaning, input),
        }
        .map_err(ModelError::Output)
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

    /// Least score of a box, and overlap above which two are one; without meaning for a regression.
    #[must_use]
    pub fn thresholds(&self) -> (f64, f64) {
        match &self.settings.output {
            Output::Regression(_) => (confidence_threshold_default(), nms_threshold_default()),
            Output::Detection(meaning) => (meaning.confidence_threshold, meaning.nms_threshold),
        }
    }
}

impl Package {
    fn read(source: &Source) -> Result<Self, ModelError> {
        match source {
            Source::Bundled => Ok(Self {
                onnx: BUNDLED_ONNX.to_vec(),
                settings: toml::from_str(BUNDLED_SETTINGS)?,
                self_test_image: BUNDLED_SELF_TEST_IMAGE.to_vec(),
            }),
            Source::File(path) => {
                let onnx = read(path)?;
                let settings_path = path.with_extension("toml");
                let text = String::from_utf8_lossy(&read(&settings_path)?).into_owned();
                let settings: Settings = toml::from_str(&text)?;
                let self_test_image = read(&settings_path.with_file_name(&settings.self_test.image))?;
                Ok(Self { onnx, settings, self_test_image })
            }
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ModelError> {
    std::fs::read(path).map_err(|source| ModelError::Read { path: path.display().to_string(), source })
}

impl Settings {
    fn apply(&mut self, overrides: &Overrides) {
        if let Some(version) = &overrides.version {
            self.version = Some(version.clone());
        }
        if let Output::Detection(meaning) = &mut self.output {
            meaning.confidence_threshold =
                overrides.confidence_threshold.unwrap_or(meaning.confidence_threshold);
            meaning.nms_threshold = overrides.nms_threshold.unwrap_or(meaning.nms_threshold);
        }
        let channels = self.input.colors.channels();
        let fill = |numbers: &mut Vec<f32>, number| {
            if numbers.is_empty() {
                numbers.resize(channels, number);
            }
        };
        fill(&mut self.input.mean, 0.0);
        fill(&mut self.input.std, 1.0);
    }

    /// Checks what no type says.
    fn check(&self) -> Result<(), ModelError> {
        let Self { version, input, output, self_test } = self;
        let is_version = |version: &String| {
            (1..=VERSION_BYTES_MAX).contains(&version.len()) && !version.chars().any(char::is_control)
        };
        let channels = input.colors.channels();
        let is_side = |side| (1..=INPUT_SIDE_MAX).contains(&side);
        let is_good =
            |numbers: &[f32]| numbers.len() == channels && numbers.iter().all(|number| number.is_finite());
        demand(
            version.as_ref().is_none_or(is_version),
            "version",
            "must have 1 to 100 bytes and no control characters",
        )?;
        demand(is_side(input.width), "input.width", &format!("must be from 1 to {INPUT_SIDE_MAX}"))?;
        demand(is_side(input.height), "input.height", &format!("must be from 1 to {INPUT_SIDE_MAX}"))?;
        demand(input.scale.is_normal() && input.scale > 0.0, "input.scale", "must be greater than 0")?;
        demand(is_good(&input.mean), "input.mean", &format!("must have {channels} finite numbers"))?;
        let is_divisor = is_good(&input.std) && input.std.iter().all(|number| *number > 0.0);
        demand(is_divisor, "input.std", &format!("must have {channels} numbers greater than 0"))?;
        match output {
            Output::Regression(meaning) => meaning.check()?,
            Output::Detection(meaning) => meaning.check()?,
        }
        let is_range = self_test.weight_kg_min <= self_test.weight_kg_max;
        demand(is_range, "self_test.weight_kg_min", "must not be greater than weight_kg_max")
    }
}

impl Input {
    fn shape(&self) -> [usize; 4] {
        let (width, height, channels) = (self.width as usize, self.height as usize, self.colors.channels());
        match self.layout {
            Layout::Nchw => [1, channels, height, width],
            Layout::Nhwc => [1, height, width, channels],
        }
    }
}

impl Regression {
    fn check(&self) -> Result<(), ModelError> {
        let problem = "must be given, from 0 to 1, unless confidence_index is";
        let is_one_given = match (self.confidence, self.confidence_index) {
            (Some(confidence), None) => (0.0..=1.0).contains(&confidence),
            (None, Some(_)) => true,
            (Some(_), Some(_)) | (None, None) => false,
        };
        demand(is_one_given, "output.confidence", problem)
    }
}

impl Detection {
    fn check(&self) -> Result<(), ModelError> {
        let is_share = |number: f64| (0.0..=1.0).contains(&number);
        demand(is_share(self.confidence_threshold), "output.confidence_threshold", "must be from 0 to 1")?;
        demand(is_share(self.nms_threshold), "output.nms_threshold", "must be from 0 to 1")
    }
}

fn demand(is_met: bool, key: &'static str, problem: &str) -> Result<(), ModelError> {
    if is_met { Ok(()) } else { Err(ModelError::Setting { key, problem: problem.to_owned() }) }
}

fn load_network(onnx: &[u8], input: &Input) -> TractResult<Arc<TypedRunnableModel>> {
    let model = tract_onnx::onnx().model_for_read(&mut &*onnx)?;
    if model.input_outlets()?.len() != 1 {
        return Err(TractError::msg("it must have one input, the image"));
    }
    model
        .with_input_fact(0, InferenceFact::dt_shape(f32::datum_type(), input.shape()))?
        .into_optimized()?
        .into_runnable()
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
        assert_eq!(model.sha256().len(), 64);
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
        check("", |_| {}, "missing field").await;
        check(&good.replace("confidence", "confidense"), |_| {}, "unknown field `confidense`").await;
        check(&good.replace("confidence = 0.5", ""), |_| {}, "output.confidence").await;
        check(&good.replace("= 'v2'", "= ''"), |_| {}, "version").await;
        check(&good.replace("width = ", "width = 99999"), |_| {}, "input.width").await;
        check(&good.replace("-1e9", "1e8"), |_| {}, "self-test: the weight is").await;
        let cut = |place: &Path| {
            std::fs::write(place.join("model.onnx"), &BUNDLED_ONNX[..BUNDLED_ONNX.len() / 2]).unwrap()
        };
        check(&good, cut, "load the network").await;
        let scribble = |place: &Path| std::fs::write(place.join("selftest.jpg"), "no image").unwrap();
        check(&good, scribble, "read the image of the self-test: the file is no JPEG").await;
    }
}
