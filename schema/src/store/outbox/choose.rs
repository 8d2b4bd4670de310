//! Which of the waiting rows go into the next batch: a pure decision over the rows at the head of some lane groups.

use std::collections::HashMap;

use chrono::Duration;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::clock::deadline::is_due;
use crate::wire::event::SESSION_CREATED;

/// What a row is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Waits to be sent.
    Waiting,
    /// Claimed or sent, by this engine or another one.
    InFlight,
    /// Somebody holds it locked and may be about to change it.
    Locked,
}

/// A row at the head of its lane group, without its payload.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Row id.
    pub id: Uuid,
    /// Where the row version lies in the table: finds it again without a random-keyed index.
    pub place: String,
    /// Claims so far: the fence.
    pub attempt_count: i32,
    /// Rejections so far.
    pub reject_count: i32,
    /// Its group of lanes.
    pub lane_group: i16,
    /// Its lane.
    pub lane: String,
    /// Event type.
    pub event_type: String,
    /// What it is doing.
    pub stage: Stage,
    /// When a rejected row may go again.
    pub next_attempt_at: Timestamp,
    /// Who claimed it last.
    pub claimed_by: Option<String>,
    /// Until when nobody else may have it.
    pub lease_expires_at: Option<Timestamp>,
    /// About the size of its payload.
    pub payload_bytes: usize,
    /// Ends or amends a session whose `session.created` is not acknowledged yet.
    pub is_barred: bool,
}

/// Against what rows are chosen.
#[derive(Clone, Copy, Debug)]
pub struct Limits<'a> {
    /// The time of the claim.
    pub now: Timestamp,
    /// The claiming engine: what it had claimed itself in a group that is free again was left by a crash.
    pub claimed_by: &'a str,
    /// Events of a batch at most.
    pub events_max: usize,
    /// Bytes of a batch at most; one larger event travels alone.
    pub bytes_max: usize,
    /// The longest that a lease lasts.
    pub lease_max: Duration,
    /// The longest that a row waits after a rejection.
    pub wait_max: Duration,
}

/// How far a lane may still go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// A row of it is unsettled and stays where it is: nothing behind it may go.
    Everything,
    /// A row waits for its session's `session.created`, which alone may pass it, or neither would ever go.
    AllButCreated,
}

/// Returns the positions of the rows to send, in order. `candidates` come in the order of sending.
///
/// A row goes only when every earlier row of its lane among the candidates goes as well, before it. Rows that were
/// rejected before travel among themselves: the cloud counts duplicates but does not name them, and a duplicate after
/// a rejection must be told.
#[must_use]
pub fn choose(candidates: &[Candidate], limits: &Limits<'_>) -> Vec<usize> {
    let mut holds: HashMap<&str, Hold> = HashMap::new();
    let mut chosen = Vec::new();
    let mut bytes = 0;
    let mut is_rejected_batch = None;
    for (i, row) in candidates.iter().enumerate() {
        if chosen.len() == limits.events_max {
            break;
        }
        let passes = match holds.get(row.lane.as_str()) {
            None => true,
            Some(Hold::AllButCreated) => row.event_type == SESSION_CREATED,
            Some(Hold::Everything) => false,
        };
        if !passes {
            continue;
        }
        let is_other_kind = is_rejected_batch.is_some_and(|kind| kind != (row.reject_count > 0));
        if is_other_kind || !is_free(row, limits) {
            holds.insert(&row.lane, Hold::Everything);
            continue;
        }
        if row.is_barred {
            holds.insert(&row.lane, Hold::AllButCreated);
            continue;
        }
        if !chosen.is_empty() && bytes + row.payload_bytes > limits.bytes_max {
            break;
        }
        bytes += row.payload_bytes;
        is_rejected_batch = Some(row.reject_count > 0);
        chosen.push(i);
    }
    chosen
}

