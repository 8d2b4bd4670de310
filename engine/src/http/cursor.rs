//! Where a list goes on: an opaque text that names the last row by what the list is ordered by.
//!
//! Callers give back as `after` what a list had as `next`. The text names its list, so that one of another list is refused
//! and not misunderstood. It shows no more than the row it was made of, and opens nothing: the rows behind it are those
//! that the caller may see.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{Datelike, NaiveDate};
use schema::clock::Timestamp;
use schema::id::Uuid;
use schema::store::page::{Page, Place};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Bytes of a cursor at most: three ids of the longest kind, as JSON may have to write them, fit in.
const CURSOR_BYTES_MAX: usize = 4096;

/// What a list is ordered by.
pub(super) trait Key: Serialize + DeserializeOwned {
    /// The list's name in its cursors.
    const LIST: &'static str;
}

/// The text of a key.
pub(super) fn encode<K: Key>(key: &K) -> String {
    let bytes = serde_json::to_vec(&(K::LIST, key)).expect("texts and numbers always serialize");
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The key of a text; `None` when it is no cursor of this list.
pub(super) fn decode<K: Key>(text: &str) -> Option<K> {
    let bytes = (text.len() <= CURSOR_BYTES_MAX).then(|| URL_SAFE_NO_PAD.decode(text).ok()).flatten()?;
    let (list, key): (String, K) = serde_json::from_slice(&bytes).ok()?;
    (list == K::LIST).then_some(key)
}

/// The cursor behind the last row of a page that is as long as it may be.
pub(super) fn behind<T, K: Key>(rows: &[T], limit: i64, key: impl Fn(&T) -> K) -> Option<String> {
    let is_full = i64::try_from(rows.len()) == Ok(limit);
    rows.last().filter(|_| is_full).map(|last| encode(&key(last)))
}

/// A time as a cursor has it, to the microsecond that the database keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "i64", try_from = "i64")]
pub(super) struct Micros(pub Timestamp);

impl From<Micros> for i64 {
    fn from(time: Micros) -> Self {
        time.0.timestamp_micros()
    }
}

impl TryFrom<i64> for Micros {
    type Error = &'static str;

    fn try_from(micros: i64) -> Result<Self, &'static str> {
        let time = Timestamp::from_timestamp_micros(micros);
        // The years that a column can hold.
        time.filter(|time| (-4000..=9999).contains(&time.year())).map(Self).ok_or("is not a time")
    }
}

/// Makes the key of a list that is ordered by a time and an id.
macro_rules! place_keys {
    ($($(#[$doc:meta])* $name:ident = $list:literal;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
            pub(super) struct $name(Micros, Uuid);

            impl Key for $name {
                const LIST: &'static str = $list;
            }

            impl From<Place> for $name {
                fn from(place: Place) -> Self {
                    Self(Micros(place.at), place.id)
                }
            }

            impl From<$name> for Place {
                fn from(key: $name) -> Self {
                    Self { at: key.0.0, id: key.1 }
                }
            }
        )*
    };
}

place_keys! {
    /// The list of readings.
    ReadingKey = "readings";
    /// The list of device events.
    EventKey = "events";
    /// The list of weighing sessions.
    SessionKey = "sessions";
    /// The list of results of inference.
    ResultKey = "results";
    /// The list of what was given up.
    DeadKey = "dlq";
    /// The list of refusals.
    RejectKey = "rejects";
}

/// Makes the key of a list that is ordered by ids, which grow with time.
macro_rules! id_keys {
    ($($(#[$doc:meta])* $name:ident = $list:literal;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
            pub(super) struct $name(Uuid);

            impl Key for $name {
                const LIST: &'static str = $list;
            }

            impl From<Uuid> for $name {
                fn from(id: Uuid) -> Self {
                    Self(id)
                }
            }

            impl From<$name> for Uuid {
                fn from(key: $name) -> Self {
                    key.0
                }
            }
        )*
    };
}

id_keys! {
    /// The list of what was said of a session.
    MarkKey = "marks";
    /// The list of what was done.
    AuditKey = "audit";
    /// The list of records of a flock.
    RecordKey = "records";
    /// The list of what happened to alarms.
    AlarmEventKey = "alarm_events";
    /// The list of drills.
    DrillKey = "drills";
}

/// The key of the list of flocks: day of placement and flock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FlockKey(pub NaiveDate, pub Uuid);

impl Key for FlockKey {
    const LIST: &'static str = "flocks";
}

/// The key of the list of barns: tenant, farm and barn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BarnKey(pub String, pub String, pub String);

impl Key for BarnKey {
    const LIST: &'static str = "barns";
}

/// The key of the list of devices: tenant and device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DeviceKey(pub String, pub String);

impl Key for DeviceKey {
    const LIST: &'static str = "devices";
}

/// The key of the list of stations: tenant and station.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StationKey(pub String, pub String);

impl Key for StationKey {
    const LIST: &'static str = "stations";
}

/// The cursor of a page.
pub(super) fn next<T, K: Key + From<Place>>(page: &Page<T>) -> Option<String> {
    page.next.map(|place| encode(&K::from(place)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        let at = Timestamp::from_timestamp_micros(1_770_888_735_052_001).expect("a time");
        Place { at, id: Uuid::from_u128(7) }
    }

    #[test]
    fn a_cursor_keeps_its_place_to_the_microsecond() {
        let text = encode(&SessionKey::from(place()));
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{text}");
        assert_eq!(decode::<SessionKey>(&text).map(Place::from), Some(place()));
    }

    #[test]
    fn a_text_that_is_no_cursor_of_the_list_is_none() {
        let other = encode(&ReadingKey::from(place()));
        let far = URL_SAFE_NO_PAD.encode(format!(r#"["sessions",[{},"{}"]]"#, i64::MAX, Uuid::nil()));
        let odd = URL_SAFE_NO_PAD.encode(r#"["sessions",["x","y"]]"#);
        for text in [other.as_str(), &far, &odd, "", "x", "ä", &"x".repeat(100_000)] {
            assert_eq!(decode::<SessionKey>(text), None, "{}", text.len());
        }
    }
}
