//! The course of a batch: sent whole, and when it is refused as a whole in halves until the event at fault stands alone.

use std::collections::HashSet;

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send the events at these positions, in this order.
    Send(Vec<usize>),
    /// Nothing is left to send.
    Done,
}

/// What the refusal of a whole request means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Smaller requests follow.
    Split,
    /// A single event was refused. Whether it or the configuration is at fault is not known: send an empty batch.
    Ask,
    /// This event is at fault.
    Event(usize),
}

/// Where a batch stands. The first half goes before the second, and when an event is refused the rest of its lane waits
/// for another batch: so each lane stays in order.
#[derive(Debug)]
pub struct Course {
    /// The lane of each event.
    lanes: Vec<String>,
    /// Parts that are still to be sent, the next one last.
    parts: Vec<Vec<usize>>,
    /// The part that was sent last.
    current: Vec<usize>,
    held: HashSet<String>,
    settled: Vec<bool>,
    takes_empty_batches: bool,
}

impl Course {
    /// The course of a batch whose events have these lanes.
    #[must_use]
    pub fn new(lanes: Vec<String>) -> Self {
        let all: Vec<usize> = (0..lanes.len()).collect();
        Self {
            settled: vec![false; lanes.len()],
            lanes,
            parts: vec![all],
            current: Vec::new(),
            held: HashSet::new(),
            takes_empty_batches: false,
        }
    }

    /// What to do next.
    pub fn next_step(&mut self) -> Step {
        while let Some(part) = self.parts.pop() {
            let part: Vec<usize> =
                part.into_iter().filter(|&i| !self.held.contains(&self.lanes[i])).collect();
            if !part.is_empty() {
                self.current.clone_from(&part);
                return Step::Send(part);
            }
        }
        Step::Done
    }

    /// The last request was taken but for the events at these positions.
    pub fn taken(&mut self, refused: &[usize]) {
        for &i in &self.current {
            self.settled[i] = true;
        }
        for &i in refused {
            self.held.insert(self.lanes[i].clone());
        }
    }

    /// The last request was refused as a whole.
    pub fn refused(&mut self) -> Refusal {
        if self.current.len() > 1 {
            let second = self.current.split_off(self.current.len() / 2);
            self.parts.push(second);
            self.parts.push(std::mem::take(&mut self.current));
            return Refusal::Split;
        }
        let suspect = self.current[0];
        if !self.takes_empty_batches {
            return Refusal::Ask;
        }
        self.taken(&[suspect]);
        Refusal::Event(suspect)
    }

    /// The cloud takes an empty batch, so the event is at fault; it is not asked again for this batch.
    pub fn empty_batch_taken(&mut self) {
        self.takes_empty_batches = true;
    }

    /// Whether nothing is left to send.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.parts.iter().flatten().all(|&i| self.held.contains(&self.lanes[i]))
    }

    /// The events nobody has answered for.
    #[must_use]
    pub fn unsettled(&self) -> Vec<usize> {
        (0..self.lanes.len()).filter(|&i| !self.settled[i]).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sends a batch to a cloud that refuses requests with one of these events. Returns what it took, in order, what
    /// was found to be at fault, and the number of requests.
    fn run(lanes: &[u8], poison: &HashSet<usize>) -> (Vec<usize>, Vec<usize>, usize, Course) {
        let mut course = Course::new(lanes.iter().map(u8::to_string).collect());
        let (mut taken, mut at_fault, mut requests) = (Vec::new(), Vec::new(), 0);
        while let Step::Send(part) = course.next_step() {
            requests += 1;
            if !part.iter().any(|i| poison.contains(i)) {
                taken.extend(part);
                course.taken(&[]);
                continue;
            }
            let mut refusal = course.refused();
            if refusal == Refusal::Ask {
                requests += 1;
                course.empty_batch_taken();
                refusal = course.refused();
            }
            if let Refusal::Event(i) = refusal {
                at_fault.push(i);
            }
        }
        (taken, at_fault, requests, course)
    }

    #[test]
    fn a_batch_without_fault_is_one_request() {
        let (taken, at_fault, requests, course) = run(&[1, 2, 1], &HashSet::new());
        assert_eq!((taken, at_fault, requests), (vec![0, 1, 2], vec![], 1));
        assert!(course.is_done() && course.unsettled().is_empty());
    }

    #[test]
    fn one_fault_among_512_is_found_in_few_requests_and_asked_about_once() {
        let lanes: Vec<u8> = (0..512).map(|i| u8::try_from(i % 256).unwrap()).collect();
        let (taken, at_fault, requests, course) = run(&lanes, &HashSet::from([200, 300]));
        assert_eq!(at_fault, [200, 300]);
        assert_eq!(taken.len(), 512 - 2 - 1, "the one event behind a fault waits");
        assert_eq!(course.unsettled(), [456]);
        assert!(requests < 50, "{requests}");
    }

    proptest! {
        #[test]
        fn lanes_stay_in_order_and_nothing_is_lost(
            lanes in prop::collection::vec(0..5_u8, 1..80),
            poison in prop::collection::hash_set(0..80_usize, 0..6),
        ) {
            let (taken, at_fault, _, course) = run(&lanes, &poison);
            prop_assert!(at_fault.iter().all(|i| poison.contains(i)));
            prop_assert!(course.is_done());
            for (i, lane) in lanes.iter().enumerate() {
                let is_behind_fault = (0..i).any(|j| poison.contains(&j) && lanes[j] == *lane);
                prop_assert_eq!(taken.contains(&i), !poison.contains(&i) && !is_behind_fault);
                prop_assert_eq!(at_fault.contains(&i), poison.contains(&i) && !is_behind_fault);
                prop_assert_eq!(course.unsettled().contains(&i), is_behind_fault);
            }
            for lane in 0..5 {
                let positions: Vec<usize> = taken.iter().copied().filter(|&i| lanes[i] == lane).collect();
                prop_assert!(positions.is_sorted());
            }
        }
    }
}
