//! Who is told of an alarm, when, and how often: step by step until somebody acknowledges it.

use chrono::Duration;

use super::way::{Class, Ways};

/// Seconds that a step, a repetition or a reminder may wait, a week.
const SECONDS_MAX: u32 = 7 * 86_400;
/// Steps of a plan.
const STEPS_MAX: usize = 20;

/// Every way out.
pub const ALL: &str = "all";
/// Every way out that makes neither noise nor light.
pub const QUIET: &str = "quiet";

/// One step: after how long without an acknowledgment, and by which ways out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Seconds since the alarm was raised, or came back.
    pub after_seconds: u32,
    /// Names of ways out, [`ALL`] or [`QUIET`].
    pub ways: Vec<String>,
}

/// The steps of a class.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// In the order of their times. Without any, nobody is told: the alarm is listed.
    pub steps: Vec<Step>,
    /// Seconds after which the last step is repeated; `None` for never.
    pub repeat_seconds: Option<u32>,
    /// Seconds after which an acknowledged alarm that still stands is told again; `None` for never.
    pub remind_seconds: Option<u32>,
}

/// Why steps cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}: write steps as seconds, a colon and ways with a plus between, such as 0:all or 0:siren+ntfy,120:phone"
)]
pub struct BadSteps(String);

impl Plan {
    /// Reads steps such as `0:siren+ntfy,120:phone`.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read_steps(text: &str) -> Result<Vec<Step>, BadSteps> {
        let texts = text.split(',').map(str::trim).filter(|text| !text.is_empty());
        let steps = texts.map(read_step).collect::<Result<Vec<_>, _>>()?;
        if steps.len() > STEPS_MAX {
            return Err(BadSteps(format!("more than {STEPS_MAX} steps")));
        }
        if !steps.windows(2).all(|pair| pair[0].after_seconds < pair[1].after_seconds) {
            return Err(BadSteps("the times of the steps do not grow".to_owned()));
        }
        Ok(steps)
    }

    /// After how long, and by which ways, the telling of this number is due in a round that nobody has acknowledged, from 0;
    /// `None` when there is none so late.
    #[must_use]
    pub fn telling(&self, number: u32) -> Option<(Duration, &[String])> {
        let last = u32::try_from(self.steps.len()).ok()?.checked_sub(1)?;
        let step = self.steps.get(usize::try_from(number.min(last)).ok()?)?;
        let repeats = number.saturating_sub(last);
        let repeat_seconds = match (repeats, self.repeat_seconds) {
            (0, _) => 0,
            (_, Some(seconds)) => i64::from(seconds.max(1)) * i64::from(repeats),
            (_, None) => return None,
        };
        Some((Duration::seconds(i64::from(step.after_seconds) + repeat_seconds), &step.ways))
    }

    /// After how long an acknowledged alarm that still stands is told again.
    #[must_use]
    pub fn reminder(&self) -> Option<Duration> {
        self.remind_seconds.map(|seconds| Duration::seconds(i64::from(seconds.max(1))))
    }
}

fn read_step(text: &str) -> Result<Step, BadSteps> {
    let bad = |what: &str| BadSteps(format!("{text:?} {what}"));
    let (seconds, ways) = text.split_once(':').ok_or_else(|| bad("has no colon"))?;
    let after_seconds = seconds.trim().parse().ok().filter(|seconds| *seconds <= SECONDS_MAX);
    let ways: Vec<_> = ways.split('+').map(|way| way.trim().to_owned()).collect();
    if ways.iter().any(String::is_empty) {
        return Err(bad("lacks the name of a way"));
    }
    let after_seconds = after_seconds.ok_or_else(|| bad("does not begin with seconds of a week at most"))?;
    Ok(Step { after_seconds, ways })
}

/// The names of ways that a step means, each once.
#[must_use]
pub fn expand(names: &[String], ways: &Ways) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut add = |name: &str| {
        if !found.iter().any(|known| known == name) {
            found.push(name.to_owned());
        }
    };
    for name in names {
        match name.as_str() {
            ALL => ways.iter().for_each(|way| add(way.name())),
            QUIET => ways.iter().filter(|way| !way.sounds()).for_each(|way| add(way.name())),
            name => add(name),
        }
    }
    found
}

/// The plans of all classes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plans {
    /// Of critical alarms.
    pub critical: Plan,
    /// Of high ones.
    pub high: Plan,
    /// Of low ones.
    pub low: Plan,
    /// Of drills.
    pub drill: Plan,
}

impl Plans {
    /// The plan of a class.
    #[must_use]
    pub fn of(&self, class: Class) -> &Plan {
        match class {
            Class::Critical => &self.critical,
            Class::High => &self.high,
            Class::Low => &self.low,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            steps: Plan::read_steps("0:siren, 120:first, 300:second+third").unwrap(),
            repeat_seconds: Some(600),
            remind_seconds: Some(3600),
        }
    }

    #[test]
    fn an_alarm_that_nobody_acknowledges_goes_on_from_step_to_step() {
        let plan = plan();
        for (number, seconds, ways) in [
            (0, 0, vec!["siren"]),
            (1, 120, vec!["first"]),
            (2, 300, vec!["second", "third"]),
            (3, 900, vec!["second", "third"]),
            (5, 2100, vec!["second", "third"]),
        ] {
            let (after, told) = plan.telling(number).unwrap();
            assert_eq!(
                (after, told.iter().map(String::as_str).collect()),
                (Duration::seconds(seconds), ways)
            );
        }
        assert_eq!(plan.reminder(), Some(Duration::seconds(3600)));
    }

    #[test]
    fn without_a_repetition_the_last_step_is_the_last() {
        let plan = Plan { repeat_seconds: None, remind_seconds: None, ..plan() };
        assert!(plan.telling(2).is_some());
        assert_eq!((plan.telling(3), plan.reminder()), (None, None));
        assert_eq!(Plan::default().telling(0), None);
    }

    #[test]
    fn steps_that_cannot_be_meant_are_refused() {
        assert_eq!(Plan::read_steps(" ").unwrap(), []);
        for (text, problem) in [
            ("siren", "has no colon"),
            ("soon:siren", "does not begin with seconds"),
            ("604801:siren", "does not begin with seconds"),
            ("0:", "lacks the name"),
            ("0:a+", "lacks the name"),
            ("60:a,0:b", "do not grow"),
            ("0:a,0:b", "do not grow"),
        ] {
            let error = Plan::read_steps(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
