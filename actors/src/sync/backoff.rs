//! Waits that double, with jitter: between half and the whole of min(cap, 2^(n-1)) seconds.

use std::time::Duration;

use rand::Rng;

/// The wait after the `n`th failure in a row, `n` from 1.
#[must_use]
pub fn wait(n: u32, cap: Duration) -> Duration {
    wait_by(n, cap, rand::rng().random_range(0.5..=1.0))
}

/// The same by a chance from 0.5 to 1.
#[must_use]
pub fn wait_by(n: u32, cap: Duration, chance: f64) -> Duration {
    whole(n, cap).mul_f64(chance.clamp(0.5, 1.0))
}

/// The longest that [`wait`] can be.
fn whole(n: u32, cap: Duration) -> Duration {
    let seconds = 1_u64.checked_shl(n.saturating_sub(1)).unwrap_or(u64::MAX);
    Duration::from_secs(seconds).min(cap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_never_leave_their_half() {
        let cap = Duration::from_secs(300);
        for (n, seconds) in
            [(1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (64, 300), (65, 300), (u32::MAX, 300)]
        {
            assert_eq!(whole(n, cap), Duration::from_secs(seconds), "{n}");
            for _ in 0..100 {
                let wait = wait(n, cap);
                assert!(wait >= whole(n, cap) / 2 && wait <= whole(n, cap), "{n}: {wait:?}");
            }
        }
    }
}
