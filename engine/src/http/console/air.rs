//! What the pages of the barn and of the climate know of the air.

use actors::board::View;
use actors::chart::{self, Ask, Bucket as Length, ChartError};
use actors::quality::Level;
use chrono::{Duration, Timelike};
use schema::clock::Timestamp;

use super::super::AppState;
use super::visit::{Place, Visit};
use crate::console::air::{Line, Probe, Window};
use crate::console::chart::climate::Bucket;
use crate::console::words::short_date;

/// How long a stretch of time is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Span {
    /// A day.
    Day,
    /// A week.
    Week,
    /// As long as the flock is there.
    Flock,
}

impl Span {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::Day, Self::Week, Self::Flock];

    /// As the address names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Flock => "flock",
        }
    }

    fn length(self) -> Length {
        match self {
            Self::Day => Length::Quarter,
            Self::Week => Length::Hour,
            Self::Flock => Length::Day,
        }
    }

    fn step(self) -> Duration {
        match self {
            Self::Day => Duration::minutes(15),
            Self::Week => Duration::hours(1),
            Self::Flock => Duration::days(1),
        }
    }
}

/// What the probes of a barn say now.
pub(super) fn probes(state: &AppState, place: &Place, now: Timestamp) -> Vec<Probe> {
    let view = View { farm_id: Some(&place.farm_id), barn_id: Some(&place.barn_id) };
    let (mut latest, _) = state.board.since(&place.tenant_id, view, 0, now);
    latest.sort_unstable_by(|a, b| (&a.device_id, &a.metric_type).cmp(&(&b.device_id, &b.metric_type)));
    let probe = |latest: actors::board::Latest| {
        let spot = state.place_desk.places.of(&place.tenant_id, &latest.device_id, &latest.metric_type);
        Probe {
            value: actors::quality::in_celsius(&latest.metric_type, latest.value, latest.unit.as_deref()),
            unit: latest.unit,
            age_seconds: (now - latest.received_at).num_milliseconds() as f64 / 1000.0,
            is_failing: latest.standing.iter().any(|standing| standing.level != Level::Suspect),
            faults: latest.standing.iter().map(|standing| standing.test.as_str()).collect(),
            zone: spot.as_ref().and_then(|spot| spot.zone.clone()),
            role: spot.as_ref().map(|spot| spot.role().as_str()),
            weight: spot.as_ref().map_or(1.0, |spot| spot.weight),
            device_id: latest.device_id,
            metric: latest.metric_type,
        }
    };
    latest.into_iter().map(probe).collect()
}

/// What the probes of a barn said over a stretch of time, of one metric or of all.
///
/// # Errors
/// When there is too much of it, or the database fails.
pub(super) async fn lines(
    state: &AppState,
    visit: &Visit,
    place: &Place,
    span: Span,
    metric: &'static str,
) -> Result<(Vec<Line>, Window), ChartError> {
    let now = visit.now;
    let from = match span {
        Span::Day => now - Duration::hours(24),
        Span::Week => now - Duration::days(7),
        Span::Flock => {
            let placed = visit.flock.as_ref().map(|flock| place.zone().span(flock.placed_on).0);
            placed.unwrap_or(now - Duration::days(42)).min(now - Duration::days(1))
        }
    };
    let ask = Ask {
        tenant_id: place.tenant_id.clone(),
        devices: Vec::new(),
        farm_id: Some(place.farm_id.clone()),
        barn_id: Some(place.barn_id.clone()),
        metric_type: Some(metric.to_owned()),
        from: Some(from),
        to: Some(now),
        bucket: span.length(),
        zone: Some(place.zone()),
    };
    let found = chart::read(&state.reads, &ask, now).await?;
    let seconds = |at: Timestamp| (at - from).num_milliseconds() as f64 / 1000.0;
    let line = |line: chart::Line| {
        let spot = state.place_desk.places.of(&place.tenant_id, &line.device_id, &line.metric_type);
        let is_of_house = spot.is_none_or(|spot| {
            matches!(spot.role().as_str(), "inside" | "air" | "light") && spot.weight > 0.0
        });
        let bucket = |point: &schema::store::chart::Point| {
            let at_seconds = seconds(*found.edges.get(point.bucket)?).max(0.0);
            Some(Bucket { at_seconds, min: point.min, mean: point.avg, max: point.max })
        };
        Line {
            device_id: line.device_id,
            metric: line.metric_type,
            buckets: line.points.iter().filter_map(bucket).collect(),
            is_of_house,
        }
    };
    let lines = found.lines.into_iter().map(line).collect();
    let window = Window {
        seconds: seconds(now),
        step_seconds: span.step().num_seconds() as f64,
        hours: words(visit, span, from),
    };
    Ok((lines, window))
}

/// What stands below the axis of time, by the clocks of the barn.
fn words(visit: &Visit, span: Span, from: Timestamp) -> Vec<(f64, String)> {
    let now = visit.now;
    let hours = (now - from).num_hours();
    let every = match span {
        Span::Day => 4,
        Span::Week => 24,
        Span::Flock => 24 * (hours / 24 / 7).max(1),
    };
    let mut words = Vec::new();
    let first = from + Duration::minutes(60 - i64::from(visit.local(from).minute()) % 60);
    for hour in 0..=hours {
        let at = first + Duration::hours(hour);
        let local = visit.local(at);
        let is_word = match span {
            Span::Day => i64::from(local.hour()) % every == 0,
            Span::Week => local.hour() == 0,
            Span::Flock => {
                local.hour() == 0 && (local.date() - visit.local(from).date()).num_days() * 24 % every == 0
            }
        };
        if is_word && at <= now {
            let word = match span {
                Span::Day => local.format("%H").to_string(),
                Span::Week | Span::Flock => short_date(visit.lang, local.date()),
            };
            words.push(((at - from).num_seconds() as f64, word));
        }
    }
    words
}
