//! The global credit: how many messages and bytes may be in the engine's hands at once.

use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Bytes a message costs beside its own: the places it is kept in on its way to the commit.
const OVERHEAD_BYTES: usize = 512;

/// What one message takes from the credit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    messages: u32,
    bytes: u32,
}

impl Cost {
    /// A published message of this many bytes on the wire.
    pub(crate) fn of_message(frame_bytes: usize) -> Self {
        Self { messages: 1, bytes: saturate(frame_bytes + OVERHEAD_BYTES) }
    }

    /// A last will, which is reserved as long as its connection lives and therefore counts bytes only.
    pub(crate) fn of_will(will_bytes: usize) -> Self {
        Self { messages: 0, bytes: saturate(will_bytes + OVERHEAD_BYTES) }
    }

    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            messages: self.messages.saturating_add(other.messages),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

/// The credit of all connections together. When it is spent no socket is read.
#[derive(Debug)]
pub(crate) struct Credits {
    messages: Semaphore,
    bytes: Semaphore,
}

impl Credits {
    /// A credit of so many messages and bytes; the bytes hold at least one message of the largest size.
    pub(crate) fn new(messages_max: usize, bytes_max: usize, message_bytes_max: usize) -> Arc<Self> {
        let largest = Cost::of_message(message_bytes_max + FRAME_HEADER_BYTES_MAX).bytes as usize;
        Arc::new(Self {
            messages: Semaphore::new(messages_max.clamp(1, Semaphore::MAX_PERMITS)),
            bytes: Semaphore::new(bytes_max.clamp(largest, Semaphore::MAX_PERMITS)),
        })
    }

    /// Takes the cost if all of it is free now.
    pub(crate) fn try_take(&self, cost: Cost) -> bool {
        let Ok(messages) = self.messages.try_acquire_many(cost.messages) else { return false };
        let Ok(bytes) = self.bytes.try_acquire_many(cost.bytes) else { return false };
        messages.forget();
        bytes.forget();
        true
    }

    /// Waits until the cost is free and takes it; dropping the future takes nothing.
    pub(crate) async fn take(&self, cost: Cost) {
        let messages = acquire(&self.messages, cost.messages).await;
        let bytes = acquire(&self.bytes, cost.bytes).await;
        messages.forget();
        bytes.forget();
    }

    /// The messages and bytes that are free.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn free(&self) -> (usize, usize) {
        (self.messages.available_permits(), self.bytes.available_permits())
    }

    /// Gives back what was taken.
    pub(crate) fn give_back(&self, cost: Cost) {
        self.messages.add_permits(cost.messages as usize);
        self.bytes.add_permits(cost.bytes as usize);
    }
}

/// The longest fixed header of a packet.
const FRAME_HEADER_BYTES_MAX: usize = 5;

async fn acquire(semaphore: &Semaphore, permits: u32) -> SemaphorePermit<'_> {
    semaphore.acquire_many(permits).await.expect("the credit is never closed")
}

fn saturate(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_limits_bind_and_what_is_given_back_can_be_taken_again() {
        let credits = Credits::new(2, 4096, 1024);
        let cost = Cost::of_message(1024);
        assert!(credits.try_take(cost));
        assert!(credits.try_take(cost));
        assert!(!credits.try_take(cost), "two messages are out");
        credits.give_back(cost);
        assert!(!credits.try_take(Cost::of_message(4096)), "so many bytes are not free");
        assert!(credits.try_take(cost), "a refusal took nothing");
    }

    #[test]
    fn the_credit_always_holds_one_message_of_the_largest_size() {
        assert!(Credits::new(1, 1, 1024).try_take(Cost::of_message(1024)));
    }
}
