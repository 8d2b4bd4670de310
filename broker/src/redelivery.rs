//! Deliveries that were handed back and wait for their next attempt.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::delivery::{Delivery, Intake};
use crate::window::{Lane, Returned, Turn, Window};

/// Wait before the second attempt; it doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
/// The longest wait between two attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// The handed-back deliveries of one source. Those of a lane set out together, in the order of their arrival, when the
/// first of them is due: none may pass it. Bounded by the source's window.
#[derive(Default)]
pub(crate) struct Redelivery {
    lanes: HashMap<Lane, Waiting>,
}

struct Waiting {
    due_at: Instant,
    returned: Vec<Returned>,
}

impl Redelivery {
    /// Takes what came back at `now`.
    pub(crate) fn put(&mut self, now: Instant, returned: impl Iterator<Item = Returned>) {
        for returned in returned {
            let due_at = now + backoff(returned.attempt);
            let waiting = self.lanes.entry(returned.lane.clone());
            let waiting = waiting.or_insert_with(|| Waiting { due_at, returned: Vec::new() });
            if waiting.returned.iter().all(|other| returned.sequence < other.sequence) {
                waiting.due_at = due_at;
            }
            waiting.returned.push(returned);
        }
    }

    /// When the next attempt is due.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        self.lanes.values().map(|waiting| waiting.due_at).min()
    }

    /// Delivers again what is due.
    pub(crate) fn deliver_due(&mut self, now: Instant, window: &Arc<Window>, intake: &dyn Intake) {
        for (lane, mut waiting) in self.lanes.extract_if(|_, waiting| waiting.due_at <= now) {
            waiting.returned.sort_unstable_by_key(|returned| returned.sequence);
            let round = window.set_out_again(&lane, &waiting.returned);
            for Returned { sequence, message, attempt, .. } in waiting.returned {
                let turn = Turn { sequence, round };
                intake.take(Delivery::from_window(message, attempt, Arc::clone(window), turn));
            }
        }
    }
}

fn backoff(attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1).min(16);
    BACKOFF_MAX.min(BACKOFF_FIRST * 2u32.pow(doublings))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use bytes::Bytes;
    use proptest::prelude::*;
    use schema::clock::Timestamp;

    use super::*;
    use crate::credits::{Cost, Purse};
    use crate::message::Message;
    use crate::window::{Answer, Echo, Slot};

    #[test]
    fn the_wait_doubles_up_to_its_limit() {
        assert_eq!(backoff(1), Duration::from_millis(20));
        assert_eq!(backoff(3), Duration::from_millis(80));
        assert_eq!(backoff(30), BACKOFF_MAX);
    }

    /// The mailboxes between a source and whoever applies its messages.
    #[derive(Default)]
    struct Mailbox(Mutex<VecDeque<Delivery>>);

    impl Intake for Mailbox {
        fn take(&self, delivery: Delivery) {
            self.0.lock().expect("nothing panics").push_back(delivery);
        }
    }

    impl Mailbox {
        fn next(&self) -> Option<Delivery> {
            self.0.lock().expect("nothing panics").pop_front()
        }
    }

    /// What happens next.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        /// The device sends.
        Arrives { device: u8 },
        /// The next message is applied.
        Applies,
        /// A bug brings the next message's actor down, and with it so many messages of its mailbox.
        Fails { behind: usize },
        /// The source looks what was settled.
        Collects,
        /// Time passes.
        Waits,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => (0u8..2).prop_map(|device| Event::Arrives { device }),
            4 => Just(Event::Applies),
            1 => (0usize..4).prop_map(|behind| Event::Fails { behind }),
            2 => Just(Event::Collects),
            2 => Just(Event::Waits),
        ]
    }

    struct Source {
        window: Arc<Window>,
        mailbox: Mailbox,
        redelivery: Redelivery,
        now: Instant,
        sent: [u8; 2],
        applied: [Vec<u8>; 2],
    }

    impl Source {
        fn new() -> Self {
            Self {
                window: Window::new(Purse::alone(1000, 1 << 20, 1024, Arc::default()), None),
                mailbox: Mailbox::default(),
                redelivery: Redelivery::default(),
                now: Instant::now(),
                sent: [0; 2],
                applied: [Vec::new(), Vec::new()],
            }
        }

        fn arrive(&mut self, device: u8) {
            let number = &mut self.sent[usize::from(device)];
            let message = Message {
                topic: format!("iot/telemetry/t/f/b/d-{device}/m").into(),
                parsed: None,
                payload: Bytes::copy_from_slice(&[device, *number]),
                qos: crate::Qos::AtLeastOnce,
                retain: false,
                received_at: self.now,
                arrived_at: Timestamp::UNIX_EPOCH,
                identity: None,
                verdict: crate::Verdict::Admitted,
            };
            *number += 1;
            let turn = self.window.open(Slot {
                answer: Answer::PubAck(1),
                cost: Cost::default(),
                echo: Echo::default(),
                is_denied: false,
                kind: None,
                received_at: self.now,
                epoch: 0,
                publisher: 0,
                _will: None,
            });
            self.mailbox.take(Delivery::from_window(message, 0, Arc::clone(&self.window), turn));
        }

        fn apply(&mut self) {
            let Some(delivery) = self.mailbox.next() else { return };
            if !delivery.is_out_of_turn() {
                self.applied[usize::from(delivery.payload[0])].push(delivery.payload[1]);
                delivery.done();
            }
        }

        fn collect(&mut self) {
            let (mut closed, mut returned) = (Vec::new(), Vec::new());
            self.window.collect(&mut closed, &mut returned);
            self.redelivery.put(self.now, returned.into_iter());
            self.redelivery.deliver_due(self.now, &self.window, &self.mailbox);
        }

        fn happens(&mut self, event: Event) {
            match event {
                Event::Arrives { device } => self.arrive(device),
                Event::Applies => self.apply(),
                Event::Fails { behind } => (0..=behind).for_each(|_| drop(self.mailbox.next())),
                Event::Collects => self.collect(),
                Event::Waits => self.now += BACKOFF_FIRST,
            }
        }
    }

    proptest! {
        #[test]
        fn the_messages_of_a_device_are_applied_in_their_order_whatever_is_handed_back(
            events in proptest::collection::vec(event(), 0..120),
        ) {
            let mut source = Source::new();
            events.into_iter().for_each(|event| source.happens(event));
            // Then nothing fails any more.
            for _ in 0..400 {
                source.collect();
                source.apply();
                source.now += BACKOFF_MAX;
            }
            let expected = source.sent.map(|count| (0..count).collect::<Vec<u8>>());
            prop_assert_eq!(&source.applied, &expected);
            prop_assert!(source.redelivery.due_at().is_none());
        }
    }
}
