//! Tables that are over and kept: which they are, and why. Each is told once when its reason begins and once when it goes.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use schema::metrics;
use schema::store::retention::tables::Hold;

/// The tables that the last pass found held, and those that the present one has found.
#[derive(Debug, Default)]
pub(super) struct HeldTables(Mutex<[BTreeMap<String, Hold>; 2]>);

impl HeldTables {
    /// A pass begins.
    pub(super) fn begin(&self) {
        self.both()[1].clear();
    }

    /// A table is held.
    pub(super) fn note(&self, table: &str, hold: Hold) {
        let mut both = self.both();
        if both[0].get(table) != Some(&hold) {
            tell(table, hold);
        }
        both[1].insert(table.to_owned(), hold);
    }

    /// All tables were looked at.
    pub(super) fn end(&self) {
        let mut both = self.both();
        let [before, now] = &mut *both;
        for (table, _) in before.iter().filter(|(table, _)| !now.contains_key(*table)) {
            tracing::info!(table, "an old table is no longer kept");
        }
        let waiting = now.values().filter(|hold| **hold != Hold::Young).count();
        metrics::retention_held_tables().set(f64::from(u32::try_from(waiting).unwrap_or(u32::MAX)));
        *before = std::mem::take(now);
    }

    /// The tables and why each is kept.
    pub(super) fn all(&self) -> BTreeMap<String, &'static str> {
        self.both()[0].iter().map(|(table, hold)| (table.clone(), reason(*hold))).collect()
    }

    fn both(&self) -> MutexGuard<'_, [BTreeMap<String, Hold>; 2]> {
        // The maps are whole between any two of their calls.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reason(hold: Hold) -> &'static str {
    match hold {
        Hold::Refused => "the cloud has refused an event of its time: redrive or discard it",
        Hold::Unacked => "an event of its time waits for the cloud",
        Hold::Young => "some of it came in late and is not old enough",
    }
}

fn tell(table: &str, hold: Hold) {
    let reason = reason(hold);
    match hold {
        Hold::Refused | Hold::Unacked => tracing::warn!(table, reason, "an old table is kept"),
        Hold::Young => tracing::info!(table, reason, "an old table is kept"),
    }
}
