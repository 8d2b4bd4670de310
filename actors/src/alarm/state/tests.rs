//! One alarm second by second, and random ones beside the table.

use chrono::DateTime;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const LIMIT: Limit = Limit { side: Side::Above, value: 32.0, hysteresis: 0.5 };
const TIMING: Timing = Timing { on_seconds: 60, off_seconds: 300, is_latching: false };
const AT_ONCE: Timing = Timing { on_seconds: 0, off_seconds: 0, is_latching: false };

fn at(second: i64) -> Timestamp {
    DateTime::from_timestamp(1_790_000_000 + second, 0).unwrap()
}

fn reading(value: f64, second: i64) -> Event {
    Event::Reading(LIMIT.place(value).expect("a number"), at(second))
}

enum Step {
    Reads(f64),
    Is(Event),
}

#[test]
fn an_alarm_goes_its_way_second_by_second() {
    use State::{Acked, Norm, Rtnun, Shlvd, Unack};
    let mut alarm = Alarm::default();
    for (second, event, state) in [
        (0, Step::Reads(31.0), Norm),
        (60, Step::Reads(32.3), Norm),
        (90, Step::Reads(32.4), Norm),
        (120, Step::Reads(32.4), Unack),
        (180, Step::Reads(31.8), Unack),
        (240, Step::Reads(31.4), Unack),
        (300, Step::Reads(31.6), Unack),
        (330, Step::Is(Event::Acknowledge), Acked),
        (360, Step::Reads(31.2), Acked),
        (420, Step::Reads(31.2), Acked),
        (600, Step::Reads(31.0), Acked),
        (660, Step::Reads(31.0), Norm),
        (720, Step::Reads(32.5), Norm),
        (750, Step::Reads(31.9), Norm),
        (810, Step::Reads(32.6), Norm),
        (870, Step::Reads(32.7), Unack),
        (900, Step::Reads(31.0), Unack),
        (1200, Step::Reads(31.0), Rtnun),
        (1260, Step::Is(Event::Acknowledge), Norm),
        (1320, Step::Reads(33.0), Norm),
        (1380, Step::Reads(33.0), Unack),
        (1400, Step::Is(Event::Shelve(at(2000))), Shlvd),
        (1460, Step::Reads(33.1), Shlvd),
        (1640, Step::Reads(33.1), Shlvd),
        (2000, Step::Reads(33.1), Unack),
        (2060, Step::Reads(33.2), Unack),
        (2960, Step::Reads(30.0), Unack),
        (3140, Step::Reads(30.0), Unack),
        (3260, Step::Reads(30.0), Rtnun),
    ] {
        let event = match event {
            Step::Reads(value) => reading(value, second),
            Step::Is(event) => event,
        };
        alarm = alarm.decide(&TIMING, event, at(second));
        assert_eq!(alarm.state(), state, "at second {second}");
    }
    assert_eq!(alarm.occurrence, 3);
}

#[test]
fn a_replayed_buffer_raises_nothing() {
    let mut alarm = Alarm::default().decide(&TIMING, reading(31.0, 10_000), at(10_000));
    for second in [0, 60, 120, 9999] {
        alarm = alarm.decide(&TIMING, reading(40.0, second), at(10_000 + second));
        assert_eq!(alarm.state(), State::Norm);
    }
    assert_eq!(alarm.turning_since, None);
}

#[test]
fn time_alone_raises_what_a_reading_has_begun_whatever_the_devices_clock_says() {
    for device_second in [0, -25_200, 25_200] {
        let alarm = Alarm::default().decide(&TIMING, reading(33.0, device_second), at(0));
        assert_eq!(alarm.decide(&TIMING, Event::Tick, at(59)).state(), State::Norm);
        assert_eq!(alarm.decide(&TIMING, Event::Tick, at(60)).state(), State::Unack);
    }
}

#[test]
fn nothing_turns_while_a_sensor_is_silent_and_its_next_word_says_how_long_it_was_so() {
    let alarm = Alarm::default().decide(&TIMING, reading(33.0, 0), at(0));
    let alarm = alarm.decide(&TIMING, Event::Silence, at(600));
    assert_eq!(alarm.state(), State::Norm);
    assert_eq!(alarm.decide(&TIMING, reading(33.0, 600), at(600)).state(), State::Unack);
    assert_eq!(alarm.decide(&TIMING, reading(31.0, 600), at(600)).state(), State::Norm);
}

#[test]
fn what_is_active_comes_back_unacknowledged() {
    let active = Alarm { is_active: true, occurrence: 7, ..Alarm::default() };
    assert_eq!(active.state(), State::Acked);
    for (begin, end) in [
        (Event::Suppress(true), Event::Suppress(false)),
        (Event::OutOfService(true), Event::OutOfService(false)),
        (Event::Shelve(at(100)), Event::Unshelve),
        (Event::Tick, Event::Restart),
    ] {
        let hidden = active.decide(&TIMING, begin, at(0));
        let back = hidden.decide(&TIMING, end, at(1));
        assert_eq!((back.state(), back.occurrence, back.rounds), (State::Unack, 7, 1), "{begin:?}");
    }
    let normal = Alarm::default().decide(&TIMING, Event::Restart, at(0));
    assert_eq!(normal.state(), State::Norm);
    let rings = Alarm { is_unacknowledged: true, rounds: 3, ..active };
    assert_eq!(rings.decide(&TIMING, Event::Restart, at(0)).rounds, 3, "it goes on from where it was");
}

