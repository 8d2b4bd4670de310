//! Keeps the server of a private cluster running: starts it again when it ends, and stops it last.

use std::future::Future;
use std::time::Duration;

use schema::metrics;
use tokio::time::{Instant, sleep};

use super::{Cluster, ClusterError, Stage};

/// The wait before the second try to start; it doubles with each more.
const RETRY: Duration = Duration::from_millis(250);
/// The longest wait between two tries.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Doublings after which the wait is the longest.
const DOUBLINGS_MAX: u32 = 6;
/// Tries when another one cannot help before a person does something.
const HOPELESS_TRIES_MAX: u32 = 3;
/// A server that ran for so long was started well.
const STEADY: Duration = Duration::from_secs(60);

impl Cluster {
    /// Makes the cluster when it is not there, starts its server or adopts one that runs, and starts it again whenever
    /// it ends, until `stop` says by when it is to be stopped. Dropped, it leaves the server running.
    ///
    /// # Errors
    /// When the server cannot be started, and trying again cannot help.
    pub async fn keep(mut self, stop: impl Future<Output = Instant>) -> Result<(), ClusterError> {
        tokio::select! {
            error = self.look_after() => Err(error),
            by = stop => {
                self.stop(by).await;
                Ok(())
            }
        }
    }

    /// Has the server running, for as long as there is hope.
    async fn look_after(&mut self) -> ClusterError {
        let mut failures = Failures::default();
        loop {
            match self.bring_up().await {
                Ok(()) => {
                    self.stage.send_replace(Stage::Ready);
                    let since = Instant::now();
                    let reason = self.until_it_ends().await;
                    self.stage.send_replace(Stage::Starting);
                    metrics::engine_restarts("postgres").increment(1);
                    tracing::error!(reason, "PostgreSQL ended, starting it again");
                    failures.ended_after(since.elapsed());
                }
                Err(error) => {
                    if failures.are_hopeless(&error) {
                        return error;
                    }
                }
            }
            sleep(failures.wait()).await;
        }
    }

    pub(super) async fn bring_up(&mut self) -> Result<(), ClusterError> {
        if !self.directory.join("PG_VERSION").exists() {
            self.stage.send_replace(Stage::Making);
            self.create().await?;
        }
        self.start_or_adopt().await
    }
}

/// How often in a row the server did not come up, or not for long.
#[derive(Default)]
struct Failures {
    count: u32,
    hopeless: u32,
    /// The gist of the last reason, which is logged once.
    gist: String,
}

impl Failures {
    /// Notes that the server ran for a while; after a long one the next try is the first again.
    fn ended_after(&mut self, run: Duration) {
        let is_steady = run >= STEADY;
        *self = Self { count: if is_steady { 0 } else { self.count + 1 }, ..Self::default() };
    }

    /// Notes a failed try, and whether it was the last that makes sense.
    fn are_hopeless(&mut self, error: &ClusterError) -> bool {
        self.count += 1;
        self.hopeless = if error.is_permanent() { self.hopeless + 1 } else { 0 };
        let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
        let reason = format!("{error}{source}");
        let gist = gist(&reason);
        if gist != self.gist {
            tracing::error!(reason, "PostgreSQL does not start, trying again");
            self.gist = gist;
        }
        self.hopeless >= HOPELESS_TRIES_MAX
    }

    /// The wait before the next try.
    fn wait(&self) -> Duration {
        match self.count.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => (RETRY * 2_u32.pow(doublings.min(DOUBLINGS_MAX))).min(RETRY_MAX),
        }
    }
}

/// A reason without its numbers, such as those of processes, which differ each time.
fn gist(reason: &str) -> String {
    reason.chars().filter(|c| !c.is_ascii_digit()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(output: &str) -> ClusterError {
        ClusterError::Program { program: "postgres", output: output.to_owned() }
    }

    #[test]
    fn the_waits_grow_to_a_limit_and_a_steady_server_is_started_at_once() {
        let mut failures = Failures::default();
        assert_eq!(failures.wait(), Duration::ZERO);
        let full = program("PANIC:  could not write to file: No space left on device");
        let waits: Vec<_> = (0..10)
            .map(|_| {
                assert!(!failures.are_hopeless(&full));
                failures.wait().as_millis()
            })
            .collect();
        assert_eq!(waits, [250, 500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000, 10_000, 10_000]);
        failures.ended_after(STEADY);
        assert_eq!(failures.wait(), Duration::ZERO);
        failures.ended_after(Duration::from_secs(1));
        assert_eq!(failures.wait(), RETRY);
    }

    #[test]
    fn tries_are_limited_only_where_they_cannot_help() {
        let mut failures = Failures::default();
        let wrong = program("FATAL:  configuration file \"/d/postgresql.conf\" contains errors");
        assert!(!failures.are_hopeless(&wrong));
        assert!(!failures.are_hopeless(&wrong));
        assert!(failures.are_hopeless(&wrong));
        for _ in 0..100 {
            assert!(
                !failures.are_hopeless(&program("FATAL:  pre-existing shared memory block is still in use"))
            );
        }
    }
}
