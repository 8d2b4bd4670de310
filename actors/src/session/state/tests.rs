//! The rules of a session, row by row of their table, and in every order.

use std::collections::{BTreeSet, HashSet};

use chrono::{DateTime, TimeDelta};
use proptest::prelude::*;

use super::*;

fn at(seconds: i64) -> Timestamp {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
}

/// A session's rows in memory, changed by decisions alone.
#[derive(Default)]
struct Rows {
    session: Option<Session>,
    weights: Vec<Weight>,
    images: Vec<Image>,
    parked: Vec<Parked>,
    letters: Vec<Letter>,
    events: Vec<NewEvent>,
    marks: HashSet<String>,
    decisions: u128,
    /// Weights that may wait; `None` means any number.
    waiting_max: Option<usize>,
}

impl Rows {
    fn state(&self, order: &Order) -> State {
        let weights = |is_bound: bool| {
            let mut weights: Vec<_> =
                self.weights.iter().filter(|weight| weight.is_bound == is_bound).cloned().collect();
            weights.sort_by_key(|weight| (weight.occurred_at, weight.id));
            weights
        };
        let bound = weights(true);
        let outer_weights =
            bound.first().zip(bound.last()).map(|(first, last)| [first.clone(), last.clone()]);
        let media = order.command.media_object_id();
        let is_known = self.weights.iter().any(|weight| weight.event_id == order.event_id)
            || self
                .images
                .iter()
                .any(|image| image.event_id == order.event_id || Some(&*image.media_object_id) == media);
        let waiting = Waiting {
            weights: weights(false),
            images: self.images.iter().filter(|image| !image.is_bound).cloned().collect(),
            parked: self.parked.clone(),
            result_id: None,
        };
        let is_crowded = waiting.weights.len() >= self.waiting_max.unwrap_or(usize::MAX);
        State { session: self.session.clone(), outer_weights, is_known, is_crowded, waiting }
    }

    fn apply(&mut self, order: &Order) -> Result<(), Reason> {
        if self.marks.contains(&order.event_id) {
            return Ok(());
        }
        self.decisions += 1;
        let at = At {
            now: order.received_at,
            row_id: Uuid::from_u128(self.decisions),
            finalize_wait: Duration::hours(24),
        };
        let changes = decide(&self.state(order), order, at).map_err(|reject| reject.reason)?;
        if !order.event_id.is_empty() {
            self.marks.insert(order.event_id.clone());
        }
        self.weights.extend(changes.weight);
        self.images.extend(changes.image);
        if changes.is_binding {
            self.weights.retain(|weight| !changes.foreign.contains(&weight.id));
            self.images.retain(|image| !changes.foreign.contains(&image.id));
            self.weights.iter_mut().for_each(|weight| weight.is_bound = true);
            self.images.iter_mut().for_each(|image| image.is_bound = true);
        }
        self.session = changes.session.or(self.session.take());
        self.parked.extend(changes.park);
        self.parked.retain(|parked| !changes.unpark.contains(&parked.event_id));
        if let Some(until) = changes.abandon_until {
            self.weights.retain(|weight| weight.is_bound || weight.created_at > until);
            self.images.retain(|image| image.is_bound || image.created_at > until);
        }
        self.letters.extend(changes.letters);
        self.events.extend(changes.events);
        Ok(())
    }

    fn of(orders: &[Order]) -> Self {
        let mut rows = Self::default();
        orders.iter().for_each(|order| rows.apply(order).expect("no order is refused"));
        rows
    }

    fn types(&self) -> Vec<&'static str> {
        self.events.iter().map(|event| event.event_type).collect()
    }

    fn session(&self) -> &Session {
        self.session.as_ref().expect("the session is there")
    }
}

fn order(event_id: &str, station: Option<&str>, seconds: i64, command: Command) -> Order {
    Order {
        event_id: event_id.to_owned(),
        station_id: station.map(str::to_owned),
        occurred_at: at(seconds),
        trace_id: "tr".to_owned(),
        ..Order::own("t", "s", command, at(1000))
    }
}

