//! Finds the law by which birds weigh what they cover in a picture.

use std::fmt;
use std::path::{Path, PathBuf};

use actors::inference::area::{Fit, Weighing, area_cm2};
use actors::inference::model::{Model, ModelError, Source};
use actors::inference::settings::Output;
use serde::{Deserialize, Serialize};

use super::{Look, Unfit, look, plot};
use crate::backup::progress::Progress;
use crate::cli::model::ModelCalibrate;
use crate::config::Config;
use crate::tree;

/// Weighings that are read at most.
const WEIGHINGS_MAX: usize = 100_000;
/// Pictures of no use that are shown.
const SKIPPED_SHOWN_MAX: usize = 20;

/// A line of the file.
#[derive(Debug, Deserialize)]
struct Line {
    picture: PathBuf,
    weight_kg: f64,
}

/// A law, and where it comes from.
#[derive(Debug, Serialize)]
pub struct Calibration {
    package: String,
    version: String,
    picture_width_cm: f64,
    /// Whether the areas are those of masks, not of boxes.
    by_mask: bool,
    law: Fit,
    /// Pictures that were of no use, each with why.
    skipped: Vec<(String, String)>,
    /// Pictures of the weighings that lie far from the law.
    outliers: Vec<String>,
}

/// Finds a law.
///
/// # Errors
/// [`Unfit`]: the package, the file or a picture cannot be used, or there is no law in them.
pub fn calibrate(wish: &ModelCalibrate, config: &Config) -> Result<Calibration, Unfit> {
    let source = Source::of(wish.package.as_deref().or(config.inference.model_path.as_deref()));
    let unfit = |problem: String| Unfit { file: source.to_string(), problem };
    let model = Model::load_blocking(source.clone(), &tree::inference::overrides(config))
        .map_err(|error: ModelError| unfit(error.explanation()))?;
    let output = &model.settings().output;
    let by_mask = match output {
        Output::Regression(_) => {
            return Err(unfit("it says weights itself, and finds no birds to measure".to_owned()));
        }
        Output::Detection(_) => false,
        Output::Yolo(meaning) => meaning.mask_numbers > 0,
    };
    let picture_width_cm = wish.picture_width_cm.or(output.law().map(|law| law.picture_width_cm));
    let is_width = |width: &f64| width.is_finite() && *width > 0.0;
    let picture_width_cm = picture_width_cm.filter(is_width).ok_or_else(|| {
        unfit("say how wide a picture is with --picture-width-cm, greater than 0".to_owned())
    })?;

    let in_file = |problem: String| Unfit { file: wish.weighings.display().to_string(), problem };
    let lines = read(&wish.weighings).map_err(in_file)?;
    let beside = wish.weighings.parent().unwrap_or(Path::new(""));
    let (mut weighings, mut pictures, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
    let progress = Progress::new();
    progress.counts_pieces("looking at pictures", lines.len() as u64);
    for Line { picture, weight_kg } in lines {
        let name = picture.display().to_string();
        match measure(&model, &beside.join(&picture), picture_width_cm) {
            Ok(area_cm2) => {
                weighings.push(Weighing { area_cm2, weight_kg });
                pictures.push(name);
            }
            Err(problem) => skipped.push((name, problem)),
        }
        progress.add(1);
    }
    progress.ends();
    let law = Fit::of(&weighings).map_err(|error| in_file(explain(&error.to_string(), &skipped)))?;
    if let Some(file) = &wish.plot {
        let drawn = plot::draw(&weighings, &law);
        std::fs::write(file, drawn)
            .map_err(|error| Unfit { file: file.display().to_string(), problem: error.to_string() })?;
    }
    let outliers = law.outliers.iter().map(|at| pictures[*at].clone()).collect();
    let (package, version) = (source.to_string(), model.version().to_owned());
    Ok(Calibration { package, version, picture_width_cm, by_mask, law, skipped, outliers })
}

fn read(file: &Path) -> Result<Vec<Line>, String> {
    let reader = csv::ReaderBuilder::new().comment(Some(b'#')).trim(csv::Trim::All).from_path(file);
    let mut reader = reader.map_err(|error| error.to_string())?;
    let lines: Result<Vec<Line>, _> = reader.deserialize().take(WEIGHINGS_MAX + 1).collect();
    let lines = lines.map_err(|error| error.to_string())?;
    if lines.len() > WEIGHINGS_MAX {
        return Err(format!("it has more than {WEIGHINGS_MAX} lines"));
    }
    Ok(lines)
}

/// What the only bird of a picture covers, cm².
fn measure(model: &Model, picture: &Path, picture_width_cm: f64) -> Result<f64, String> {
    let bytes = std::fs::read(picture).map_err(|error| error.to_string())?;
    let Look { width, height, prediction, .. } =
        look(model, picture, &bytes).map_err(|Unfit { problem, .. }| problem)?;
    match prediction.boxes.as_deref().unwrap_or_default() {
        [bird] if bird.is_cut => Err("the edge of the picture cuts the bird".to_owned()),
        [bird] => Ok(area_cm2(bird.share(), picture_width_cm, width, height)),
        [] => Err("no bird is found".to_owned()),
        birds => Err(format!("{} birds are found, and the scale knows of one", birds.len())),
    }
}

/// A problem, with what may have caused it.
fn explain(problem: &str, skipped: &[(String, String)]) -> String {
    let Some((name, why)) = skipped.first() else { return problem.to_owned() };
    format!("{problem}; {} pictures were of no use, the first {name}: {why}", skipped.len())
}

impl Calibration {
    /// The line of the settings file.
    fn line(&self) -> String {
        let Fit { a, b, .. } = self.law;
        format!("weight = {{ a = {a:.6e}, b = {b:.4}, picture_width_cm = {} }}", self.picture_width_cm)
    }

    /// It for a program.
    ///
    /// # Panics
    /// Never: it is finite numbers and text.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("finite numbers and text are JSON")
    }
}

impl fmt::Display for Calibration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { package, version, by_mask, law, skipped, outliers, .. } = self;
        let area = if *by_mask { "masks" } else { "boxes" };
        let Fit { a, b, b_interval: [b_min, b_max], n, .. } = law;
        writeln!(f, "package    {package}, {version}")?;
        writeln!(f, "law        weight_kg = {a:.4e} x (area of {area} in cm2)^{b:.3}")?;
        writeln!(f, "b          {b_min:.3} to {b_max:.3}, in 95 of 100 cases")?;
        writeln!(
            f,
            "from       {n} birds of {:.3} to {:.3} kg that cover {:.0} to {:.0} cm2: it is good between these",
            law.weight_kg[0], law.weight_kg[1], law.area_cm2[0], law.area_cm2[1]
        )?;
        writeln!(
            f,
            "one bird   is wrong by {:.1} % in the middle, by less than {:.1} % in 95 of 100 cases",
            law.error_percent_median, law.error_percent_p95
        )?;
        let many = law.scatter_percent / (*n as f64).sqrt() * 1.96;
        writeln!(f, "many birds {:+.2} %, within {many:.1} % of the scale's mean", law.bias_percent)?;
        for name in outliers {
            writeln!(f, "left out   {name} lies far from the others")?;
        }
        for (name, why) in skipped.iter().take(SKIPPED_SHOWN_MAX) {
            writeln!(f, "no use     {name}: {why}")?;
        }
        let more = skipped.len().saturating_sub(SKIPPED_SHOWN_MAX);
        if more > 0 {
            writeln!(f, "           and {more} more")?;
        }
        writeln!(f, "\nIn [output] of model.toml:\n{}", self.line())
    }
}
