//! Watches the connections of the engine: the locks that keep writers out, the waits for locks, the statements of the pass.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::MissedTickBehavior;

use schema::clock::Clock;
use schema::store::bench::locks::{Kind, look};

use crate::bench::Bench;

/// How often they are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How statements of retention begin.
const PASS: [&str; 5] = ["retention_", "LOCK TABLE", "DROP TABLE", "dedupe_delete_expired", "trim_rejects"];

/// The longest of everything that was seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Sights {
    longest: BTreeMap<(Kind, String), Duration>,
}

/// Does some work and watches meanwhile.
pub(super) async fn watch<T>(
    bench: &Bench,
    application: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<(T, Sights)> {
    let mut sights = Sights::default();
    let done = tokio::select! {
        done = work => done?,
        never = sights.collect(bench, application) => match never? {},
    };
    Ok((done, sights))
}

impl Sights {
    async fn collect(&mut self, bench: &Bench, application: &str) -> Result<Infallible> {
        let conn = bench.store.conn().await.context("connect to the database")?;
        let clock = Clock::system();
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            for sight in look(&conn, application, clock.now()).await.context("look at the server")? {
                let lasted = Duration::from_secs_f64(sight.seconds.max(0.0));
                let longest = self.longest.entry((sight.kind, sight.about)).or_default();
                *longest = lasted.max(*longest);
            }
        }
    }

    /// Of locks that keep writers out. What began and ended between two looks was not seen.
    pub(super) fn lock_longest(&self) -> Duration {
        self.longest_of(Kind::Lock, |_| true)
    }

    /// Of waits for a lock, but for those of retention itself.
    pub(super) fn wait_longest(&self) -> Duration {
        self.longest_of(Kind::Wait, |about| !is_of_retention(about))
    }

    fn longest_of(&self, kind: Kind, is_meant: impl Fn(&str) -> bool) -> Duration {
        let meant = self.longest.iter().filter(|((of, about), _)| *of == kind && is_meant(about));
        meant.map(|(_, lasted)| *lasted).max().unwrap_or_default()
    }

    /// Every lock and wait, and the statements of retention, each with its longest.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        let shown = self.longest.iter().filter(|((kind, about), _)| match kind {
            Kind::Lock | Kind::Wait => true,
            Kind::Statement => is_of_retention(about),
        });
        shown.map(|((kind, about), lasted)| {
            let what = match kind {
                Kind::Lock => "a lock that keeps writers out",
                Kind::Wait => "waiting for a lock",
                Kind::Statement => "a statement",
            };
            format!("{what}, at most {:.0} ms: {about}", lasted.as_secs_f64() * 1e3)
        })
    }
}

fn is_of_retention(statement: &str) -> bool {
    PASS.iter().any(|start| statement.starts_with(start))
}
