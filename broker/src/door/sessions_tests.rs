//! Seats, without a door: takeovers, last wills, and whose session ends.

use tokio::sync::mpsc::error::TryRecvError;

use super::*;
use crate::door::doubles::{Bench, client, will};

const CLEAN: Wish = Wish { is_clean: true, expiry_seconds: 0 };
const LASTING: Wish = Wish { is_clean: false, expiry_seconds: 60 };
const TOPIC: &str = "status";

struct House {
    bench: Bench,
    sessions: Arc<Sessions>,
    due: UnboundedReceiver<Inflow>,
}

impl House {
    fn new(lasting_max: usize) -> Self {
        let bench = Bench::new();
        let (parts, inflow) = (Arc::clone(&bench.sessions), Arc::clone(&bench.inflow));
        let (sessions, due) = Sessions::new(parts, inflow, lasting_max);
        Self { bench, sessions, due }
    }

    async fn sit(&self, client_id: &str, wish: Wish) -> Result<Seated, NoSeat> {
        let visitor = Visitor { principal: Principal::Anonymous, chain: None, credential: None };
        let deadline = Instant::now() + Duration::from_secs(10);
        self.sessions.sit(&client(client_id), &visitor, wish, deadline).await
    }

    async fn seat(&self, client_id: &str, wish: Wish) -> Seat {
        self.sit(client_id, wish).await.unwrap_or_else(|error| panic!("{error:?}")).seat
    }

    /// Leaves a last will behind that waits half a minute.
    async fn leave_will(&self, mut seat: Seat, payload: &'static str) {
        let held = HeldWill::hold(&self.bench.inflow.wills, &Owner::Anonymous, will(TOPIC, payload)).unwrap();
        seat.leave_will(held, Principal::Anonymous, Duration::from_secs(30));
    }

    /// The payload of the last will that was published, and whoever collects it.
    fn published(&mut self) -> (bytes::Bytes, Inflow) {
        let inflow = self.due.try_recv().expect("a will is due");
        let delivery = self.bench.intake.next();
        let payload = delivery.payload.clone();
        delivery.done();
        (payload, inflow)
    }
}

#[tokio::test(start_paused = true)]
async fn the_second_connection_of_a_client_waits_until_the_first_is_gone() {
    let house = House::new(10);
    let mut first = house.seat("d", CLEAN).await;
    let (second, ()) = tokio::join!(house.sit("d", CLEAN), async {
        assert_eq!(first.close_asked().await, CloseReason::TakenOver);
        drop(first);
    });
    assert!(!second.unwrap_or_else(|error| panic!("{error:?}")).is_present);
    let _staying = house.seat("stubborn", CLEAN).await;
    assert_eq!(house.sit("stubborn", CLEAN).await.err(), Some(NoSeat::Occupied));
}

#[tokio::test]
async fn a_window_outlives_its_session_as_long_as_something_is_open_in_it() {
    let mut house = House::new(10);
    for (client_id, first, second) in [("a", CLEAN, CLEAN), ("b", LASTING, CLEAN), ("c", LASTING, LASTING)] {
        let seat = house.seat(client_id, first).await;
        let window = Arc::clone(seat.inbound());
        let (parts, session) = (Arc::clone(&house.bench.inflow), Arc::clone(seat.session()));
        let inflow = Inflow::new(parts, Arc::clone(&window), session, crate::door::packet::Version::V4);
        let held = HeldWill::hold(&house.bench.inflow.wills, &Owner::Anonymous, will(TOPIC, "open")).unwrap();
        inflow.deliver_will(held, &Principal::Anonymous);
        drop(seat);
        let seat = house.seat(client_id, second).await;
        assert!(Arc::ptr_eq(seat.inbound(), &window), "{client_id}");
        house.bench.intake.next().done();
        drop(seat);
        inflow.finish().await;
    }
    assert_eq!(house.due.try_recv().err(), Some(TryRecvError::Empty));
    house.sessions.end_overdue(Instant::now());
    assert_eq!(house.sessions.lock().leftovers.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_will_waits_for_its_client_and_no_longer_than_its_session() {
    let mut house = House::new(10);
    let seat = house.seat("back", LASTING).await;
    house.leave_will(seat, "back").await;
    let _back = house.seat("back", LASTING).await;
    let seat = house.seat("late", LASTING).await;
    house.leave_will(seat, "late").await;
    let short = house.seat("short", Wish { expiry_seconds: 1, ..LASTING }).await;
    house.leave_will(short, "short").await;
    tokio::time::advance(Duration::from_secs(2)).await;
    house.sessions.end_overdue(Instant::now());
    assert_eq!(house.published().0, "short");
    tokio::time::advance(Duration::from_secs(30)).await;
    house.sessions.end_overdue(Instant::now());
    assert_eq!(house.published().0, "late");
    assert_eq!(house.due.try_recv().err(), Some(TryRecvError::Empty), "one client came back in time");
}

#[tokio::test]
async fn a_will_goes_out_before_anything_of_the_client_that_ended_its_session() {
    let mut house = House::new(10);
    let seat = house.seat("d", LASTING).await;
    house.leave_will(seat, "offline").await;
    let seat = house.seat("d", CLEAN).await;
    let (parts, window) = (Arc::clone(&house.bench.inflow), Arc::clone(seat.inbound()));
    let session = Arc::clone(seat.session());
    let mut inflow = Inflow::new(parts, window, session, crate::door::packet::Version::V4);
    assert_eq!(inflow.open(), 1, "the will is in front");
    assert_eq!(house.published().0, "offline");
    inflow.collect(Instant::now(), None);
    assert_eq!(house.bench.retained(TOPIC).unwrap(), "offline");
}

#[tokio::test]
async fn when_there_is_no_room_the_owner_of_most_sessions_loses_the_one_that_is_away_longest() {
    let mut house = House::new(2);
    let (first, second) = (house.seat("1", LASTING).await, house.seat("2", LASTING).await);
    assert_eq!(house.sit("3", LASTING).await.err(), Some(NoSeat::TooMany));
    let _clean = house.seat("4", CLEAN).await;
    house.leave_will(second, "second").await;
    drop(first);
    let _third = house.seat("3", LASTING).await;
    assert_eq!(house.published().0, "second", "the will of a session that ends is not lost");
    assert!(house.sit("1", LASTING).await.is_ok_and(|seated| seated.is_present));
}
