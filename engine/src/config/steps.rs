//! Who is told of an alarm and when: steps of an escalation, and the time of the weekly drill.

use actors::alarm::drill::Weekly;
use actors::alarm::escalation::{ALL, Plan, Plans, QUIET, Step};
use toml::Value;

use super::value::Setting;
use super::{Alarms, WaysSetting};

/// Steps such as `0:siren+ntfy,120:phone`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps(Vec<Step>);

impl Setting for Steps {
    fn from_text(text: &str) -> Result<Self, String> {
        Plan::read_steps(text).map(Self).map_err(|error| error.to_string())
    }

    fn to_toml(&self) -> Value {
        let step = |step: &Step| format!("{}:{}", step.after_seconds, step.ways.join("+"));
        Value::String(self.0.iter().map(step).collect::<Vec<_>>().join(","))
    }
}

impl Setting for Weekly {
    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "a day and a time, such as mon 10:00".to_owned())
    }

    fn to_toml(&self) -> Value {
        Value::String(self.to_string())
    }
}

impl Steps {
    /// Names of ways that are not there.
    pub(super) fn unknown<'a>(&'a self, ways: &'a WaysSetting) -> impl Iterator<Item = &'a str> {
        let named = self.0.iter().flat_map(|step| &step.ways).map(String::as_str);
        named.filter(|name| ![ALL, QUIET].contains(name) && !ways.iter().any(|(known, _)| known == *name))
    }
}

impl Alarms {
    /// The plans of all classes.
    #[must_use]
    pub fn plans(&self) -> Plans {
        let remind_seconds = (self.remind_minutes > 0).then(|| whole(self.remind_minutes * 60));
        let plan = |steps: &Steps, repeat_seconds: u64| Plan {
            steps: steps.0.clone(),
            repeat_seconds: (repeat_seconds > 0).then(|| whole(repeat_seconds)),
            remind_seconds,
        };
        Plans {
            critical: plan(&self.critical_steps, self.critical_repeat_seconds),
            high: plan(&self.high_steps, self.high_repeat_seconds),
            low: plan(&self.low_steps, self.low_repeat_seconds),
            drill: plan(&self.drill_steps, self.critical_repeat_seconds),
        }
    }
}

fn whole(seconds: u64) -> u32 {
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_shown_as_they_are_read() {
        for text in ["", "0:all", "0:siren+ntfy,120:phone"] {
            assert_eq!(Steps::from_text(text).unwrap().to_toml(), Value::String(text.to_owned()));
        }
        assert!(Steps::from_text("siren").unwrap_err().contains("has no colon"));
        assert!(<Weekly as Setting>::from_text("someday").is_err());
    }

    #[test]
    fn a_way_that_is_not_there_is_named() {
        let steps = Steps::from_text("0:all+fax,60:quiet+horn").unwrap();
        assert_eq!(steps.unknown(&WaysSetting::default()).collect::<Vec<_>>(), ["fax", "horn"]);
    }
}
