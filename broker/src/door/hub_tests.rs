//! Where committed messages go, without a door: queues, groups, the retained set, and the router.

use async_trait::async_trait;
use bytes::Bytes;

use super::*;
use crate::door::doubles::{Bench, client};
use crate::fanout::{Feed, RouterGone};
use crate::stats::QueueDrop;
use crate::store::Forgetful;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;
const SUBSCRIPTIONS_MAX: usize = 9;

/// A router that is wanted, and counts what it is given.
#[derive(Debug, Default)]
struct Counter(AtomicUsize);

#[async_trait]
impl Fanout for Counter {
    fn is_wanted(&self) -> bool {
        true
    }

    fn publish(&self, _publication: &Publication) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    async fn open(&self) -> Result<Box<dyn Feed>, RouterGone> {
        Err(RouterGone)
    }

    async fn watch(&self) {}
}

/// A hub, and sessions whose clients are there.
struct House {
    bench: Bench,
    hub: Arc<Hub>,
}

impl House {
    fn new() -> Self {
        Self::of(Bench::new())
    }

    fn of(bench: Bench) -> Self {
        Self { hub: Arc::clone(&bench.inflow.hub), bench }
    }

    fn session(&self, number: u64, expiry_seconds: u32) -> Arc<Session> {
        let session = Session::new(&self.bench.sessions, number, client(&number.to_string()), expiry_seconds);
        session.attach(expiry_seconds).unseen();
        session
    }

    fn subscribe(&self, session: &Arc<Session>, filter: &str, qos: Qos) -> Result<Subscribed, Reason> {
        self.hub.subscribe(session, subscription(filter, qos), RetainHandling::Send, SUBSCRIPTIONS_MAX)
    }

    fn listening(&self, session: &Arc<Session>, filter: &str, qos: Qos) -> Listening {
        self.subscribe(session, filter, qos).unwrap().listening
    }

    fn publish(&self, topic: &str, retain: bool) -> Lsn {
        self.hub.publish(Publication {
            topic: Arc::from(topic),
            payload: Bytes::from_static(b"x"),
            qos: Qos::AtLeastOnce,
            retain,
            carried: Bytes::new(),
            expires_at: None,
            publisher: 0,
        })
    }
}

fn subscription(filter: &str, qos: Qos) -> Subscription {
    Subscription { filter: Arc::from(filter), qos, no_local: false, retain_as_published: false, id: None }
}

/// Topics of what waits for a session.
fn waiting(session: &Session) -> Vec<String> {
    use crate::door::queue::{Step, Written};
    let mut topics = Vec::new();
    let left = session.send(NOW, 100, Lsn::START, |step| {
        if let Step::Publish { publication, .. } = step {
            topics.push(publication.topic.to_string());
        }
        Written::Yes
    });
    assert_eq!(left.waits_for, None);
    topics
}

#[test]
fn a_message_reaches_whoever_asked_for_its_topic_and_nobody_else() {
    let house = House::new();
    assert!(!house.hub.is_listening());
    let (plain, lasting) = (house.session(1, 0), house.session(2, 60));
    house.subscribe(&plain, "a/+", Qos::AtMostOnce).unwrap().lsn.unseen();
    house.subscribe(&lasting, "a/b", Qos::AtLeastOnce).unwrap().lsn.unseen();
    assert!(house.hub.is_listening());
    assert_eq!(house.publish("c", false), Lsn::START, "nothing is promised to anybody");
    assert!(house.publish("a/b", false) > Lsn::START, "it is to be stored for a session that lasts");
    assert_eq!(house.publish("a/c", false), Lsn::START, "whoever asked for it is promised nothing");
    assert_eq!(waiting(&plain), ["a/b", "a/c"]);
    assert_eq!(waiting(&lasting), ["a/b"]);
    assert!(house.hub.is_kept("a/b") && !house.hub.is_kept("a/c"));

    assert!(house.hub.unsubscribe(&plain, "a/+").is_some());
    assert!(house.hub.unsubscribe(&plain, "a/+").is_none());
    house.hub.end(&lasting).unseen();
    assert_eq!(house.publish("a/b", false), Lsn::START);
    assert!(!house.hub.is_listening());
}