fn create_at(station: &str, event_id: &str) -> Order {
    let command = Command::Create {
        farm_id: "f".into(),
        barn_id: "b".into(),
        device_id: "d".into(),
        station_id: station.into(),
        batch_id: None,
    };
    order(event_id, Some(station), 100, command)
}

fn create() -> Order {
    create_at("st-1", "e-create")
}

fn weigh(event_id: &str, weight_kg: f64, seconds: i64) -> Order {
    order(event_id, Some("st-1"), seconds, Command::Weight { weight_kg })
}

fn picture(event_id: &str, media: &str) -> Order {
    let command = Command::Image { media_object_id: media.into(), image_role: None, sha256: None };
    order(event_id, Some("st-1"), 101, command)
}

fn finalize(finalized_at: Option<i64>, seconds: i64) -> Order {
    order("e-end", Some("st-1"), seconds, Command::Finalize { finalized_at: finalized_at.map(at) })
}

fn cancel(idle_since: i64) -> Order {
    Order::own("t", "s", Command::Cancel { idle_since: at(idle_since) }, at(2000))
}

#[test]
fn a_session_in_order_is_created_weighed_and_finalized() {
    let rows = Rows::of(&[
        create(),
        weigh("e-1", 2.0, 102),
        weigh("e-2", 1.0, 101),
        picture("e-3", "m-1"),
        picture("e-4", "m-1"),
        finalize(Some(110), 100),
    ]);
    let session = rows.session();
    assert_eq!((session.status, session.end_at), (Status::Finalized, Some(at(110))));
    assert_eq!((session.initial_weight_kg, session.final_weight_kg), (Some(1.0), Some(2.0)));
    assert_eq!((session.image_count, session.amendment_count), (1, 0));
    assert_eq!(rows.types(), [SESSION_CREATED, WEIGHT_RECORDED, WEIGHT_RECORDED, SESSION_FINALIZED]);
    assert_eq!(rows.events[3].payload["final_weight_kg"], 2.0);
}

#[test]
fn children_and_the_end_may_come_before_the_beginning() {
    let mut rows = Rows::of(&[finalize(Some(110), 100), picture("e-3", "m-1"), weigh("e-1", 2.0, 50)]);
    assert!(rows.session.is_none() && rows.events.is_empty());
    rows.apply(&create()).expect("it fits");
    assert_eq!(rows.session().status, Status::Finalized);
    assert_eq!(rows.types(), [SESSION_CREATED, WEIGHT_RECORDED, SESSION_FINALIZED]);
    assert!(rows.parked.is_empty() && rows.weights[0].is_bound && rows.images[0].is_bound);
    // A weight from before the beginning stands behind the beginning all the same.
    assert_eq!((rows.events[1].occurred_at, rows.events[1].order_at), (at(50), Some(at(100))));
}

#[test]
fn a_late_child_amends_and_a_known_one_does_nothing() {
    let mut rows = Rows::of(&[create(), weigh("e-1", 2.0, 101), finalize(Some(5000), 100)]);
    rows.apply(&weigh("e-9", 3.0, 200)).expect("it fits");
    rows.apply(&picture("e-8", "m-1")).expect("it fits");
    rows.apply(&picture("e-7", "m-1")).expect("it fits");
    assert_eq!(rows.types()[3..], [WEIGHT_RECORDED, SESSION_AMENDED, SESSION_AMENDED]);
    let amended = &rows.events[4];
    // The end lies in the future by the device's clock; nothing of the session goes before it.
    assert_eq!((amended.occurred_at, amended.order_at), (at(1000), Some(at(5000))));
    let payload = &amended.payload;
    assert_eq!((&payload["amendment"], &payload["cause"]), (&1.into(), &"weight".into()));
    assert_eq!(
        (&payload["final_weight_kg"], &payload["previous_final_weight_kg"]),
        (&3.0.into(), &2.0.into())
    );
    assert_eq!(rows.session().amendment_count, 2);
}

