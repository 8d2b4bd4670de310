//! Compares what an engine says of a flock with what is true of it.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::Book;
use super::truth::{TrueDay, Truth};

/// Share of the days on which the true mean lies outside of the interval that the engine gives for it, if that is what it
/// says of itself.
const DAYS_OUTSIDE_SHARE: f64 = 0.05;
/// So many days outside, or more, are no chance when they are less likely than this.
const CHANCE_MIN: f64 = 0.01;
/// How far uniformity may be off in the mean of the days, points.
const UNIFORMITY_OFF_MAX: f64 = 2.0;
/// How far the share of a sex may be off in the mean of the days where it is said of so many weighings, points.
const SEX_SHARE_OFF_MAX: f64 = 5.0;
/// One day may be off by so many standard errors more: of a hundred flocks of 42 days, one has such a day by chance.
const DAY_ERRORS_MAX: f64 = 3.7;
/// The standard error of a fitted share is so many times that of a counted one, since the sexes lie over each other: six days
/// of a made flock with 1,900 weighings each were off by 2.8 points (root mean square), where counting alone is off by 1.1.
const FIT_ERRORS: f64 = 3.0;
const SEX_SHARE_WEIGHINGS_MIN: u32 = 300;
/// Weighings from which on uniformity is judged: below, chance alone moves it by more.
const UNIFORMITY_WEIGHINGS_MIN: u32 = 1_500;
/// Time between two looks at an engine that still works.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What the engine says of a day.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    age_days: i64,
    n_seen: u32,
    n: u32,
    mean_kg: Option<f64>,
    half_width_kg: Option<f64>,
    uniformity_percent: Option<f64>,
    male_share: Option<f64>,
    dead: Option<u32>,
    birds: Option<i64>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judgment {
    /// What is wrong.
    pub wrong: Vec<String>,
    /// What was compared, with figures.
    pub seen: Vec<String>,
}

/// Asks the engine for its days until all weighings are in them, or the wait is over, and compares.
///
/// # Errors
/// When the engine does not answer.
pub async fn judge(book: &Book, truth: &Truth, weighings: u32, wait: Duration) -> Result<Judgment> {
    let until = Instant::now() + wait;
    let mut days = days(book, truth).await?;
    while seen(&days) < weighings && Instant::now() < until {
        sleep(LOOK_AGAIN).await;
        days = self::days(book, truth).await?;
    }
    let mut judgment = compare(truth, &days);
    let found = seen(&days);
    if found < weighings {
        judgment.wrong.push(format!("{found} of {weighings} weighings are in the days"));
    }
    let path = format!(
        "/api/v1/flocks/{}/forecast?tenant_id={}&target_weight_g={}",
        truth.flock_id, truth.tenant_id, truth.target_weight_g
    );
    let said = book.get(&path).await?;
    let age = |key: &str| said[key].as_f64();
    match (age("earliest_age_days"), age("latest_age_days")) {
        (Some(earliest), Some(latest)) => {
            let line = format!(
                "{} g on day {earliest:.1} to {latest:.1}, in truth {:.1}",
                truth.target_weight_g, truth.target_age_days
            );
            // Whole days: who plans a truck asks for no more.
            let is_within =
                earliest.floor() <= truth.target_age_days && truth.target_age_days <= latest.ceil();
            judgment.seen.push(format!("forecast: {line}"));
            if !is_within {
                judgment.wrong.push(format!("the forecast does not hold the true day: {line}"));
            }
        }
        _ => judgment.wrong.push("there is no forecast".to_owned()),
    }
    if let Some(air) = &truth.air {
        let of_air = super::air::judge(book, air, until.saturating_duration_since(Instant::now())).await?;
        judgment.wrong.extend(of_air.wrong);
        judgment.seen.extend(of_air.seen);
    }
    Ok(judgment)
}

fn seen(days: &[Said]) -> u32 {
    days.iter().map(|day| day.n_seen).sum()
}

async fn days(book: &Book, truth: &Truth) -> Result<Vec<Said>> {
    let path = format!("/api/v1/flocks/{}/days?tenant_id={}", truth.flock_id, truth.tenant_id);
    let mut answer = book.get(&path).await?;
    serde_json::from_value(answer["days"].take()).context("read the days")
}

