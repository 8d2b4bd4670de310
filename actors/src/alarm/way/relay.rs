//! A relay on a GPIO line, with a siren or a lamp behind it: no network, no device, nothing in between.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::sleep;

use super::line::{Line, LineError, LineSettings, Lines};
use super::{Failure, Message, MessageKind, Receipt, Way, WayError};

/// How long it sounds when it is tried out.
const TRIAL: Duration = Duration::from_secs(2);
/// How long a change of a line may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A relay.
pub struct Relay {
    name: String,
    settings: LineSettings,
    lines: Arc<dyn Lines>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Held from the first word to the end of the process, since letting it go would release the relay.
    held: Option<Box<dyn Line>>,
    /// What it was told last in earnest.
    sounds: bool,
}

impl Relay {
    /// A way of this name.
    #[must_use]
    pub fn new(name: &str, settings: LineSettings, lines: Arc<dyn Lines>) -> Self {
        Self { name: name.to_owned(), settings, lines, state: Mutex::default() }
    }

    fn set(&self, is_pulled: bool) -> Result<(), WayError> {
        let mut state = self.lock();
        if state.held.is_none() {
            state.held = Some(self.lines.hold(&self.settings).map_err(|error| self.broken(&error))?);
        }
        let outcome = state.held.as_ref().map_or(Ok(()), |held| held.set(is_pulled));
        outcome.map_err(|error| {
            // A chip that came back is another one.
            state.held = None;
            self.broken(&error)
        })
    }

    fn broken(&self, error: &LineError) -> WayError {
        let advice =
            "see `gpioinfo`: the line must be there and free, and the user of the engine in the group gpio";
        WayError::new(&self.name, Failure::Broken, error, advice)
    }

    fn receipt(&self, is_pulled: bool) -> Receipt {
        let detail = format!("{} is {}", self.settings, if is_pulled { "pulled" } else { "released" });
        Receipt { way: self.name.clone(), detail, confirmed_by: None, latency_ms: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts the relay back to what it was told in earnest, also when a trial is given up.
struct Back<'a>(&'a Relay);

impl Drop for Back<'_> {
    fn drop(&mut self) {
        let sounds = self.0.lock().sounds;
        if let Err(error) = self.0.set(sounds) {
            tracing::error!(%error, "a relay stays as it was tried out");
        }
    }
}

#[async_trait]
impl Way for Relay {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "relay"
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }

    fn sounds(&self) -> bool {
        true
    }

    async fn tell(&self, message: &Message) -> Result<Receipt, WayError> {
        if message.kind == MessageKind::Trial {
            let _back = Back(self);
            self.set(true)?;
            sleep(TRIAL).await;
            return Ok(self.receipt(true));
        }
        self.lock().sounds = message.sounds;
        self.set(message.sounds)?;
        Ok(self.receipt(message.sounds))
    }

    async fn reach(&self) -> Result<String, WayError> {
        self.lines.look(&self.settings).map_err(|error| self.broken(&error))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::alarm::way::doubles::message;
    use crate::alarm::way::line::doubles::Board;

    fn relay(board: &Board) -> Relay {
        let settings = LineSettings { chip: "/dev/gpiochip0".into(), line: 17, active_low: false };
        Relay::new("horn", settings, Arc::new(board.clone()))
    }

    #[tokio::test(start_paused = true)]
    async fn it_sounds_for_as_long_as_any_alarm_waits_for_somebody() {
        let board = Board::default();
        let relay = relay(&board);
        assert_eq!(board.is_pulled(17), None, "nobody holds the line before the first word");
        let told = relay.tell(&message(MessageKind::Raised)).await.unwrap();
        assert_eq!((board.is_pulled(17), told.detail.contains("pulled")), (Some(true), true));
        let another_waits = Message { sounds: true, ..message(MessageKind::Acknowledged) };
        relay.tell(&another_waits).await.unwrap();
        assert_eq!(board.is_pulled(17), Some(true));
        relay.tell(&Message { sounds: false, ..message(MessageKind::Ended) }).await.unwrap();
        assert_eq!(board.is_pulled(17), Some(false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_ends_by_itself_and_leaves_what_stands() {
        let board = Board::default();
        let relay = relay(&board);
        let trial = message(MessageKind::Trial);
        let began_at = tokio::time::Instant::now();
        relay.tell(&trial).await.unwrap();
        assert_eq!((board.is_pulled(17), began_at.elapsed()), (Some(false), TRIAL));
        relay.tell(&message(MessageKind::Raised)).await.unwrap();
        let given_up = tokio::time::timeout(TRIAL / 2, relay.tell(&trial)).await;
        assert!(given_up.is_err());
        assert_eq!(board.is_pulled(17), Some(true), "the alarm goes on");
    }

    #[tokio::test]
    async fn a_chip_that_is_gone_is_an_error_and_one_that_came_back_is_taken_again() {
        let board = Board::default();
        let relay = relay(&board);
        relay.tell(&message(MessageKind::Raised)).await.unwrap();
        board.is_gone.store(true, Ordering::Relaxed);
        let error = relay.tell(&message(MessageKind::Raised)).await.unwrap_err();
        assert!(error.failure == Failure::Broken && error.advice.contains("gpioinfo"), "{error}");
        assert!(relay.reach().await.is_err());
        board.is_gone.store(false, Ordering::Relaxed);
        relay.tell(&message(MessageKind::Raised)).await.unwrap();
        assert_eq!(board.is_pulled(17), Some(true));
    }
}
