//! The table of answers, row by row.

use super::*;

const IDS: [Uuid; 3] = [Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3)];

fn now() -> Timestamp {
    time::parse("2026-02-12T09:32:30Z").unwrap()
}

fn response(status: u16, body: &str) -> Answer {
    Answer::Response { status, retry_after: None, body: body.as_bytes().to_vec() }
}

fn verdict(status: u16, body: &str) -> Verdict {
    decide(&response(status, body), &IDS, now())
}

fn taken(refused: &[(usize, &str)], duplicated: u64) -> Verdict {
    let refused =
        refused.iter().map(|(position, text)| Refused { position: *position, text: (*text).to_owned() });
    Verdict::Taken { refused: refused.collect(), duplicated }
}

fn error(id: Uuid, text: &str) -> String {
    format!(r#"{{"event_id":"{id}","error":"{text}"}}"#)
}

#[test]
fn batches_that_are_taken() {
    let check = |body: &str, expected: Verdict| assert_eq!(verdict(200, body), expected, "{body}");
    check("{}", taken(&[], 0));
    check(r#"{"ok":true}"#, taken(&[], 0));
    check(r#"{"accepted":3,"duplicated":0,"rejected":0}"#, taken(&[], 0));
    check(r#"{"accepted":1,"duplicated":2,"rejected":0,"errors":[]}"#, taken(&[], 2));
    let (one, two) = (error(IDS[0], "Missing farm_id"), error(IDS[2], "broker is down"));
    check(
        &format!(r#"{{"accepted":1,"duplicated":0,"rejected":2,"errors":[{one},{two}]}}"#),
        taken(&[(0, "Missing farm_id"), (2, "broker is down")], 0),
    );
    assert_eq!(verdict(204, "{}"), taken(&[], 0));
}

#[test]
fn answers_that_do_not_say_which_event_is_refused_split_the_batch() {
    let check = |body: String| assert!(matches!(verdict(200, &body), Verdict::Split { .. }), "{body}");
    let (known, unknown) = (error(IDS[0], "x"), error(Uuid::from_u128(9), "x"));
    check(r#"{"accepted":2,"rejected":1}"#.to_owned());
    check(r#"{"accepted":2,"rejected":1,"errors":[{"error":"x"}]}"#.to_owned());
    check(r#"{"accepted":2,"rejected":1,"errors":[{"event_id":"","error":"x"}]}"#.to_owned());
    check(format!(r#"{{"accepted":2,"rejected":1,"errors":[{unknown}]}}"#));
    check(format!(r#"{{"accepted":2,"rejected":0,"errors":[{known}]}}"#));
    check(format!(r#"{{"accepted":2,"errors":[{known}]}}"#));
    check(format!(r#"{{"accepted":1,"rejected":2,"errors":[{known}]}}"#));
    check(format!(r#"{{"accepted":1,"rejected":2,"errors":[{known},{known}]}}"#));
    check(format!(r#"{{"accepted":1,"rejected":"many","errors":[{known}]}}"#));
    check(r#"{"accepted":2,"rejected":0,"errors":{"first":"x"}}"#.to_owned());
}

#[test]
fn refusals_of_the_whole_batch_split_it() {
    for status in [400, 413, 422] {
        assert!(matches!(verdict(status, "no"), Verdict::Split { .. }), "{status}");
    }
    let body = r#"{"error":{"code":"VALIDATION_ERROR","message":"events too large"}}"#;
    assert_eq!(verdict(413, body), Verdict::Split { text: "answered 413: events too large".to_owned() });
}

#[test]
fn trouble_keeps_the_batch_for_later() {
    let check = |answer: Answer, kind: Kind, code: &str| {
        let Verdict::Later(trouble) = decide(&answer, &IDS, now()) else { panic!("{answer:?}") };
        assert_eq!((trouble.kind, trouble.code, trouble.wait), (kind, code, None), "{answer:?}");
    };
    let lost = |is_timeout| Answer::Lost { is_timeout, text: "x".to_owned() };
    check(lost(false), Kind::Network, CLOUD_REQUEST_FAILED);
    check(lost(true), Kind::Timeout, CLOUD_REQUEST_FAILED);
    // A captive portal, an empty answer, an answer that is JSON but no object.
    for body in ["<html>log in</html>", "", "[]", "null", "\"ok\""] {
        check(response(200, body), Kind::Network, CLOUD_REQUEST_FAILED);
    }
    for status in [301, 302, 304, 307] {
        check(response(status, "{}"), Kind::Network, CLOUD_REQUEST_FAILED);
    }
    for status in [404, 405, 408, 409, 410, 418, 500, 502, 503, 504, 599, 100] {
        check(response(status, "{}"), Kind::Server, CLOUD_REQUEST_FAILED);
    }
    for status in [401, 403] {
        check(response(status, "{}"), Kind::Auth, CLOUD_AUTH_FAILED);
    }
    check(response(429, ""), Kind::Throttled, CLOUD_THROTTLED);
}

#[test]
fn a_throttling_cloud_is_left_alone_as_long_as_it_asks_for() {
    let check = |retry_after: &str, seconds: Option<u64>| {
        let answer =
            Answer::Response { status: 429, retry_after: Some(retry_after.to_owned()), body: Vec::new() };
        let Verdict::Later(trouble) = decide(&answer, &IDS, now()) else { panic!("{retry_after}") };
        assert_eq!(trouble.wait, seconds.map(Duration::from_secs), "{retry_after}");
    };
    check("7", Some(7));
    check(" 300 ", Some(300));
    check("86400", Some(300));
    check("0", Some(1));
    check("Thu, 12 Feb 2026 09:33:30 GMT", Some(60));
    check("Thu, 12 Feb 2026 12:33:30 GMT", Some(300));
    check("Thu, 12 Feb 2026 09:00:00 GMT", Some(1));
    check("soon", None);
    check("-5", None);
}

#[test]
fn a_clock_difference_is_told() {
    let check = |body: &str, expected: Option<i64>| {
        let Verdict::Later(trouble) = verdict(401, body) else { panic!("{body}") };
        assert_eq!(trouble.skew_ms, expected, "{body}");
    };
    check(
        r#"{"error":{"code":"HMAC_TIMESTAMP_OUT_OF_WINDOW"},"serverTime":"2026-02-12T09:42:30.000Z","skewMs":1}"#,
        Some(600_000),
    );
    check(r#"{"error":{"serverTime":"2026-02-12T09:22:30.000Z"}}"#, Some(-600_000));
    check(r#"{"serverTime":1770888750500}"#, Some(500));
    check(r#"{"error":{"details":{"skewMs":-400000}}}"#, Some(400_000));
    check("{}", None);
    check("no", None);
}
