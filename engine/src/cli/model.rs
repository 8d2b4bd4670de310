//! The arguments of `farmiq-edge model`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

const MODEL_CHECK_EXAMPLES: &str = "\
Examples:
  farmiq-edge model check                                  the model that the configuration names
  farmiq-edge model check ./barn-7                         a package, before it is used
  farmiq-edge model check ./barn-7 --image hen.jpg         what it says of your picture

A package is three files in one directory:
  model.onnx    the network; its only input is one image, [1, 3, height, width] floats
  model.toml    what it takes and what its output means
  selftest.jpg  a picture whose weight is known; model.toml names it

A model.toml of a network that says one weight:
  version = \"barn-7-2026-12\"
  input = { width = 224, height = 224, mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225] }
  output = { meaning = \"regression\", confidence = 0.85 }
  self_test = { image = \"selftest.jpg\", weight_kg_min = 1.95, weight_kg_max = 2.05 }

A detector that Ultralytics' exporter wrote:
  input = { width = 640, height = 640 }
  output = { meaning = \"yolo\", classes = [\"bird\"] }
  self_test = { image = \"selftest.jpg\", birds_min = 4, birds_max = 6 }

docs/models.md tells how to export one from PyTorch, also one that finds birds in boxes.
Exit codes: 0 it is fit for use, 1 it is not and the text says why.";

const MODEL_CALIBRATE_EXAMPLES: &str = "\
Examples:
  farmiq-edge model calibrate ./barn-7 --weighings weighings.csv --picture-width-cm 120 --plot law.svg
  farmiq-edge model calibrate --weighings weighings.csv --json

The file has the columns picture and weight_kg, one line per bird: a picture with that bird
alone, and what a scale said of it. Pictures are looked for beside the file. How wide a
picture is, in centimeters at the height of the birds' backs, is measured once with a rule.
It prints the line of model.toml, with the error that a single bird and the mean of many
will have. Fifty birds from small to large are good, ten are the least.
Exit codes: 0 there is a law, 1 there is none and the text says why.";

const MODEL_CANDIDATE_EXAMPLES: &str = "\
Examples:
  farmiq-edge model candidate set ./barn-8                 try it on stored pictures
  farmiq-edge model candidate state                        how far that is
  farmiq-edge model candidate report                       how it differs from the model in use
  farmiq-edge model candidate switch                       use it from now on
  farmiq-edge model candidate back                         use the one of before again

The engine reads the pictures one at a time while no job waits, the newest first. What the
candidate says is kept apart from all results. To switch, inference.model_path names a link to
a package; the command turns it, and <link>.before keeps where it pointed. docs/models.md has
more. The database is that of the configuration; without one, the private one of a
`farmiq-edge up` that runs on this machine.
Exit codes: 0 it is done, 1 it is not and the text says why.";

/// What can be asked about model packages.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Load a package as the engine would, run its self-test, and measure what it costs on this machine.
    Check(ModelCheck),
    /// Find the law by which birds weigh what they cover in a picture, from pictures of birds whose weight is known.
    Calibrate(ModelCalibrate),
    /// Try a model on stored pictures before it is used, switch to it, and back.
    #[command(subcommand, after_help = MODEL_CANDIDATE_EXAMPLES)]
    Candidate(CandidateCommand),
}

/// What can be done about a candidate.
#[derive(Debug, Subcommand)]
pub enum CandidateCommand {
    /// Begin to try a package; one that is being tried ends.
    Set {
        /// An ONNX file with its settings beside it, or a directory with both, where the engine sees it, too.
        #[arg(value_name = "PACKAGE")]
        package: PathBuf,
        /// Pictures to read at most.
        #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(i32).range(1..=50_000))]
        pictures: i32,
        /// Only pictures of this tenant.
        #[arg(long, value_name = "ID", value_parser = super::id)]
        tenant: Option<String>,
    },
    /// Say how far its trial is.
    State {
        /// Say it for a program.
        #[arg(long)]
        json: bool,
    },
    /// End its trial; what was found stays.
    Stop,
    /// Say how it differs from the model in use, and from the scale.
    Report {
        /// Pictures to name in which they differ most.
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=100))]
        worst: u8,
        /// Say it for a program.
        #[arg(long)]
        json: bool,
    },
    /// Use it from now on.
    Switch {
        /// Although its trial is not done.
        #[arg(long)]
        now: bool,
    },
    /// Use the model of before again.
    Back,
}

/// Which package to look at, and how.
#[derive(Debug, Args)]
#[command(after_help = MODEL_CHECK_EXAMPLES)]
pub struct ModelCheck {
    /// An ONNX file with its settings beside it, or a directory with both [default: what inference.model_path names,
    /// else the bundled demonstration].
    #[arg(value_name = "PACKAGE")]
    pub package: Option<PathBuf>,
    /// A picture to say the weight of; it is also what the time is taken with. Can be given several times.
    #[arg(long = "image", value_name = "FILE")]
    pub images: Vec<PathBuf>,
    /// Numbers of workers to take the time with, one after the other.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,2", 
        value_parser = clap::value_parser!(u8).range(1..=64))]
    pub workers: Vec<u8>,
    /// Say it for a program.
    #[arg(long)]
    pub json: bool,
}

/// Which package, and which weighings.
#[derive(Debug, Args)]
#[command(after_help = MODEL_CALIBRATE_EXAMPLES)]
pub struct ModelCalibrate {
    /// An ONNX file with its settings beside it, or a directory with both [default: what inference.model_path names].
    #[arg(value_name = "PACKAGE")]
    pub package: Option<PathBuf>,
    /// CSV with the columns picture and weight_kg.
    #[arg(long, value_name = "FILE")]
    pub weighings: PathBuf,
    /// What a whole picture shows from left to right at the height of the birds' backs, cm [default: what the package says].
    #[arg(long, value_name = "CM")]
    pub picture_width_cm: Option<f64>,
    /// Draw weighings and law.
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
    /// Say it for a program.
    #[arg(long)]
    pub json: bool,
}
