//! Identifiers: the checked newtypes of the domain, and the derivation of ids from ids.

use std::fmt;
use std::sync::Arc;

pub use uuid::Uuid;

use crate::clock::Timestamp;

/// Bytes a tenant, farm, barn, device, station or session id may have.
pub const ID_BYTES_MAX: usize = 128;
/// Bytes an event or trace id may have.
pub const EVENT_ID_BYTES_MAX: usize = 200;

/// Namespace of everything derived at the ingress: UUIDv5(DNS, `farmiq.edge.ingress`).
pub const INGRESS_NAMESPACE: Uuid = Uuid::from_u128(0x1c6cbba6_06ec_52ae_be2b_8fe562114528);
/// Namespace of media ids and their events: UUIDv5(DNS, `farmiq.edge.media-store`).
pub const MEDIA_NAMESPACE: Uuid = Uuid::from_u128(0xe7206ae5_8d3f_59cf_8318_7b77203ae786);
/// Namespace of inference jobs: UUIDv5(DNS, `farmiq.edge.vision-inference`).
pub const INFERENCE_NAMESPACE: Uuid = Uuid::from_u128(0x2eb9208e_e7bf_5f20_b137_7ccf2738dfaf);

/// Why a text is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id has 1 to 128 bytes and neither control characters nor any of / + #")]
pub struct InvalidId;

/// Whether `text` may be the id of a tenant, farm, barn, device, station or session.
#[must_use]
pub fn is_id(text: &str) -> bool {
    (1..=ID_BYTES_MAX).contains(&text.len())
        && !text.chars().any(|c| c.is_control() || matches!(c, '/' | '+' | '#'))
}

