//! Who is let in, who is put out, and when the last will is published.

use std::time::Duration;

use broker::{DoorSettings, Refusal, Verdict};

use crate::clients::{Hello, Raw, packet, publish};
use crate::support::{Arrivals, PATIENCE, identity, open, settings, until};

const STATUS: &str = "iot/status/t/f/b/d";

async fn expect_will(arrivals: &mut Arrivals) {
    let will = arrivals.next().await;
    assert_eq!((&*will.topic, &will.payload[..], will.retain), (STATUS, b"offline".as_slice(), true));
    assert_eq!(will.verdict, Verdict::Admitted);
    will.done();
}

fn with_will() -> Hello {
    Hello::device("d").with_will(STATUS, "offline")
}

async fn check_refused(hello: Hello, code: u8, settings: DoorSettings, refusal: Refusal) {
    let (door, _arrivals) = open(settings).await;
    let mut raw = Raw::open(door.address()).await;
    raw.send(&hello.packet()).await;
    assert_eq!(raw.rest().await, [0x20, 2, 0, code]);
    assert_eq!(door.door.stats().refused(refusal), 1);
    assert_eq!(door.door.stats().connections(), 0);
}

#[tokio::test]
async fn a_client_that_is_refused_is_told_why() {
    let wrong = Hello { user: Some(("d", "wrong")), ..Hello::named("d") };
    check_refused(wrong, 5, settings(), Refusal::Credential).await;
    let strict = DoorSettings { allow_anonymous: false, ..settings() };
    check_refused(Hello::named("x"), 5, strict, Refusal::Credential).await;
    check_refused(Hello::device("unknown"), 5, settings(), Refusal::Revoked).await;
    let lasting = Hello { clean_session: false, ..Hello::named("") };
    check_refused(lasting, 2, settings(), Refusal::ClientId).await;
}

#[tokio::test]
async fn another_version_of_the_protocol_is_told_so() {
    let (door, _arrivals) = open(settings()).await;
    let newer: (&[u8], &[u8]) = (b"\0\x04MQTT\x06\x02\0\x3c\0\0\x01x", &[0x20, 3, 0, 0x84, 0]);
    let older: (&[u8], &[u8]) = (b"\0\x04MQTT\x03\x02\0\x3c\0\x01x", &[0x20, 2, 0, 1]);
    for (body, answer) in [newer, older] {
        let mut raw = Raw::open(door.address()).await;
        raw.send(&packet(0x10, body)).await;
        assert_eq!(raw.rest().await, answer);
    }
}

#[tokio::test]
async fn a_client_of_mqtt_3_1_is_served() {
    let (door, mut arrivals) = open(settings()).await;
    let mut raw = Raw::open(door.address()).await;
    raw.send(&packet(0x10, b"\0\x06MQIsdp\x03\x02\0\x3c\0\x01x")).await;
    raw.expect(&[0x20, 2, 0, 0]).await;
    raw.send(&crate::clients::publish("iot/telemetry/t/f/b/d/weight", b"1", 1, 7, false)).await;
    arrivals.next().await.done();
    raw.expect(&crate::clients::puback(7)).await;
}

#[tokio::test]
async fn nobody_new_is_let_in_while_nothing_can_be_committed() {
    let connect_timeout = Duration::from_secs(2);
    let (door, _arrivals) = open(DoorSettings { connect_timeout, ..settings() }).await;
    door.house.stall(Duration::from_secs(31));
    let mut newer = Raw::open(door.address()).await;
    newer.send(&packet(0x10, b"\0\x04MQTT\x05\x02\0\x3c\0\0\x01x")).await;
    assert_eq!(newer.rest().await, [0x20, 3, 0, 0x88, 0]);
    let mut older = Raw::open(door.address()).await;
    older.send(&Hello::device("d").packet()).await;
    assert_eq!(older.rest().await, b"", "devices take any code for a success");
    assert_eq!(door.door.stats().refused(Refusal::Unavailable), 2);
    door.house.stall(Duration::from_secs(29));
    Raw::login(door.address(), &Hello::device("d")).await;
}