/// Whether a row may be claimed as far as it alone is concerned. Only a rejection makes a row wait for its own time:
/// `next_attempt_at` of any other row may come from another machine's clock.
fn is_free(row: &Candidate, limits: &Limits<'_>) -> bool {
    match row.stage {
        Stage::Waiting => row.reject_count == 0 || is_due(row.next_attempt_at, limits.now, limits.wait_max),
        Stage::InFlight => {
            let is_mine = row.claimed_by.as_deref() == Some(limits.claimed_by);
            let is_over = |expires_at| is_due(expires_at, limits.now, limits.lease_max);
            is_mine || row.lease_expires_at.is_none_or(is_over)
        }
        Stage::Locked => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;
    const LIMITS: Limits<'static> = Limits {
        now: NOW,
        claimed_by: "me",
        events_max: 500,
        bytes_max: 1_000,
        lease_max: Duration::seconds(300),
        wait_max: Duration::seconds(300),
    };

    fn row(lane: &str) -> Candidate {
        Candidate {
            id: Uuid::new_v4(),
            place: "(0,1)".to_owned(),
            attempt_count: 0,
            reject_count: 0,
            lane_group: 0,
            lane: lane.to_owned(),
            event_type: "telemetry.ingested".to_owned(),
            stage: Stage::Waiting,
            next_attempt_at: NOW,
            claimed_by: None,
            lease_expires_at: None,
            payload_bytes: 10,
            is_barred: false,
        }
    }

    fn rejected(lane: &str, due_in_seconds: i64) -> Candidate {
        Candidate { reject_count: 1, next_attempt_at: NOW + Duration::seconds(due_in_seconds), ..row(lane) }
    }

    fn in_flight(lane: &str, by: &str, lease_seconds: i64) -> Candidate {
        let lease_expires_at = Some(NOW + Duration::seconds(lease_seconds));
        Candidate { stage: Stage::InFlight, claimed_by: Some(by.to_owned()), lease_expires_at, ..row(lane) }
    }

    fn check(candidates: &[Candidate], expected: &[usize]) {
        assert_eq!(choose(candidates, &LIMITS), expected, "{candidates:#?}");
    }

    #[test]
    fn rows_go_in_their_order() {
        check(&[row("a"), row("b"), row("a")], &[0, 1, 2]);
        check(&[], &[]);
    }

    #[test]
    fn a_lane_waits_behind_a_row_that_waits() {
        check(&[rejected("a", 5), row("a"), row("b")], &[2]);
        check(&[in_flight("a", "other", 5), row("a"), row("b")], &[2]);
    }

    #[test]
    fn a_lease_that_ran_out_or_was_mine_is_taken_again() {
        check(&[in_flight("a", "other", 0), row("a")], &[0, 1]);
        check(&[in_flight("a", "me", 300), row("a")], &[0, 1]);
        check(&[Candidate { lease_expires_at: None, ..in_flight("a", "other", 0) }], &[0]);
    }

    #[test]
    fn a_wait_or_a_lease_that_nobody_can_have_set_holds_nothing() {
        const YEAR: i64 = 31_536_000;
        check(&[rejected("a", YEAR), row("b")], &[0]);
        check(&[in_flight("a", "other", YEAR), row("a")], &[0, 1]);
        check(&[Candidate { stage: Stage::Locked, ..row("a") }, row("a"), row("b")], &[2]);
    }

    #[test]
    fn the_time_of_a_row_that_was_never_rejected_is_ignored() {
        check(&[Candidate { next_attempt_at: NOW + Duration::days(1), ..row("a") }], &[0]);
    }

    #[test]
    fn rejected_rows_travel_among_themselves() {
        check(&[rejected("a", 0), row("a"), row("b"), rejected("c", -1)], &[0, 3]);
        check(&[row("a"), rejected("b", 0), row("b"), row("a")], &[0, 3]);
    }

    #[test]
    fn what_ends_a_session_waits_for_its_creation_and_does_not_stop_it() {
        let barred = Candidate { is_barred: true, ..row("s") };
        let created = Candidate { event_type: SESSION_CREATED.to_owned(), ..row("s") };
        check(&[created.clone(), row("s"), barred.clone(), row("s")], &[0, 1]);
        check(&[barred, row("s"), created, row("x")], &[2, 3]);
    }

    #[test]
    fn a_batch_ends_at_its_bytes_but_a_large_row_travels_alone() {
        let large = Candidate { payload_bytes: 5_000, ..row("a") };
        check(&[large.clone(), row("b")], &[0]);
        check(&[row("b"), large, row("c")], &[0]);
        let half = Candidate { payload_bytes: 500, ..row("a") };
        check(&[half.clone(), half.clone(), half], &[0, 1]);
    }

    fn any_row() -> impl Strategy<Value = Candidate> {
        let kinds = prop_oneof![
            6 => Just(row("")), 1 => Just(rejected("", 5)), 1 => Just(rejected("", -5)),
            1 => Just(in_flight("", "other", 5)), 1 => Just(in_flight("", "other", -5)),
            1 => Just(in_flight("", "me", 5)),
        ];
        (kinds, 0..6_u8, 1..400_usize).prop_map(|(kind, lane, payload_bytes)| Candidate {
            lane: lane.to_string(),
            payload_bytes,
            ..kind
        })
    }

    proptest! {
        #[test]
        fn in_every_lane_the_chosen_rows_are_the_first_ones(rows in prop::collection::vec(any_row(), 0..60), events_max in 1..20_usize) {
            let limits = Limits { events_max, ..LIMITS };
            let chosen = choose(&rows, &limits);
            prop_assert!(chosen.len() <= events_max);
            prop_assert!(chosen.is_sorted());
            let bytes: usize = chosen.iter().map(|&i| rows[i].payload_bytes).sum();
            prop_assert!(bytes <= limits.bytes_max || chosen.len() == 1);
            let set: HashSet<usize> = chosen.iter().copied().collect();
            for (i, row) in rows.iter().enumerate() {
                let is_behind_unchosen = (0..i).any(|j| rows[j].lane == row.lane && !set.contains(&j));
                prop_assert!(!(set.contains(&i) && (is_behind_unchosen || !is_free(row, &limits))));
            }
            let has_a_free_head = rows.iter().enumerate()
                .any(|(i, row)| is_free(row, &limits) && !rows[..i].iter().any(|earlier| earlier.lane == row.lane));
            prop_assert_eq!(!chosen.is_empty(), has_a_free_head);
        }
    }
}
