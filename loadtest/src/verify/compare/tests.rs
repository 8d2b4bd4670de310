//! What a judge finds in accounts that were made up.

use super::*;
use crate::ledger::Outcome;
use crate::verify::arrivals::Payload;
use crate::verify::database::{Mark, Refusal, Session, Weight};

const TENANT: &str = "t-001";

fn key(id: &str) -> Key {
    (TENANT.to_owned(), id.to_owned())
}

fn cloud_key(id: &str) -> (String, u128) {
    (TENANT.to_owned(), at_cloud(TENANT, id))
}

/// A ledger, a database and a cloud that agree: two readings of one device, and a session with a weight.
struct World {
    messages: Messages,
    rows: Rows,
    arrivals: Arrivals,
}

impl World {
    fn whole() -> Self {
        let mut world = Self {
            messages: Messages::default(),
            rows: Rows::default(),
            arrivals: Arrivals { has_log: true, ..Arrivals::default() },
        };
        for (number, id) in ["r-1", "r-2"].into_iter().enumerate() {
            world.acknowledge(id, "iot/telemetry/t-001/f/b/d/temperature");
            world.store_reading(id, number as i64);
        }
        for (number, (id, event_type)) in
            [("c", SESSION_CREATED), ("w", WEIGHT_RECORDED), ("f", SESSION_FINALIZED)].into_iter().enumerate()
        {
            world.acknowledge(id, &format!("iot/weighvision/t-001/f/b/st/session/s-1/{event_type}"));
            world.arrive(id, event_type, number as i64 + 10);
        }
        let weight = Weight { session_id: "s-1".into(), weight_kg: 2.5, is_bound: true };
        world.rows.weights.insert(key("w"), weight);
        let session = Session {
            status: "finalized".into(),
            created_event_id: "c".into(),
            finalized_event_id: Some("f".into()),
        };
        world.rows.sessions.insert(key("s-1"), session);
        world
    }

    fn acknowledge(&mut self, id: &str, topic: &str) {
        let message = Message {
            kind: Kind::of(topic),
            topic: topic.to_owned(),
            sha256: format!("hash of {id}"),
            acknowledged: 1,
            refused: 0,
        };
        self.rows
            .marks
            .insert(key(id), Mark { topic: topic.to_owned(), hash: Some(format!("hash of {id}")) });
        self.messages.by_key.insert(key(id), message);
    }

    fn store_reading(&mut self, id: &str, number: i64) {
        let reading = Reading {
            device: "d".into(),
            metric: "temperature".into(),
            value: derived_value(id),
            unit: Some("celsius".into()),
            at_micros: number * 1000,
            copies: 1,
        };
        self.arrive(id, TELEMETRY_INGESTED, number);
        self.rows.readings.insert(key(id), reading);
    }

    /// An event that was sent, each in a batch of its own.
    fn arrive(&mut self, id: &str, event_type: &str, number: i64) {
        let outgoing = Outgoing {
            event_type: event_type.to_owned(),
            status: "acked".into(),
            seq: number,
            order_micros: number * 1000,
            error: None,
            copies: 1,
        };
        self.rows.outbox.insert(cloud_key(id), outgoing);
        let is_reading = event_type == TELEMETRY_INGESTED;
        let payload = Payload {
            metric_type: is_reading.then(|| "temperature".into()),
            metric_value: is_reading.then(|| derived_value(id)),
            unit: is_reading.then(|| "celsius".into()),
            weight_kg: (event_type == WEIGHT_RECORDED).then_some(2.5),
        };
        let arrival = Arrival {
            place: usize::try_from(number).unwrap(),
            batch: u64::try_from(number).unwrap(),
            event_type: event_type.to_owned(),
            device_id: "d".into(),
            session_id: if is_reading { String::new() } else { "s-1".into() },
            at_millis: number,
            payload,
            was_refused: false,
        };
        self.arrivals.ids.insert(at_cloud(TENANT, id));
        self.arrivals.by_id.insert(cloud_key(id), arrival);
    }

    fn findings(&self) -> Findings {
        let mut findings = Findings::new();
        let senders = Senders { derives_values: true, ..Senders::default() };
        database(&self.messages, &self.rows, &senders, &mut findings);
        cloud_by_database(&self.messages, &self.rows, &self.arrivals, &mut findings);
        order(&self.rows, &self.arrivals, &mut findings);
        sessions(&self.messages, Some(&self.rows), &self.arrivals, &mut findings);
        findings
    }
}

/// Changes a whole world in one way, and expects these rules to find it, and no other.
fn check(what: &str, expected: &[Rule], change: impl FnOnce(&mut World)) {
    let mut world = World::whole();
    change(&mut world);
    let findings = world.findings();
    let found: Vec<_> =
        findings.checks.iter().filter(|(_, check)| check.differences > 0).map(|(rule, _)| *rule).collect();
    assert_eq!(found, expected, "{what}: {:#?}", findings.first_differences());
}

#[test]
fn a_whole_world_has_no_difference() {
    check("nothing", &[], |_| {});
}

