//! A house second by second, and who is told when under paused time.

use std::time::Duration as Wait;

use chrono::{DateTime, Duration};
use schema::clock::Clock;
use tokio::time::sleep;

use super::*;
use crate::alarm::escalation::{Plan, Plans};
use crate::alarm::rule::Rule;
use crate::alarm::starting;
use crate::alarm::state::{Side, State};
use crate::alarm::way::line::LineSettings;
use crate::alarm::way::line::doubles::Board;
use crate::alarm::way::relay::Relay;
use crate::alarm::way::{Class, MessageKind, Way, Ways};

const RULE: &str = "hot_probe";

fn at(second: i64) -> Timestamp {
    DateTime::from_timestamp(1_790_000_000 + second, 0).unwrap()
}

fn moment(second: i64) -> Moment {
    Moment { steady: at(second), wall: at(second) }
}

fn level() -> Rule {
    let template = starting::rules().into_iter().find(|rule| rule.id == "ammonia").unwrap();
    let test = Test::Level {
        metric: TEMPERATURE.to_owned(),
        side: Side::Above,
        limit: 32.0,
        hysteresis: 0.5,
        mean_minutes: 0,
    };
    Rule {
        id: RULE.to_owned(),
        class: Class::Critical,
        test,
        on_seconds: 60,
        off_seconds: 300,
        modes: Mode::ALL.to_vec(),
        ..template
    }
}

fn house_of(rules: impl IntoIterator<Item = Rule>) -> House {
    let barn = Barn { tenant_id: "t-001".into(), farm_id: "f-001".into(), barn_id: "b-001".into() };
    let scene = Scene {
        name: "House 1".to_owned(),
        zone: Zone::UTC,
        rules: rules.into_iter().map(|rule| (rule.id.clone(), Arc::new(rule))).collect(),
        mode: Mode::Growing,
        age_days: None,
        body_weight_g: None,
        devices: None,
        hour: 12,
    };
    House::new(barn, scene)
}

fn starting_rule(id: &str) -> Rule {
    starting::rules().into_iter().find(|rule| rule.id == id).unwrap()
}

fn state(house: &House, rule: &str, place: &str) -> State {
    house.alarm(&Key::new(rule, place)).map_or(State::Norm, Kept::state)
}

fn somebody() -> Author {
    Author { actor: "operator:farmer".to_owned(), origin: "here".to_owned() }
}

enum Step {
    Reads(f64),
    Acknowledges,
    Shelves,
    Waits,
}

#[test]
fn a_barn_goes_its_way_second_by_second() {
    use State::{Acked, Norm, Rtnun, Shlvd, Unack};
    use Step::{Acknowledges, Reads, Shelves, Waits};
    let mut house = house_of([level(), starting_rule("sensor_silent")]);
    let key = Key::new(RULE, "d-1");
    let steps = [
        (0, Reads(31.0), Norm, false),
        (60, Reads(32.3), Norm, false),
        (90, Reads(32.4), Norm, false),
        (120, Reads(32.4), Unack, false),
        (180, Reads(31.8), Unack, false),
        (240, Reads(31.4), Unack, false),
        (300, Reads(31.6), Unack, false),
        (330, Acknowledges, Acked, false),
        (360, Reads(31.2), Acked, false),
        (420, Reads(31.2), Acked, false),
        (600, Reads(31.0), Acked, true),
        (660, Reads(31.0), Norm, false),
        (720, Reads(32.5), Norm, false),
        (750, Reads(31.9), Norm, false),
        (810, Reads(32.6), Norm, false),
        (870, Reads(32.7), Unack, false),
        (900, Reads(31.0), Unack, false),
        (1200, Reads(31.0), Rtnun, false),
        (1260, Acknowledges, Norm, false),
        (1320, Reads(33.0), Norm, false),
        (1380, Reads(33.0), Unack, false),
        (1400, Shelves, Shlvd, false),
        (1460, Reads(33.1), Shlvd, false),
        (1640, Reads(33.1), Shlvd, false),
        (2000, Reads(33.1), Unack, false),
        (2060, Reads(33.2), Unack, false),
        (2400, Waits, Unack, true),
        (2900, Waits, Unack, true),
        (2960, Reads(30.0), Unack, false),
        (3140, Reads(30.0), Unack, false),
        (3260, Reads(30.0), Rtnun, false),
    ];
    let mut steps = steps.into_iter().peekable();
    for second in 0..=3260 {
        let moment = moment(second);
        let step = steps.next_if(|(due, ..)| *due == second);
        if let Some((_, Reads(value), ..)) = step {
            house.hear_reading("d-1", TEMPERATURE, (value, at(second)), moment);
        }
        if let Some((_, Acknowledges, ..)) = step {
            house.act(&key, &Act::Acknowledge { occurrence: None }, &somebody(), moment).unwrap();
        }
        if let Some((_, Shelves, ..)) = step {
            let act = Act::Shelve { minutes: 10, reason: "washing".to_owned() };
            house.act(&key, &act, &somebody(), moment).unwrap();
        }
        house.look(moment);
        if let Some((_, _, expected, is_silent)) = step {
            assert_eq!(state(&house, RULE, "d-1"), expected, "at second {second}");
            let silent = state(&house, "sensor_silent", "d-1");
            // What was silent and spoke again is seen by nobody yet.
            assert_eq!(silent == Unack, is_silent && second != 600, "at second {second}: {silent:?}");
        }
    }
    let changes = house.take_changes();
    let kinds: Vec<_> = changes
        .iter()
        .flat_map(|change| &change.events)
        .filter(|event| event.rule_id == RULE)
        .map(|event| event.kind.as_str())
        .collect();
    assert_eq!(
        kinds,
        [
            "raised",
            "acknowledged",
            "ended",
            "raised",
            "ended",
            "acknowledged",
            "raised",
            "shelved",
            "unshelved",
            "ended"
        ]
    );
    // Each row names the revision of the one before.
    let revisions: Vec<_> = changes
        .iter()
        .filter(|change| change.row.rule_id == RULE)
        .map(|change| change.row.revision)
        .collect();
    assert_eq!(revisions, (0..10).collect::<Vec<_>>());
    let deeds = changes.iter().filter_map(|change| change.deed.as_ref()).count();
    assert_eq!(deeds, 3, "what people did is written down, too");
}

