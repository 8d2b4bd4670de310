//! Whether the scales of a house agree: each against the others of the same day, so that growth plays no part. They are compared
//! by their medians, which two birds at once and half a bird do not move.

use schema::store::flock::ScaleDay;

/// Weighings of a scale without which nothing is said of it.
const WEIGHINGS_MIN: i64 = 30;
/// A scale this far from the others is wrong, or stands where other birds come, percent. A judgement: with 30 weighings and a
/// variation of 10 % a median is sure to some 4 %.
const APART_PERCENT: f64 = 5.0;

/// A scale beside the others.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    /// The station.
    pub station_id: String,
    /// Weighings of all days.
    pub n: i64,
    /// By how much it says more than the others of its days, percent; `None` while too little is known, or where it stands alone.
    pub apart_percent: Option<f64>,
}

impl Scale {
    /// Whether somebody should look at it.
    #[must_use]
    pub fn is_apart(&self) -> bool {
        self.apart_percent.is_some_and(|apart| apart.abs() >= APART_PERCENT)
    }
}

/// The scales of some days, by their names. Of three, the one that drifts is apart; of two that differ both are, since nobody can
/// say which is wrong.
#[must_use]
pub fn compare(days: &[ScaleDay]) -> Vec<Scale> {
    let mut stations: Vec<&str> = days.iter().map(|day| day.station_id.as_str()).collect();
    stations.sort_unstable();
    stations.dedup();
    stations.into_iter().map(|station| scale(station, days)).collect()
}

fn scale(station: &str, days: &[ScaleDay]) -> Scale {
    let own = days.iter().filter(|day| day.station_id == station);
    let n: i64 = own.clone().map(|day| day.n).sum();
    let (mut compared, mut sum) = (0, 0.0);
    for day in own {
        if let Some(usual_kg) = usual_kg(day, days) {
            let apart = day.median_kg / usual_kg - 1.0;
            (compared, sum) = (compared + day.n, sum + day.n as f64 * apart);
        }
    }
    let apart_percent = (compared >= WEIGHINGS_MIN).then(|| 100.0 * sum / compared as f64);
    Scale { station_id: station.to_owned(), n, apart_percent }
}

/// What a scale of this day is compared with: of three or more the median of them all, which one that drifts does not move;
/// of two the other.
fn usual_kg(day: &ScaleDay, days: &[ScaleDay]) -> Option<f64> {
    let mut medians: Vec<f64> =
        days.iter().filter(|other| other.day == day.day).map(|other| other.median_kg).collect();
    if medians.len() == 2 {
        medians = days
            .iter()
            .filter(|other| other.day == day.day && *other != day)
            .map(|other| other.median_kg)
            .collect();
    } else if medians.len() < 2 {
        return None;
    }
    medians.sort_by(f64::total_cmp);
    let middle = medians.len() / 2;
    let usual = if medians.len() % 2 == 1 {
        medians[middle]
    } else {
        f64::midpoint(medians[middle - 1], medians[middle])
    };
    (usual > 0.0).then_some(usual)
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDate;

    use super::*;

    fn day(day: u32, station: &str, n: i64, median_kg: f64) -> ScaleDay {
        let day = NaiveDate::from_ymd_opt(2026, 2, day).unwrap();
        ScaleDay { day, station_id: station.to_owned(), n, median_kg }
    }

    fn apart(days: &[ScaleDay]) -> Vec<(String, Option<i64>, bool)> {
        let rounded = |scale: Scale| {
            let is_apart = scale.is_apart();
            (scale.station_id, scale.apart_percent.map(|percent| percent.round() as i64), is_apart)
        };
        compare(days).into_iter().map(rounded).collect()
    }

    #[test]
    fn a_scale_that_drifts_is_seen_whatever_the_birds_grow() {
        let days = [
            day(1, "st-01", 50, 1.00),
            day(1, "st-02", 50, 1.08),
            day(1, "st-03", 50, 1.00),
            day(2, "st-01", 50, 1.10),
            day(2, "st-02", 50, 1.188),
            day(2, "st-03", 50, 1.10),
        ];
        let expected = [("st-01", 0, false), ("st-02", 8, true), ("st-03", 0, false)];
        let expected = expected.map(|(name, percent, is)| (name.to_owned(), Some(percent), is));
        assert_eq!(apart(&days), expected);
    }

    #[test]
    fn nothing_is_said_of_a_scale_alone_or_of_a_few_weighings() {
        assert_eq!(apart(&[day(1, "st-01", 500, 1.0)]), [("st-01".to_owned(), None, false)]);
        let other_days = [day(1, "st-01", 50, 1.0), day(2, "st-02", 50, 1.2)];
        assert!(compare(&other_days).iter().all(|scale| scale.apart_percent.is_none()), "other days");
        let few = [day(1, "st-01", 29, 1.0), day(1, "st-02", 50, 1.2)];
        assert_eq!(compare(&few)[0].apart_percent, None);
        assert!(compare(&few)[1].is_apart());
        assert!(compare(&[]).is_empty());
    }
}
