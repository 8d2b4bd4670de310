//! Replaces ids and values of recorded traffic, the same always by the same, so that it can be handed on.

use hmac::{Hmac, Mac};
use sha2::Sha256;

use schema::wire::time;

use crate::ids::{hyphenated, parse};
use crate::mqtt::properties::Properties;
use crate::recording::Message;
use crate::traffic::text::{self, Scalar};
use crate::traffic::{self, Level};

/// Keys whose texts are words of the protocol and say nothing about a farm.
const KEPT_TEXTS: [&str; 18] = [
    "schema_version",
    "schemaVersion",
    "event_type",
    "eventType",
    "metric",
    "metric_type",
    "metricType",
    "unit",
    "status",
    "quality",
    "severity",
    "level",
    "role",
    "image_role",
    "imageRole",
    "content_type",
    "contentType",
    "content_hash",
];
/// Keys whose numbers are counts or sizes, not measurements.
const KEPT_NUMBERS: [&str; 6] =
    ["retry_count", "retryCount", "image_count", "imageCount", "size_bytes", "sizeBytes"];
/// Numbers of this size and below that are whole stay: they are counts, states and switches.
const SMALL: f64 = 9.0;
/// The least that is left of a measurement: values shrink by up to a tenth, so that a share stays below its whole.
const SHARE_MIN: f64 = 0.9;

/// A key, and all pseudonyms that follow from it.
#[derive(Clone, Debug)]
pub struct Redactor {
    key: [u8; 32],
}

impl Redactor {
    /// All recordings redacted with one key have the same pseudonyms; who has the key can tell who is who by trying.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// A key from a file's bytes, of any length.
    #[must_use]
    pub fn from_secret(secret: &[u8]) -> Self {
        use sha2::Digest;
        Self { key: Sha256::digest(secret).into() }
    }

    /// The message without what tells where it comes from. Times stay, and numbers keep their shape: the values of
    /// one key of one device shrink by the same share.
    #[must_use]
    pub fn redact(&self, message: Message) -> Message {
        let said = traffic::Said::of(&message.topic, &message.payload);
        let device = said.device.unwrap_or_default();
        let topic: Vec<_> =
            traffic::levels(&message.topic).map(|(level, text)| self.level(level, text)).collect();
        let body = std::str::from_utf8(&message.payload).ok();
        let body = body.and_then(|body| {
            text::map_envelope(body, |key, scalar| match scalar {
                Scalar::Text(text) => self.text(key, text),
                Scalar::Number(number) => self.number(&device, key, number),
            })
        });
        let payload = body.map_or_else(|| self.noise(&message.payload).into(), Into::into);
        let client = message.client.as_deref().map(|client| self.name(client));
        let properties = self.properties(message.properties);
        Message { topic: topic.join("/"), payload, client, properties, ..message }
    }

    fn level(&self, level: Level, text: &str) -> String {
        match level {
            Level::Word => text.to_owned(),
            Level::Unknown if text.is_empty() || text.starts_with('$') => text.to_owned(),
            Level::Tenant
            | Level::Farm
            | Level::Barn
            | Level::Device
            | Level::Station
            | Level::Session
            | Level::Unknown => self.name(text),
        }
    }

    fn text(&self, key: &str, text: &str) -> Option<String> {
        if text.is_empty() || KEPT_TEXTS.contains(&key) || time::parse(text).is_some() {
            return None;
        }
        Some(self.name(text))
    }

