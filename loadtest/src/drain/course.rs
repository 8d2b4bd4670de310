//! Follows a drain from the first acceptance until the backlog is gone, and says so when it stands still.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::sync::watch;

use schema::clock::Clock;
use schema::store::bench::activity;

use crate::bench::edge::Edge;
use crate::bench::table::Row as Used;
use crate::bench::{Bench, Gauge, process};
use crate::cloud::PretendCloud;
use crate::drain::unsent;
use crate::publisher::Meter;
use crate::report::{Live, per_second};

/// How often the cloud is asked what it has.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Without any acceptance for so long, what the database does is written down.
const STALL: Duration = Duration::from_secs(1);
/// Without any acceptance for so long, the engine is given up.
const STALL_MAX: Duration = Duration::from_secs(120);

/// When the drain begins to count and when it is over.
pub(super) struct Goal<'a> {
    /// Rows that waited when the engine started.
    pub(super) rows: u64,
    /// What arrives meanwhile: its counter, and readings per second.
    pub(super) incoming: Option<(&'a Meter, f64)>,
}

impl Goal<'_> {
    fn has_begun(&self, accepted: u64) -> bool {
        accepted > 0 && self.incoming.is_none_or(|(meter, _)| meter.acknowledged() > 0)
    }

    fn waiting(&self, accepted: u64) -> u64 {
        let arrived = self.incoming.map_or(0, |(meter, _)| meter.acknowledged());
        (self.rows + arrived).saturating_sub(accepted)
    }

    /// Of what arrives, a second's worth is always on its way.
    fn is_reached(&self, accepted: u64) -> bool {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive rate")]
        let on_its_way = self.incoming.map_or(0, |(_, rate)| rate as u64);
        self.waiting(accepted) <= on_its_way
    }
}

/// What a drain took.
pub(super) struct Course {
    /// Events accepted after the first look that saw some.
    pub(super) events: u64,
    /// From that look to the last acceptance.
    pub(super) elapsed: Duration,
    /// Used by the engine and the database meanwhile.
    pub(super) used: Used,
    /// CPU time of this process: the cloud, and whoever publishes.
    pub(super) own_cpu: Duration,
    /// Longest time without any acceptance.
    pub(super) pause_max: Duration,
}

impl Course {
    /// Events per second.
    pub(super) fn rate(&self) -> f64 {
        per_second(self.events, self.elapsed)
    }
}

/// The counters at one moment.
struct Moment {
    at: Instant,
    accepted: u64,
    gauge: Gauge,
    own_cpu: Duration,
}

impl Moment {
    async fn of(bench: &Bench, cloud: &PretendCloud) -> Result<Self> {
        let gauge = bench.gauge().await?;
        let own_cpu = process::cpu(std::process::id())?;
        Ok(Self { at: Instant::now(), accepted: cloud.judge().accepted, gauge, own_cpu })
    }
}

/// Watches until the goal is reached.
pub(super) async fn follow(
    bench: &Bench,
    cloud: &PretendCloud,
    edge: &mut Edge,
    goal: &Goal<'_>,
    stop: &watch::Receiver<bool>,
) -> Result<Course> {
    let mut live = Live::start(Some(goal.rows));
    let mut pauses = Pauses::new();
    let mut first: Option<Moment> = None;
    loop {
        ensure!(!*stop.borrow(), "stopped before the end");
        edge.check_alive()?;
        let accepted = cloud.judge().accepted;
        pauses.look(bench, accepted, &live).await?;
        match &first {
            None if goal.has_begun(accepted) => {
                first = Some(Moment::of(bench, cloud).await?);
                pauses.longest = Duration::ZERO;
            }
            Some(first) if goal.is_reached(accepted) => {
                live.finish();
                return course(first, &Moment::of(bench, cloud).await?, &pauses);
            }
            Some(first) => {
                let rate = per_second(accepted.saturating_sub(first.accepted), first.at.elapsed());
                let line = format!("accepted {accepted}, {rate:.0}/s, {} wait", goal.waiting(accepted));
                live.show(accepted.min(goal.rows), &line);
            }
            None => {}
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn course(first: &Moment, last: &Moment, pauses: &Pauses) -> Result<Course> {
    let events = last.accepted - first.accepted;
    ensure!(events > 0, "everything was sent before the first look: wait for more with --rows");
    Ok(Course {
        events,
        elapsed: pauses.last_at.saturating_duration_since(first.at),
        used: last.gauge.since(&first.gauge),
        own_cpu: last.own_cpu.saturating_sub(first.own_cpu),
        pause_max: pauses.longest,
    })
}

/// Waits until the outbox is empty: the last batches are accepted before they are settled.
pub(super) async fn until_settled(bench: &Bench, cloud: &PretendCloud, edge: &mut Edge) -> Result<()> {
    let live = Live::start(None);
    let mut pauses = Pauses::new();
    while unsent(bench).await? > 0 {
        edge.check_alive()?;
        pauses.look(bench, cloud.judge().accepted, &live).await?;
        tokio::time::sleep(LOOK_EVERY).await;
    }
    live.finish();
    Ok(())
}

/// Times in which nothing was accepted.
struct Pauses {
    accepted: u64,
    /// When the last acceptance was seen.
    last_at: Instant,
    longest: Duration,
    told_at: Instant,
}

impl Pauses {
    fn new() -> Self {
        let now = Instant::now();
        Self { accepted: 0, last_at: now, longest: Duration::ZERO, told_at: now }
    }

    async fn look(&mut self, bench: &Bench, accepted: u64, live: &Live) -> Result<()> {
        let now = Instant::now();
        let pause = now - self.last_at;
        self.longest = self.longest.max(pause);
        if accepted > self.accepted {
            self.accepted = accepted;
            self.last_at = now;
        } else if pause > STALL_MAX {
            bail!("nothing was accepted for {STALL_MAX:?}");
        } else if pause > STALL && now - self.told_at > STALL {
            self.told_at = now;
            live.keep(&format!("nothing accepted for {:.1} s; the database:", pause.as_secs_f64()));
            tell_activity(bench, live).await?;
        }
        Ok(())
    }
}

async fn tell_activity(bench: &Bench, live: &Live) -> Result<()> {
    let conn = bench.store.conn().await.context("connect to the database")?;
    for at in activity(&conn, Clock::system().now()).await.context("ask what the server does")? {
        live.keep(&format!(
            "  {}: {}, {}, {:.1} s in its transaction, {}",
            at.who, at.state, at.wait, at.transaction_seconds, at.statement
        ));
    }
    Ok(())
}
