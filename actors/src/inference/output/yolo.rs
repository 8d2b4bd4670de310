//! The table that Ultralytics' exporter writes for its detectors and segmenters (YOLOv8 and later, without suppression in
//! the network): `[1, 4 + classes + mask numbers, boxes]`, and for a segmenter a second output of mask prototypes,
//! `[1, mask numbers, rows, columns]`.

use super::{Candidate, Found, Numbers, Prediction, View, finite, summary, suppressed};
use crate::inference::settings::Yolo;

/// Numbers of a box before its scores.
const BOX_NUMBERS: usize = 4;

/// Reads the table: of each box its best class, those with a good score, and of those of one class that overlap only the
/// best. The error says what is wrong with the outputs.
pub(in crate::inference) fn yolo(
    outputs: &[Numbers],
    meaning: &Yolo,
    view: &View<'_>,
) -> Result<Prediction, String> {
    let table = Table::of(outputs, meaning)?;
    let is_bird = |class: usize| meaning.birds.is_empty() || meaning.birds.contains(&meaning.classes[class]);
    let mut candidates = Vec::new();
    for row in 0..table.boxes {
        let (class, score) = table.best_class(row, meaning.classes.len());
        if score >= meaning.confidence_threshold && is_bird(class) {
            let found = read_box(&table, row, &meaning.classes[class], score, view)?;
            candidates.extend(found.map(|found| Candidate { found, row }));
        }
    }
    let mut kept = suppressed(candidates, meaning.nms_threshold, |a, b| a.class == b.class);
    let masks = if meaning.mask_numbers > 0 { Some(Masks::of(outputs, meaning, view)?) } else { None };
    for Candidate { found, row } in &mut kept {
        found.is_cut = touches_edge(found, meaning.edge_share);
        if let Some(masks) = &masks {
            let first = BOX_NUMBERS + meaning.classes.len();
            let numbers: Vec<f32> =
                (first..first + meaning.mask_numbers).map(|column| table.at(*row, column)).collect();
            found.covered = Some(masks.covered_share(&numbers, found));
        }
        if let (Some(law), false) = (&meaning.weight, found.is_cut) {
            found.weight_kg = Some(finite(view.weight_kg(law, found.share()))?);
        }
    }
    Ok(summary(kept.into_iter().map(|candidate| candidate.found).collect()))
}

/// The first output, column after column.
struct Table<'a> {
    boxes: usize,
    values: &'a [f32],
}

impl<'a> Table<'a> {
    fn of(outputs: &'a [Numbers], meaning: &Yolo) -> Result<Self, String> {
        let columns = BOX_NUMBERS + meaning.classes.len() + meaning.mask_numbers;
        let Some(Numbers { shape, values }) = outputs.first() else { return Err("is missing".to_owned()) };
        match shape[..] {
            [1, found, boxes] if found == columns => Ok(Self { boxes, values }),
            [1, boxes, found] if found == columns || found == 6 => Err(format!(
                "has the shape {shape:?} with a row per box: it is of an export with its own suppression; use meaning = \
                 \"detection\", or export with nms=False and end2end=False ({boxes} boxes)"
            )),
            _ => Err(format!(
                "has the shape {shape:?}, and [1, {columns}, boxes] is expected for 4 numbers of a box, {} classes and {} \
                 numbers of a mask: look at output.classes and output.mask_numbers",
                meaning.classes.len(),
                meaning.mask_numbers
            )),
        }
    }

    fn at(&self, row: usize, column: usize) -> f32 {
        self.values[column * self.boxes + row]
    }

    /// The class with the best score. A score that is no number is none.
    fn best_class(&self, row: usize, classes: usize) -> (usize, f64) {
        (0..classes).fold((0, f64::NEG_INFINITY), |best, class| {
            let score = f64::from(self.at(row, BOX_NUMBERS + class));
            if score > best.1 { (class, score) } else { best }
        })
    }
}

/// A box within the image; `None` when it lies outside of it.
fn read_box(
    table: &Table<'_>,
    row: usize,
    class: &str,
    score: f64,
    view: &View<'_>,
) -> Result<Option<Found>, String> {
    let mut numbers = [0.0; BOX_NUMBERS];
    for (column, number) in numbers.iter_mut().enumerate() {
        *number = finite(f64::from(table.at(row, column)))?;
    }
    let [x, y, width, height] = numbers;
    let [left, top, width, height] = view.shares([x - width / 2.0, y - height / 2.0, width, height]);
    let [right, bottom] = [left + width, top + height].map(|end| end.clamp(0.0, 1.0));
    let [left, top] = [left, top].map(|start| start.clamp(0.0, 1.0));
    let (width, height) = (right - left, bottom - top);
    Ok((width > 0.0 && height > 0.0).then(|| Found {
        left,
        top,
        width,
        height,
        class: Some(class.to_owned()),
        score: score.clamp(0.0, 1.0),
        weight_kg: None,
        covered: None,
        is_cut: false,
    }))
}

