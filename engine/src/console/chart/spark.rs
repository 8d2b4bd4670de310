//! A line without axes, for a tile that has its numbers in words.

use super::{Drawing, Scale, path};

/// Size of the picture.
const SIZE: (u32, u32) = (200, 40);
/// Air above and below the line.
const AIR: f64 = 3.0;

/// A line through values at equal distances; `None` where there are fewer than two.
pub(crate) fn draw(values: &[Option<f64>]) -> Option<String> {
    let known: Vec<f64> = values.iter().flatten().copied().collect();
    if known.len() < 2 {
        return None;
    }
    let low = known.iter().copied().fold(f64::INFINITY, f64::min);
    let high = known.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let (width, height) = (f64::from(SIZE.0), f64::from(SIZE.1));
    let (x, y) = (
        Scale::new((0.0, (values.len() - 1) as f64), (0.0, width)),
        Scale::new((low, high), (height - AIR, AIR)),
    );
    let mut drawing = Drawing::silent("chart spark", SIZE);
    let point = |(place, value): (usize, &Option<f64>)| value.map(|value| (x.at(place as f64), y.at(value)));
    drawing.path("line", &path(values.iter().enumerate().map(point)));
    Some(drawing.done())
}

/// A bar that is full to a share of 0 to 1.
pub(crate) fn bar(share: f64) -> String {
    let mut drawing = Drawing::silent("", (100, 10));
    drawing.rect("fill", (0.0, 0.0), (100.0 * share.clamp(0.0, 1.0), 10.0));
    drawing.done()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_goes_from_edge_to_edge() {
        let text = draw(&[Some(1.0), Some(3.0), None, Some(2.0), Some(1.0)]).unwrap();
        assert!(text.contains("M0.0 37.0L50.0 3.0M150.0 20.0L200.0 37.0"), "{text}");
        assert_eq!(draw(&[Some(1.0), None]), None);
        assert!(draw(&[Some(5.0), Some(5.0)]).unwrap().contains("M0.0 20.0L200.0 20.0"));
        assert!(bar(1.7).contains("width=\"100.0\""));
    }
}