    /// A UUID becomes a UUID of the same version, a hash becomes a hash, anything else a short name.
    fn name(&self, text: &str) -> String {
        let digest = self.digest(text.as_bytes());
        let (bits, _) = digest.split_first_chunk::<16>().expect("a digest has 32 bytes");
        let bits = u128::from_be_bytes(*bits);
        if let Some(old) = parse(&text.to_ascii_lowercase()) {
            const KEPT: u128 = (0xF << 76) | (0b11 << 62);
            return hyphenated((bits & !KEPT) | (old & KEPT));
        }
        if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return hex::encode(digest);
        }
        format!("x-{:012x}", bits >> 80)
    }

    fn number(&self, device: &str, key: &str, number: &str) -> Option<String> {
        let value: f64 = number.parse().ok()?;
        let is_whole = !number.contains(['.', 'e', 'E']);
        if KEPT_NUMBERS.contains(&key) || value == 0.0 || (is_whole && value.abs() <= SMALL) {
            return None;
        }
        let digest = self.digest(format!("{device}\0{key}").as_bytes());
        let share = SHARE_MIN + (1.0 - SHARE_MIN) * f64::from(digest[0]) / 256.0;
        let digits = number.split(['e', 'E']).next().unwrap_or(number);
        let digits = digits.split_once('.').map_or(0, |(_, fraction)| fraction.len());
        Some(format!("{:.digits$}", value * share))
    }

    /// As many bytes that mean nothing, the same for the same.
    fn noise(&self, bytes: &[u8]) -> Vec<u8> {
        let seed = self.digest(bytes);
        let block = |at: usize| self.digest(&[&seed[..], &at.to_be_bytes()].concat());
        let count = bytes.len().div_ceil(seed.len());
        let mut noise: Vec<u8> = (0..count).flat_map(block).collect();
        noise.truncate(bytes.len());
        noise
    }

    fn properties(&self, properties: Properties) -> Properties {
        let hidden = |data: String| hex::encode(self.noise(data.as_bytes()));
        let user = properties.user.into_iter().map(|(name, value)| (name, self.name(&value))).collect();
        Properties {
            response_topic: properties.response_topic.map(|topic| {
                let levels: Vec<_> =
                    traffic::levels(&topic).map(|(level, text)| self.level(level, text)).collect();
                levels.join("/")
            }),
            correlation_data_hex: properties.correlation_data_hex.map(hidden),
            user,
            ..properties
        }
    }

    fn digest(&self, bytes: &[u8]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("a key of any length will do");
        mac.update(bytes);
        mac.finalize().into_bytes().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::Said;
    use schema::clock::Timestamp;

    const BODY: &str = r#"{"event_id":"be6ead4e-49b4-4366-a96b-edf9725f68bf","tenant_id":"somchai-farm","deviceId":"d-1","ts":"2026-02-12T09:32:15Z","payload":{"value":57.30,"unit":"%","retry_count":3,"count":4,"note":"call +66 1"}}"#;

    fn message(topic: &str, payload: &[u8]) -> Message {
        Message {
            at: Timestamp::UNIX_EPOCH,
            topic: topic.into(),
            qos: 1,
            is_retained: false,
            payload: payload.to_vec().into(),
            properties: Properties { user: vec![("k".into(), "secret".into())], ..Properties::default() },
            client: Some("d-1".into()),
        }
    }

    fn redacted(topic: &str, payload: &[u8]) -> Message {
        Redactor::from_secret(b"key").redact(message(topic, payload))
    }

    #[test]
    fn nothing_of_a_farm_is_left_and_everything_still_fits_together() {
        let message = redacted("iot/telemetry/somchai-farm/f/b/d-1/humidity", BODY.as_bytes());
        let text = std::str::from_utf8(&message.payload).unwrap();
        for secret in ["somchai", "d-1", "be6ead4e", "+66"] {
            assert!(!text.contains(secret) && !message.topic.contains(secret), "{secret} in {text}");
        }
        let said = Said::of(&message.topic, &message.payload);
        let body: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(body["tenant_id"].as_str(), said.tenant.as_deref());
        assert_eq!(body["deviceId"].as_str(), said.device.as_deref());
        assert_eq!(message.client, said.device);
        assert_eq!(&said.event_id.unwrap()[14..15], "4");
        assert!(message.topic.ends_with("/humidity") && body["ts"] == "2026-02-12T09:32:15Z");
        assert_ne!(message.properties.user[0].1, "secret");
    }

    #[test]
    fn numbers_keep_their_shape() {
        let value = |number: &str| {
            let body = BODY.replace("57.30", number);
            let message = redacted("iot/telemetry/t/f/b/d-1/humidity", body.as_bytes());
            let text = String::from_utf8(message.payload.to_vec()).unwrap();
            let at = text.find(r#""value":"#).unwrap() + 8;
            text[at..].split(',').next().unwrap().to_owned()
        };
        let share = value("50.00").parse::<f64>().unwrap() / 50.0;
        assert!((SHARE_MIN..=1.0).contains(&share), "{share}");
        let other = value("100.00").parse::<f64>().unwrap() / 100.0;
        assert!((share - other).abs() < 0.001, "{share} {other}");
        assert_eq!(value("50.00").split_once('.').unwrap().1.len(), 2);
        assert_eq!((value("0.0"), value("4")), ("0.0".to_owned(), "4".to_owned()));
    }

    #[test]
    fn a_body_without_a_form_becomes_noise_of_its_length() {
        let payload = vec![0xFF; 100];
        let message = redacted("anything/of/mine", &payload);
        assert!(message.payload.len() == 100 && message.payload != payload);
        assert!(message.topic.split('/').all(|level| level.starts_with("x-")), "{}", message.topic);
        assert_eq!(message, redacted("anything/of/mine", &payload));
    }
}
