//! What the settings file of a model package says: what the network takes, and what its output means.

use serde::Deserialize;

use super::area::AreaLaw;

/// The longest version, bytes.
const VERSION_BYTES_MAX: usize = 100;
/// The largest side of an input, pixels.
const INPUT_SIDE_MAX: u32 = 4096;
/// Least score of a box, unless given.
const CONFIDENCE_THRESHOLD_DEFAULT: f64 = 0.5;
/// Overlap above which two boxes are one, unless given.
const NMS_THRESHOLD_DEFAULT: f64 = 0.4;
/// Width of the seam along the picture's edges in which a bird counts as cut, as a share of the picture, unless given.
const EDGE_SHARE_DEFAULT: f64 = 0.01;
/// The most classes a detector may have.
const CLASSES_MAX: usize = 1000;

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
    /// The thresholds in effect.
    #[serde(skip)]
    pub thresholds: Thresholds,
}

/// What counts as a bird in a table of boxes: what the configuration says, else the package, else the usual.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Least score of a box.
    pub confidence: f64,
    /// Overlap above which two boxes are one.
    pub nms: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { confidence: CONFIDENCE_THRESHOLD_DEFAULT, nms: NMS_THRESHOLD_DEFAULT }
    }
}

/// What the network takes: one image, as 32-bit floats. Each number is (pixel / scale - mean) / std, the pixel being
/// from 0 to 255. The image is scaled to the size with a triangle filter.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// How a picture of another shape gets there; letterbox for `yolo`, else stretch, unless given.
    pub fit: Option<Fit>,
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
    /// Whether a picture is turned as its EXIF data says.
    #[serde(default = "exif_orientation_default")]
    pub exif_orientation: bool,
}

fn exif_orientation_default() -> bool {
    true
}

fn scale_default() -> f32 {
    255.0
}

/// How a picture of another shape gets into the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// Width and height are scaled by themselves.
    Stretch,
    /// Both are scaled alike, and what is left is gray.
    Letterbox,
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
    /// A table of boxes around birds.
    Detection(Detection),
    /// The table that Ultralytics' exporter writes for a detector or a segmenter.
    Yolo(Yolo),
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
    pub weight_column: Option<usize>,
    /// What a bird weighs by the area of its box, where no column says it.
    pub weight: Option<AreaLaw>,
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

/// What the table `[1, 4 + classes, boxes]` means: x and y of the center, width and height in pixels of the input, then a
/// score from 0 to 1 for each class. A segmenter has the numbers of its masks behind them, and a second output.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Yolo {
    /// Names of the classes, in the order of their numbers.
    pub classes: Vec<String>,
    /// Those that are birds to be counted; all unless given.
    #[serde(default)]
    pub birds: Vec<String>,
    /// Numbers of a mask behind the scores: 32 for a segmenter, 0 for a detector.
    #[serde(default)]
    pub mask_numbers: usize,
    /// What a bird weighs by the area of its mask, or of its box without one.
    pub weight: Option<AreaLaw>,
    /// Width of the seam along the picture's edges in which a bird counts as cut, as a share of the picture. A cut bird is
    /// counted and has no weight.
    #[serde(default = "edge_share_default")]
    pub edge_share: f64,
    /// Least score of a box.
    #[serde(default = "confidence_threshold_default")]
    pub confidence_threshold: f64,
    /// Overlap above which two boxes of one class are one.
    #[serde(default = "nms_threshold_default")]
    pub nms_threshold: f64,
}

fn edge_share_default() -> f64 {
    EDGE_SHARE_DEFAULT
}

fn box_columns_default() -> [usize; 4] {
    [0, 1, 2, 3]
}

fn confidence_threshold_default() -> f64 {
    CONFIDENCE_THRESHOLD_DEFAULT
}

fn nms_threshold_default() -> f64 {
    NMS_THRESHOLD_DEFAULT
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

/// The image the package is checked with, and what must come out: a weight, a number of birds, or both.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelfTest {
    /// The image file, beside the settings file.
    pub image: String,
    /// Least weight, kg.
    pub weight_kg_min: Option<f64>,
    /// Greatest weight, kg.
    pub weight_kg_max: Option<f64>,
    /// Fewest birds.
    pub birds_min: Option<usize>,
    /// Most birds.
    pub birds_max: Option<usize>,
}

impl SelfTest {
    /// Whether what a model says of the image is what is expected.
    #[must_use]
    pub fn is_passed_by(&self, weight_kg: Option<f64>, birds: Option<usize>) -> bool {
        is_between(weight_kg, self.weight_kg_min, self.weight_kg_max)
            && is_between(birds, self.birds_min, self.birds_max)
    }

