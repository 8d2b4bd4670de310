//! The watch over the wall clock: tells its steps, and keeps what is known of the time.

use std::time::Duration;

use schema::clock::believable::Unbelievable;
use schema::clock::watch::{ClockWatch, Known, Step};
use schema::metrics;
use schema::store::{Store, StoreError, clock};
use tokio::time::Instant;

use crate::chore::Chore;

/// How often the clocks are compared.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often what is known of the time is kept: a kill costs as much of it.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// The chore.
#[derive(Clone)]
pub struct ClockKeeper {
    /// The database.
    pub store: Store,
    /// The clock and what is known of it.
    pub watch: ClockWatch,
    /// Steps that were told.
    steps: usize,
    /// Whether there was a step since what is known was kept.
    has_news: bool,
    /// When that was kept last.
    kept_at: Option<Instant>,
    /// Why the clock was not believed at the last look.
    doubt: Option<Unbelievable>,
}

impl ClockKeeper {
    /// A keeper that has kept nothing yet.
    #[must_use]
    pub fn new(store: Store, watch: ClockWatch) -> Self {
        Self { store, watch, steps: 0, has_news: false, kept_at: None, doubt: None }
    }
}

impl Chore for ClockKeeper {
    const NAME: &'static str = "clock";
    type Error = StoreError;

    async fn run(&mut self) -> Result<Duration, StoreError> {
        let steps = self.watch.steps_after(self.steps);
        self.steps += steps.len();
        for step in &steps {
            tell_step(step);
        }
        self.has_news |= !steps.is_empty();
        ask(&self.store, &self.watch).await?;
        self.tell_doubt();
        let is_due = self.kept_at.is_none_or(|at| at.elapsed() >= KEEP_EVERY);
        if (is_due || self.has_news)
            && let Some(known) = self.watch.known()
        {
            self.keep(known).await?;
        }
        Ok(LOOK_EVERY)
    }
}

impl ClockKeeper {
    async fn keep(&mut self, known: Known) -> Result<(), StoreError> {
        self.store.run("clock_keep", async |conn| clock::keep(conn, known).await).await?;
        (self.kept_at, self.has_news) = (Some(Instant::now()), false);
        Ok(())
    }

    /// Says once that the clock is not believed, and once that it is again.
    fn tell_doubt(&mut self) {
        let doubt = self.watch.judge(None).err();
        match (&self.doubt, &doubt) {
            (None, Some(doubt)) => {
                tracing::warn!(reason = %doubt, "nothing that waits is given up while the clock is not believed");
            }
            (Some(_), None) => tracing::info!("the clock is believed"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        self.doubt = doubt;
    }
}

/// Tells the watch, once, what the database knows of the time.
///
/// # Errors
/// When the database fails.
pub(crate) async fn ask(store: &Store, watch: &ClockWatch) -> Result<(), StoreError> {
    if watch.known().is_some() {
        return Ok(());
    }
    let now = watch.now();
    watch.remember(store.run("clock_known", async |conn| clock::known(conn, now).await).await?);
    Ok(())
}

fn tell_step(step: &Step) {
    let by_ms = step.by().num_milliseconds();
    let direction = if by_ms < 0 { "back" } else { "ahead" };
    metrics::engine_clock_steps(direction).increment(1);
    let (from, to) = (step.from.to_rfc3339(), step.to.to_rfc3339());
    tracing::warn!(direction, by_ms, from, to, "the clock was set");
}
