//! What the numbers of a network mean: one weight, or a table of boxes.

use serde::Serialize;

use super::settings::{BoxFormat, Detection, Input, Regression};

/// Boxes that are compared with each other at most, best scores first.
const BOXES_MAX: usize = 300;

/// What a model says of an image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// The weight of a bird, kg: with boxes, the mean of them. `None`: there is no bird.
    pub weight_kg: Option<f64>,
    /// From 0 to 1: with boxes, the mean of their scores.
    pub confidence: f64,
    /// The birds, where the model finds them one by one; best score first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boxes: Option<Vec<Found>>,
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
    /// Its weight, kg.
    pub weight_kg: f64,
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

/// Reads a table of boxes: those with a good score, and of those that overlap only the best.
pub(super) fn detection(
    shape: &[usize],
    numbers: &[f32],
    meaning: &Detection,
    input: &Input,
) -> Result<Prediction, String> {
    let (first, second) = match *shape {
        [1, first, second] | [first, second] => (first, second),
        _ => return Err(format!("has the shape {shape:?} and is no table")),
    };
    let (rows, columns) = if meaning.is_transposed { (second, first) } else { (first, second) };
    let in_box = meaning.box_columns.iter();
    let named = in_box.chain([&meaning.score_column, &meaning.weight_column]).chain(&meaning.class_column);
    if let Some(missing) = named.into_iter().find(|column| **column >= columns) {
        return Err(format!("has the shape {shape:?} and no column {missing}"));
    }
    let cell = |row: usize, column: usize| {
        let index = if meaning.is_transposed { column * rows + row } else { row * columns + column };
        f64::from(numbers[index])
    };
    let mut found = Vec::new();
    for row in 0..rows {
        let score = cell(row, meaning.score_column);
        if score >= meaning.confidence_threshold {
            found.push(read_box(&|column| cell(row, column), score, meaning, input)?);
        }
    }
    Ok(summary(suppressed(found, meaning.nms_threshold)))
}

fn read_box(
    cell: &dyn Fn(usize) -> f64,
    score: f64,
    meaning: &Detection,
    input: &Input,
) -> Result<Found, String> {
    let [a, b, c, d] = meaning.box_columns.map(cell);
    let (left, top, width, height) = match meaning.box_format {
        BoxFormat::Center => (a - c / 2.0, b - d / 2.0, c, d),
        BoxFormat::Corners => (a, b, c - a, d - b),
    };
    let (across, down) =
        if meaning.is_box_relative { (1.0, 1.0) } else { (f64::from(input.width), f64::from(input.height)) };
    let class = meaning.class_column.map(|column| {
        let number = cell(column).round();
        let known = meaning.classes.iter().enumerate().find(|(index, _)| *index as f64 == number);
        known.map_or_else(|| number.to_string(), |(_, name)| name.clone())
    });
    Ok(Found {
        left: finite(left / across)?,
        top: finite(top / down)?,
        width: finite(width / across)?,
        height: finite(height / down)?,
        class,
        score: score.clamp(0.0, 1.0),
        weight_kg: finite(cell(meaning.weight_column))?,
    })
}

fn suppressed(mut found: Vec<Found>, nms_threshold: f64) -> Vec<Found> {
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    found.truncate(BOXES_MAX);
    let mut kept: Vec<Found> = Vec::new();
    for candidate in found {
        if kept.iter().all(|other| overlap(other, &candidate) <= nms_threshold) {
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
    let mean = |value: fn(&Found) -> f64| {
        let count = u32::try_from(boxes.len()).expect("at most BOXES_MAX boxes are kept");
        (count > 0).then(|| boxes.iter().map(value).sum::<f64>() / f64::from(count))
    };
    let weight_kg = mean(|found| found.weight_kg);
    let confidence = mean(|found| found.score).unwrap_or_default();
    Prediction { weight_kg, confidence, boxes: Some(boxes) }
}

fn finite(number: f64) -> Result<f64, String> {
    if number.is_finite() { Ok(number) } else { Err(format!("has {number} where a number is needed")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::settings::{Colors, Layout};

    const INPUT: Input = Input {
        width: 100,
        height: 50,
        layout: Layout::Nchw,
        colors: Colors::Rgb,
        scale: 255.0,
        mean: Vec::new(),
        std: Vec::new(),
        exif_orientation: true,
    };

    fn table(extra: &str) -> Detection {
        let text = format!("box_format = 'center'\nscore_column = 4\nweight_column = 5\n{extra}");
        toml::from_str(&text).unwrap()
    }

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

    #[test]
    fn of_boxes_that_overlap_the_best_is_kept() {
        let rows = [
            [50.0, 25.0, 20.0, 10.0, 0.9, 2.0],
            [51.0, 25.0, 20.0, 10.0, 0.8, 9.0], // the same bird
            [20.0, 25.0, 20.0, 10.0, 0.7, 3.0], // another one
            [80.0, 25.0, 20.0, 10.0, 0.4, 9.0], // below the threshold
        ];
        let numbers = rows.concat();
        let found = detection(&[1, 4, 6], &numbers, &table(""), &INPUT).unwrap();
        assert_eq!(found.weight_kg, Some(2.5));
        assert!((found.confidence - 0.8).abs() < 1e-6);
        let boxes = found.boxes.unwrap();
        assert_eq!(boxes.len(), 2);
        assert!((boxes[0].left - 0.4).abs() < 1e-6 && (boxes[0].height - 0.2).abs() < 1e-6, "{boxes:?}");
    }

    #[test]
    fn a_transposed_table_with_classes_reads_the_same() {
        let settings =
            "is_transposed = true\nclass_column = 6\nclasses = ['chick', 'hen']\nis_box_relative = true";
        let columns = [[0.5, 0.2], [0.5, 0.5], [0.2, 0.2], [0.2, 0.2], [0.9, 0.6], [2.0, 3.0], [1.0, 5.0]];
        let found = detection(&[7, 2], &columns.concat(), &table(settings), &INPUT).unwrap();
        let classes: Vec<_> = found.boxes.unwrap().into_iter().filter_map(|found| found.class).collect();
        assert_eq!(classes, ["hen", "5"]);
        assert_eq!(found.weight_kg, Some(2.5));
    }

    #[test]
    fn no_bird_has_no_weight() {
        let found = detection(&[1, 0, 6], &[], &table(""), &INPUT).unwrap();
        assert_eq!((found.weight_kg, found.confidence, found.boxes), (None, 0.0, Some(Vec::new())));
    }

    #[test]
    fn an_output_that_is_no_such_table_is_refused() {
        let check = |shape: &[usize], expected: &str| {
            let numbers = vec![1.0; shape.iter().product()];
            let problem = detection(shape, &numbers, &table(""), &INPUT).unwrap_err();
            assert!(problem.contains(expected), "{problem}");
        };
        check(&[6], "is no table");
        check(&[2, 3, 6], "is no table");
        check(&[1, 3, 5], "no column 5");
    }
}
