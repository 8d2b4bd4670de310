//! JSON as it was written, for a database that keeps every digit.

use serde_json::Number;
use serde_json::value::RawValue;

/// Powers of ten up to which a number is written as it came. No double reaches further, and the database writes all the
/// digits out.
const EXPONENT_MAX: u32 = 400;

/// The text without the space between its parts; `None` when it holds an escaped NUL, which the database does not take.
pub(super) fn json(raw: &RawValue) -> Option<String> {
    let text = raw.get();
    let mut json = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let length = match next {
            '"' => string_bytes(rest)?,
            '-' | '0'..='9' => {
                rest.find(|c| !matches!(c, '-' | '+' | '.' | 'e' | 'E' | '0'..='9')).unwrap_or(rest.len())
            }
            _ => next.len_utf8(),
        };
        let (part, behind) = rest.split_at(length);
        match next {
            ' ' | '\t' | '\n' | '\r' => {}
            '-' | '0'..='9' => push_number(&mut json, part),
            _ => json.push_str(part),
        }
        rest = behind;
    }
    Some(json)
}

/// Bytes of the string that stands here, with its quotes.
fn string_bytes(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' if bytes[at + 1..].starts_with(b"u0000") => return None,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

fn push_number(json: &mut String, number: &str) {
    let exponent = number.split_once(['e', 'E']).map(|(_, exponent)| exponent.trim_start_matches(['-', '+']));
    // One that is too long to be read is too large.
    let is_far = exponent.is_some_and(|exponent| {
        exponent.parse::<u32>().is_ok_and(|power| power > EXPONENT_MAX)
            || exponent.trim_start_matches('0').len() > 9
    });
    let double = number.parse().ok().filter(|_| is_far).and_then(Number::from_f64);
    match double {
        Some(double) => json.push_str(&double.to_string()),
        None => json.push_str(number),
    }
}