#[test]
fn the_end_is_what_the_station_says_else_a_later_time_else_the_arrival() {
    let check = |order: Order, expected| {
        assert_eq!(Rows::of(&[create(), order]).session().end_at, Some(at(expected)));
    };
    check(finalize(Some(110), 105), 110);
    check(finalize(None, 105), 105);
    check(finalize(None, 100), 1000);
    check(finalize(Some(1), 105), 100);
}

#[test]
fn another_station_is_in_conflict() {
    let other = |command| order("e-x", Some("st-2"), 101, command);
    let mut rows = Rows::of(&[create()]);
    assert_eq!(rows.apply(&create_at("st-2", "e-x")), Err(Reason::SessionConflict));
    assert_eq!(rows.apply(&other(Command::Weight { weight_kg: 1.0 })), Err(Reason::SessionConflict));
    assert_eq!(rows.apply(&other(Command::Finalize { finalized_at: None })), Err(Reason::SessionConflict));
    // Over HTTP nobody names a station.
    let silent = order("e-x", None, 101, Command::Weight { weight_kg: 1.0 });
    assert_eq!(rows.apply(&silent), Ok(()));

    let rows = Rows::of(&[
        other(Command::Weight { weight_kg: 1.0 }),
        order("e-y", Some("st-2"), 101, Command::Finalize { finalized_at: None }),
        weigh("e-1", 2.0, 101),
        create(),
    ]);
    let letters: Vec<_> =
        rows.letters.iter().map(|letter| (letter.reason, &*letter.order.event_id)).collect();
    assert_eq!(letters, [("SESSION_CONFLICT", "e-x"), ("SESSION_CONFLICT", "e-y")]);
    assert_eq!((rows.session().status, rows.weights.len()), (Status::Created, 1));
}

#[test]
fn silence_cancels_an_open_session_and_closes_it() {
    let mut rows = Rows::of(&[create(), cancel(999)]);
    assert_eq!(rows.session().status, Status::Created);
    rows.apply(&cancel(1000)).expect("its own orders are never refused");
    assert_eq!(rows.session().status, Status::Cancelled);
    assert_eq!(rows.types(), [SESSION_CREATED]);
    assert_eq!(rows.apply(&weigh("e-1", 1.0, 101)), Err(Reason::SessionClosed));
    assert_eq!(rows.apply(&create_at("st-2", "e-x")), Err(Reason::SessionClosed));
    assert_eq!(rows.apply(&cancel(3000)), Ok(()));
    let mut rows = Rows::of(&[create(), finalize(None, 105), cancel(9000)]);
    assert_eq!(rows.session().status, Status::Finalized);
    assert_eq!(rows.apply(&finalize(None, 120)), Ok(()));
}

#[test]
fn a_finalize_whose_session_never_comes_is_given_up() {
    let mut rows = Rows::of(&[finalize(None, 105)]);
    let expire = |seconds: i64| Order::own("t", "s", Command::Expire, at(1000 + seconds));
    rows.apply(&expire(24 * 3600 - 1)).expect("it fits");
    assert_eq!((rows.parked.len(), rows.letters.len()), (1, 0));
    rows.apply(&expire(24 * 3600)).expect("it fits");
    assert_eq!((rows.parked.len(), rows.letters[0].reason), (0, FINALIZE_WITHOUT_SESSION));
    assert_eq!(rows.letters[0].order.command, Command::Finalize { finalized_at: None });
}

