//! What the rules make of what is known: where each value is, at each place that a rule is about.

use schema::clock::Timestamp;

use super::House;
use crate::alarm::rule::{HUMIDITY, OUTSIDE_TEMPERATURE, Rule, Test, on_curve};
use crate::alarm::state::{Event, Limit, Place, Side};
use crate::flock::climate::{house_mean, set_point};

/// Chicks, up to this age in days, have a margin of their own.
const CHICK_DAYS_MAX: f64 = 7.0;
/// The humidity for which set points are taken where nothing measures it, percent.
const HUMIDITY_USUAL: f64 = 60.0;

/// What a rule says of a place at a time.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Judgment {
    pub(super) place: String,
    /// `None`: nothing can be said, as of a silent sensor.
    pub(super) verdict: Option<Place>,
    pub(super) at: Timestamp,
    pub(super) value: Option<f64>,
    pub(super) limit: Option<f64>,
    pub(super) why: Option<String>,
}

impl Judgment {
    pub(super) fn of(place: &str, verdict: Place, at: Timestamp) -> Self {
        Self { place: place.to_owned(), verdict: Some(verdict), at, value: None, limit: None, why: None }
    }

    fn measured(self, value: f64, limit: f64) -> Self {
        Self { value: Some(value), limit: Some(limit), ..self }
    }

    fn because(self, why: impl Into<String>) -> Self {
        Self { why: Some(why.into()), ..self }
    }

    fn unknown(place: &str, at: Timestamp) -> Self {
        Self { verdict: None, ..Self::of(place, Place::Between, at) }
    }

    pub(super) fn event(&self) -> Event {
        self.verdict.map_or(Event::Silence, |place| Event::Reading(place, self.at))
    }
}

/// Whether readings of a metric are what a test is about.
pub(super) fn is_of_metric(test: &Test, name: &str) -> bool {
    metric_of(test) == Some(name)
}

/// The metric of whose readings each is judged by itself.
pub(super) fn metric_of(test: &Test) -> Option<&str> {
    match test {
        Test::Level { metric, .. } | Test::Jump { metric, .. } | Test::NoFlow { metric, .. } => Some(metric),
        Test::HouseTemperature { .. }
        | Test::Slow { .. }
        | Test::Silent {}
        | Test::LastSilent { .. }
        | Test::DeviceEvent { .. }
        | Test::Said {} => None,
    }
}

impl House {
    /// What a rule makes of a reading that was just heard.
    pub(super) fn judge_reading(
        &self,
        rule: &Rule,
        device: &str,
        metric: &str,
        at: Timestamp,
    ) -> Option<Judgment> {
        let probe = self.probes.get(&(device.to_owned(), metric.to_owned()))?;
        match &rule.test {
            Test::Level { side, limit, hysteresis, mean_minutes, .. } => {
                let value = probe.mean(*mean_minutes)?;
                let place = Limit { side: *side, value: *limit, hysteresis: *hysteresis }.place(value)?;
                Some(Judgment::of(device, place, at).measured(value, *limit))
            }
            Test::Jump { by, within_minutes, .. } => {
                let jump = probe.jump(*within_minutes)?;
                Some(Judgment::of(device, Place::of(jump > *by), at).measured(jump, *by))
            }
            Test::NoFlow { minutes, is_counter, .. } => {
                let flow = probe.flow(*minutes, *is_counter)?;
                let is_dry = flow <= 0.0;
                let place = if is_dry && !self.is_light(at) { Place::Between } else { Place::of(is_dry) };
                Some(Judgment::of(device, place, at).measured(flow, 0.0))
            }
            Test::HouseTemperature { .. }
            | Test::Slow { .. }
            | Test::Silent {}
            | Test::LastSilent { .. }
            | Test::DeviceEvent { .. }
            | Test::Said {} => None,
        }
    }

    /// What a rule says now of what is looked at every second.
    pub(super) fn judge(&self, rule: &Rule, now: Timestamp) -> Vec<Judgment> {
        match &rule.test {
            Test::HouseTemperature { .. } => self.judge_house(rule, now).into_iter().collect(),
            Test::Slow { measure, side, limit, hysteresis } => {
                let Some(value) = self.slow.get(measure).copied() else { return Vec::new() };
                let place = Limit { side: *side, value: *limit, hysteresis: *hysteresis }.place(value);
                place.map(|place| Judgment::of("", place, now).measured(value, *limit)).into_iter().collect()
            }
            Test::Silent {} => self.judge_silence(now),
            Test::LastSilent { metrics } => {
                metrics.iter().filter_map(|metric| self.judge_last(metric, now)).collect()
            }
            Test::Said {} => self.judge_said(rule, now),
            Test::Level { .. } | Test::Jump { .. } | Test::NoFlow { .. } | Test::DeviceEvent { .. } => {
                Vec::new()
            }
        }
    }

