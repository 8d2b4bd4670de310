//! What a station says about a weighing session: the payloads of weighvision topics.

use serde_json::Value;

use crate::clock::Timestamp;
use crate::id;
use crate::wire::event::{
    IMAGE_CAPTURED, MEDIA_BOUND, MEDIA_STORED, SESSION_CREATED, SESSION_FINALIZED, WEIGHT_RECORDED,
};
use crate::wire::reject::{Reason, Reject};
use crate::wire::time;

/// A step of a weighing session as a station reports it.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// It begins.
    Create {
        /// The batch of animals, where known.
        batch_id: Option<String>,
    },
    /// The scale has come to rest.
    Weight {
        /// A finite number.
        weight_kg: f64,
    },
    /// A picture was taken.
    Image {
        /// The media id.
        media_object_id: String,
        /// Which camera, such as `left`.
        image_role: Option<String>,
        /// Hex SHA-256 of its bytes, in lower case.
        sha256: Option<String>,
    },
    /// It ends.
    Finalize {
        /// When it ended, by the station's word.
        finalized_at: Option<Timestamp>,
    },
}

impl Step {
    /// Reads the payload of a message of this type.
    ///
    /// # Errors
    /// `NO_ROUTE` for an unknown type, `PAYLOAD_KEY_INVALID` for a weight or an image without its key,
    /// `VALUE_NOT_FINITE`.
    pub fn decode(event_type: &str, payload: &Value) -> Result<Self, Reject> {
        match event_type {
            SESSION_CREATED => Ok(Self::Create { batch_id: batch_id(payload) }),
            WEIGHT_RECORDED => Ok(Self::Weight { weight_kg: weight_kg(payload)? }),
            IMAGE_CAPTURED | MEDIA_BOUND | MEDIA_STORED => Ok(Self::Image {
                media_object_id: media_object_id(payload)?.to_owned(),
                image_role: text(payload, "image_role"),
                sha256: sha256(payload),
            }),
            SESSION_FINALIZED => {
                let finalized_at = payload.get("finalized_at").and_then(Value::as_str).and_then(time::parse);
                Ok(Self::Finalize { finalized_at })
            }
            _ => Err(Reject::of(Reason::NoRoute, "event_type")),
        }
    }
}

/// The first alias that is a text; a batch that cannot be an id counts as none, since it is no reason to lose a weighing.
fn batch_id(payload: &Value) -> Option<String> {
    let aliases = ["batchId", "batch_id"].iter().filter_map(|key| payload.get(key));
    let batch_id = aliases.filter_map(Value::as_str).next()?;
    id::is_id(batch_id).then(|| batch_id.to_owned())
}

fn weight_kg(payload: &Value) -> Result<f64, Reject> {
    let weight = first_of(payload, &["weightKg", "weight_kg", "weight", "value"]).and_then(Value::as_f64);
    let weight = weight.ok_or(Reject::of(Reason::PayloadKeyInvalid, "payload.weightKg"))?;
    if weight.is_finite() { Ok(weight) } else { Err(Reject::of(Reason::ValueNotFinite, "payload.weightKg")) }
}

fn media_object_id(payload: &Value) -> Result<&str, Reject> {
    let id = first_of(payload, &["mediaObjectId", "media_object_id", "mediaId", "media_id"])
        .and_then(Value::as_str);
    id.filter(|id| id::is_event_id(id)).ok_or(Reject::of(Reason::PayloadKeyInvalid, "payload.mediaObjectId"))
}

fn text(payload: &Value, key: &str) -> Option<String> {
    payload.get(key).and_then(Value::as_str).filter(|text| id::is_event_id(text)).map(str::to_owned)
}

/// A hash that cannot be one counts as none.
fn sha256(payload: &Value) -> Option<String> {
    let text = payload.get("sha256").and_then(Value::as_str)?;
    let is_hash = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash.then(|| text.to_ascii_lowercase())
}

fn first_of<'a>(payload: &'a Value, keys: &[&str]) -> Option<&'a Value> {
    keys.iter().filter_map(|key| payload.get(key)).find(|value| !value.is_null())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn decode(event_type: &str, payload: Value) -> Result<Step, Reason> {
        Step::decode(event_type, &payload).map_err(|reject| reject.reason)
    }

    #[test]
    fn the_first_alias_that_is_not_null_counts() {
        let weight = |payload: Value| decode(WEIGHT_RECORDED, payload);
        assert_eq!(weight(json!({"weightKg": null, "weight_kg": 5})), Ok(Step::Weight { weight_kg: 5.0 }));
        assert_eq!(weight(json!({"value": 5, "weight": 4})), Ok(Step::Weight { weight_kg: 4.0 }));
        assert_eq!(weight(json!({"weightKg": "5", "weight_kg": 5})), Err(Reason::PayloadKeyInvalid));
        assert_eq!(weight(json!({})), Err(Reason::PayloadKeyInvalid));
        let image = |payload: Value| decode(MEDIA_BOUND, payload);
        let expected =
            Step::Image { media_object_id: "m".into(), image_role: Some("vis".into()), sha256: None };
        assert_eq!(image(json!({"media_id": "m", "image_role": "vis"})), Ok(expected));
        assert_eq!(image(json!({"mediaObjectId": ""})), Err(Reason::PayloadKeyInvalid));
    }

    #[test]
    fn a_hash_counts_when_it_can_be_one() {
        let check = |sha256: Value, expected: Option<String>| {
            let step = decode(IMAGE_CAPTURED, json!({"media_id": "m", "sha256": sha256}));
            let image = Step::Image { media_object_id: "m".into(), image_role: None, sha256: expected };
            assert_eq!(step, Ok(image), "{sha256}");
        };
        check("0aF".repeat(21).into(), None);
        check(format!("{}0", "0aF".repeat(21)).into(), Some(format!("{}0", "0af".repeat(21))));
        check(format!("{}g", "0aF".repeat(21)).into(), None);
        check(json!(7), None);
        check(json!(null), None);
    }

    #[test]
    fn a_batch_is_a_text_under_either_name() {
        let batch = |payload: Value| decode(SESSION_CREATED, payload);
        let create = |batch_id: Option<&str>| Ok(Step::Create { batch_id: batch_id.map(str::to_owned) });
        assert_eq!(batch(json!({"batchId": null, "batch_id": "b"})), create(Some("b")));
        assert_eq!(batch(json!({"batchId": 7, "batch_id": "b"})), create(Some("b")));
        assert_eq!(batch(json!({"batchId": "", "batch_id": null})), create(None));
        assert_eq!(batch(json!(null)), create(None));
    }

    #[test]
    fn a_time_that_cannot_be_read_is_none() {
        let end = |payload: Value| decode(SESSION_FINALIZED, payload);
        assert_eq!(end(json!({"finalized_at": "soon"})), Ok(Step::Finalize { finalized_at: None }));
        let at = time::parse("2026-02-12T09:32:28Z");
        let payload = json!({"finalized_at": "2026-02-12T16:32:28.000000+07:00"});
        assert_eq!(end(payload), Ok(Step::Finalize { finalized_at: at }));
    }

    #[test]
    fn other_types_have_no_route() {
        assert_eq!(decode("weighvision.frame.uploaded", json!({})), Err(Reason::NoRoute));
        assert_eq!(decode("weighvision.inference.completed", json!({})), Err(Reason::NoRoute));
    }
}