#[test]
fn each_difference_is_found_by_its_rule() {
    check("a reading is lost", &[Rule::Kept], |world| drop(world.rows.readings.remove(&key("r-1"))));
    check("a weight is lost", &[Rule::Kept], |world| drop(world.rows.weights.remove(&key("w"))));
    check("a session is lost", &[Rule::Kept], |world| drop(world.rows.sessions.remove(&key("s-1"))));
    check("the body is another", &[Rule::Content], |world| {
        world.rows.marks.get_mut(&key("r-1")).unwrap().hash = Some("other".into());
    });
    check("the value is another, here and there", &[Rule::Content], |world| {
        world.rows.readings.get_mut(&key("r-1")).unwrap().value += 1.0;
        let arrival = world.arrivals.by_id.get_mut(&cloud_key("r-1")).unwrap();
        arrival.payload.metric_value = arrival.payload.metric_value.map(|value| value + 1.0);
    });
    check("the value is another at the cloud", &[Rule::DeliveredContent], |world| {
        world.arrivals.by_id.get_mut(&cloud_key("r-1")).unwrap().payload.metric_value = Some(0.5);
    });
    check("a reading is stored twice", &[Rule::Content], |world| {
        world.rows.readings.get_mut(&key("r-1")).unwrap().copies = 2;
    });
    check("a reading was never sent", &[Rule::Invented], |world| world.store_reading("r-3", 30));
    check("a reading has no event", &[Rule::Queued, Rule::Delivered], |world| {
        world.rows.outbox.remove(&cloud_key("r-1"));
        world.arrivals.by_id.remove(&cloud_key("r-1"));
    });
    check("an event did not arrive", &[Rule::Delivered], |world| {
        world.arrivals.by_id.remove(&cloud_key("r-1"));
    });
    check("an event is at the cloud alone", &[Rule::DeliveredInvented], |world| {
        world.rows.outbox.remove(&cloud_key("c"));
    });
    check("a message was refused", &[Rule::Accepted], |world| {
        world.rows.sessions.clear();
        world.rows.set_aside.insert(key("f"));
        let refusal = Refusal { reason: "SESSION_CLOSED".into(), sha256: "hash of c".into() };
        world.rows.refusals.insert(key("c"), refusal);
    });
    check("a message is stored and refused", &[Rule::Kept], |world| {
        let refusal = Refusal { reason: "NO_ROUTE".into(), sha256: "hash of r-1".into() };
        world.rows.refusals.insert(key("r-1"), refusal);
    });
}

#[test]
fn a_reading_may_be_late_and_must_not_be_overtaken() {
    let late = |world: &mut World, seq: i64| {
        world.store_reading("r-3", 40);
        // Older than r-2, and it arrived after it.
        world.rows.outbox.get_mut(&cloud_key("r-3")).unwrap().order_micros = 500;
        world.rows.outbox.get_mut(&cloud_key("r-3")).unwrap().seq = seq;
        world.acknowledge("r-3", "iot/telemetry/t-001/f/b/d/temperature");
    };
    check("it came in late", &[], |world| late(world, 40));
    check("it was overtaken", &[Rule::Order], |world| late(world, -1));
    check("the cloud had refused it", &[], |world| {
        late(world, -1);
        world.arrivals.by_id.get_mut(&cloud_key("r-3")).unwrap().was_refused = true;
    });
}

#[test]
fn a_session_begins_once_and_ends_once_behind_that() {
    let arrival = |world: &mut World, id: &str, batch: u64| {
        world.arrivals.by_id.get_mut(&cloud_key(id)).unwrap().batch = batch;
    };
    check("the end came with the beginning", &[Rule::Sessions], |world| arrival(world, "f", 10));
    check("the end came before the beginning", &[Rule::Sessions], |world| arrival(world, "f", 1));
    check("it began twice", &[Rule::Sessions], |world| world.arrive("c-2", SESSION_CREATED, 50));
    check("it ended twice", &[Rule::Sessions], |world| world.arrive("f-2", SESSION_FINALIZED, 50));
    check("it never began", &[Rule::Delivered, Rule::Sessions], |world| {
        world.arrivals.by_id.remove(&cloud_key("c"));
    });
}

#[test]
fn without_a_database_the_ledger_alone_says_what_must_arrive() {
    let mut messages = Messages::default();
    let put = |messages: &mut Messages, id: &str, outcome: Outcome| {
        let message = Message {
            kind: Kind::Any,
            topic: String::new(),
            sha256: String::new(),
            acknowledged: usize::from(outcome == Outcome::Acknowledged),
            refused: 0,
        };
        messages.by_key.insert(key(id), message);
    };
    put(&mut messages, "sample-123", Outcome::Acknowledged);
    put(&mut messages, "e-1", Outcome::Acknowledged);
    put(&mut messages, "never-answered", Outcome::Unknown);
    let ids = [at_cloud(TENANT, "sample-123")].into();
    let arrivals = Arrivals { ids, ..Arrivals::default() };
    let mut findings = Findings::new();
    cloud_by_ledger(&messages, &arrivals, &mut findings);
    let named: Vec<_> = findings.checks[&Rule::Delivered].first.iter().map(|it| it.id.as_str()).collect();
    assert_eq!(named, ["e-1"]);
}