#[test]
fn what_stood_when_the_engine_ended_has_to_be_acknowledged_anew() {
    let mut house = house_of([level()]);
    for second in [0, 60] {
        house.hear_reading("d-1", TEMPERATURE, (33.0, at(second)), moment(second));
    }
    let key = Key::new(RULE, "d-1");
    house.act(&key, &Act::Acknowledge { occurrence: Some(1) }, &somebody(), moment(61)).unwrap();
    let row = house.take_changes().pop().unwrap().row;
    assert_eq!((row.state.as_str(), row.occurrence, row.rounds), ("ACKED", 1, 1));
    let mut next = house_of([level()]);
    next.take_up(AlarmRow { revision: row.revision + 1, ..row }, BTreeSet::new(), moment(70));
    assert_eq!(state(&next, RULE, "d-1"), State::Unack);
    let change = next.take_changes().pop().unwrap();
    assert_eq!((change.row.occurrence, change.row.rounds), (1, 2));
    assert_eq!(change.events[0].kind, "restarted");
    // Its readings go on from where they were.
    next.hear_reading("d-1", TEMPERATURE, (30.0, at(80)), moment(80));
    next.look(moment(379));
    assert_eq!(state(&next, RULE, "d-1"), State::Unack);
    next.look(moment(380));
    assert_eq!(state(&next, RULE, "d-1"), State::Rtnun);
}

#[test]
fn what_is_no_news_is_listed_and_not_heard() {
    let mains = starting_rule(starting::MAINS_LOST);
    let fan = Rule { on_seconds: 0, ..starting_rule("fan_failed") };
    let mut house = house_of([Rule { on_seconds: 0, ..mains }, fan]);
    house.hear_event("d-9", "power.mains.lost", at(0), moment(0));
    house.hear_event("d-1", "fan.failed", at(1), moment(1));
    assert_eq!(state(&house, starting::MAINS_LOST, "d-9"), State::Unack);
    assert_eq!(state(&house, "fan_failed", "d-1"), State::Dsupr);
    let row = &house.alarm(&Key::new("fan_failed", "d-1")).unwrap().row;
    assert_eq!(row.suppressed_by.as_deref(), Some("alarm:mains_lost"));
    house.hear_event("d-9", "power.mains.restored", at(2), moment(2));
    house.look(moment(100));
    let key = Key::new(starting::MAINS_LOST, "d-9");
    assert_eq!(state(&house, starting::MAINS_LOST, "d-9"), State::Unack, "it latches");
    house.act(&key, &Act::Acknowledge { occurrence: None }, &somebody(), moment(101)).unwrap();
    house.look(moment(101));
    assert_eq!(state(&house, starting::MAINS_LOST, "d-9"), State::Norm);
    assert_eq!(state(&house, "fan_failed", "d-1"), State::Unack, "the fan stands still all the same");

    let mut scene = house.scene.clone();
    scene.mode = Mode::Empty;
    house.set_scene(scene.clone());
    house.look(moment(102));
    assert_eq!(state(&house, "fan_failed", "d-1"), State::Dsupr);
    scene.rules.clear();
    house.set_scene(scene);
    house.look(moment(103));
    assert_eq!(state(&house, "fan_failed", "d-1"), State::Norm, "nothing would ever end it");
}