#[test]
fn children_whose_session_never_comes_are_given_up_and_may_be_applied_later() {
    let mut rows = Rows::of(&[weigh("e-1", 1.0, 101), picture("e-2", "m")]);
    let wait = TimeDelta::days(CHILD_WAIT_DAYS);
    let expire = |after: TimeDelta| Order::own("t", "s", Command::Expire, at(1000) + after);
    rows.apply(&expire(wait - TimeDelta::seconds(1))).expect("it fits");
    assert_eq!((rows.weights.len(), rows.images.len(), rows.letters.len()), (1, 1, 0));
    let late = Order { received_at: at(1000) + wait, ..weigh("e-3", 2.0, 102) };
    rows.apply(&late).expect("it fits");
    rows.apply(&expire(wait)).expect("it fits");
    assert_eq!((rows.weights.len(), rows.images.len()), (1, 0), "what came later waits on");
    let reasons: Vec<_> = rows.letters.iter().map(|letter| letter.reason).collect();
    assert_eq!(reasons, [CHILD_WITHOUT_SESSION; 2]);
    let Order { command, event_id, occurred_at, .. } = &rows.letters[0].order;
    assert_eq!((command, &**event_id), (&Command::Weight { weight_kg: 1.0 }, "e-1"));
    assert_eq!(*occurred_at, at(101));
}

#[test]
fn a_child_too_many_for_a_session_that_is_not_there_is_a_dead_letter() {
    let mut rows = Rows { waiting_max: Some(1), ..Rows::default() };
    for order in [weigh("e-1", 1.0, 101), weigh("e-2", 2.0, 102), picture("e-3", "m"), finalize(None, 103)] {
        rows.apply(&order).expect("nothing is refused");
    }
    assert_eq!((rows.weights.len(), rows.images.len(), rows.parked.len()), (1, 0, 0));
    let reasons: Vec<_> = rows.letters.iter().map(|letter| letter.reason).collect();
    assert_eq!(reasons, [TOO_MANY_WITHOUT_SESSION; 3]);
    rows.apply(&create()).expect("it fits");
    rows.apply(&rows.letters[0].order.clone()).expect("it is a duplicate by its mark");
    let again = Order { event_id: "e-9".to_owned(), ..rows.letters[0].order.clone() };
    rows.apply(&again).expect("there is room in a session");
    assert_eq!(rows.weights.len(), 2);
}

#[test]
fn an_order_survives_its_time_as_a_body() {
    for order in [create(), weigh("e-1", 0.1 + 0.2, 101), picture("e-2", "m"), finalize(Some(110), 100)] {
        assert_eq!(serde_json::from_value::<Order>(body(&order)).ok(), Some(order));
    }
}

/// What must come out whatever the order.
type Outcome = (Option<f64>, Option<f64>, i32, Option<Timestamp>, BTreeSet<Uuid>);

fn outcome(rows: &Rows) -> Outcome {
    let session = rows.session();
    let lasting = |event: &&NewEvent| event.event_type != SESSION_AMENDED;
    let ids: Vec<_> = rows.events.iter().filter(lasting).map(|event| event.id).collect();
    let unique: BTreeSet<_> = ids.iter().copied().collect();
    assert_eq!(ids.len(), unique.len(), "no event twice");
    (session.initial_weight_kg, session.final_weight_kg, session.image_count, session.end_at, unique)
}

proptest! {
    #[test]
    fn any_order_and_doubling_ends_the_same(
        orders in Just([0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5].to_vec()).prop_shuffle(),
    ) {
        let all = [create(), weigh("e-1", 2.0, 102), weigh("e-2", 1.0, 101), picture("e-3", "m-1"),
            picture("e-4", "m-2"), finalize(Some(110), 100)];
        let shuffled: Vec<Order> = orders.iter().map(|&i: &usize| all[i].clone()).collect();
        let rows = Rows::of(&shuffled);
        prop_assert_eq!(outcome(&rows), outcome(&Rows::of(&all)));
        let position = |event_type| rows.types().iter().position(|known| *known == event_type);
        prop_assert!(position(SESSION_CREATED) < position(SESSION_FINALIZED));
        prop_assert!(rows.parked.is_empty() && rows.letters.is_empty());
        let late = rows.types().iter().filter(|known| **known == SESSION_AMENDED).count();
        prop_assert_eq!(late, usize::try_from(rows.session().amendment_count).unwrap());
    }
}
