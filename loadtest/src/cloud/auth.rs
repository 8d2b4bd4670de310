//! Who may talk to the pretend cloud: nobody asks, an API key, or a signature that is used once.

use std::collections::{HashSet, VecDeque};
use std::str::FromStr;

use anyhow::{Result, bail};
use hmac::{Hmac, Mac};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE};
use hyper::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use schema::clock::Timestamp;

/// How far an edge's clock may differ.
const WINDOW_MS: i64 = 300_000;

/// How callers prove who they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// They do not.
    #[default]
    None,
    /// `x-api-key`.
    ApiKey(String),
    /// `x-edge-timestamp` and `x-edge-signature`; any of several secrets, as during a rotation.
    Hmac(Vec<String>),
}

impl Auth {
    /// The name of the mode, as the handshake tells it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ApiKey(_) => "api_key",
            Self::Hmac(_) => "hmac",
        }
    }
}

impl FromStr for Auth {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            None if text == "none" => Ok(Self::None),
            Some(("api_key", key)) => Ok(Self::ApiKey(key.to_owned())),
            Some(("hmac", secrets)) => Ok(Self::Hmac(secrets.split(',').map(str::to_owned).collect())),
            _ => bail!("{text:?} is none of: none, api_key:KEY, hmac:SECRET[,NEXT_SECRET]"),
        }
    }
}

/// A refusal with its status, code and what else the answer tells.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Denied {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) extra: Value,
}

impl Denied {
    fn unauthorized(code: &'static str) -> Self {
        Self { status: StatusCode::UNAUTHORIZED, code, extra: Value::Null }
    }

    fn misconfigured() -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, code: "AUTH_CONFIG_ERROR", extra: Value::Null }
    }
}

/// What is signed and checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signed<'a> {
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
}

/// Signatures seen within the window; older ones are refused by their timestamp anyway.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    keys: HashSet<String>,
    by_age: VecDeque<(i64, String)>,
}

impl Seen {
    /// Whether this signature is new; forgets what left the window.
    fn insert(&mut self, now_ms: i64, key: String) -> bool {
        while self.by_age.front().is_some_and(|(seen_at, _)| now_ms - seen_at > 2 * WINDOW_MS) {
            if let Some((_, old)) = self.by_age.pop_front() {
                self.keys.remove(&old);
            }
        }
        let is_new = self.keys.insert(key.clone());
        if is_new {
            self.by_age.push_back((now_ms, key));
        }
        is_new
    }
}

/// Checks one request.
pub(crate) fn check(auth: &Auth, seen: &mut Seen, request: Signed<'_>, now: Timestamp) -> Result<(), Denied> {
    match auth {
        Auth::None => Ok(()),
        Auth::ApiKey(key) => check_key(key, request.headers),
        Auth::Hmac(secrets) => check_signature(secrets, seen, request, now.timestamp_millis()),
    }
}

fn check_key(key: &str, headers: &HeaderMap) -> Result<(), Denied> {
    if key.is_empty() {
        return Err(Denied::misconfigured());
    }
    let given = headers.get("x-api-key").map_or(&b""[..], |value| value.as_bytes());
    if bool::from(given.ct_eq(key.as_bytes())) { Ok(()) } else { Err(Denied::unauthorized("UNAUTHORIZED")) }
}

fn check_signature(
    secrets: &[String],
    seen: &mut Seen,
    request: Signed<'_>,
    now_ms: i64,
) -> Result<(), Denied> {
    if secrets.iter().all(String::is_empty) || lacks_raw_body(&request) {
        return Err(Denied::misconfigured());
    }
    let header = |name| request.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (timestamp, signature) = (header("x-edge-timestamp"), header("x-edge-signature"));
    if timestamp.is_empty() {
        return Err(Denied::unauthorized("HMAC_TIMESTAMP_MISSING"));
    }
    if signature.is_empty() {
        return Err(Denied::unauthorized("HMAC_SIGNATURE_MISSING"));
    }
    let is_digits = timestamp.bytes().all(|byte| byte.is_ascii_digit());
    let Some(sent_ms) = timestamp.parse::<i64>().ok().filter(|_| is_digits) else {
        return Err(Denied::unauthorized("HMAC_TIMESTAMP_INVALID"));
    };
    let skew_ms = sent_ms - now_ms;
    if skew_ms.abs() > WINDOW_MS {
        let server_time = chrono::DateTime::from_timestamp_millis(now_ms).map(schema::wire::time::format);
        let extra = json!({"serverTime": server_time, "skewMs": skew_ms});
        return Err(Denied { extra, ..Denied::unauthorized("HMAC_TIMESTAMP_OUT_OF_WINDOW") });
    }
    let is_genuine = secrets.iter().filter(|secret| !secret.is_empty()).any(|secret| {
        let expected = sign(secret, timestamp, request.method.as_str(), request.path, request.body);
        bool::from(expected.as_bytes().ct_eq(signature.as_bytes()))
    });
    if !is_genuine {
        return Err(Denied::unauthorized("HMAC_SIGNATURE_INVALID"));
    }
    if !seen.insert(now_ms, format!("{timestamp}.{signature}")) {
        return Err(Denied::unauthorized("HMAC_REPLAY_DETECTED"));
    }
    Ok(())
}