#[tokio::test]
async fn a_client_of_3_1_1_waits_for_the_database_and_is_let_in_when_it_is_back() {
    let (door, _arrivals) = open(settings()).await;
    door.house.stall(Duration::from_secs(31));
    let mut raw = Raw::open(door.address()).await;
    raw.send(&Hello::device("d").packet()).await;
    let mut second = Raw::open(door.address()).await;
    second.send(&packet(0x10, b"\0\x04MQTT\x05\x02\0\x3c\0\0\x01x")).await;
    // By then the first one has been looked at as well.
    assert_eq!(second.rest().await, [0x20, 3, 0, 0x88, 0]);
    door.house.stall(Duration::ZERO);
    raw.expect(&[0x20, 2, 0, 0]).await;
}

#[tokio::test]
async fn clients_without_a_name_do_not_push_each_other_out() {
    let (door, _arrivals) = open(settings()).await;
    let mut first = Raw::login(door.address(), &Hello::named("")).await;
    let mut second = Raw::login(door.address(), &Hello::named("")).await;
    for raw in [&mut first, &mut second] {
        raw.send(&[0xc0, 0]).await;
        raw.expect(&[0xd0, 0]).await;
    }
}

#[tokio::test]
async fn a_second_connection_ends_the_first_whose_will_comes_before_anything_of_the_second() {
    let (door, mut arrivals) = open(settings()).await;
    let first = Raw::login(door.address(), &with_will()).await;
    let mut second = Raw::login(door.address(), &with_will()).await;
    second.send(&publish(STATUS, b"online", 1, 1, true)).await;
    expect_will(&mut arrivals).await;
    let online = arrivals.next().await;
    assert_eq!(&online.payload[..], b"online");
    online.done();
    assert_eq!(first.rest().await, b"");
    second.expect(&[0x40, 2, 0, 1]).await;
    assert_eq!(door.door.stats().connections(), 1);
}

#[tokio::test]
async fn a_name_belongs_to_the_credential_that_uses_it() {
    let (door, _arrivals) = open(settings()).await;
    let mut first = Raw::login(door.address(), &Hello::device("d")).await;
    let thief = Hello { client_id: "d", ..Hello::device("d2") };
    let _second = Raw::login(door.address(), &thief).await;
    first.send(&[0xc0, 0]).await;
    first.expect(&[0xd0, 0]).await;
}

#[tokio::test]
async fn a_client_that_vanishes_leaves_its_will() {
    let (door, mut arrivals) = open(settings()).await;
    drop(Raw::login(door.address(), &with_will()).await);
    expect_will(&mut arrivals).await;
}

#[tokio::test]
async fn a_client_that_falls_silent_leaves_its_will() {
    let (door, mut arrivals) = open(settings()).await;
    let silent = Hello { keep_alive_seconds: 1, ..with_will() };
    let raw = Raw::login(door.address(), &silent).await;
    expect_will(&mut arrivals).await;
    assert_eq!(raw.rest().await, b"");
}

#[tokio::test]
async fn a_client_that_says_goodbye_leaves_no_will() {
    let (door, mut arrivals) = open(settings()).await;
    let mut raw = Raw::login(door.address(), &with_will()).await;
    raw.send(&[0xe0, 0]).await;
    assert_eq!(raw.rest().await, b"");
    until("the client left", || door.door.stats().connections() == 0).await;
    door.close(PATIENCE).await;
    assert!(arrivals.is_empty());
}

#[tokio::test]
async fn a_client_that_breaks_the_protocol_leaves_its_will() {
    let (door, mut arrivals) = open(settings()).await;
    let mut raw = Raw::login(door.address(), &with_will()).await;
    raw.send(&with_will().packet()).await;
    expect_will(&mut arrivals).await;
    assert_eq!(raw.rest().await, b"");
    assert_eq!(door.door.stats().refused(Refusal::Malformed), 1);
}