/// How far a share of a day is off.
struct Off {
    age_days: u16,
    points: f64,
    /// What chance moves it by, points (one standard error).
    error: f64,
}

/// The standard error of a share that was counted among so many, points.
fn error_of(share: f64, n: u32) -> f64 {
    100.0 * (share * (1.0 - share) / f64::from(n)).sqrt()
}

fn compare(truth: &Truth, days: &[Said]) -> Judgment {
    let mut judgment = Judgment::default();
    let pairs: Vec<(&TrueDay, &Said)> = truth
        .days
        .iter()
        .filter_map(|day| Some((day, days.iter().find(|said| said.age_days == i64::from(day.age_days))?)))
        .collect();
    if pairs.len() < truth.days.len() {
        judgment.wrong.push(format!("{} of {} days are there", pairs.len(), truth.days.len()));
    }

    let with_mean: Vec<_> =
        pairs.iter().filter_map(|(day, said)| Some((day, said.mean_kg?, said.half_width_kg?))).collect();
    let off: Vec<String> = with_mean
        .iter()
        .filter(|(day, mean, half)| (mean - day.mean_kg).abs() > *half)
        .map(|(day, mean, half)| {
            format!("day {}: {mean:.4} ± {half:.4} kg, in truth {:.4}", day.age_days, day.mean_kg)
        })
        .collect();
    let within = with_mean.len() - off.len();
    let share = within as f64 / with_mean.len().max(1) as f64;
    judgment.seen.push(format!(
        "mean within its interval on {within} of {} days ({:.1} %)",
        with_mean.len(),
        share * 100.0
    ));
    if chance_of(with_mean.len(), off.len()) < CHANCE_MIN {
        judgment.wrong.push(format!(
            "the mean is within its interval on {:.1} % of the days; {}",
            share * 100.0,
            off.join("; ")
        ));
    }

    let mut check = |what: &str, off_max: f64, offs: Vec<Off>| {
        let worst = offs.iter().max_by(|a, b| a.points.abs().total_cmp(&b.points.abs()));
        let Some(worst) = worst else { return judgment.seen.push(format!("{what}: on no day")) };
        let mean = offs.iter().map(|off| off.points).sum::<f64>() / offs.len() as f64;
        judgment.seen.push(format!(
            "{what}: {} days, {mean:+.2} points off in the mean, {:+.2} at most (day {})",
            offs.len(),
            worst.points,
            worst.age_days
        ));
        if mean.abs() > off_max {
            judgment.wrong.push(format!("{what} is {mean:+.2} points off in the mean of the days"));
        }
        for off in offs.iter().filter(|off| off.points.abs() > off_max + DAY_ERRORS_MAX * off.error) {
            judgment.wrong.push(format!("{what} is {:+.2} points off on day {}", off.points, off.age_days));
        }
    };
    let uniformity = |(day, said): &(&TrueDay, &Said)| {
        let is_enough = said.n >= UNIFORMITY_WEIGHINGS_MIN;
        is_enough.then_some(())?;
        let points = said.uniformity_percent? - day.uniformity_percent;
        Some(Off { age_days: day.age_days, points, error: error_of(day.uniformity_percent / 100.0, said.n) })
    };
    check("uniformity", UNIFORMITY_OFF_MAX, pairs.iter().filter_map(uniformity).collect());
    let sexes = |(day, said): &(&TrueDay, &Said)| {
        (said.n >= SEX_SHARE_WEIGHINGS_MIN).then_some(())?;
        let points = (said.male_share? - day.male_share) * 100.0;
        Some(Off { age_days: day.age_days, points, error: FIT_ERRORS * error_of(day.male_share, said.n) })
    };
    check("share of cocks", SEX_SHARE_OFF_MAX, pairs.iter().filter_map(sexes).collect());

    let counted = |(day, said): &&(&TrueDay, &Said)| {
        said.dead.unwrap_or_default() != day.dead
            || said.birds.is_some_and(|birds| birds != i64::from(day.birds))
    };
    let wrong: Vec<String> = pairs
        .iter()
        .filter(counted)
        .map(|(day, said)| {
            format!(
                "day {}: {:?} dead and {:?} left, in truth {} and {}",
                day.age_days, said.dead, said.birds, day.dead, day.birds
            )
        })
        .collect();
    judgment.seen.push(format!(
        "deaths and birds left: {} of {} days as written down",
        pairs.len() - wrong.len(),
        pairs.len()
    ));
    judgment.wrong.extend(wrong);
    judgment
}

