//! Heat, humidity and light as a bird feels them.

use super::sample::count;

/// The wet-bulb temperature in °C, by air temperature (°C) and relative humidity (%), at sea level (Stull, Journal of
/// Applied Meteorology and Climatology 2011; for 5 to 99 % and −20 to 50 °C).
#[must_use]
pub fn wet_bulb_c(air_c: f64, humidity_percent: f64) -> f64 {
    let rh = humidity_percent;
    air_c * (0.151_977 * (rh + 8.313_659).sqrt()).atan() + (air_c + rh).atan() - (rh - 1.676_331).atan()
        + 0.003_918_38 * rh.powf(1.5) * (0.023_101 * rh).atan()
        - 4.686_035
}

/// The temperature-humidity index of broilers (Tao and Xin, Transactions of the ASAE 2003).
#[must_use]
pub fn heat_index(air_c: f64, humidity_percent: f64) -> f64 {
    0.85 * air_c + 0.15 * wet_bulb_c(air_c, humidity_percent)
}

/// The same with moving air, whose speed must be one that was tried: 0.2 to 1.2 m/s.
#[must_use]
pub fn heat_index_in_wind(air_c: f64, humidity_percent: f64, air_speed_m_per_s: f64) -> Option<f64> {
    (0.2..=1.2)
        .contains(&air_speed_m_per_s)
        .then(|| heat_index(air_c, humidity_percent) * air_speed_m_per_s.powf(-0.058))
}

/// The temperature-humidity index without a wet bulb (Marai). For colors, not for alarms: its bands are third-hand.
#[must_use]
pub fn heat_index_simple(air_c: f64, humidity_percent: f64) -> f64 {
    air_c - 0.31 * (1.0 - humidity_percent / 100.0) * (air_c - 14.4)
}

/// Set points of air temperature, °C, by body weight (grams) for 40, 50, 60 and 70 % humidity (Aviagen, Ross Broiler Pocket
/// Guide).
const SET_POINTS: [(f64, [f64; 4]); 10] = [
    (44.0, [36.0, 33.2, 30.8, 29.2]),
    (100.0, [33.7, 31.2, 28.9, 27.3]),
    (180.0, [32.5, 29.9, 27.7, 26.0]),
    (290.0, [31.3, 28.6, 26.7, 25.0]),
    (425.0, [30.2, 27.8, 25.7, 24.0]),
    (590.0, [29.0, 26.8, 24.8, 23.0]),
    (790.0, [27.7, 25.5, 23.6, 21.9]),
    (1015.0, [26.9, 24.7, 22.7, 21.3]),
    (1260.0, [25.7, 23.5, 21.7, 20.2]),
    (1530.0, [24.8, 22.7, 20.7, 19.3]),
];
const HUMIDITY: std::ops::RangeInclusive<f64> = 40.0..=70.0;

/// A set point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SetPoint {
    /// Air temperature, °C.
    pub air_c: f64,
    /// Whether the humidity was outside of the table, and its end was taken.
    pub is_clamped: bool,
}

/// The air temperature at which birds of a weight feel well. A farmer's own curve goes before it.
#[must_use]
pub fn set_point(body_weight_g: f64, humidity_percent: f64) -> SetPoint {
    let humidity = humidity_percent.clamp(*HUMIDITY.start(), *HUMIDITY.end());
    let column = (humidity - HUMIDITY.start()) / 10.0;
    let of_row = |row: &[f64; 4]| {
        let [at_40, at_50, at_60, at_70] = *row;
        match column {
            column if column <= 1.0 => between(at_40, at_50, column),
            column if column <= 2.0 => between(at_50, at_60, column - 1.0),
            column => between(at_60, at_70, column - 2.0),
        }
    };
    let [(lightest, coldest_chick), ..] = &SET_POINTS;
    let mut air_c = of_row(coldest_chick);
    if body_weight_g > *lightest {
        for pair in SET_POINTS.windows(2) {
            let [(from, before), (to, after)] = pair else { continue };
            if body_weight_g >= *from {
                let share = ((body_weight_g - from) / (to - from)).min(1.0);
                air_c = between(of_row(before), of_row(after), share);
            }
        }
    }
    SetPoint { air_c, is_clamped: !HUMIDITY.contains(&humidity_percent) }
}

fn between(from: f64, to: f64, share: f64) -> f64 {
    from + share * (to - from)
}

/// A value and for how long it held.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Held {
    /// The value.
    pub value: f64,
    /// Seconds.
    pub seconds: f64,
}

/// A mean over time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CoveredMean {
    /// The mean of what was covered.
    pub mean: f64,
    /// The share of the time that was covered.
    pub coverage: f64,
}

/// Least coverage for a verdict on a mean over time.
pub const COVERAGE_MIN: f64 = 0.75;

impl CoveredMean {
    /// The mean of values over a window of `window_seconds`; `None` if nothing of it is covered.
    #[must_use]
    pub fn of(values: &[Held], window_seconds: f64) -> Option<Self> {
        let covered: f64 = values.iter().map(|held| held.seconds).sum();
        let sum: f64 = values.iter().map(|held| held.value * held.seconds).sum();
        (covered > 0.0 && window_seconds > 0.0)
            .then(|| Self { mean: sum / covered, coverage: (covered / window_seconds).min(1.0) })
    }

    /// Whether enough was covered for a verdict.
    #[must_use]
    pub fn is_enough(&self) -> bool {
        self.coverage >= COVERAGE_MIN
    }
}

/// Below this many lux it is dark.
pub const DARK_LUX: f64 = 1.0;

/// The darkness of 24 hours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Darkness {
    /// Hours of dark.
    pub hours: f64,
    /// The longest of them without light.
    pub longest_hours: f64,
}

impl Darkness {
    /// The darkness of spans of lux in their order.
    #[must_use]
    pub fn of(spans: &[Held]) -> Self {
        // Whole seconds add up exactly; parts of hours do not, and six hours would be less than six.
        let (mut dark, mut longest, mut run) = (0.0, 0.0_f64, 0.0);
        for span in spans {
            if span.value < DARK_LUX {
                dark += span.seconds;
                run += span.seconds;
                longest = longest.max(run);
            } else {
                run = 0.0;
            }
        }
        Self { hours: dark / 3600.0, longest_hours: longest / 3600.0 }
    }

    /// Whether it fits Directive 2007/43/EC, annex I: six hours in all, four of them without interruption.
    #[must_use]
    pub fn is_enough(&self) -> bool {
        self.hours >= 6.0 && self.longest_hours >= 4.0
    }
}

/// The mean of the healthy probes of a house; `None` with none left, which is no number and an alarm.
#[must_use]
pub fn house_mean(healthy: &[f64]) -> Option<f64> {
    (!healthy.is_empty()).then(|| healthy.iter().sum::<f64>() / count(healthy.len()))
}

#[cfg(test)]
mod tests;
