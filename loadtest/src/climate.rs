//! A believable barn: day curves of seven quantities that depend on each other, plus slow drift and noise.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use schema::clock::Timestamp;

/// Seconds of a day.
const DAY_SECONDS: f64 = 86_400.0;
/// How much of the last deviation remains in the next reading.
const DRIFT_MEMORY: f64 = 0.97;

/// A quantity a sensor measures, with its name and unit on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Air temperature.
    Temperature,
    /// Relative humidity.
    Humidity,
    /// Mean weight of a bird.
    Weight,
    /// Ammonia in the air.
    Ammonia,
    /// Carbon dioxide in the air.
    Co2,
    /// Light at bird height.
    LightIntensity,
    /// Water drunk since the last reading.
    WaterConsumption,
}

impl Metric {
    /// All seven, in the order a sensor polls them.
    pub const ALL: [Self; 7] = [
        Self::Temperature,
        Self::Humidity,
        Self::Weight,
        Self::Ammonia,
        Self::Co2,
        Self::LightIntensity,
        Self::WaterConsumption,
    ];

    /// Last segment of the topic and value of `metric`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Temperature => "temperature",
            Self::Humidity => "humidity",
            Self::Weight => "weight",
            Self::Ammonia => "ammonia",
            Self::Co2 => "co2",
            Self::LightIntensity => "light_intensity",
            Self::WaterConsumption => "water_consumption",
        }
    }

    /// Value of `unit`.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::Temperature => "celsius",
            Self::Humidity => "%",
            Self::Weight => "kg",
            Self::Ammonia | Self::Co2 => "ppm",
            Self::LightIntensity => "lux",
            Self::WaterConsumption => "liters",
        }
    }
}

/// The air around one device: the same barn for all, another corner for each.
#[derive(Debug)]
pub struct Climate {
    random: StdRng,
    /// Slowly wandering deviation, one for each metric, in units of its usual noise.
    drift: [f64; 7],
    started_at: Timestamp,
}

impl Climate {
    /// The same seed gives the same readings.
    #[must_use]
    pub fn new(seed: u64, started_at: Timestamp) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let drift = std::array::from_fn(|_| random.random_range(-1.0..1.0));
        Self { random, drift, started_at }
    }

    /// What the device reads now, rounded as a sensor rounds.
    pub fn read(&mut self, metric: Metric, now: Timestamp) -> f64 {
        let slot = metric as usize;
        self.drift[slot] = self.drift[slot] * DRIFT_MEMORY + self.random.random_range(-0.25..0.25);
        let deviation = self.drift[slot];
        let air = Air::at(now);
        let age_days = (now - self.started_at).as_seconds_f64() / DAY_SECONDS;
        let value = match metric {
            Metric::Temperature => air.temperature + 0.6 * deviation,
            Metric::Humidity => (62.0 - 2.0 * (air.temperature - 27.0) + 2.5 * deviation).clamp(25.0, 99.0),
            Metric::Weight => 1.8 + 0.06 * age_days + 0.05 * deviation,
            Metric::Ammonia => (18.0 * (1.2 - air.ventilation) + 1.5 * deviation).max(0.5),
            Metric::Co2 => (420.0 + 2600.0 * (1.1 - air.ventilation) + 90.0 * deviation).max(400.0),
            Metric::LightIntensity => (air.light * 38.0 + 1.5 * deviation).max(0.0),
            Metric::WaterConsumption => (0.4 + 3.2 * air.light + 0.4 * deviation).max(0.0),
        };
        (value * 100.0).round() / 100.0
    }
}

/// What all corners of the barn share at one moment.
struct Air {
    temperature: f64,
    /// Share of the fans that run, 0 to 1: they follow the temperature and bring gases down.
    ventilation: f64,
    /// Share of the lamps that are on, 0 to 1.
    light: f64,
}

impl Air {
    fn at(now: Timestamp) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "seconds of a day are small")]
        let hour = now.timestamp().rem_euclid(86_400) as f64 / 3600.0;
        // Warmest at 15:00, coldest at 03:00; the fans cut the top of the curve.
        let sun = ((hour - 9.0) / 24.0 * std::f64::consts::TAU).sin();
        let ventilation = (0.55 + 0.35 * sun).clamp(0.2, 1.0);
        let temperature = 27.5 + 4.0 * sun - 1.5 * (ventilation - 0.55).max(0.0);
        // Sixteen hours of lamps, half an hour of dawn and dusk.
        let light = ((hour - 5.0) * 2.0).clamp(0.0, 1.0) * ((21.0 - hour) * 2.0).clamp(0.0, 1.0);
        Self { temperature, ventilation, light }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{TimeZone, Utc};

    #[test]
    fn a_day_is_warmer_in_the_afternoon_and_dark_at_night() {
        let midnight = Utc.with_ymd_and_hms(2026, 2, 12, 0, 0, 0).unwrap();
        let mut climate = Climate::new(1, midnight);
        let mut read = |metric, hour| climate.read(metric, midnight + chrono::Duration::hours(hour));
        assert!(read(Metric::Temperature, 15) > read(Metric::Temperature, 3) + 3.0);
        assert!(read(Metric::Co2, 3) > read(Metric::Co2, 15) + 500.0);
        assert!(read(Metric::LightIntensity, 1) < 5.0);
        assert!(read(Metric::LightIntensity, 12) > 30.0);
    }

    #[test]
    fn the_same_seed_reads_the_same_air() {
        let now = Utc.with_ymd_and_hms(2026, 2, 12, 7, 0, 0).unwrap();
        let day = |seed| Metric::ALL.map(|metric| Climate::new(seed, now).read(metric, now));
        assert_eq!(day(7), day(7));
        assert_ne!(day(7), day(8));
    }
}
