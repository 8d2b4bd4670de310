//! What a judgment found, rule by rule.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Differences of one rule that are kept with their ids; the rest is only counted.
const KEPT_MAX: usize = 100;
/// Differences that are shown.
const SHOWN_MAX: usize = 10;

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The ledger holds acknowledged messages at all.
    Ledger,
    /// Nothing waits to be sent any more.
    Settled,
    /// Every acknowledged message is in exactly one state.
    Kept,
    /// No message was refused.
    Accepted,
    /// What is stored is what was sent.
    Content,
    /// Nothing is stored that nobody sent.
    Invented,
    /// What is stored has its event in the outbox, or had it.
    Queued,
    /// Every event that must be at the cloud is there.
    Delivered,
    /// The cloud's content is the database's.
    DeliveredContent,
    /// The cloud has nothing that the database does not have.
    DeliveredInvented,
    /// Lanes were sent in order.
    Order,
    /// A session has one beginning before its one end.
    Sessions,
    /// Images are stored byte for byte.
    Images,
    /// Aggregates are the sums of their readings.
    Aggregates,
    /// The cloud's own judge has nothing to say.
    Judge,
    /// The engine's own account comes out even.
    Account,
    /// Memory and file handles are back to where they were.
    Resources,
    /// Everything works again soon after the last fault.
    Recovery,
    /// Nothing of the engine panicked, and what was asked to end ended.
    Engine,
}

impl Rule {
    /// What holds when there is no difference.
    #[must_use]
    pub fn promise(self) -> &'static str {
        match self {
            Self::Ledger => "the ledger has acknowledged messages",
            Self::Settled => "nothing waits",
            Self::Kept => "every acknowledged message is in exactly one state",
            Self::Accepted => "no message was refused",
            Self::Content => "what is stored is what was sent",
            Self::Invented => "nothing is stored that nobody sent",
            Self::Queued => "each stored message has its event",
            Self::Delivered => "every event is at the cloud",
            Self::DeliveredContent => "the cloud has what the database has",
            Self::DeliveredInvented => "the cloud has nothing that the database does not know",
            Self::Order => "lanes arrived in order",
            Self::Sessions => "each session began once, and ended once after that",
            Self::Images => "images are stored byte for byte",
            Self::Aggregates => "aggregates are the sums of their readings",
            Self::Judge => "the cloud's judge saw no violation",
            Self::Account => "the engine's own account comes out even",
            Self::Resources => "memory and file handles are back to where they were",
            Self::Recovery => "everything worked again in time",
            Self::Engine => "the engine did not panic",
        }
    }
}

/// One thing that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Id of the message, session or image; a name where it has none.
    pub id: String,
    /// What differs.
    pub detail: String,
}

/// What was found of one rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Things that were looked at.
    pub looked_at: u64,
    /// Those that differ.
    pub differences: u64,
    /// The first of them.
    pub first: Vec<Difference>,
}

/// A whole judgment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// Whether nothing differs.
    pub is_good: bool,
    /// Figures by name: messages acknowledged, stored, refused and so on.
    pub counts: BTreeMap<String, u64>,
    /// Refused messages by reason.
    pub refused: BTreeMap<String, u64>,
    /// What was looked at, by rule. What was not asked for is not there.
    pub checks: BTreeMap<Rule, Check>,
    /// What could not be looked at, and why.
    pub notes: Vec<String>,
}

impl Findings {
    /// Nothing found yet.
    #[must_use]
    pub fn new() -> Self {
        Self { is_good: true, ..Self::default() }
    }

    /// Whether nothing differs.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.is_good
    }

    /// Notes that so many things are looked at.
    pub fn look(&mut self, rule: Rule, things: usize) {
        self.checks.entry(rule).or_default().looked_at += things as u64;
    }

    /// Notes a difference.
    pub fn differ(&mut self, rule: Rule, id: impl Into<String>, detail: impl Into<String>) {
        self.is_good = false;
        let check = self.checks.entry(rule).or_default();
        check.differences += 1;
        if check.first.len() < KEPT_MAX {
            check.first.push(Difference { id: id.into(), detail: detail.into() });
        }
    }

    /// Notes a figure.
    pub fn count(&mut self, name: &str, value: usize) {
        self.counts.insert(name.to_owned(), value as u64);
    }

    /// Notes what could not be looked at.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Differences of a rule.
    #[must_use]
    pub fn differences(&self, rule: Rule) -> u64 {
        self.checks.get(&rule).map_or(0, |check| check.differences)
    }

    /// The first differences, by rule and id.
    #[must_use]
    pub fn first_differences(&self) -> Vec<String> {
        let all = self.checks.iter().flat_map(|(rule, check)| check.first.iter().map(move |d| (rule, d)));
        let line =
            |(rule, Difference { id, detail }): (&Rule, &Difference)| format!("{rule:?} {id}: {detail}");
        all.take(SHOWN_MAX).map(line).collect()
    }

    /// The figures of the judgment as a run file has them. `lost` are acknowledged messages that are in no state, or whose
    /// event is not at the cloud.
    #[must_use]
    pub fn figures(&self) -> BTreeMap<String, u64> {
        let mut figures: BTreeMap<_, _> =
            self.counts.iter().map(|(name, count)| (name.replace(' ', "_"), *count)).collect();
        let lost = self.differences(Rule::Kept).max(self.differences(Rule::Delivered));
        figures.insert("lost".to_owned(), lost);
        figures.insert("differences".to_owned(), self.checks.values().map(|check| check.differences).sum());
        figures
    }

    /// The judgment in words, line by line.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let counts: Vec<_> = self.counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
        lines.push(counts.join(", "));
        for (rule, Check { looked_at, differences, .. }) in &self.checks {
            let promise = rule.promise();
            lines.push(match differences {
                0 => format!("ok    {promise} ({looked_at} looked at)"),
                _ => format!("FAIL  {promise}: {differences} of {looked_at} differ"),
            });
        }
        for (reason, count) in &self.refused {
            lines.push(format!("      refused {reason}: {count}"));
        }
        lines.extend(self.notes.iter().map(|note| format!("note  {note}")));
        lines.extend(self.first_differences().into_iter().map(|line| format!("      {line}")));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_difference_makes_a_judgment_bad_and_is_named() {
        let mut findings = Findings::new();
        findings.look(Rule::Kept, 3);
        assert!(findings.is_good());
        for number in 0..200 {
            findings.differ(Rule::Kept, format!("e-{number}"), "neither stored nor refused");
        }
        assert!(!findings.is_good());
        assert_eq!(findings.differences(Rule::Kept), 200);
        assert_eq!(findings.first_differences().len(), 10);
        assert_eq!(findings.checks[&Rule::Kept].first.len(), 100);
        let text = serde_json::to_string(&findings).unwrap();
        assert_eq!(serde_json::from_str::<Findings>(&text).unwrap(), findings);
        assert!(findings.lines().iter().any(|line| line.starts_with("FAIL  every acknowledged")));
    }
}
