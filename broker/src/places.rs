//! Places of which one address may have only so many.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::guesses::Source;

/// The places that are taken, by address. Cloning shares them.
#[derive(Clone)]
pub struct Places {
    per_source_max: usize,
    taken: Arc<Mutex<HashMap<Source, usize>>>,
}

/// A place; dropping it makes room for another.
pub struct Place {
    source: Source,
    taken: Arc<Mutex<HashMap<Source, usize>>>,
}

impl Places {
    /// Places of which each address may have so many.
    #[must_use]
    pub fn new(per_source_max: usize) -> Self {
        Self { per_source_max, taken: Arc::default() }
    }

    /// Takes a place; `None` when its address has as many as it may.
    #[must_use]
    pub fn take(&self, source: Source) -> Option<Place> {
        let mut taken = lock(&self.taken);
        let count = taken.entry(source).or_default();
        if *count >= self.per_source_max {
            return None;
        }
        *count += 1;
        Some(Place { source, taken: Arc::clone(&self.taken) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        let Entry::Occupied(mut entry) = taken.entry(self.source) else { return };
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}

/// Every change to the table is complete before anything can panic.
fn lock(taken: &Mutex<HashMap<Source, usize>>) -> MutexGuard<'_, HashMap<Source, usize>> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn an_address_gets_its_places_back() {
        let [one, other] = [1, 2].map(|host| Source::of(Ipv4Addr::new(10, 0, 0, host).into()));
        let places = Places::new(2);
        let first = places.take(one);
        let second = places.take(one);
        assert!(first.is_some() && second.is_some());
        assert!(places.take(one).is_none());
        assert!(places.take(other).is_some());
        drop(first);
        assert!(places.take(one).is_some());
        drop(second);
        assert!(lock(&places.taken).is_empty(), "whoever left costs nothing");
    }
}
