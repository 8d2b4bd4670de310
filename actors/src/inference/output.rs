//! What the numbers of a network mean: one weight, or a table of boxes.

use std::fmt;

use serde::Serialize;

mod table;
mod yolo;

pub(super) use table::detection;
pub(super) use yolo::yolo;

use super::area::{AreaLaw, area_cm2};
use super::image::Placement;
use super::settings::{Input, Regression};

/// Boxes that are kept of one image at most.
const BOXES_MAX: usize = 300;
/// Boxes that are compared with each other at most, best scores first. A bird is found some ten times over.
const CANDIDATES_MAX: usize = 3000;

/// What a model says of an image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// The weight of a bird, kg: with boxes, the mean of those that have one. `None`: there is no bird, or no weight.
    pub weight_kg: Option<f64>,
    /// From 0 to 1: with boxes, the mean of their scores.
    pub confidence: f64,
    /// The birds, where the model finds them one by one; best score first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boxes: Option<Vec<Found>>,
}

impl fmt::Display for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(boxes) = &self.boxes {
            write!(f, "{} birds, mean ", boxes.len())?;
        }
        match self.weight_kg {
            Some(weight_kg) => write!(f, "{weight_kg:.3} kg"),
            None => f.write_str("no weight"),
        }
    }
}

/// A bird in an image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Found {
    /// Left edge, as a share of the image's width.
    pub left: f64,
    /// Top edge, as a share of the image's height.
    pub top: f64,
    /// Width, as a share of the image's.
    pub width: f64,
    /// Height, as a share of the image's.
    pub height: f64,
    /// Name of its class, or its number when it has no name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// From 0 to 1.
    pub score: f64,
    /// Its weight, kg; `None` where the model has none, or the image's edge cuts the bird.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_kg: Option<f64>,
    /// What its mask covers, as a share of the image, where the model makes masks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub covered: Option<f64>,
    /// Whether the image's edge cuts it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_cut: bool,
}

impl Found {
    /// What it covers, as a share of the image: its mask, else its box.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.covered.unwrap_or(self.width * self.height)
    }
}

/// An output of a network.
pub(super) struct Numbers {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f32>,
}

/// The image that was looked at, and the input that was made of it.
pub(super) struct View<'a> {
    /// Pixels.
    pub(super) width: u32,
    /// Pixels.
    pub(super) height: u32,
    pub(super) input: &'a Input,
}

impl View<'_> {
    /// A box in pixels of the input, as shares of the image: left, top, width, height.
    fn shares(&self, [left, top, width, height]: [f64; 4]) -> [f64; 4] {
        let place = Placement::of(self.width, self.height, self.input);
        let (across, down) = (f64::from(place.width), f64::from(place.height));
        [
            (left - f64::from(place.left)) / across,
            (top - f64::from(place.top)) / down,
            width / across,
            height / down,
        ]
    }

    /// What a bird weighs by the area that it covers.
    fn weight_kg(&self, law: &AreaLaw, share: f64) -> f64 {
        law.weight_kg(area_cm2(share, law.picture_width_cm, self.width, self.height))
    }
}

/// Reads one weight. The error says what is wrong with the output.
pub(super) fn regression(numbers: &[f32], meaning: &Regression) -> Result<Prediction, String> {
    let at = |index: usize| {
        let number = numbers.get(index).copied().map(f64::from);
        number.ok_or_else(|| format!("has {} numbers and none at {index}", numbers.len()))
    };
    let weight_kg = finite(at(meaning.weight_index)?)?;
    let confidence = match (meaning.confidence_index, meaning.confidence) {
        (Some(index), _) => finite(at(index)?)?,
        (None, given) => given.unwrap_or_default(),
    };
    Ok(Prediction { weight_kg: Some(weight_kg), confidence: confidence.clamp(0.0, 1.0), boxes: None })
}

/// A box that may be a bird.
struct Candidate {
    found: Found,
    /// Its number in the output.
    row: usize,
}

/// Of boxes that overlap and are `alike`, the best.
fn suppressed(
    mut candidates: Vec<Candidate>,
    nms_threshold: f64,
    alike: impl Fn(&Found, &Found) -> bool,
) -> Vec<Candidate> {
    candidates.sort_by(|a, b| b.found.score.total_cmp(&a.found.score));
    candidates.truncate(CANDIDATES_MAX);
    let mut kept: Vec<Candidate> = Vec::new();
    for candidate in candidates {
        if kept.len() == BOXES_MAX {
            break;
        }
        let is_other = |other: &Candidate| {
            !alike(&other.found, &candidate.found) || overlap(&other.found, &candidate.found) <= nms_threshold
        };
        if kept.iter().all(is_other) {
            kept.push(candidate);
        }
    }
    kept
}

/// The area two boxes share, as a share of the area they cover together.
fn overlap(a: &Found, b: &Found) -> f64 {
    let extent = |start_a: f64, size_a: f64, start_b: f64, size_b: f64| {
        ((start_a + size_a).min(start_b + size_b) - start_a.max(start_b)).max(0.0)
    };
    let shared = extent(a.left, a.width, b.left, b.width) * extent(a.top, a.height, b.top, b.height);
    let together = a.width * a.height + b.width * b.height - shared;
    if together > 0.0 { shared / together } else { 0.0 }
}

fn summary(boxes: Vec<Found>) -> Prediction {
    let weight_kg = mean(boxes.iter().filter_map(|found| found.weight_kg));
    let confidence = mean(boxes.iter().map(|found| found.score)).unwrap_or_default();
    Prediction { weight_kg, confidence, boxes: Some(boxes) }
}

fn mean(numbers: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = numbers.fold((0.0, 0.0), |(sum, count), number| (sum + number, count + 1.0));
    (count > 0.0).then(|| sum / count)
}

fn finite(number: f64) -> Result<f64, String> {
    if number.is_finite() { Ok(number) } else { Err(format!("has {number} where a number is needed")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regression_reads_its_places_and_refuses_what_is_no_number() {
        let check = |numbers: &[f32], settings: &str, expected: Result<(f64, f64), &str>| {
            let outcome = regression(numbers, &toml::from_str(settings).unwrap());
            match (outcome, expected) {
                (Ok(found), Ok((weight_kg, confidence))) => {
                    assert_eq!((found.weight_kg, found.confidence), (Some(weight_kg), confidence));
                }
                (Err(problem), Err(expected)) => assert!(problem.contains(expected), "{problem}"),
                (outcome, _) => panic!("{settings}: {outcome:?}"),
            }
        };
        check(&[2.5], "confidence = 0.75", Ok((2.5, 0.75)));
        check(&[0.5, 2.5], "weight_index = 1\nconfidence_index = 0", Ok((2.5, 0.5)));
        check(&[2.5, 7.0], "confidence_index = 1", Ok((2.5, 1.0)));
        check(&[2.5], "weight_index = 1\nconfidence = 1", Err("has 1 numbers and none at 1"));
        check(&[f32::NAN], "confidence = 1", Err("has NaN"));
        check(&[2.5, f32::INFINITY], "confidence_index = 1", Err("has inf"));
    }
}