    /// What is expected, in words.
    #[must_use]
    pub fn expected(&self) -> String {
        let weight =
            self.weight_kg_min.zip(self.weight_kg_max).map(|(min, max)| format!("{min} to {max} kg"));
        let birds = self.birds_min.zip(self.birds_max).map(|(min, max)| format!("{min} to {max} birds"));
        [weight, birds].into_iter().flatten().collect::<Vec<_>>().join(" and ")
    }

    fn check(&self, output: &Output) -> Result<(), SettingsError> {
        let Self { image: _, weight_kg_min, weight_kg_max, birds_min, birds_max } = self;
        let is_pair = weight_kg_min.is_some() == weight_kg_max.is_some();
        demand(is_pair, "self_test.weight_kg_min", "and weight_kg_max need each other")?;
        let is_range = weight_kg_min <= weight_kg_max;
        demand(is_range, "self_test.weight_kg_min", "must not be greater than weight_kg_max")?;
        demand(
            birds_min.is_some() == birds_max.is_some(),
            "self_test.birds_min",
            "and birds_max need each other",
        )?;
        demand(birds_min <= birds_max, "self_test.birds_min", "must not be greater than birds_max")?;
        let counts = !matches!(output, Output::Regression(_));
        demand(
            counts || birds_min.is_none(),
            "self_test.birds_min",
            "is for a network that finds birds in boxes",
        )?;
        let says_something = weight_kg_min.is_some() || birds_min.is_some();
        demand(says_something, "self_test.weight_kg_min", "or birds_min must be given")
    }
}

/// Whether a value is within the limits that are given; without limits everything is.
fn is_between<T: PartialOrd>(value: Option<T>, min: Option<T>, max: Option<T>) -> bool {
    match (min, max) {
        (None, None) => true,
        (min, max) => value
            .is_some_and(|value| min.is_none_or(|min| value >= min) && max.is_none_or(|max| value <= max)),
    }
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
    /// Whether a picture is turned as its EXIF data says.
    pub exif_orientation: Option<bool>,
}

/// Why settings are of no use.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// They are no TOML, or have unknown, missing or mistyped keys.
    #[error(transparent)]
    Toml(#[from] toml::de::Error),
    /// One has a value that cannot be.
    #[error("{key} {problem}")]
    Value {
        /// Which.
        key: &'static str,
        /// What is wrong.
        problem: String,
    },
}

impl Settings {
    /// Reads settings; what the configuration says instead goes before what they say.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn read(text: &str, overrides: &Overrides) -> Result<Self, SettingsError> {
        let mut settings: Self = toml::from_str(text)?;
        settings.apply(overrides);
        settings.check()?;
        Ok(settings)
    }

    fn apply(&mut self, overrides: &Overrides) {
        if let Some(version) = &overrides.version {
            self.version = Some(version.clone());
        }
        if let Some((confidence, nms)) = self.output.thresholds() {
            *confidence = overrides.confidence_threshold.unwrap_or(*confidence);
            *nms = overrides.nms_threshold.unwrap_or(*nms);
            self.thresholds = Thresholds { confidence: *confidence, nms: *nms };
        } else {
            let usual = Thresholds::default();
            self.thresholds = Thresholds {
                confidence: overrides.confidence_threshold.unwrap_or(usual.confidence),
                nms: overrides.nms_threshold.unwrap_or(usual.nms),
            };
        }
        let usual = if matches!(self.output, Output::Yolo(_)) { Fit::Letterbox } else { Fit::Stretch };
        self.input.fit = Some(self.input.fit.unwrap_or(usual));
        self.input.exif_orientation = overrides.exif_orientation.unwrap_or(self.input.exif_orientation);
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
    fn check(&self) -> Result<(), SettingsError> {
        let Self { version, input, output, self_test, thresholds: _ } = self;
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
            Output::Yolo(meaning) => meaning.check()?,
        }
        self_test.check(output)
    }
}

impl Output {
    /// Its thresholds of score and overlap, where it has boxes.
    fn thresholds(&mut self) -> Option<(&mut f64, &mut f64)> {
        match self {
            Self::Regression(_) => None,
            Self::Detection(meaning) => Some((&mut meaning.confidence_threshold, &mut meaning.nms_threshold)),
            Self::Yolo(meaning) => Some((&mut meaning.confidence_threshold, &mut meaning.nms_threshold)),
        }
    }

    /// How many outputs of the network are read.
    #[must_use]
    pub fn outputs(&self) -> usize {
        match self {
            Self::Regression(_) | Self::Detection(_) => 1,
            Self::Yolo(meaning) => 1 + usize::from(meaning.mask_numbers > 0),
        }
    }

    /// By which law it says weights, where the network has none of its own.
    #[must_use]
    pub fn law(&self) -> Option<&AreaLaw> {
        match self {
            Self::Regression(_) => None,
            Self::Detection(meaning) => meaning.weight.as_ref(),
            Self::Yolo(meaning) => meaning.weight.as_ref(),
        }
    }
}