#[test]
fn a_group_passes_over_who_has_no_room_and_drops_only_when_all_are_full() {
    let house = House::new();
    let (first, second) = (house.session(1, 0), house.session(2, 0));
    for member in [&first, &second] {
        house.subscribe(member, "$share/g/a", Qos::AtLeastOnce).unwrap().lsn.unseen();
    }
    let room = house.bench.sessions.limits.messages_max;
    let dropped = || house.bench.inflow.stats.queue_dropped(QueueDrop::Count);
    for _ in 0..2 * room {
        house.publish("a", false).unseen();
    }
    assert_eq!(dropped(), 0);
    house.publish("a", false).unseen();
    assert_eq!(dropped(), 1);
    assert_eq!((waiting(&first).len(), waiting(&second).len()), (room, room));
}

#[test]
fn what_is_retained_follows_a_subscription_unless_it_shares_or_is_known() {
    let house = House::new();
    let session = house.session(1, 0);
    assert!(house.publish("a", true) > Lsn::START, "it is to be stored");
    let made = |filter, handling| {
        let asked = subscription(filter, Qos::AtLeastOnce);
        house.hub.subscribe(&session, asked, handling, SUBSCRIPTIONS_MAX).unwrap().retained.is_some()
    };
    assert!(!made("a", RetainHandling::Never));
    assert!(!made("a", RetainHandling::SendIfNew), "the filter is known");
    assert!(made("+", RetainHandling::SendIfNew));
    assert!(made("+", RetainHandling::Send));
    assert!(!made("$share/g/a", RetainHandling::Send));
    let deep = vec!["a"; 1000].join("/");
    house.subscribe(&session, "#", Qos::AtLeastOnce).unwrap().lsn.unseen();
    house.publish(&deep, true).unseen();
    assert!(house.bench.retained(&deep).is_some());
    assert_eq!(waiting(&session), Vec::<String>::new(), "what is too deep is not matched");
}

#[test]
fn a_client_has_no_more_subscriptions_than_it_may() {
    let house = House::new();
    let session = house.session(1, 0);
    for number in 0..SUBSCRIPTIONS_MAX {
        house.subscribe(&session, &number.to_string(), Qos::AtLeastOnce).unwrap().lsn.unseen();
    }
    assert_eq!(house.subscribe(&session, "more", Qos::AtLeastOnce).err(), Some(Reason::QUOTA_EXCEEDED));
    house.subscribe(&session, "0", Qos::ExactlyOnce).unwrap().lsn.unseen();
    house.publish("more", false).unseen();
    assert_eq!(waiting(&session), Vec::<String>::new());
}

#[test]
fn a_router_serves_plain_subscriptions_without_a_promise_and_no_others() {
    let router = Arc::new(Counter::default());
    let bench = Bench::with(Arc::new(Forgetful), Some(Arc::clone(&router) as Arc<dyn Fanout>));
    let house = House::of(bench);
    let session = house.session(1, 0);
    assert_eq!(house.listening(&session, "a", Qos::AtMostOnce), Listening::Begins);
    assert_eq!(house.listening(&session, "a", Qos::AtMostOnce), Listening::Same);
    house.publish("a", false).unseen();
    assert_eq!((waiting(&session).len(), router.0.load(Ordering::Relaxed)), (0, 1));
    assert_eq!(house.listening(&session, "a", Qos::AtLeastOnce), Listening::Ends);
    house.publish("a", false).unseen();
    assert_eq!(waiting(&session).len(), 1);
    assert_eq!(house.listening(&session, "a", Qos::AtMostOnce), Listening::Begins);
    house.publish("a", false).unseen();
    assert_eq!(waiting(&session).len(), 0, "its route is gone");
    assert_eq!(house.listening(&session, "$share/g/a", Qos::AtMostOnce), Listening::Same);
    house.publish("a", false).unseen();
    assert_eq!(waiting(&session).len(), 1, "a group is served from the queues");
    assert_eq!(house.hub.live_filters(&session), [Arc::from("a")]);
    assert_eq!(house.hub.unsubscribe(&session, "a").unwrap().listening, Listening::Ends);
}
