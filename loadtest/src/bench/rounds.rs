//! Rounds in which COPY, the bare unit of work and the engine take turns, so that a machine that changes its pace changes it
//! for all of them.

use anyhow::Result;
use tokio::sync::watch;

use crate::bench::engine::{self, Pace};
use crate::bench::limits::{self, Limit};
use crate::bench::table::Row;
use crate::bench::{Bench, Memory, WRITERS};
use crate::report::{note, say};

/// What was measured, by round.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    copy: Vec<Row>,
    bare: Vec<Row>,
    engine: Vec<Row>,
}

impl Rounds {
    pub(super) async fn measure(
        bench: &Bench,
        memory: &mut Memory,
        stop: &watch::Receiver<bool>,
    ) -> Result<Self> {
        let mut rounds = Self::default();
        let settings = &bench.settings;
        for _ in 0..settings.rounds {
            for (limit, rows) in [(Limit::Copy, &mut rounds.copy), (Limit::Statement, &mut rounds.bare)] {
                if settings.measures_limits && !*stop.borrow() {
                    bench.settle().await;
                    let row = limits::measure(bench, limit, WRITERS, settings.events).await?;
                    note(format!("{}: {:.0} events/s", row.name, row.rate()));
                    rows.push(row);
                }
            }
            if settings.measures_engine && !*stop.borrow() {
                bench.settle().await;
                let name = format!("engine, {} connections, full speed", settings.connections);
                let pace = Pace::Max(settings.events);
                rounds.engine.push(engine::measure(bench, &name, pace, memory, stop).await?);
            }
        }
        Ok(rounds)
    }

    /// Of each kind the round in the middle.
    pub(super) fn medians(&self) -> Vec<Row> {
        [&self.copy, &self.bare, &self.engine].into_iter().filter_map(|rows| median(rows)).collect()
    }

    /// The ratios of each round: what is left when the machine has changed between two of them.
    pub(super) fn tell_ratios(&self) {
        for (name, limit) in [("bare SQL", &self.bare), ("COPY", &self.copy)] {
            let ratios: Vec<f64> =
                self.engine.iter().zip(limit).map(|(engine, limit)| engine.rate() / limit.rate()).collect();
            if let Some(middle) = middle(&ratios) {
                let each: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
                say(format!("engine / {name}: median {middle:.2}, by round {}", each.join(" ")));
            }
        }
    }
}

fn median(rows: &[Row]) -> Option<Row> {
    let mut rows: Vec<&Row> = rows.iter().collect();
    rows.sort_by(|a, b| a.rate().total_cmp(&b.rate()));
    rows.get(rows.len() / 2).map(|row| (*row).clone())
}

fn middle(ratios: &[f64]) -> Option<f64> {
    let mut ratios = ratios.to_vec();
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_round_in_the_middle_stands_for_all() {
        let row = |events| Row { events, elapsed: Duration::from_secs(1), ..Row::default() };
        let rounds = Rounds {
            copy: vec![row(90), row(10), row(50)],
            bare: Vec::new(),
            engine: vec![row(30), row(10)],
        };
        let rates: Vec<u64> = rounds.medians().iter().map(|row| row.events).collect();
        assert_eq!(rates, [50, 30]);
        assert_eq!(middle(&[0.3, 0.1, 0.2]), Some(0.2));
        assert_eq!(middle(&[]), None);
    }
}
