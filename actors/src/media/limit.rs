//! How many upload URLs a device gets.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// Devices that are remembered at most; beyond that, those whose buckets are full again are forgotten.
const DEVICES_MAX: usize = 20_000;

/// A token bucket per device: so many at once, refilled within a minute.
pub struct OfferLimit(DefaultKeyedRateLimiter<(String, String)>);

impl OfferLimit {
    /// A limit of so many URLs per device and minute.
    #[must_use]
    pub fn new(per_minute: NonZeroU32) -> Self {
        Self(RateLimiter::keyed(Quota::per_minute(per_minute)))
    }

    /// Takes one from the bucket of a device that the allowlist knows.
    ///
    /// # Errors
    /// How long to wait when it is empty.
    pub fn take(&self, tenant_id: &str, device_id: &str) -> Result<(), Duration> {
        if self.0.len() >= DEVICES_MAX {
            self.0.retain_recent();
        }
        let key = (tenant_id.to_owned(), device_id.to_owned());
        self.0.check_key(&key).map_err(|early| early.wait_time_from(DefaultClock::default().now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_asks_too_often_waits_and_others_do_not() {
        let limit = OfferLimit::new(NonZeroU32::new(10).expect("not zero"));
        for _ in 0..10 {
            limit.take("t", "d").expect("ten at once");
        }
        let wait = limit.take("t", "d").expect_err("the bucket is empty");
        assert!(wait <= Duration::from_secs(6), "{wait:?}");
        limit.take("t", "other").expect("a bucket of its own");
        limit.take("other", "d").expect("a bucket of its own");
    }
}
