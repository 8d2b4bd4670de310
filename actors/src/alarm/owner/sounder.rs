//! What makes noise or light: whether it is to, and what is still to be said to it.
//!
//! It sounds as long as an alarm that was told by it waits for somebody. A command that did not get there is given again,
//! so that a siren which was away learns what is to be done, and a word to be silent is never lost with a connection.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::alarm::way::Message;

/// The wait before a command that did not get there is given again.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Calls that wait for what sounds; beyond them the oldest is given up, since the newest is the whole order.
const WAITING_MAX: usize = 4;

/// One way that sounds.
#[derive(Debug, Default)]
pub(super) struct Sounder {
    /// What is to be said next: calls, or one word to be silent.
    next: VecDeque<Message>,
    /// What is said just now.
    saying: Option<Message>,
    /// Whether it is to sound, as far as it was told.
    is_told_to_sound: Option<bool>,
    failed_at: Option<Instant>,
}

impl Sounder {
    /// Says something to it. A word to be silent takes the place of calls that were not made yet, and a call that of a word to
    /// be silent.
    pub(super) fn say(&mut self, message: Message) {
        self.failed_at = None;
        self.next.retain(|waiting| waiting.sounds && message.sounds);
        if self.next.len() == WAITING_MAX {
            self.next.pop_front();
        }
        self.next.push_back(message);
    }

    /// Whether the last word to it, said or not, makes it sound; `None` when nothing was said yet.
    pub(super) fn is_to_sound(&self) -> Option<bool> {
        let last = self.next.back().or(self.saying.as_ref());
        last.map(|message| message.sounds).or(self.is_told_to_sound)
    }

    /// What is to be said now, if nothing else is being said.
    pub(super) fn take(&mut self, now: Instant) -> Option<Message> {
        let waits = self.failed_at.is_some_and(|at| now.duration_since(at) < AGAIN_AFTER);
        if self.saying.is_some() || waits {
            return None;
        }
        self.saying = self.next.pop_front();
        self.saying.clone()
    }

    /// It was said, or did not get there.
    pub(super) fn said(&mut self, has_arrived: bool, now: Instant) {
        let Some(message) = self.saying.take() else { return };
        if has_arrived {
            (self.is_told_to_sound, self.failed_at) = (Some(message.sounds), None);
        } else {
            self.failed_at = Some(now);
            if self.next.is_empty() {
                self.next.push_back(message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarm::way::MessageKind;
    use crate::alarm::way::doubles::message;

    #[test]
    fn a_command_that_did_not_arrive_is_given_again_until_it_does_or_is_replaced() {
        let (mut sounder, began_at) = (Sounder::default(), Instant::now());
        assert_eq!((sounder.is_to_sound(), sounder.take(began_at)), (None, None));
        sounder.say(message(MessageKind::Raised));
        assert_eq!(sounder.take(began_at).unwrap().kind, MessageKind::Raised);
        assert_eq!(sounder.take(began_at), None, "one at a time");
        sounder.said(false, began_at);
        assert_eq!((sounder.is_to_sound(), sounder.take(began_at)), (Some(true), None));
        let later = began_at + AGAIN_AFTER;
        assert_eq!(sounder.take(later).unwrap().kind, MessageKind::Raised);
        let silence = Message { sounds: false, ..message(MessageKind::Acknowledged) };
        sounder.say(silence.clone());
        sounder.said(false, later);
        assert_eq!(sounder.is_to_sound(), Some(false), "what is newer goes before what failed");
        assert_eq!(sounder.take(later + AGAIN_AFTER), Some(silence));
        sounder.said(true, later);
        assert_eq!((sounder.is_to_sound(), sounder.take(later)), (Some(false), None));
    }
}
