//! Which faults come when: drawn from a seed, and the same for the same seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::fault::{Fault, Kind};

/// Faults that may be under way at once.
const AT_ONCE_MAX: usize = 3;
/// How long everything works before the first fault, a tenth of the run, between these.
const CALM_MS: (u64, u64) = (4000, 10_000);
/// How long everything works after the last fault, a fifth of the run, between these.
const QUIET_MS: (u64, u64) = (10_000, 40_000);
/// Between two faults, least and most.
const GAP_MS: (u64, u64) = (300, 4000);

/// A fault and its time.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// When it begins, milliseconds from the start of the run.
    pub at_ms: u64,
    /// What goes wrong.
    pub fault: Fault,
}

impl Planned {
    /// When it ends, milliseconds from the start of the run.
    #[must_use]
    pub fn ends_ms(&self) -> u64 {
        self.at_ms + self.fault.lasts_ms
    }
}

/// The faults of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What decides everything.
    pub seed: u64,
    /// How long devices are at work.
    pub lasts: Duration,
    /// The faults by their beginning.
    pub faults: Vec<Planned>,
}

impl Plan {
    /// Draws the faults of a run. Every kind comes once before any comes again, each part of the barn has one at a time,
    /// and the last ones end before a quiet phase.
    #[must_use]
    pub fn draw(seed: u64, lasts: Duration, only: &[Kind]) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let total_ms = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
        let calm_ms = (total_ms / 10).clamp(CALM_MS.0, CALM_MS.1);
        let quiet_ms = (total_ms / 5).clamp(QUIET_MS.0, QUIET_MS.1);
        let ends_ms = total_ms.saturating_sub(quiet_ms);
        let mut kinds = Bag { kinds: if only.is_empty() { &Kind::ALL } else { only }, left: Vec::new() };
        let mut faults: Vec<Planned> = Vec::new();
        let mut at_ms = calm_ms;
        while at_ms < ends_ms {
            let fault = Fault::draw(kinds.take(&mut random), &mut random);
            let planned = Planned { at_ms: free_at(&faults, &fault, at_ms), fault };
            if planned.ends_ms() <= ends_ms {
                at_ms = planned.at_ms;
                faults.push(planned);
            }
            at_ms += random.random_range(GAP_MS.0..=GAP_MS.1);
        }
        faults.sort_by_key(|planned| planned.at_ms);
        Self { seed, lasts, faults }
    }

    /// When the last fault ends.
    #[must_use]
    pub fn faults_end(&self) -> Duration {
        Duration::from_millis(self.faults.iter().map(Planned::ends_ms).max().unwrap_or(0))
    }

    /// Whether a kind is part of it.
    #[must_use]
    pub fn has(&self, kind: Kind) -> bool {
        self.faults.iter().any(|planned| planned.fault.kind == kind)
    }

    /// One line for each fault.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let line = |planned: &Planned| {
            format!("{:7.1} s  {}", Duration::from_millis(planned.at_ms).as_secs_f64(), planned.fault)
        };
        self.faults.iter().map(line).collect()
    }
}

/// Kinds in an order of chance, each once before any comes again.
struct Bag<'a> {
    kinds: &'a [Kind],
    left: Vec<Kind>,
}

impl Bag<'_> {
    fn take(&mut self, random: &mut StdRng) -> Kind {
        if self.left.is_empty() {
            self.left = self.kinds.to_vec();
            self.left.shuffle(random);
        }
        self.left.pop().expect("the bag was just filled")
    }
}

/// The first moment at or after `at_ms` at which the fault's part has no other fault and not too many are under way.
fn free_at(faults: &[Planned], fault: &Fault, at_ms: u64) -> u64 {
    let mut at_ms = at_ms;
    loop {
        let until_ms = at_ms + fault.lasts_ms;
        let beside: Vec<_> =
            faults.iter().filter(|other| other.at_ms <= until_ms && at_ms <= other.ends_ms()).collect();
        let is_taken = beside.iter().any(|other| other.fault.kind.part() == fault.kind.part());
        if !is_taken && beside.len() < AT_ONCE_MAX {
            return at_ms;
        }
        // The next moment at which one of them is over.
        at_ms = beside.iter().map(|other| other.ends_ms() + 1).min().unwrap_or(at_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const MINUTES: Duration = Duration::from_secs(180);

    #[test]
    fn the_same_seed_gives_the_same_plan_and_another_one_another() {
        for seed in 0..50 {
            let plan = Plan::draw(seed, MINUTES, &[]);
            assert_eq!(plan, Plan::draw(seed, MINUTES, &[]));
            assert_eq!(plan.lines(), Plan::draw(seed, MINUTES, &[]).lines());
            assert_ne!(plan.lines(), Plan::draw(seed + 1, MINUTES, &[]).lines());
        }
    }

    #[test]
    fn faults_are_bounded_and_end_before_the_quiet_phase() {
        for seed in 0..50 {
            let plan = Plan::draw(seed, MINUTES, &[]);
            assert!(plan.faults.len() > 20, "{}", plan.faults.len());
            assert!(plan.faults_end() <= MINUTES - Duration::from_secs(36), "{:?}", plan.faults_end());
            for planned in &plan.faults {
                let at = planned.at_ms;
                let beside = plan.faults.iter().filter(|other| other.at_ms <= at && at <= other.ends_ms());
                let parts: Vec<_> = beside.map(|other| other.fault.kind.part()).collect();
                assert!(parts.len() <= AT_ONCE_MAX, "{seed}: {parts:?} at {at}");
                assert_eq!(
                    parts.iter().collect::<HashSet<_>>().len(),
                    parts.len(),
                    "{seed}: {parts:?} at {at}"
                );
            }
        }
    }

    #[test]
    fn a_run_has_every_kind_or_those_that_were_asked_for() {
        let kinds =
            |plan: &Plan| plan.faults.iter().map(|planned| planned.fault.kind).collect::<HashSet<_>>();
        let long = Plan::draw(1, Duration::from_secs(600), &[]);
        assert_eq!(kinds(&long).len(), Kind::ALL.len());
        let only = Plan::draw(1, MINUTES, &[Kind::EngineKill, Kind::CloudMode]);
        assert_eq!(kinds(&only), HashSet::from([Kind::EngineKill, Kind::CloudMode]));
    }
}
