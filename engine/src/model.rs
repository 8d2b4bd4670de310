//! Looks at a model package as the engine would: whether it is fit for use, what it says of pictures, and what it costs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use actors::flock::sample::quantile;
use actors::inference::area::AreaLaw;
use actors::inference::model::{Model, ModelError, Source};
use actors::inference::settings::{Colors, Fit, Input, Layout, Output};
use actors::inference::{Found, Prediction};
use serde::Serialize;

use crate::cli::model::ModelCheck;
use crate::config::Config;
use crate::tree;

pub mod calibrate;
pub mod candidate;
mod plot;

/// How long the time is taken with each number of workers.
const MEASURE: Duration = Duration::from_secs(3);
/// Birds of one picture that are shown.
const BIRDS_SHOWN_MAX: usize = 20;

/// What is wrong, and with which file.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct Unfit {
    file: String,
    problem: String,
}

/// A package that is fit for use.
#[derive(Debug, Serialize)]
pub struct Report {
    package: String,
    version: String,
    is_demo: bool,
    sha256: String,
    onnx_bytes: usize,
    input: String,
    output: String,
    /// With the self-test.
    load_ms: f64,
    /// CPU time; what else runs on the machine does not count.
    load_cpu_ms: f64,
    resident: Resident,
    self_test: SelfTestReport,
    images: Vec<Look>,
    runs: Vec<Run>,
}

/// Memory of this process, KiB.
#[derive(Debug, Serialize)]
struct Resident {
    before_kib: u64,
    loaded_kib: u64,
    /// The most it ever was until the model was loaded.
    loading_kib_max: u64,
}

/// What the model says of its own picture.
#[derive(Debug, Serialize)]
struct SelfTestReport {
    image: String,
    weight_kg: Option<f64>,
    /// How many birds were found, where the model finds them one by one.
    birds: Option<usize>,
    expected: String,
    /// The answer in words.
    #[serde(skip)]
    found: String,
}

/// What the model says of a picture.
#[derive(Debug, Serialize)]
struct Look {
    file: String,
    width: u32,
    height: u32,
    prediction: Prediction,
}

/// Workers side by side, each with one picture after the other.
#[derive(Debug, Serialize)]
struct Run {
    workers: u8,
    images: usize,
    images_per_second: f64,
    /// Reading the file's pixels, median.
    decode_ms: f64,
    /// Scaling them and asking the network, median.
    network_ms: f64,
    /// Both together: median, and what 95 of 100 pictures stay below.
    image_ms: f64,
    image_ms_p95: f64,
    /// CPU time per image; what else runs on the machine does not count.
    image_cpu_ms: f64,
    resident_kib: u64,
}

/// Looks at a package.
///
/// # Errors
/// [`Unfit`], also for a picture that cannot be looked at.
pub fn check(wish: &ModelCheck, config: &Config) -> Result<Report, Unfit> {
    let before_kib = resident_kib("VmRSS:");
    let (started, cpu_started_ms) = (Instant::now(), cpu_ms());
    let source = Source::of(wish.package.as_deref().or(config.inference.model_path.as_deref()));
    let unfit = |error: ModelError| Unfit { file: source.to_string(), problem: error.explanation() };
    let model = Model::load_blocking(source.clone(), &tree::inference::overrides(config)).map_err(unfit)?;
    let (load_ms, load_cpu_ms) = (ms(started.elapsed()), cpu_ms() - cpu_started_ms);
    let resident =
        Resident { before_kib, loaded_kib: resident_kib("VmRSS:"), loading_kib_max: resident_kib("VmHWM:") };
    let own = model.self_test_image().map_err(unfit)?;
    let test = model.settings().self_test.clone();
    let image = test.image.clone();
    let answer = look(&model, Path::new(&image), &own)?.prediction;
    let pictures = pictures(&wish.images)?;
    let images = pictures.iter().map(|(path, bytes)| look(&model, path, bytes)).collect::<Result<_, _>>()?;
    let timed = if pictures.is_empty() { vec![(PathBuf::from(&image), own)] } else { pictures };
    Ok(Report {
        package: source.to_string(),
        version: model.version().to_owned(),
        is_demo: model.is_demo(),
        sha256: model.sha256().to_owned(),
        onnx_bytes: model.onnx_bytes(),
        input: describe_input(&model.settings().input),
        output: describe_output(&model.settings().output),
        load_ms,
        load_cpu_ms,
        resident,
        self_test: SelfTestReport {
            image,
            weight_kg: answer.weight_kg,
            birds: answer.boxes.as_ref().map(Vec::len),
            expected: test.expected(),
            found: answer.to_string(),
        },
        images,
        runs: wish.workers.iter().map(|workers| run(&model, &timed, *workers)).collect(),
    })
}