fn touches_edge(found: &Found, edge_share: f64) -> bool {
    let Found { left, top, width, height, .. } = found;
    left.min(*top) < edge_share || (left + width).max(top + height) > 1.0 - edge_share
}

/// The prototypes of masks: a bird's mask is their sum, each times a number of the bird, where it is greater than 0.
struct Masks<'a> {
    rows: usize,
    columns: usize,
    values: &'a [f32],
    /// Cells of the whole image, in both directions; the input may be wider.
    image_cells: [f64; 2],
    /// Where the image begins, cells.
    image_at: [f64; 2],
}

impl<'a> Masks<'a> {
    fn of(outputs: &'a [Numbers], meaning: &Yolo, view: &View<'_>) -> Result<Self, String> {
        let Some(Numbers { shape, values }) = outputs.get(1) else {
            return Err("is alone, and a segmenter has a second one with its masks".to_owned());
        };
        let [1, numbers, rows, columns] = shape[..] else {
            return Err(format!(
                "of the masks has the shape {shape:?}, and [1, {}, rows, columns] is expected",
                meaning.mask_numbers
            ));
        };
        if numbers != meaning.mask_numbers || rows == 0 || columns == 0 {
            return Err(format!(
                "of the masks has {numbers} prototypes, and output.mask_numbers is {}",
                meaning.mask_numbers
            ));
        }
        let cell = [columns as f64 / f64::from(view.input.width), rows as f64 / f64::from(view.input.height)];
        // The share of the image at the first pixel of the input, and at one behind its last.
        let [left, top, width, height] =
            view.shares([0.0, 0.0, f64::from(view.input.width), f64::from(view.input.height)]);
        let image_cells =
            [f64::from(view.input.width) / width * cell[0], f64::from(view.input.height) / height * cell[1]];
        Ok(Self {
            rows,
            columns,
            values,
            image_cells,
            image_at: [-left * image_cells[0], -top * image_cells[1]],
        })
    }

    /// What a bird's mask covers within its box, as a share of the image.
    fn covered_share(&self, numbers: &[f32], found: &Found) -> f64 {
        let across = cells(self.image_at[0], self.image_cells[0], found.left, found.width, self.columns);
        let down = cells(self.image_at[1], self.image_cells[1], found.top, found.height, self.rows);
        let size = self.rows * self.columns;
        let mut covered = 0.0;
        for row in down {
            for column in across.clone() {
                let at = row * self.columns + column;
                let sum: f32 = numbers
                    .iter()
                    .enumerate()
                    .map(|(index, number)| number * self.values[index * size + at])
                    .sum();
                covered += f64::from(u8::from(sum > 0.0));
            }
        }
        covered / (self.image_cells[0] * self.image_cells[1])
    }
}