/// How likely so many of the days, or more, lie outside of honest intervals (binomial distribution).
fn chance_of(days: usize, outside: usize) -> f64 {
    let mut exactly = (1.0 - DAYS_OUTSIDE_SHARE).powf(days as f64);
    let mut fewer = 0.0;
    for count in 0..outside {
        fewer += exactly;
        exactly *=
            (days - count) as f64 / (count + 1) as f64 * DAYS_OUTSIDE_SHARE / (1.0 - DAYS_OUTSIDE_SHARE);
    }
    1.0 - fewer
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDate;
    use schema::id::new_id;

    use super::*;
    use crate::flock::truth::{Flock, Wish};

    /// A flock, and an engine that says the truth of it.
    fn truthful() -> (Truth, Vec<Said>) {
        let placed_on = NaiveDate::from_ymd_opt(2026, 1, 5).unwrap();
        let flock =
            Flock::draw(Wish { seed: 1, placed_on, days: 30, birds: 20_000, weighings_per_day: 2_000 });
        let days = flock.days();
        let said = |day: &TrueDay| Said {
            age_days: day.age_days.into(),
            n_seen: 2_000,
            n: 1_900,
            mean_kg: Some(day.mean_kg * 1.001),
            half_width_kg: Some(day.mean_kg * 0.004),
            uniformity_percent: Some(day.uniformity_percent + 1.0),
            male_share: Some(day.male_share),
            dead: Some(day.dead),
            birds: Some(day.birds.into()),
        };
        let said = days.iter().map(said).collect();
        let truth = Truth {
            flock_id: new_id(),
            tenant_id: "t-001".to_owned(),
            seed: 1,
            target_weight_g: 2_500.0,
            target_age_days: 36.0,
            days,
            air: None,
        };
        (truth, said)
    }

    #[test]
    fn an_engine_that_says_the_truth_is_right() {
        let (truth, said) = truthful();
        assert_eq!(compare(&truth, &said).wrong, Vec::<String>::new());
    }

    #[test]
    fn the_chance_of_days_outside_is_that_of_the_tables() {
        for (days, outside, chance) in [(14, 0, 1.0), (14, 2, 0.1530), (42, 3, 0.3508), (42, 7, 0.0047)] {
            assert!(
                (chance_of(days, outside) - chance).abs() < 0.001,
                "{days} {outside} {}",
                chance_of(days, outside)
            );
        }
    }

    #[test]
    fn each_untruth_is_found() {
        let check = |change: &dyn Fn(&mut Vec<Said>), expected: &str| {
            let (truth, mut said) = truthful();
            change(&mut said);
            let wrong = compare(&truth, &said).wrong.join("\n");
            assert!(wrong.contains(expected), "{expected}: {wrong}");
        };
        check(&|said| said.truncate(29), "29 of 30 days are there");
        check(
            &|said| said.iter_mut().take(6).for_each(|day| day.mean_kg = day.mean_kg.map(|kg| kg * 1.02)),
            "on 80.0 % of the days",
        );
        let off =
            |day: &mut Said| day.uniformity_percent = day.uniformity_percent.map(|percent| percent + 1.2);
        check(
            &|said| said.iter_mut().for_each(off),
            "uniformity is +2.20 points off in the mean of the days",
        );
        check(&|said| said[20].uniformity_percent = Some(10.0), "uniformity is");
        check(&|said| said[25].male_share = Some(0.9), "share of cocks is");
        check(&|said| said[25].dead = Some(0), "day 25: Some(0) dead");
        check(&|said| said[7].birds = Some(1), "day 7");
    }
}