fn pictures(paths: &[PathBuf]) -> Result<Vec<(PathBuf, Vec<u8>)>, Unfit> {
    let read = |path: &PathBuf| match std::fs::read(path) {
        Ok(bytes) => Ok((path.clone(), bytes)),
        Err(error) => Err(Unfit { file: path.display().to_string(), problem: error.to_string() }),
    };
    paths.iter().map(read).collect()
}

/// Looks at one picture, on a thread of its own, which a network may bring down.
fn look(model: &Model, path: &Path, bytes: &[u8]) -> Result<Look, Unfit> {
    let file = path.display().to_string();
    let work = || {
        let image = model.decode(bytes).map_err(|refusal| match std::error::Error::source(&refusal) {
            Some(cause) => format!("{refusal}: {cause}"),
            None => refusal.to_string(),
        })?;
        let prediction = model.predict(&image).map_err(|error| error.explanation())?;
        Ok((image.width(), image.height(), prediction))
    };
    let outcome = std::thread::scope(|scope| scope.spawn(work).join());
    match outcome.unwrap_or_else(|_| Err(ModelError::Panicked.explanation())) {
        Ok((width, height, prediction)) => Ok(Look { file, width, height, prediction }),
        Err(problem) => Err(Unfit { file, problem }),
    }
}

/// Takes the time with pictures that the model could look at.
fn run(model: &Model, pictures: &[(PathBuf, Vec<u8>)], workers: u8) -> Run {
    let (started, cpu_started_ms) = (Instant::now(), cpu_ms());
    let work = || {
        let mut times = Vec::new();
        for (_, bytes) in pictures.iter().cycle() {
            let begun = Instant::now();
            let Ok(image) = model.decode(bytes) else { break };
            let decoded = begun.elapsed();
            if model.predict(&image).is_err() {
                break;
            }
            times.push((decoded, begun.elapsed()));
            if started.elapsed() >= MEASURE {
                break;
            }
        }
        times
    };
    let times: Vec<(Duration, Duration)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    let (elapsed, cpu_ms) = (started.elapsed(), cpu_ms() - cpu_started_ms);
    let of = |time: fn(&(Duration, Duration)) -> Duration| {
        let mut times: Vec<_> = times.iter().map(time).collect();
        times.sort_unstable();
        times
    };
    let (decode, network, whole) =
        (of(|(decode, _)| *decode), of(|(decode, whole)| *whole - *decode), of(|(_, whole)| *whole));
    Run {
        workers,
        images: times.len(),
        images_per_second: times.len() as f64 / elapsed.as_secs_f64(),
        decode_ms: quantile_ms(&decode, 0.5),
        network_ms: quantile_ms(&network, 0.5),
        image_ms: quantile_ms(&whole, 0.5),
        image_ms_p95: quantile_ms(&whole, 0.95),
        image_cpu_ms: cpu_ms / times.len().max(1) as f64,
        resident_kib: resident_kib("VmRSS:"),
    }
}

fn quantile_ms(sorted: &[Duration], share: f64) -> f64 {
    quantile(sorted, share).map_or(0.0, ms)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The CPU time of this process so far, in ticks of 10 ms.
fn cpu_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name before the last bracket may hold anything.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() * 10.0
}

