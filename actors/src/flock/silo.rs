//! What was eaten, by the weight of a silo.

/// A fall of a silo's weight that is an intake, kg.
pub const FALL_KG_MIN: f64 = 0.1;
/// A rise that is a delivery, kg. Below it is the noise of the scale: counted as one, each fall after it would be eaten twice.
pub const RISE_KG_MIN: f64 = 20.0;

/// What a weight of a silo says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// What the next weight is compared with, kg: the lowest since the silo was filled.
    pub lowest_kg: f64,
    /// What was eaten, kg.
    pub eaten_kg: Option<f64>,
}

/// Compares a weight with the lowest since the silo was filled; `None` if there is no such.
#[must_use]
pub fn step(lowest_kg: Option<f64>, weight_kg: f64) -> Step {
    let Some(lowest_kg) = lowest_kg else { return Step { lowest_kg: weight_kg, eaten_kg: None } };
    let fall_kg = lowest_kg - weight_kg;
    if fall_kg >= FALL_KG_MIN {
        Step { lowest_kg: weight_kg, eaten_kg: Some(fall_kg) }
    } else if -fall_kg >= RISE_KG_MIN {
        Step { lowest_kg: weight_kg, eaten_kg: None }
    } else {
        Step { lowest_kg, eaten_kg: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eaten(weights: &[f64]) -> f64 {
        let mut lowest = None;
        let mut sum = 0.0;
        for weight in weights {
            let step = step(lowest, *weight);
            lowest = Some(step.lowest_kg);
            sum += step.eaten_kg.unwrap_or_default();
        }
        sum
    }

    #[test]
    fn falls_are_eaten_and_a_filling_is_not() {
        assert_eq!(eaten(&[500.0, 490.0, 480.0, 2480.0, 2470.0]), 30.0);
        assert_eq!(eaten(&[500.0]), 0.0);
    }

    #[test]
    fn a_slow_fall_is_not_lost() {
        let weights: Vec<f64> = (0..1000).map(|i| 500.0 - 0.03 * f64::from(i)).collect();
        assert!((eaten(&weights) - 0.03 * 999.0).abs() <= FALL_KG_MIN);
    }

    #[test]
    fn a_trembling_scale_eats_no_more_than_it_trembles() {
        let weights: Vec<f64> = (0..1000).map(|i| 500.0 + f64::from(i * 7 % 11) - 5.0).collect();
        assert!(eaten(&weights) <= 10.0);
    }
}