#[test]
fn a_house_is_too_hot_beyond_its_set_point_and_always_beyond_the_absolute_limit() {
    let check = |age: Option<f64>, weight: Option<f64>, outside: Option<f64>, inside: f64, is_hot: bool| {
        let mut house = house_of([Rule { on_seconds: 0, ..starting_rule("house_hot") }]);
        (house.scene.age_days, house.scene.body_weight_g) = (age, weight);
        house.hear_reading("d-1", TEMPERATURE, (inside, at(0)), moment(0));
        house.hear_reading("d-2", TEMPERATURE, (inside, at(0)), moment(0));
        house.hear_reading("d-3", TEMPERATURE, (99.0, at(0)), moment(0));
        if let Some(outside) = outside {
            house.hear_reading("d-4", crate::alarm::rule::OUTSIDE_TEMPERATURE, (outside, at(0)), moment(0));
        }
        house.look(moment(0));
        let found = state(&house, "house_hot", "");
        assert_eq!(found == State::Unack, is_hot, "{age:?} {weight:?} {outside:?} {inside}: {found:?}");
    };
    // 2,000 g and 60 %: 20.7 °C.
    check(Some(33.0), Some(2000.0), None, 23.6, false);
    check(Some(33.0), Some(2000.0), None, 23.8, true);
    check(Some(33.0), Some(2000.0), Some(28.0), 30.9, false);
    check(Some(33.0), Some(2000.0), Some(28.0), 31.1, true);
    check(Some(33.0), Some(2000.0), Some(40.0), 35.1, true);
    check(None, None, None, 34.9, false);
    check(None, None, None, 35.1, true);
}

#[test]
fn a_person_is_told_why_nothing_was_done() {
    let mut house = house_of([level()]);
    let key = Key::new(RULE, "d-1");
    let act = |house: &mut House, act: Act| house.act(&key, &act, &somebody(), moment(100)).map(|_| ());
    assert_eq!(act(&mut house, Act::Unshelve), Err(ActError::NoAlarm));
    for second in [0, 60] {
        house.hear_reading("d-1", TEMPERATURE, (33.0, at(second)), moment(second));
    }
    let shelve = |minutes| Act::Shelve { minutes, reason: "washing".to_owned() };
    let limit = SHELF_MINUTES_CRITICAL_MAX;
    assert_eq!(act(&mut house, shelve(0)), Err(ActError::ShelfTooLong(limit)));
    assert_eq!(act(&mut house, shelve(31)), Err(ActError::ShelfTooLong(limit)));
    assert_eq!(act(&mut house, Act::Unshelve), Err(ActError::NotShelved));
    let other = Act::Acknowledge { occurrence: Some(7) };
    assert_eq!(act(&mut house, other), Err(ActError::OtherOccurrence(7, 1)));
    assert_eq!(act(&mut house, Act::Acknowledge { occurrence: Some(1) }), Ok(()));
    assert_eq!(
        act(&mut house, Act::Acknowledge { occurrence: None }),
        Err(ActError::NothingToAcknowledge("ACKED".to_owned()))
    );
    assert_eq!(act(&mut house, shelve(30)), Ok(()));
    assert_eq!(act(&mut house, Act::Unshelve), Ok(()));
    assert_eq!(state(&house, RULE, "d-1"), State::Unack);
}