#[test]
fn only_what_rings_or_rang_is_put_aside_and_never_for_ever() {
    let normal = Alarm::default().decide(&TIMING, Event::Shelve(at(100)), at(0));
    assert_eq!(normal.state(), State::Norm);
    let past = Alarm { is_active: true, ..Alarm::default() }.decide(&TIMING, Event::Shelve(at(0)), at(1));
    assert_eq!(past.state(), State::Acked);
    let seen = Alarm { is_unacknowledged: true, ..Alarm::default() };
    let shelved = seen.decide(&TIMING, Event::Shelve(at(100)), at(0));
    assert_eq!(shelved.state(), State::Shlvd);
    assert_eq!(shelved.decide(&TIMING, Event::Tick, at(100)).state(), State::Rtnun);
}

#[test]
fn cold_is_the_other_side() {
    let limit = Limit { side: Side::Below, ..LIMIT };
    for (value, place) in
        [(31.9, Place::Outside), (32.0, Place::Between), (32.5, Place::Between), (32.6, Place::Inside)]
    {
        assert_eq!(limit.place(value), Some(place), "{value}");
    }
    assert_eq!(limit.place(f64::NAN), None);
}

#[test]
fn a_latched_alarm_stays_until_somebody_has_seen_that_it_is_over() {
    let timing = Timing { is_latching: true, ..AT_ONCE };
    let alarm = Alarm::default().decide(&timing, Event::Reading(Place::Outside, at(0)), at(0));
    let known = alarm.decide(&timing, Event::Acknowledge, at(1));
    assert_eq!(known.state(), State::Acked);
    let over = known.decide(&timing, Event::Reading(Place::Inside, at(2)), at(2));
    assert_eq!(over.state(), State::Acked);
    assert_eq!(over.decide(&timing, Event::Acknowledge, at(3)).state(), State::Norm);
    let unseen = alarm.decide(&timing, Event::Reading(Place::Inside, at(2)), at(2));
    assert_eq!(unseen.state(), State::Unack);
    assert_eq!(unseen.decide(&timing, Event::Acknowledge, at(3)).state(), State::Norm);
}

#[test]
fn chatter_lengthens_the_time_to_the_end() {
    let timing = Timing { on_seconds: 0, off_seconds: 10, is_latching: false };
    let mut alarm = Alarm::default();
    for raise in 0..3 {
        let second = raise * 100;
        assert!(!alarm.is_chattering(at(second)), "before raise {raise}");
        alarm = alarm.decide(&timing, reading(33.0, second), at(second));
        if raise < 2 {
            alarm = alarm.decide(&timing, reading(31.0, second + 1), at(second + 1));
            alarm = alarm.decide(&timing, Event::Tick, at(second + 11));
            assert!(!alarm.is_active);
        }
    }
    assert!(alarm.is_chattering(at(200)) && !alarm.is_chattering(at(200 + 3600)));
    let ending = alarm.decide(&timing, reading(31.0, 201), at(201));
    assert!(ending.decide(&timing, Event::Tick, at(240)).is_active);
    assert!(!ending.decide(&timing, Event::Tick, at(241)).is_active);
}

/// The table as the standard prints it: a state, an event, the next state. The reference knows readings only as what they
/// amount to.
fn reference(state: State, event: Reference) -> State {
    use Reference::{Acknowledge, Restart, StandsFor, WentFor};
    use State::{Acked, Norm, Rtnun, Unack};
    match (state, event) {
        (Norm | Rtnun, StandsFor) => Unack,
        (Unack, WentFor) => Rtnun,
        (Acked, WentFor) | (Rtnun, Acknowledge) => Norm,
        (Unack, Acknowledge) => Acked,
        (Acked, Restart) => Unack,
        (state, _) => state,
    }
}

#[derive(Debug, Clone, Copy)]
enum Reference {
    StandsFor,
    WentFor,
    Acknowledge,
    Restart,
}

#[test]
fn a_thousand_random_lives_are_those_of_the_table() {
    for seed in 0..1000 {
        let mut random = StdRng::seed_from_u64(seed);
        let (mut alarm, mut state) = (Alarm::default(), State::Norm);
        let mut second = 0;
        for step in 0..100 {
            second += random.random_range(0..10);
            let (event, reference_event) = match random.random_range(0..5) {
                0 => (reading(33.0, second), Some(Reference::StandsFor)),
                1 => (reading(31.0, second), Some(Reference::WentFor)),
                2 => (reading(31.7, second), None),
                3 => (Event::Acknowledge, Some(Reference::Acknowledge)),
                _ => (Event::Restart, Some(Reference::Restart)),
            };
            alarm = alarm.decide(&AT_ONCE, event, at(second));
            if let Some(event) = reference_event {
                state = reference(state, event);
            }
            assert_eq!(alarm.state(), state, "seed {seed}, step {step}, {event:?}");
        }
    }
}