#[tokio::test]
async fn a_will_outside_the_scope_is_recorded_as_denied() {
    let (door, mut arrivals) = open(settings()).await;
    drop(Raw::login(door.address(), &Hello::device("d").with_will("iot/status/t/f/b/d2", "offline")).await);
    let will = arrivals.next().await;
    assert_eq!(will.verdict, Verdict::AclDenied);
    will.reject();
}

#[tokio::test]
async fn a_will_that_is_handed_back_comes_again() {
    let (door, mut arrivals) = open(settings()).await;
    drop(Raw::login(door.address(), &with_will()).await);
    drop(arrivals.next().await);
    expect_will(&mut arrivals).await;
    until("nothing is open", || door.door.stats().unacked() == 0).await;
}

#[tokio::test]
async fn a_revoked_device_is_put_out_at_once() {
    let (door, mut arrivals) = open(settings()).await;
    let raw = Raw::login(door.address(), &with_will()).await;
    let mut other = Raw::login(door.address(), &Hello::device("d2")).await;
    door.house.disable(&identity("d"));
    door.door.recheck(Some(&identity("d"))).await;
    let will = arrivals.next().await;
    assert_eq!(will.verdict, Verdict::AclDenied);
    will.reject();
    assert_eq!(raw.rest().await, b"");
    other.send(&[0xc0, 0]).await;
    other.expect(&[0xd0, 0]).await;
}

#[tokio::test]
async fn a_revoked_device_is_put_out_when_it_speaks() {
    let (door, mut arrivals) = open(settings()).await;
    let mut raw = Raw::login(door.address(), &Hello::device("d")).await;
    door.house.disable(&identity("d"));
    raw.send(&publish(STATUS, b"online", 1, 1, true)).await;
    assert_eq!(raw.rest().await, b"");
    assert!(arrivals.is_empty());
    assert_eq!(door.door.stats().refused(Refusal::Revoked), 1);
}

#[tokio::test]
async fn everybody_is_judged_again_by_device_and_by_password() {
    let (door, _arrivals) = open(settings()).await;
    let disabled = Raw::login(door.address(), &Hello::device("d")).await;
    let mut other = Raw::login(door.address(), &Hello::device("d2")).await;
    let mut anonymous = Raw::login(door.address(), &Hello::named("x")).await;
    door.door.recheck(None).await;
    door.house.disable(&identity("d"));
    door.door.recheck(Some(&identity("d2"))).await;
    assert_eq!(door.door.stats().refused(Refusal::Revoked), 0);
    door.door.recheck(Some(&identity("d"))).await;
    assert_eq!(disabled.rest().await, b"");
    other.send(&[0xc0, 0]).await;
    other.expect(&[0xd0, 0]).await;
    door.house.set_password(b"another");
    door.door.recheck(None).await;
    assert_eq!(other.rest().await, b"");
    anonymous.send(&[0xc0, 0]).await;
    anonymous.expect(&[0xd0, 0]).await;
    let again = Hello { user: Some(("d2", "another")), ..Hello::named("d2") };
    Raw::login(door.address(), &again).await;
}

#[tokio::test]
async fn a_password_that_goes_between_the_login_and_the_seat_lets_nobody_stay() {
    let (door, _arrivals) = open(settings()).await;
    let mut raw = Raw::open(door.address()).await;
    raw.send(&Hello { user: Some(("slow", "secret")), ..Hello::named("d") }.packet()).await;
    let revoked = async {
        door.house.set_password(b"another");
        door.door.recheck(None).await;
    };
    door.house.before_told(revoked).await;
    let answer = raw.rest().await;
    assert!(answer.is_empty() || answer == [0x20, 2, 0, 0], "{answer:?}");
    assert_eq!(door.door.stats().refused(Refusal::Revoked), 1);
}

#[tokio::test]
async fn a_connection_that_panics_takes_only_itself_down() {
    let (door, _arrivals) = open(settings()).await;
    let mut raw = Raw::open(door.address()).await;
    raw.send(&Hello { user: Some(("panic", "x")), ..Hello::named("p") }.packet()).await;
    assert_eq!(raw.rest().await, b"");
    until("the panic was counted", || door.door.stats().panicked() == 1).await;
    Raw::login(door.address(), &Hello::device("d")).await;
}
