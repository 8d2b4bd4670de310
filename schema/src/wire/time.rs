//! Times on the wire: lenient when read, one form when written.

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, SecondsFormat, TimeZone, Utc};

use crate::clock::Timestamp;

/// Writes UTC with three fraction digits and `Z`.
#[must_use]
pub fn format(time: Timestamp) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Reads RFC 3339 with `Z` or a numeric offset; `T`, `t` or a space between date and time; any number of fraction
/// digits (cut to microseconds); without a zone UTC; seconds may be left out. `None` when the text is no such time
/// or lies outside the years 1 to 9999.
#[must_use]
pub fn parse(text: &str) -> Option<Timestamp> {
    if !text.is_ascii() || text.len() < 16 {
        return None;
    }
    let date = parse_date(&text[..10])?;
    if !matches!(text.as_bytes()[10], b'T' | b't' | b' ') {
        return None;
    }
    let rest = &text[11..];
    let zone_at = rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len());
    let (clock, zone) = rest.split_at(zone_at);
    let local = NaiveDateTime::new(date, parse_clock(clock)?);
    let time = parse_zone(zone)?.from_local_datetime(&local).single()?.with_timezone(&Utc);
    let is_in_range = (1..=9999).contains(&chrono::Datelike::year(&time));
    is_in_range.then_some(time)
}

/// Whether a readable time ends in a numeric offset instead of `Z`.
#[must_use]
pub fn has_numeric_offset(text: &str) -> bool {
    text.get(11..).is_some_and(|rest| rest.contains(['+', '-']))
}

fn parse_date(text: &str) -> Option<NaiveDate> {
    let bytes = text.as_bytes();
    if bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let year = i32::try_from(digits(&text[..4])?).ok()?;
    NaiveDate::from_ymd_opt(year, digits(&text[5..7])?, digits(&text[8..10])?)
}

fn parse_clock(text: &str) -> Option<NaiveTime> {
    let (text, fraction) = match text.split_once('.') {
        Some((text, fraction)) => (text, parse_fraction_micros(fraction)?),
        None => (text, 0),
    };
    let bytes = text.as_bytes();
    let seconds = match bytes.len() {
        5 if fraction == 0 => 0,
        8 if bytes[5] == b':' => digits(&text[6..8])?,
        _ => return None,
    };
    if bytes[2] != b':' {
        return None;
    }
    let (hour, minute) = (digits(&text[..2])?, digits(&text[3..5])?);
    // A leap second is the last microsecond of its minute; the database knows no second 60.
    if seconds == 60 {
        return NaiveTime::from_hms_micro_opt(hour, minute, 59, 999_999);
    }
    NaiveTime::from_hms_micro_opt(hour, minute, seconds, fraction)
}

fn parse_fraction_micros(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let kept = &text[..text.len().min(6)];
    Some(digits(kept)? * 10_u32.pow(6 - u32::try_from(kept.len()).ok()?))
}

fn parse_zone(text: &str) -> Option<FixedOffset> {
    if matches!(text, "" | "Z" | "z") {
        return FixedOffset::east_opt(0);
    }
    let (sign, text) = text.split_at(1);
    let (hours, minutes) = match text.as_bytes() {
        [_, _, b':', _, _] => (digits(&text[..2])?, digits(&text[3..])?),
        [_, _, _, _] => (digits(&text[..2])?, digits(&text[2..])?),
        [_, _] => (digits(text)?, 0),
        _ => return None,
    };
    if hours > 23 || minutes > 59 {
        return None;
    }
    let seconds = i32::try_from(hours * 3600 + minutes * 60).ok()?;
    FixedOffset::east_opt(if sign == "-" { -seconds } else { seconds })
}

/// A run of ASCII digits as a number; signs and spaces are refused.
fn digits(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Serializes a time in the one form of the wire.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: serde::Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*time))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(
            parse(text).map(|time| time.to_rfc3339_opts(SecondsFormat::Micros, true)).as_deref(),
            expected,
            "{text}"
        );
    }

    #[test]
    fn lenient_forms_are_read() {
        check("2026-02-12T09:32:15.052269Z", Some("2026-02-12T09:32:15.052269Z"));
        check("2026-02-12t09:32:15z", Some("2026-02-12T09:32:15.000000Z"));
        check("2026-02-12 09:32:15", Some("2026-02-12T09:32:15.000000Z"));
        check("2026-02-12T09:32", Some("2026-02-12T09:32:00.000000Z"));
        check("2026-02-12T09:32+07:00", Some("2026-02-12T02:32:00.000000Z"));
        check("2026-02-12T09:32:15.1234567899+00:00", Some("2026-02-12T09:32:15.123456Z"));
        check("2026-02-12T09:32:15-0330", Some("2026-02-12T13:02:15.000000Z"));
        check("0001-01-01T00:00:00Z", Some("0001-01-01T00:00:00.000000Z"));
        check("9999-12-31T23:59:59.999999Z", Some("9999-12-31T23:59:59.999999Z"));
        check("2016-12-31T23:59:60Z", Some("2016-12-31T23:59:59.999999Z"));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "now",
            "2026-02-12",
            "2026-02-30T00:00:00Z",
            "2026-02-12T24:00:00Z",
            "2026-02-12T09:60",
            "2026-02-12T09:32:15.Z",
            "2026-02-12T09:32:15+25:00",
            "0000-01-01T00:00:00Z",
            "2026-02-12T09:32:15,5Z",
            "2026-2-12T09:32:15Z",
            "1770890400000000",
            "2026-02-12T+9:32:15Z",
            "2026-02-12T09:32:15ZZ",
            "0001-01-01T00:00:00+01:00",
            "２０２６-02-12T09:32:15Z",
            "2026-02-12T09:32.5Z",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn one_form_is_written() {
        let time = parse("2026-02-12T09:32:15.052269+00:00").expect("a time");
        assert_eq!(format(time), "2026-02-12T09:32:15.052Z");
    }

    proptest::proptest! {
        #[test]
        fn no_text_stops_the_reader(text in ".{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn what_is_written_is_read_back(micros in -62_135_596_800_000_000_i64..253_402_300_799_000_000) {
            let time = DateTime::from_timestamp_micros(micros / 1000 * 1000).expect("in range");
            proptest::prop_assert_eq!(parse(&format(time)), Some(time));
        }
    }
}