/// The cells whose middle lies within a part of the image.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is clamped to an index")]
fn cells(image_at: f64, image_cells: f64, start: f64, size: f64, most: usize) -> std::ops::Range<usize> {
    let index = |share: f64| (image_at + share * image_cells - 0.5).ceil().clamp(0.0, most as f64) as usize;
    index(start)..index(start + size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::settings::{Colors, Fit, Input, Layout};

    /// A picture of 200 x 100 pixels stands in it from row 25 to row 75.
    const INPUT: Input = Input {
        width: 100,
        height: 100,
        fit: Some(Fit::Letterbox),
        layout: Layout::Nchw,
        colors: Colors::Rgb,
        scale: 255.0,
        mean: Vec::new(),
        std: Vec::new(),
        exif_orientation: true,
    };
    const VIEW: View<'_> = View { width: 200, height: 100, input: &INPUT };

    /// A table of rows, as the network writes it: column after column.
    fn table(rows: &[Vec<f32>]) -> Numbers {
        let columns = rows.first().map_or(6, Vec::len);
        let values = (0..columns).flat_map(|column| rows.iter().map(move |row| row[column])).collect();
        Numbers { shape: vec![1, columns, rows.len()], values }
    }

    fn read(outputs: &[Numbers], settings: &str) -> Result<Vec<Found>, String> {
        let meaning = toml::from_str(&format!("classes = ['bird', 'person']\n{settings}")).unwrap();
        yolo(outputs, &meaning, &VIEW).map(|prediction| prediction.boxes.unwrap())
    }

    fn is_near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-6
    }

    #[test]
    fn the_best_class_counts_and_overlaps_are_suppressed_within_it() {
        let rows = [
            vec![50.0, 50.0, 20.0, 10.0, 0.9, 0.1],
            vec![51.0, 50.0, 20.0, 10.0, 0.8, 0.2], // the same bird
            vec![51.0, 50.0, 20.0, 10.0, 0.3, 0.7], // somebody who stands there
            vec![20.0, 50.0, 20.0, 10.0, 0.6, 0.5],
            vec![80.0, 50.0, 20.0, 10.0, 0.4, 0.3], // below the threshold
            vec![80.0, 50.0, 20.0, 10.0, f32::NAN, 0.3],
        ];
        let found = read(&[table(&rows)], "").unwrap();
        let scores: Vec<_> = found.iter().map(|found| (found.class.clone().unwrap(), found.score)).collect();
        assert_eq!(found.len(), 3, "{scores:?}");
        assert!(is_near(f64::from(0.9_f32), scores[0].1) && scores[1].0 == "person", "{scores:?}");
        assert_eq!(read(&[table(&rows)], "birds = ['bird']").unwrap().len(), 2);
    }

    #[test]
    fn boxes_are_shares_of_the_picture_and_not_of_the_letterbox() {
        let found = read(&[table(&[vec![50.0, 50.0, 20.0, 10.0, 0.9, 0.0]])], "").unwrap();
        let Found { left, top, width, height, is_cut, .. } = &found[0];
        assert!(is_near(*left, 0.4) && is_near(*top, 0.4), "{found:?}");
        assert!(is_near(*width, 0.2) && is_near(*height, 0.2) && !is_cut, "{found:?}");
    }

    #[test]
    fn a_bird_that_the_edge_cuts_is_counted_and_has_no_weight() {
        let rows = [
            vec![50.0, 50.0, 20.0, 10.0, 0.9, 0.0],
            vec![2.0, 50.0, 20.0, 10.0, 0.8, 0.0],
            vec![50.0, 26.0, 20.0, 10.0, 0.7, 0.0],
            vec![50.0, 5.0, 20.0, 10.0, 0.6, 0.0], // in the gray
        ];
        let law = "weight = { a = 0.01, b = 1.5, picture_width_cm = 100 }";
        let found = read(&[table(&rows)], law).unwrap();
        assert_eq!(found.len(), 3);
        // 20 cm x 10 cm: a fifth of 100 cm, and a fifth of the 50 cm that the picture is high.
        assert!(is_near(found[0].weight_kg.unwrap(), 0.01 * 200.0_f64.powf(1.5)), "{found:?}");
        assert!(found[1..].iter().all(|found| found.is_cut && found.weight_kg.is_none()), "{found:?}");
        let prediction = yolo(
            &[table(&rows)],
            &toml::from_str(&format!("classes = ['bird', 'person']\n{law}")).unwrap(),
            &VIEW,
        )
        .unwrap();
        assert_eq!(prediction.weight_kg, found[0].weight_kg, "the mean is of those that have a weight");
    }

    #[test]
    fn a_mask_says_what_a_bird_covers() {
        let row = vec![50.0, 50.0, 40.0, 20.0, 0.9, 0.0, 1.0, -1.0];
        // Two prototypes of 20 x 20 cells, five pixels each: the left half of the input, and the upper half.
        let half = |is_in: fn(usize) -> bool| (0..400).map(move |at| f32::from(u8::from(is_in(at))));
        let values = half(|at| at % 20 < 10).chain(half(|at| at / 20 < 10)).collect();
        let masks = Numbers { shape: vec![1, 2, 20, 20], values };
        let law = "mask_numbers = 2\nweight = { a = 0.01, b = 1.0, picture_width_cm = 100 }";
        let found = read(&[table(&[row]), masks], law).unwrap();
        // In the box of 8 x 4 cells the mask is the left half without the upper: 4 x 2 cells of 20 x 10.
        assert!(is_near(found[0].covered.unwrap(), 8.0 / 200.0), "{found:?}");
        assert!(is_near(found[0].weight_kg.unwrap(), 0.01 * 0.04 * 100.0 * 50.0), "{found:?}");
    }

    #[test]
    fn outputs_that_are_no_such_table_are_refused_with_what_to_look_at() {
        let check = |outputs: &[Numbers], settings: &str, expected: &str| {
            let problem = read(outputs, settings).unwrap_err();
            assert!(problem.contains(expected), "{problem}");
        };
        let numbers =
            |shape: &[usize]| Numbers { shape: shape.to_vec(), values: vec![0.9; shape.iter().product()] };
        check(&[], "", "is missing");
        check(&[numbers(&[1, 84, 10])], "", "[1, 6, boxes] is expected");
        check(&[numbers(&[1, 300, 6])], "", "with a row per box");
        check(&[numbers(&[1, 38, 10])], "mask_numbers = 32", "is alone");
        check(&[numbers(&[1, 38, 10]), numbers(&[1, 16, 4, 4])], "mask_numbers = 32", "has 16 prototypes");
        let mut broken = numbers(&[1, 6, 1]);
        broken.values[0] = f32::INFINITY;
        check(&[broken], "", "has inf");
        assert!(read(&[numbers(&[1, 6, 0])], "").unwrap().is_empty());
    }

    #[test]
    fn a_crowd_is_bounded() {
        let rows: Vec<Vec<f32>> =
            (0..20_000u16).map(|at| vec![f32::from(at % 100), 50.0, 0.001, 0.001, 0.9, 0.0]).collect();
        let found = read(&[table(&rows)], "nms_threshold = 1.0").unwrap();
        assert_eq!(found.len(), super::super::BOXES_MAX);
    }
}