/// Whether `text` may be an event id or a trace id: any text that the database and a log line can hold.
#[must_use]
pub fn is_event_id(text: &str) -> bool {
    (1..=EVENT_ID_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

macro_rules! id_types {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and wraps `text`; ids are compared byte by byte.
            ///
            /// # Errors
            /// [`InvalidId`] when the text is empty, too long or has a forbidden character.
            pub fn new(text: &str) -> Result<Self, InvalidId> {
                if is_id(text) { Ok(Self(Arc::from(text))) } else { Err(InvalidId) }
            }

            /// The id as it travels.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    )*};
}

id_types! {
    /// A customer. Uniqueness of every other id is per tenant.
    TenantId;
    /// A farm of a tenant.
    FarmId;
    /// A barn of a farm.
    BarnId;
    /// A device of a tenant.
    DeviceId;
    /// A weighing station of a barn.
    StationId;
    /// A weighing session.
    SessionId;
}

/// The form under which an event id is deduped and stored: a 36-character hyphenated UUID is lower-cased,
/// anything else stays as it is.
#[must_use]
pub fn normal_form(event_id: &str) -> String {
    match hyphenated_uuid(event_id) {
        Some(_) => event_id.to_ascii_lowercase(),
        None => event_id.to_owned(),
    }
}

/// The outbox id of a device's event: the UUID itself when the event id is one, otherwise a UUIDv5 of tenant and id.
#[must_use]
pub fn outbox_id(tenant_id: &str, event_id: &str) -> Uuid {
    hyphenated_uuid(event_id).unwrap_or_else(|| v5(&INGRESS_NAMESPACE, &[tenant_id, event_id]))
}

/// The outbox id of a second event that one device event causes.
#[must_use]
pub fn caused_event_id(tenant_id: &str, event_id: &str, event_type: &str) -> Uuid {
    v5(&INGRESS_NAMESPACE, &[tenant_id, event_id, event_type])
}

/// The event id of a bare status message without one: derived from the tenant and the SHA-256 of its raw body.
#[must_use]
pub fn bare_status_event_id(tenant_id: &str, body_sha256_hex: &str) -> Uuid {
    v5(&INGRESS_NAMESPACE, &[tenant_id, body_sha256_hex])
}

/// The id of a stored image, the same on every backend.
#[must_use]
pub fn media_id(tenant_id: &str, bucket: &str, object_key: &str) -> Uuid {
    v5(&MEDIA_NAMESPACE, &[tenant_id, bucket, object_key])
}

/// The id of the `media.stored` event of an image.
#[must_use]
pub fn media_stored_event_id(media_id: Uuid) -> Uuid {
    v5(&MEDIA_NAMESPACE, &[&media_id.hyphenated().to_string(), "media.stored"])
}

/// The id of the one inference job of an image and a model.
#[must_use]
pub fn inference_job_id(tenant_id: &str, media_id: &str, model_version: &str) -> Uuid {
    v5(&INFERENCE_NAMESPACE, &[tenant_id, media_id, model_version])
}

/// The id of a breeder's standard that comes with the program.
#[must_use]
pub fn bundled_standard_id(name: &str, sex: &str) -> Uuid {
    v5(&INGRESS_NAMESPACE, &["standard", name, sex])
}

/// The id of what a table says of a flock: the same words, counted from 0, are the same record whenever they come.
#[must_use]
pub fn table_record_id(flock_id: Uuid, says: &str, number: usize) -> Uuid {
    v5(&INGRESS_NAMESPACE, &["table", &flock_id.hyphenated().to_string(), says, &number.to_string()])
}

/// The id of the alarm of a rule at a place of a barn. Names have no slash in them, a place may.
#[must_use]
pub fn alarm_id([tenant_id, farm_id, barn_id]: [&str; 3], rule_id: &str, place: &str) -> Uuid {
    v5(&INGRESS_NAMESPACE, &["alarm", &[tenant_id, farm_id, barn_id, rule_id, place].join("/")])
}

/// A new, time-ordered id.
#[must_use]
pub fn new_id() -> Uuid {
    Uuid::now_v7()
}

/// The last id that [`new_id`] can make at a time.
#[must_use]
pub fn last_id_at(at: Timestamp) -> Uuid {
    let millis = u128::from(at.timestamp_millis().max(0).unsigned_abs());
    Uuid::from_u128((millis << 80) | ((1 << 80) - 1))
}

fn hyphenated_uuid(text: &str) -> Option<Uuid> {
    if text.len() == 36 { Uuid::try_parse(text).ok() } else { None }
}

fn v5(namespace: &Uuid, parts: &[&str]) -> Uuid {
    Uuid::new_v5(namespace, parts.join(":").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_derived_from_dns_names() {
        let derive = |name: &str| Uuid::new_v5(&Uuid::NAMESPACE_DNS, name.as_bytes());
        assert_eq!(derive("farmiq.edge.ingress"), INGRESS_NAMESPACE);
        assert_eq!(derive("farmiq.edge.media-store"), MEDIA_NAMESPACE);
        assert_eq!(derive("farmiq.edge.vision-inference"), INFERENCE_NAMESPACE);
    }

    #[test]
    fn outbox_ids_follow_the_vectors_of_the_contract() {
        let check = |tenant, event, expected: &str| {
            assert_eq!(outbox_id(tenant, event).to_string(), expected, "{tenant} {event}");
        };
        check("t-001", "BE6EAD4E-49B4-4366-A96B-EDF9725F68BF", "be6ead4e-49b4-4366-a96b-edf9725f68bf");
        check("t-001", "sample-123", "04b91090-ed49-5a64-8463-9abb0c271840");
        check("t-001", "e-1", "399f8955-eada-5f30-8d8b-d803da21e446");
        check("t-002", "e-1", "d0610136-a120-5b8f-a254-0468497f500d");
    }

    #[test]
    fn a_uuid_without_hyphens_is_any_text() {
        let plain = "be6ead4e49b44366a96bedf9725f68bf";
        assert_eq!(normal_form(plain), plain);
        assert_ne!(outbox_id("t-001", plain).simple().to_string(), plain);
    }

    #[test]
    fn derived_ids_follow_the_vectors_of_the_contract() {
        let amended =
            caused_event_id("t-001", "b90ef830-1448-40a2-9455-16158bd54c0e", "weighvision.session.amended");
        assert_eq!(amended.to_string(), "87c71e6b-8a0d-5c53-a28d-aa093a6dcf7c");
        let status =
            bare_status_event_id("t-001", "cb0e5eca4b0b0a9ab9be38791e7f9b078d444d76c6b2dce247515ddb3c91b1f4");
        assert_eq!(status.to_string(), "f0dcce05-701f-5005-9436-8262da647a11");
    }

    #[test]
    fn media_and_job_ids_follow_the_vectors_of_the_contract() {
        let other = media_id("t", "b", "tenants/OTHER/x.jpg");
        assert_eq!(other.to_string(), "f6b0e0d6-9d71-52c7-a1e9-e6e4fce03c7b");
        assert_eq!(media_stored_event_id(other).to_string(), "e11581ad-d4ab-5fbb-994f-e94d37ebc61f");

        let key = "tenants/t-001/farms/f-001/barns/b-001/devices/wv-001/images/2026/02/12/11111111-1111-4111-8111-111111111111.jpg";
        let image = media_id("t-001", "farmiq-media", key);
        assert_eq!(image.to_string(), "226550f6-c262-5647-a6c9-2545e81f2a84");
        assert_eq!(media_stored_event_id(image).to_string(), "3f2edf58-386b-5e06-aeb7-f10fb511d1dd");
        let job = inference_job_id("t-001", &image.to_string(), "v1.0.0");
        assert_eq!(job.to_string(), "6c740147-465c-5339-816a-7b9a7f897427");
    }

    #[test]
    fn ids_refuse_what_a_topic_or_a_log_cannot_hold() {
        for bad in ["", "a/b", "a+", "#", "tab\there", "nul\0", &"x".repeat(129)] {
            assert_eq!(TenantId::new(bad), Err(InvalidId), "{bad:?}");
        }
        for good in ["t-001", "ü", "a b", &"x".repeat(128)] {
            assert_eq!(TenantId::new(good).map(|id| id.as_str().to_owned()), Ok(good.to_owned()));
        }
    }
}
