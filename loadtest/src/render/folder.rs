//! A folder of pictures and the table of their true weights.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;

use super::{WEIGHT_KG_MAX, WEIGHT_KG_MIN, render};
use crate::report::{self, Live};

/// Name of the table.
pub const TABLE: &str = "weights.csv";

/// What to draw, and where to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many pictures.
    pub count: u64,
    /// Decides weights and pictures.
    pub seed: u64,
    /// The folder; it is made when it is not there.
    pub folder: PathBuf,
    /// Lightest and heaviest bird, kilograms.
    pub weights_kg: (f64, f64),
}

/// Draws the pictures. Says whether all were drawn before `stop` became true.
///
/// # Errors
/// When the weights are no range of the rule, or the folder cannot be written.
pub async fn run(settings: &Settings, stop: watch::Receiver<bool>) -> Result<bool> {
    let (lightest, heaviest) = settings.weights_kg;
    ensure!(
        WEIGHT_KG_MIN <= lightest && lightest < heaviest && heaviest <= WEIGHT_KG_MAX,
        "weights from {lightest} to {heaviest} kg: give a range within {WEIGHT_KG_MIN} to {WEIGHT_KG_MAX} kg"
    );
    let folder = &settings.folder;
    fs::create_dir_all(folder).with_context(|| format!("make the folder {}", folder.display()))?;
    let table = folder.join(TABLE);
    let file = File::create(&table).with_context(|| format!("write {}", table.display()))?;
    let mut table = BufWriter::new(file);
    writeln!(table, "file,weight_kg,seed,body_pixels")?;
    let mut random = StdRng::seed_from_u64(settings.seed);
    let mut live = Live::start(Some(settings.count));
    for number in 0..settings.count {
        // Drawing never waits: give the keyboard its turn.
        tokio::task::yield_now().await;
        if *stop.borrow() {
            break;
        }
        let weight_kg = (random.random_range(lightest..heaviest) * 1000.0).round() / 1000.0;
        let seed = random.random();
        let picture = render(weight_kg, seed);
        let name = format!("{number:05}.jpg");
        let path = folder.join(&name);
        fs::write(&path, &picture.jpeg).with_context(|| format!("write {}", path.display()))?;
        writeln!(table, "{name},{weight_kg:.3},{seed},{}", picture.body_pixels)?;
        live.show(number + 1, &format!("{} of {} pictures", number + 1, settings.count));
    }
    live.finish();
    table.flush().context("write the table of weights")?;
    let is_whole = !*stop.borrow();
    if is_whole {
        report::say(format!("{} pictures and {TABLE} in {}", settings.count, folder.display()));
    }
    Ok(is_whole)
}