    fn judge_house(&self, rule: &Rule, now: Timestamp) -> Option<Judgment> {
        let Test::HouseTemperature { side, margin_c, chick_margin_c, absolute_c, hysteresis_c, curve } =
            &rule.test
        else {
            return None;
        };
        let Some(inside_c) = self.inside_c(now) else { return Some(Judgment::unknown("", now)) };
        let age_days = self.scene.age_days;
        let is_chick = age_days.is_some_and(|age| age <= CHICK_DAYS_MAX);
        let margin_c = chick_margin_c.filter(|_| is_chick).unwrap_or(*margin_c);
        let set_c = age_days.and_then(|age| on_curve(curve, age)).or_else(|| self.set_point_c(now));
        let limits = match side {
            Side::Above => {
                let outside_c = self.mean_of(OUTSIDE_TEMPERATURE, now);
                let relative = set_c.map(|set_c| outside_c.map_or(set_c, |c| c.max(set_c)) + margin_c);
                relative.into_iter().chain(*absolute_c).reduce(f64::min)
            }
            Side::Below => {
                let relative = set_c.map(|set_c| set_c - margin_c);
                relative.into_iter().chain(*absolute_c).reduce(f64::max)
            }
        };
        let limit = limits?;
        let place = Limit { side: *side, value: limit, hysteresis: *hysteresis_c }.place(inside_c)?;
        let judgment = Judgment::of("", place, now).measured(inside_c, limit);
        Some(match set_c {
            Some(set_c) => judgment.because(format!("set point {set_c:.1} °C")),
            None => judgment,
        })
    }

    /// The set point for birds of the standard's weight, by the humidity inside.
    fn set_point_c(&self, now: Timestamp) -> Option<f64> {
        let humidity = self.mean_of(HUMIDITY, now).unwrap_or(HUMIDITY_USUAL);
        self.scene.body_weight_g.map(|grams| set_point(grams, humidity).air_c)
    }

    fn mean_of(&self, metric: &str, now: Timestamp) -> Option<f64> {
        let values: Vec<f64> = self.healthy(metric, now).filter_map(|(_, probe)| probe.value()).collect();
        house_mean(&values)
    }

    /// A device of which nothing is heard is one silence, and not one for each of its metrics.
    fn judge_silence(&self, now: Timestamp) -> Vec<Judgment> {
        let mut judgments = Vec::new();
        let mut probes = self.probes.iter().peekable();
        while let Some(((device, _), _)) = probes.peek().copied() {
            let of_device: Vec<_> =
                std::iter::from_fn(|| probes.next_if(|((name, _), _)| name == device)).collect();
            let silences: Vec<_> = of_device.iter().map(|(_, probe)| probe.silence(now)).collect();
            let shortest = silences.iter().copied().collect::<Option<Vec<_>>>();
            let shortest = shortest.and_then(|silences| silences.into_iter().min());
            let mut say = |place: &str, silence: Option<chrono::Duration>| {
                let judgment = Judgment::of(place, Place::of(silence.is_some()), now);
                judgments.push(match silence {
                    Some(silence) => Judgment { value: Some(silence.num_seconds() as f64), ..judgment },
                    None => judgment,
                });
            };
            say(device, shortest);
            for (((_, metric), _), silence) in of_device.iter().zip(&silences) {
                say(&format!("{device}/{metric}"), silence.filter(|_| shortest.is_none()));
            }
        }
        judgments
    }

    /// Whether no healthy probe of a metric speaks, where there ever was one.
    fn judge_last(&self, metric: &str, now: Timestamp) -> Option<Judgment> {
        self.probes.keys().find(|(_, name)| name == metric)?;
        let is_blind = self.healthy(metric, now).next().is_none();
        Some(Judgment::of(metric, Place::of(is_blind), now))
    }

    fn judge_said(&self, rule: &Rule, now: Timestamp) -> Vec<Judgment> {
        let of_rule = self.said.iter().filter(|(key, _)| key.rule == rule.id);
        let judge = |(key, said): (&super::Key, &super::Said)| Judgment {
            value: said.value,
            limit: said.limit,
            why: said.why.clone(),
            ..Judgment::of(&key.place, Place::of(said.stands), now)
        };
        of_rule.map(judge).collect()
    }
}
