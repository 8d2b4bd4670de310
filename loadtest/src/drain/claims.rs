//! What one claim and one settlement take, and whether the backlog behind them matters.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::sync::watch;

use schema::clock::Clock;
use schema::store::outbox::measure::drain_unsent;

use crate::bench::Bench;
use crate::drain::backlog::Filler;
use crate::drain::table::{Claims, Row};

/// Claims whose median is told; an odd number has one.
const CLAIMS: usize = 41;
/// Claims before those, which fill caches and prepare statements.
const WARMUP_CLAIMS: usize = 7;

/// Measures single claims beside the rows that wait now; claimed rows are replaced, so that as many wait each time.
pub(super) async fn measure(bench: &Bench, filler: &mut Filler, stop: &watch::Receiver<bool>) -> Result<Row> {
    let waiting = filler.waiting();
    let (mut claiming, mut cycles, mut events) = (Vec::new(), Vec::new(), 0);
    for number in 0..WARMUP_CLAIMS + CLAIMS {
        filler.fill_up_to(bench, waiting, stop).await?;
        // One event at least makes it exactly one batch.
        let cycle = drain_unsent(&bench.store, &Clock::system(), &bench.engine_place.tenant, (0, 1), 1).await;
        let cycle = cycle.context("claim a batch")?;
        ensure!(cycle.batches == 1, "nothing could be claimed although {waiting} rows wait");
        filler.take(cycle.events);
        if number >= WARMUP_CLAIMS {
            claiming.push(cycle.claiming);
            cycles.push(cycle.claiming + cycle.settling);
            events += cycle.events;
        }
    }
    filler.fill_up_to(bench, waiting, stop).await?;
    let claims = Claims { claim: median(&mut claiming), cycle: median(&mut cycles), p90: p90(&claiming) };
    let elapsed = cycles.iter().sum();
    Ok(Row::of_claims(format!("claim, {waiting} waiting"), events, elapsed, claims))
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Of sorted times.
fn p90(times: &[Duration]) -> Duration {
    times[times.len() * 9 / 10]
}