/// A line of `/proc/self/status`, KiB; 0 where there is none.
fn resident_kib(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let rest = status.lines().find_map(|line| line.strip_prefix(key));
    rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

fn describe_input(input: &Input) -> String {
    let shape = input.shape().map(|size| size.to_string()).join(" x ");
    let layout = match input.layout {
        Layout::Nchw => "image, channel, row, column",
        Layout::Nhwc => "image, row, column, channel",
    };
    let colors = match input.colors {
        Colors::Rgb => "RGB",
        Colors::Bgr => "BGR",
        Colors::Gray => "gray",
    };
    let fit = match input.fit {
        Some(Fit::Letterbox) => "letterbox",
        Some(Fit::Stretch) | None => "stretched",
    };
    let Input { scale, mean, std, .. } = input;
    format!("{shape} ({layout}), {fit}, {colors}, (pixel / {scale} - {mean:?}) / {std:?}")
}

fn describe_output(output: &Output) -> String {
    match output {
        Output::Regression(meaning) => {
            let confidence = match (meaning.confidence_index, meaning.confidence) {
                (Some(index), _) => format!("the confidence is number {index}"),
                (None, given) => format!("the confidence is always {}", given.unwrap_or_default()),
            };
            format!("one weight: it is number {}, {confidence}", meaning.weight_index)
        }
        Output::Detection(meaning) => format!(
            "boxes: a score from {}, those that overlap by more than {} are one, {}",
            meaning.confidence_threshold,
            meaning.nms_threshold,
            match meaning.weight_column {
                Some(column) => format!("the weight is column {column}"),
                None => describe_law(meaning.weight.as_ref()),
            }
        ),
        Output::Yolo(meaning) => format!(
            "boxes{} of {} classes: a score from {}, those of a class that overlap by more than {} are one, {}",
            if meaning.mask_numbers > 0 { " with masks" } else { "" },
            meaning.classes.len(),
            meaning.confidence_threshold,
            meaning.nms_threshold,
            describe_law(meaning.weight.as_ref())
        ),
    }
}

fn describe_law(law: Option<&AreaLaw>) -> String {
    match law {
        Some(AreaLaw { a, b, picture_width_cm }) => {
            format!("the weight is {a} kg x (area in cm2)^{b}, a picture being {picture_width_cm} cm wide")
        }
        None => "no weights: `farmiq-edge model calibrate` finds their law".to_owned(),
    }
}

impl Report {
    /// The report for a program.
    ///
    /// # Panics
    /// Never: it is finite numbers and text.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("finite numbers and text are JSON")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            package,
            version,
            sha256,
            onnx_bytes,
            input,
            output,
            load_ms,
            load_cpu_ms,
            resident,
            self_test,
            ..
        } = self;
        let demo = if self.is_demo { " (a demonstration: do not act on its weights)" } else { "" };
        writeln!(f, "package    {package}")?;
        writeln!(f, "network    {:.1} MiB, sha256 {sha256}", *onnx_bytes as f64 / f64::from(1 << 20))?;
        writeln!(f, "version    {version}{demo}")?;
        writeln!(f, "input      {input}")?;
        writeln!(f, "output     {output}")?;
        writeln!(f, "self-test  {self_test}")?;
        writeln!(f, "load       {load_ms:.0} ms with the self-test, {load_cpu_ms:.0} ms of CPU")?;
        writeln!(f, "memory     {resident}")?;
        for look in &self.images {
            write!(f, "\n{look}")?;
        }
        writeln!(f, "\nworkers  images/s  ms/image    p95  decode  network  CPU ms  resident MiB")?;
        for run in &self.runs {
            writeln!(f, "{run}")?;
        }
        writeln!(f, "\nIt is fit for use.")
    }
}

impl fmt::Display for SelfTestReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { image, found, expected, .. } = self;
        write!(f, "passed: {image} shows {found}, {expected} is expected")
    }
}

impl fmt::Display for Resident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [before, loaded, most] = [self.before_kib, self.loaded_kib, self.loading_kib_max].map(mib);
        write!(
            f,
            "{loaded:.0} MiB resident with the model, {before:.0} before it, {most:.0} while it was loaded"
        )
    }
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, width, height, prediction } = self;
        let Prediction { weight_kg, confidence, boxes } = prediction;
        let weight = Weight(*weight_kg);
        match boxes {
            None => writeln!(f, "{file} ({width} x {height}): {weight}, confidence {confidence:.2}"),
            Some(boxes) => {
                writeln!(
                    f,
                    "{file} ({width} x {height}): {} birds, mean {weight}, {confidence:.2}",
                    boxes.len()
                )?;
                boxes
                    .iter()
                    .take(BIRDS_SHOWN_MAX)
                    .try_for_each(|found| write_bird(f, found, *width, *height))?;
                let more = boxes.len().saturating_sub(BIRDS_SHOWN_MAX);
                if more > 0 { writeln!(f, "  and {more} more") } else { Ok(()) }
            }
        }
    }
}

/// A bird, in pixels of the picture.
fn write_bird(f: &mut fmt::Formatter<'_>, found: &Found, width: u32, height: u32) -> fmt::Result {
    let (across, down) = (f64::from(width), f64::from(height));
    let (left, top) = (found.left * across, found.top * down);
    let (right, bottom) = (left + found.width * across, top + found.height * down);
    let class = found.class.as_deref().unwrap_or("bird");
    let Found { score, weight_kg, is_cut, .. } = found;
    let (weight, cut) = (Weight(*weight_kg), if *is_cut { ", cut by the edge" } else { "" });
    writeln!(
        f,
        "  {weight}  {class}, score {score:.2}, from {left:.0},{top:.0} to {right:.0},{bottom:.0}{cut}"
    )
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            workers,
            images_per_second,
            image_ms,
            image_ms_p95,
            image_cpu_ms,
            decode_ms,
            network_ms,
            ..
        } = self;
        let resident = mib(self.resident_kib);
        write!(
            f,
            "{workers:>7}  {images_per_second:>8.1}  {image_ms:>8.1}  {image_ms_p95:>5.1}  {decode_ms:>6.1}  \
             {network_ms:>7.1}  {image_cpu_ms:>6.1}  {resident:>12.0}"
        )
    }
}

/// A weight, or that there is none.
struct Weight(Option<f64>);

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(weight_kg) => write!(f, "{weight_kg:.3} kg"),
            None => f.write_str("no weight"),
        }
    }
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