#[test]
fn what_is_out_of_service_is_never_heard_survives_a_restart_and_rings_when_it_is_back() {
    let mut house = house_of([level()]);
    let key = Key::new(RULE, "d-1");
    let act = |house: &mut House, act: Act| house.act(&key, &act, &somebody(), moment(100)).map(|_| ());
    let retire = || Act::OutOfService { reason: "at the workshop".to_owned() };
    assert_eq!(act(&mut house, retire()), Err(ActError::NoAlarm));
    for second in [0, 60] {
        house.hear_reading("d-1", TEMPERATURE, (33.0, at(second)), moment(second));
    }
    assert_eq!(act(&mut house, Act::InService), Err(ActError::InService));
    assert_eq!(act(&mut house, retire()), Ok(()));
    assert_eq!(act(&mut house, retire()), Err(ActError::OutOfService));
    assert_eq!(state(&house, RULE, "d-1"), State::Oosrv);
    let row = house.alarm(&key).unwrap().row.clone();
    assert_eq!(row.out_of_service_reason.as_deref(), Some("at the workshop"));

    let mut again = house_of([level()]);
    again.take_up(row, BTreeSet::new(), moment(200));
    assert_eq!(state(&again, RULE, "d-1"), State::Oosrv);
    assert!(again.causes().is_empty(), "it hides nothing");
    again.hear_reading("d-1", TEMPERATURE, (34.0, at(260)), moment(260));
    assert_eq!(act(&mut again, Act::InService), Ok(()));
    assert_eq!(state(&again, RULE, "d-1"), State::Unack, "it stands, so it rings");
    assert_eq!(again.alarm(&key).unwrap().row.out_of_service_reason, None);

    // Of a device that is let in no more nothing is listed.
    assert_eq!(act(&mut again, retire()), Ok(()));
    let mut scene = again.scene.clone();
    scene.devices = Some(BTreeSet::from(["d-9".to_owned()]));
    again.set_scene(scene);
    again.look(moment(300));
    assert_eq!(state(&again, RULE, "d-1"), State::Norm);
}

#[test]
fn a_house_remembers_so_many_probes_and_no_more() {
    let mut house = house_of([level()]);
    for device in 0..PROBES_MAX + 10 {
        house.hear_reading(&format!("d-{device}"), TEMPERATURE, (33.0, at(0)), moment(0));
    }
    assert_eq!(house.probes.len(), PROBES_MAX);
}

fn relays(names: &[&str]) -> Ways {
    let relay = |(line, name): (usize, &&str)| {
        let line = u32::try_from(line).unwrap();
        let settings = LineSettings { chip: "/dev/gpiochip0".into(), line, active_low: false };
        Arc::new(Relay::new(name, settings, Arc::new(Board::default()))) as Arc<dyn Way>
    };
    Ways::new(names.iter().enumerate().map(relay))
}

fn plans() -> Plans {
    let critical = Plan {
        steps: Plan::read_steps("0:siren,120:first,300:second").unwrap(),
        repeat_seconds: Some(600),
        remind_seconds: Some(1800),
    };
    Plans { critical, ..Plans::default() }
}

#[tokio::test(start_paused = true)]
async fn an_alarm_that_nobody_acknowledges_is_told_step_by_step_and_again() {
    let (clock, ways, plans) = (Clock::following(at(0)), relays(&["first", "second", "siren"]), plans());
    let mut house = house_of([Rule { on_seconds: 0, ..level() }]);
    house.hear_reading("d-1", TEMPERATURE, (33.0, at(0)), moment(0));
    let mut told = Vec::new();
    for _ in 0..1700 {
        let now = Moment { steady: clock.now(), wall: clock.now() };
        // A sensor that speaks, so that nothing is silent.
        house.hear_reading("d-1", TEMPERATURE, (33.0, now.steady), now);
        house.look(now);
        for due in house.due(&plans, &ways, now) {
            let seconds = now.steady.signed_duration_since(at(0)).num_seconds();
            told.push((seconds, due.telling.number, due.telling.ways.join("+")));
            assert_eq!((due.message.kind, due.message.occurrence), (MessageKind::Raised, 1));
        }
        sleep(Wait::from_secs(1)).await;
    }
    let expected =
        [(0, 0, "siren"), (120, 1, "first"), (300, 2, "second"), (900, 3, "second"), (1500, 4, "second")];
    assert_eq!(told, expected.map(|(seconds, number, ways)| (seconds, number, ways.to_owned())));
}

