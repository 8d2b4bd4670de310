//! The figures of a measurement as text.

use std::fmt::Write;
use std::time::Duration;

use super::Reading;
use crate::report::say;

/// The card of the model that comes with the engine.
const CARD: &str = include_str!("../../../actors/model/MODEL_CARD.md");
/// Bounds of the weights in the table, kilograms.
const BANDS_KG: [f64; 6] = [0.1, 0.5, 1.0, 2.0, 3.0, 4.0];
/// Width of a class of the plot, kilograms.
const CLASS_KG: f64 = 0.1;
/// Classes of the plot; the last holds everything beyond.
const CLASSES: usize = 6;
/// Longest bar of the plot, characters.
const BAR_MAX: usize = 40;

/// Prints latencies, errors and their comparison with the model's card.
pub(super) fn print(pictures: usize, readings: &[Reading], finalizes: &[Duration]) {
    let latencies = readings.iter().map(|reading| reading.latency_ms).collect();
    let finalizes = finalizes.iter().map(|took| took.as_secs_f64() * 1000.0).collect();
    say(format!("{:<44} {:>6} {:>9} {:>9}", "", "count", "p50 ms", "p95 ms"));
    say(latency_line("picture is uploaded -> weight is read", latencies));
    say(latency_line("finalize is called -> answered", finalizes));
    let weights: Vec<_> =
        readings.iter().filter_map(|reading| Some((reading.true_kg, reading.read_kg?))).collect();
    if weights.is_empty() {
        return say("no weight was read from any picture");
    }
    say(accuracy(pictures, &weights));
}

fn latency_line(what: &str, mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let [p50, p95] = [0.5, 0.95].map(|quantile| at_quantile(&values, quantile));
    format!("{what:<44} {:>6} {p50:>9.0} {p95:>9.0}", values.len())
}

/// The value at this quantile of sorted values; not a number without any.
fn at_quantile(sorted: &[f64], quantile: f64) -> f64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index of the list")]
    let index = (sorted.len().saturating_sub(1) as f64 * quantile).round() as usize;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

fn accuracy(pictures: usize, weights: &[(f64, f64)]) -> String {
    let mut text = format!("\n{:<14} {:>8} {:>8} {:>8}\n", "true weight", "pictures", "MAE kg", "bias kg");
    for band in BANDS_KG.windows(2) {
        let inside: Vec<_> =
            weights.iter().copied().filter(|(truth, _)| (band[0]..band[1]).contains(truth)).collect();
        if !inside.is_empty() {
            let name = format!("{:.1}-{:.1} kg", band[0], band[1]);
            text += &line(&name, &inside);
        }
    }
    text += &line("all", weights);
    text += &plot(weights);
    let _ = match card_mae_kg() {
        Some(card) => writeln!(
            text,
            "\nMAE {:.3} kg ± {:.3} kg over {} of {pictures} pictures; the bundled model's card says {card:.3} kg",
            mae(weights),
            mae_uncertainty(weights),
            weights.len()
        ),
        None => writeln!(text, "\nMAE {:.3} kg; the model's card names none", mae(weights)),
    };
    text
}

fn line(name: &str, weights: &[(f64, f64)]) -> String {
    let bias = mean(weights.iter().map(|(truth, read)| read - truth));
    format!("{name:<14} {:>8} {:>8.3} {bias:>+8.3}\n", weights.len(), mae(weights))
}

fn plot(weights: &[(f64, f64)]) -> String {
    let mut classes = [0_usize; CLASSES];
    for (truth, read) in weights {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a class of a few")]
        let class = ((read - truth).abs() / CLASS_KG) as usize;
        classes[class.min(CLASSES - 1)] += 1;
    }
    let most = classes.iter().copied().max().unwrap_or(1).max(1);
    let mut text = "\nerror\n".to_owned();
    for (class, count) in classes.iter().enumerate() {
        let name = match class {
            last if last == CLASSES - 1 => format!("{:.1}+    kg", CLASS_KG * class as f64),
            _ => format!("{:.1}-{:.1} kg", CLASS_KG * class as f64, CLASS_KG * (class + 1) as f64),
        };
        text += &format!("{name:<14} {count:>8} {}\n", "#".repeat(count * BAR_MAX / most));
    }
    text
}

fn mae(weights: &[(f64, f64)]) -> f64 {
    mean(weights.iter().map(|(truth, read)| (read - truth).abs()))
}

/// Half the width of the interval in which the mean absolute error of other pictures lies 19 times out of 20.
fn mae_uncertainty(weights: &[(f64, f64)]) -> f64 {
    let mae = mae(weights);
    let variance = mean(weights.iter().map(|(truth, read)| ((read - truth).abs() - mae).powi(2)));
    1.96 * (variance / weights.len() as f64).sqrt()
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    sum / count
}

/// The mean absolute error that the card states, kilograms.
fn card_mae_kg() -> Option<f64> {
    let row = CARD.lines().find(|line| line.starts_with("| mean absolute error |"))?;
    row.split("**").nth(1)?.strip_suffix(" kg")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_card_names_its_error() {
        assert!(card_mae_kg().is_some_and(|mae| (0.01..0.5).contains(&mae)));
    }

    #[test]
    fn errors_are_told_by_band_and_over_all() {
        let text = accuracy(3, &[(0.3, 0.4), (1.5, 1.5), (3.5, 3.2)]);
        assert!(text.contains("0.1-0.5 kg            1    0.100   +0.100"), "{text}");
        assert!(text.contains("all                   3    0.133   -0.067"), "{text}");
        assert!(text.contains("over 3 of 3 pictures"), "{text}");
    }
}