/// The real cloud keeps the raw body of a GET only when it is announced as JSON of length 0; without a raw body it
/// cannot verify and says that its configuration is at fault.
fn lacks_raw_body(request: &Signed<'_>) -> bool {
    let is = |name, expected: &str| {
        request.headers.get(name).is_some_and(|value: &hyper::header::HeaderValue| {
            value.to_str().is_ok_and(|value| value.split(';').next().is_some_and(|v| v.trim() == expected))
        })
    };
    request.method == Method::GET && !(is(CONTENT_TYPE, "application/json") && is(CONTENT_LENGTH, "0"))
}

/// The value of `x-edge-signature` for a request.
#[must_use]
pub fn sign(secret: &str, timestamp: &str, method: &str, path: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(format!("{timestamp}.{method}.{path}.").as_bytes());
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;

    const POST_BODY: &[u8] = br#"{"tenant_id":"t-001","events":[]}"#;
    const POST_SIGNATURE: &str = "sha256=b54951f15c8f9ba78701cd872958c1249fcd5f5e8d6a13fc1bd247d422196fc3";
    const GET_SIGNATURE: &str = "sha256=c195c9e71beecf722ce7088aeb87f29c95434a8496f1cad19e60e1685ff9f64f";
    const BATCH: &str = "/api/v1/edge/batch";
    const HANDSHAKE: &str = "/api/v1/edge/diagnostics/handshake";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (hyper::header::HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    fn post(seen: &mut Seen, now_ms: i64, pairs: &[(&'static str, &str)]) -> Result<(), &'static str> {
        let headers = headers(pairs);
        let request = Signed { method: &Method::POST, path: BATCH, headers: &headers, body: POST_BODY };
        let now = DateTime::from_timestamp_millis(now_ms).unwrap();
        check(&Auth::Hmac(vec!["secret".into()]), seen, request, now).map_err(|denied| denied.code)
    }

    #[test]
    fn signatures_follow_the_vectors_of_the_contract() {
        assert_eq!(sign("secret", "1700000000000", "POST", BATCH, POST_BODY), POST_SIGNATURE);
        assert_eq!(sign("secret", "1700000000000", "GET", HANDSHAKE, b""), GET_SIGNATURE);
    }

    #[test]
    fn each_flaw_of_a_signature_has_its_code() {
        let now = 1_700_000_000_000;
        let stamp = ("x-edge-timestamp", "1700000000000");
        let signature = ("x-edge-signature", POST_SIGNATURE);
        let mut seen = Seen::default();
        let mut check =
            |now, pairs: &[_], expected| assert_eq!(post(&mut seen, now, pairs), expected, "{pairs:?}");
        check(now, &[signature], Err("HMAC_TIMESTAMP_MISSING"));
        check(now, &[stamp], Err("HMAC_SIGNATURE_MISSING"));
        check(now, &[("x-edge-timestamp", "17e11"), signature], Err("HMAC_TIMESTAMP_INVALID"));
        check(now + 300_001, &[stamp, signature], Err("HMAC_TIMESTAMP_OUT_OF_WINDOW"));
        check(now, &[stamp, ("x-edge-signature", "sha256=00")], Err("HMAC_SIGNATURE_INVALID"));
        check(now + 300_000, &[stamp, signature], Ok(()));
        check(now, &[stamp, signature], Err("HMAC_REPLAY_DETECTED"));
    }

    #[test]
    fn a_handshake_without_a_content_length_is_a_configuration_fault() {
        let stamp = ("x-edge-timestamp", "1700000000000");
        let signature = ("x-edge-signature", GET_SIGNATURE);
        let json = ("content-type", "application/json");
        let now = DateTime::from_timestamp_millis(1_700_000_000_000).unwrap();
        let get = |pairs: &[_]| {
            let headers = headers(pairs);
            let request = Signed { method: &Method::GET, path: HANDSHAKE, headers: &headers, body: b"" };
            check(&Auth::Hmac(vec!["other".into(), "secret".into()]), &mut Seen::default(), request, now)
                .map_err(|denied| denied.code)
        };
        assert_eq!(get(&[stamp, signature, json]), Err("AUTH_CONFIG_ERROR"));
        assert_eq!(get(&[stamp, signature, ("content-length", "0")]), Err("AUTH_CONFIG_ERROR"));
        assert_eq!(get(&[stamp, signature, json, ("content-length", "0")]), Ok(()));
    }
}
