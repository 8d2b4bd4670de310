//! A table with a row per box, as exporters of many kinds write it.

use super::{Candidate, Found, Numbers, Prediction, View, finite, summary, suppressed};
use crate::inference::settings::{BoxFormat, Detection};

/// Reads a table of boxes: those with a good score, and of those that overlap only the best. The error says what is wrong
/// with the output.
pub(in crate::inference) fn detection(
    Numbers { shape, values }: &Numbers,
    meaning: &Detection,
    view: &View<'_>,
) -> Result<Prediction, String> {
    let (first, second) = match shape[..] {
        [1, first, second] | [first, second] => (first, second),
        _ => return Err(format!("has the shape {shape:?} and is no table")),
    };
    let (rows, columns) = if meaning.is_transposed { (second, first) } else { (first, second) };
    let in_box = meaning.box_columns.iter();
    let named =
        in_box.chain([&meaning.score_column]).chain(&meaning.weight_column).chain(&meaning.class_column);
    if let Some(missing) = named.into_iter().find(|column| **column >= columns) {
        return Err(format!("has the shape {shape:?} and no column {missing}"));
    }
    let cell = |row: usize, column: usize| {
        let index = if meaning.is_transposed { column * rows + row } else { row * columns + column };
        f64::from(values[index])
    };
    let mut candidates = Vec::new();
    for row in 0..rows {
        let score = cell(row, meaning.score_column);
        if score >= meaning.confidence_threshold {
            let found = read_box(&|column| cell(row, column), score, meaning, view)?;
            candidates.push(Candidate { found, row });
        }
    }
    // One bird may be found as two classes.
    let kept = suppressed(candidates, meaning.nms_threshold, |_, _| true);
    Ok(summary(kept.into_iter().map(|candidate| candidate.found).collect()))
}

fn read_box(
    cell: &dyn Fn(usize) -> f64,
    score: f64,
    meaning: &Detection,
    view: &View<'_>,
) -> Result<Found, String> {
    let [a, b, c, d] = meaning.box_columns.map(cell);
    let corner = match meaning.box_format {
        BoxFormat::Center => [a - c / 2.0, b - d / 2.0, c, d],
        BoxFormat::Corners => [a, b, c - a, d - b],
    };
    let (across, down) = (f64::from(view.input.width), f64::from(view.input.height));
    let in_pixels = match meaning.is_box_relative {
        true => [corner[0] * across, corner[1] * down, corner[2] * across, corner[3] * down],
        false => corner,
    };
    let [left, top, width, height] = view.shares(in_pixels);
    let class = meaning.class_column.map(|column| {
        let number = cell(column).round();
        let known = meaning.classes.iter().enumerate().find(|(index, _)| *index as f64 == number);
        known.map_or_else(|| number.to_string(), |(_, name)| name.clone())
    });
    let mut found = Found {
        left: finite(left)?,
        top: finite(top)?,
        width: finite(width)?,
        height: finite(height)?,
        class,
        score: score.clamp(0.0, 1.0),
        weight_kg: None,
        covered: None,
        is_cut: false,
    };
    found.weight_kg = match (meaning.weight_column, &meaning.weight) {
        (Some(column), _) => Some(finite(cell(column))?),
        (None, Some(law)) => Some(finite(view.weight_kg(law, found.share()))?),
        (None, None) => None,
    };
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::settings::{Colors, Input, Layout};

    const INPUT: Input = Input {
        width: 100,
        height: 50,
        fit: None,
        layout: Layout::Nchw,
        colors: Colors::Rgb,
        scale: 255.0,
        mean: Vec::new(),
        std: Vec::new(),
        exif_orientation: true,
    };

    fn read(shape: &[usize], values: &[f32], extra: &str) -> Result<Prediction, String> {
        let text = format!("box_format = 'center'\nscore_column = 4\nweight_column = 5\n{extra}");
        let numbers = Numbers { shape: shape.to_vec(), values: values.to_vec() };
        let view = View { width: 200, height: 100, input: &INPUT };
        detection(&numbers, &toml::from_str(&text).unwrap(), &view)
    }

    #[test]
    fn of_boxes_that_overlap_the_best_is_kept() {
        let rows = [
            [50.0, 25.0, 20.0, 10.0, 0.9, 2.0],
            [51.0, 25.0, 20.0, 10.0, 0.8, 9.0], // the same bird
            [20.0, 25.0, 20.0, 10.0, 0.7, 3.0], // another one
            [80.0, 25.0, 20.0, 10.0, 0.4, 9.0], // below the threshold
        ];
        let found = read(&[1, 4, 6], &rows.concat(), "").unwrap();
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
        let found = read(&[7, 2], &columns.concat(), settings).unwrap();
        let classes: Vec<_> = found.boxes.unwrap().into_iter().filter_map(|found| found.class).collect();
        assert_eq!(classes, ["hen", "5"]);
        assert_eq!(found.weight_kg, Some(2.5));
    }

    #[test]
    fn no_bird_has_no_weight() {
        let found = read(&[1, 0, 6], &[], "").unwrap();
        assert_eq!((found.weight_kg, found.confidence, found.boxes), (None, 0.0, Some(Vec::new())));
    }

    #[test]
    fn an_output_that_is_no_such_table_is_refused() {
        let check = |shape: &[usize], expected: &str| {
            let numbers = vec![1.0; shape.iter().product()];
            let problem = read(shape, &numbers, "").unwrap_err();
            assert!(problem.contains(expected), "{problem}");
        };
        check(&[6], "is no table");
        check(&[2, 3, 6], "is no table");
        check(&[1, 3, 5], "no column 5");
    }
}
