//! Changes single values of a JSON text and leaves every other byte as it is.

use serde_json::Value;
use sha2::{Digest, Sha256};

/// A value that may be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar<'a> {
    /// A string, without its quotes.
    Text(&'a str),
    /// A number as it is written.
    Number(&'a str),
}

/// Gives every string and number that is a value to `change`, with the key it belongs to (in a list that of the list),
/// and puts its answer in the place of the value. `None` when the text is no JSON.
#[must_use]
pub fn map(text: &str, mut change: impl FnMut(&str, Scalar<'_>) -> Option<String>) -> Option<String> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len() + 64);
    let mut key = String::new();
    let (mut at, mut copied) = (0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                let end = string_end(bytes, at);
                let literal = &text[at..end];
                let is_key = bytes[end..].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':');
                let inner: String = serde_json::from_str(literal).ok()?;
                if is_key {
                    key = inner;
                } else if let Some(new) = change(&key, Scalar::Text(&inner)) {
                    out.push_str(&text[copied..at]);
                    out.push_str(&Value::from(new).to_string());
                    copied = end;
                }
                at = end;
            }
            b'-' | b'0'..=b'9' => {
                let is_number = |byte: &u8| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
                let length = bytes[at..].iter().take_while(|byte| is_number(byte)).count();
                let end = at + length;
                if let Some(new) = change(&key, Scalar::Number(&text[at..end])) {
                    out.push_str(&text[copied..at]);
                    out.push_str(&new);
                    copied = end;
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    out.push_str(&text[copied..]);
    Some(out)
}

/// The position behind the closing quote of the string that begins at `start`.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// As [`map`], and sets the `content_hash` of an envelope right again if it was right before.
#[must_use]
pub fn map_envelope(text: &str, change: impl FnMut(&str, Scalar<'_>) -> Option<String>) -> Option<String> {
    let new = map(text, change)?;
    if !has_right_hash(text) {
        return Some(new);
    }
    let Some(hash) = payload_hash(&serde_json::from_str(&new).ok()?) else { return Some(new) };
    map(&new, |key, _| (key == "content_hash").then(|| hash.clone()))
}

fn has_right_hash(text: &str) -> bool {
    let Ok(envelope) = serde_json::from_str::<Value>(text) else { return false };
    let stated = envelope.get("content_hash").and_then(Value::as_str);
    stated.is_some() && stated == payload_hash(&envelope).as_deref()
}

/// The hash as devices make it: of the payload without spaces and with sorted keys.
fn payload_hash(envelope: &Value) -> Option<String> {
    Some(hex::encode(Sha256::digest(envelope.get("payload")?.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_changed_values_change() {
        let text = r#"{ "a" : "x\\\"y" ,"b":[1, -2.50e1,"x"],"c":{"a":null,"x":true}, "d":"" }"#;
        assert_eq!(map(text, |_, _| None).unwrap(), text);
        let mut seen = Vec::new();
        let changed = map(text, |key, scalar| {
            seen.push((key.to_owned(), format!("{scalar:?}")));
            match scalar {
                Scalar::Text("x") => Some("new \"quoted\"".to_owned()),
                Scalar::Number("1") => Some("7".to_owned()),
                Scalar::Text(_) | Scalar::Number(_) => None,
            }
        });
        let expected =
            r#"{ "a" : "x\\\"y" ,"b":[7, -2.50e1,"new \"quoted\""],"c":{"a":null,"x":true}, "d":"" }"#;
        assert_eq!(changed.unwrap(), expected);
        let expected = [
            ("a", r#"Text("x\\\"y")"#),
            ("b", r#"Number("1")"#),
            ("b", r#"Number("-2.50e1")"#),
            ("b", r#"Text("x")"#),
            ("d", r#"Text("")"#),
        ];
        assert_eq!(seen, expected.map(|(key, scalar)| (key.to_owned(), scalar.to_owned())));
        assert_eq!(map("no json", |_, _| None), None);
    }

    #[test]
    fn a_right_hash_is_right_again_and_a_wrong_one_stays() {
        let payload = r#"{"weightKg": 0.2, "a": "old"}"#;
        let hash = hex::encode(Sha256::digest(r#"{"a":"old","weightKg":0.2}"#));
        let change = |_: &str, scalar: Scalar<'_>| (scalar == Scalar::Text("old")).then(|| "new".to_owned());
        let envelope = |hash: &str| format!(r#"{{"content_hash": "{hash}", "payload": {payload}}}"#);
        let changed = map_envelope(&envelope(&hash), change).unwrap();
        assert!(has_right_hash(&changed) && changed.contains(r#""a": "new""#), "{changed}");
        let changed = map_envelope(&envelope("wrong"), change).unwrap();
        assert!(changed.contains(r#""content_hash": "wrong""#), "{changed}");
    }
}