impl Input {
    /// The dimensions of what the network takes.
    #[must_use]
    pub fn shape(&self) -> [usize; 4] {
        let (width, height, channels) = (self.width as usize, self.height as usize, self.colors.channels());
        match self.layout {
            Layout::Nchw => [1, channels, height, width],
            Layout::Nhwc => [1, height, width, channels],
        }
    }
}

impl Regression {
    fn check(&self) -> Result<(), SettingsError> {
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
    fn check(&self) -> Result<(), SettingsError> {
        check_thresholds(self.confidence_threshold, self.nms_threshold)?;
        let is_one = self.weight_column.is_none() || self.weight.is_none();
        demand(
            is_one,
            "output.weight",
            "must not be given beside weight_column: one of them says the weight",
        )?;
        self.weight.as_ref().map_or(Ok(()), check_law)
    }
}

impl Yolo {
    fn check(&self) -> Result<(), SettingsError> {
        check_thresholds(self.confidence_threshold, self.nms_threshold)?;
        let is_count = (1..=CLASSES_MAX).contains(&self.classes.len());
        demand(is_count, "output.classes", &format!("must name 1 to {CLASSES_MAX} classes"))?;
        let unknown = self.birds.iter().find(|bird| !self.classes.contains(bird));
        let problem = unknown.map(|bird| format!("names {bird:?}, which is none of the classes"));
        demand(problem.is_none(), "output.birds", &problem.unwrap_or_default())?;
        demand((0.0..0.5).contains(&self.edge_share), "output.edge_share", "must be from 0 to below 0.5")?;
        self.weight.as_ref().map_or(Ok(()), check_law)
    }
}

fn check_thresholds(confidence: f64, nms: f64) -> Result<(), SettingsError> {
    let is_share = |number: f64| (0.0..=1.0).contains(&number);
    demand(is_share(confidence), "output.confidence_threshold", "must be from 0 to 1")?;
    demand(is_share(nms), "output.nms_threshold", "must be from 0 to 1")
}

fn check_law(law: &AreaLaw) -> Result<(), SettingsError> {
    let is_sound =
        [law.a, law.b, law.picture_width_cm].iter().all(|number| number.is_finite() && *number > 0.0);
    demand(is_sound, "output.weight", "must have a, b and picture_width_cm, all greater than 0")
}

fn demand(is_met: bool, key: &'static str, problem: &str) -> Result<(), SettingsError> {
    if is_met { Ok(()) } else { Err(SettingsError::Value { key, problem: problem.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_turned_unless_the_package_or_else_the_configuration_says_no() {
        let check = |input: &str, configured: Option<bool>, expected: bool| {
            let text = format!(
                "self_test = {{ image = 'i', weight_kg_min = 0, weight_kg_max = 1 }}\n\
                 [output]\nmeaning = 'regression'\nconfidence = 0.5\n[input]\nwidth = 1\nheight = 1\n{input}"
            );
            let overrides = Overrides { exif_orientation: configured, ..Overrides::default() };
            let settings = Settings::read(&text, &overrides).expect("settings");
            assert_eq!(settings.input.exif_orientation, expected, "{input} {configured:?}");
        };
        check("", None, true);
        check("exif_orientation = false", None, false);
        check("exif_orientation = false", Some(true), true);
        check("", Some(false), false);
    }

    #[test]
    fn thresholds_are_those_of_the_configuration_else_of_the_package_else_the_usual_ones() {
        let check = |output: &str, overrides: &Overrides, expected: [f64; 2]| {
            let text = format!(
                "self_test = {{ image = 'i', weight_kg_min = 0, weight_kg_max = 1 }}\n\
                 [input]\nwidth = 1\nheight = 1\n[output]\n{output}"
            );
            let settings = Settings::read(&text, overrides).expect("settings");
            let Thresholds { confidence, nms } = settings.thresholds;
            assert_eq!([confidence, nms], expected, "{output} {overrides:?}");
            if let Output::Detection(meaning) = &settings.output {
                assert_eq!([meaning.confidence_threshold, meaning.nms_threshold], expected);
            }
        };
        let silent = Overrides::default();
        let configured =
            Overrides { confidence_threshold: Some(0.25), nms_threshold: Some(0.75), ..Overrides::default() };
        let table = "meaning = 'detection'\nbox_format = 'center'\nscore_column = 4\nweight_column = 5\n";
        let packaged = format!("{table}confidence_threshold = 0.6\nnms_threshold = 0.3\n");
        check(table, &silent, [0.5, 0.4]);
        check(&packaged, &silent, [0.6, 0.3]);
        check(&packaged, &configured, [0.25, 0.75]);
        check("meaning = 'regression'\nconfidence = 0.5\n", &silent, [0.5, 0.4]);
        check("meaning = 'regression'\nconfidence = 0.5\n", &configured, [0.25, 0.75]);
    }
}