#[test]
fn what_is_acknowledged_and_stands_is_told_now_and_then_by_what_makes_no_noise() {
    let (ways, plans) = (relays(&["siren"]), plans());
    let mut house = house_of([Rule { on_seconds: 0, ..level() }]);
    house.hear_reading("d-1", TEMPERATURE, (33.0, at(0)), moment(0));
    assert_eq!(house.due(&plans, &ways, moment(0)).len(), 1);
    let key = Key::new(RULE, "d-1");
    house.act(&key, &Act::Acknowledge { occurrence: None }, &somebody(), moment(10)).unwrap();
    // There is no way of the name "second" that could make noise.
    assert!(house.due(&plans, &ways, moment(1809)).is_empty());
    let due = house.due(&plans, &ways, moment(1810));
    assert_eq!(due.len(), 1);
    assert_eq!((due[0].message.kind, due[0].telling.number), (MessageKind::Reminder, 1));
    assert!(house.due(&plans, &ways, moment(1811)).is_empty());
    let loud =
        Plans { critical: Plan { steps: Plan::read_steps("0:siren").unwrap(), ..plans.critical }, ..plans };
    assert!(house.due(&loud, &ways, moment(9000)).is_empty(), "a siren is not started for who knows");
}

#[test]
fn of_a_flood_one_speaks_for_all() {
    let (ways, plans) = (relays(&["siren"]), plans());
    let mut house = house_of([Rule { on_seconds: 0, ..level() }]);
    let mut sounded = 0;
    for device in 0..50 {
        let moment = moment(device);
        house.hear_reading(&format!("d-{device}"), TEMPERATURE, (33.0, at(device)), moment);
        house.look(moment);
        sounded += house.due(&plans, &ways, moment).iter().filter(|due| !due.telling.is_grouped).count();
    }
    assert!(sounded < 12, "{sounded} of 50 sounded");
    assert_eq!(house.alarms().filter(|(_, kept)| kept.state() == State::Unack).count(), 50, "all are listed");
}

#[test]
fn a_wall_clock_that_jumps_raises_and_ends_nothing() {
    let mut house = house_of([level()]);
    let jumped = |second: i64| Moment { steady: at(second), wall: at(second) + Duration::days(400) };
    house.hear_reading("d-1", TEMPERATURE, (33.0, at(0)), moment(0));
    house.look(jumped(30));
    assert_eq!(state(&house, RULE, "d-1"), State::Norm);
    house.look(jumped(60));
    assert_eq!(state(&house, RULE, "d-1"), State::Unack);
    let key = Key::new(RULE, "d-1");
    let act = Act::Shelve { minutes: 10, reason: "washing".to_owned() };
    let row = house.act(&key, &act, &somebody(), jumped(61)).unwrap();
    assert_eq!(row.shelved_until, Some(jumped(61 + 600).wall), "rows have the time of the wall");
    // The clock is put back, and the shelf is as long as it was.
    house.look(moment(660));
    assert_eq!(state(&house, RULE, "d-1"), State::Shlvd);
    house.look(moment(661));
    assert_eq!(state(&house, RULE, "d-1"), State::Unack);
}

#[test]
fn a_drill_is_an_alarm_until_it_is_answered() {
    let mut house = house_of([starting_rule(starting::DRILL)]);
    let row = house.begin_drill(moment(0)).unwrap();
    assert_eq!((row.state.as_str(), row.occurrence), ("UNACK", 1));
    assert_eq!(house.begin_drill(moment(1)), Err(ActError::DrillGoesOn));
    let ways = relays(&["siren"]);
    let plans = Plans { drill: plans().critical, ..Plans::default() };
    let due = house.due(&plans, &ways, moment(1));
    assert_eq!(due[0].message.kind, MessageKind::Drill);
    house.end_drill(moment(1800));
    assert_eq!(state(&house, starting::DRILL, ""), State::Norm, "nobody has to answer any more");
    let events: Vec<_> = house.take_changes().into_iter().flat_map(|change| change.events).collect();
    assert_eq!(events.last().unwrap().why.as_deref(), Some("nobody answered in time"));
    assert_eq!(house.begin_drill(moment(1801)).unwrap().occurrence, 2);
}

#[test]
fn a_sensor_that_was_silent_when_the_engine_began_is_silent_since_its_last_word() {
    let mut house = house_of([starting_rule("sensor_silent")]);
    for second in [0, 60, 120, 180] {
        house.hear_again("d-1", TEMPERATURE, (21.0, at(second), at(second)), moment(1000));
        house.hear_again("d-2", TEMPERATURE, (21.0, at(800 + second), at(800 + second)), moment(1000));
    }
    house.look(moment(1000));
    assert_eq!(state(&house, "sensor_silent", "d-1"), State::Unack);
    assert_eq!(state(&house, "sensor_silent", "d-2"), State::Norm);
    // What was read is not heard twice.
    house.hear_again("d-1", TEMPERATURE, (99.0, at(180), at(180)), moment(1001));
    assert_eq!(house.probes[&("d-1".to_owned(), TEMPERATURE.to_owned())].value(), Some(21.0));
}
