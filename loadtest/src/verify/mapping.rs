//! Under which id the cloud must have a message: written down from the wire contract a second time, because a judge that
//! used the engine's own function would agree with it when both are wrong.

use schema::id::Uuid;

/// UUIDv5 of the DNS namespace and `farmiq.edge.ingress`.
const INGRESS: Uuid = Uuid::from_bytes([
    0x1c, 0x6c, 0xbb, 0xa6, 0x06, 0xec, 0x52, 0xae, 0xbe, 0x2b, 0x8f, 0xe5, 0x62, 0x11, 0x45, 0x28,
]);
/// UUIDv5 of the DNS namespace and `farmiq.edge.media-store`.
const MEDIA: Uuid = Uuid::from_bytes([
    0xe7, 0x20, 0x6a, 0xe5, 0x8d, 0x3f, 0x59, 0xcf, 0x83, 0x18, 0x7b, 0x77, 0x20, 0x3a, 0xe7, 0x86,
]);
/// Where a UUID has its hyphens.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// The form in which the engine keeps an event id: a hyphenated UUID in lower case, anything else as it is.
#[must_use]
pub fn normal_form(event_id: &str) -> String {
    if is_hyphenated_uuid(event_id) { event_id.to_lowercase() } else { event_id.to_owned() }
}

/// The id of a message's event at the cloud.
#[must_use]
pub fn at_cloud(tenant_id: &str, event_id: &str) -> u128 {
    let uuid = if is_hyphenated_uuid(event_id) { Uuid::parse_str(event_id).ok() } else { None };
    let derived = || Uuid::new_v5(&INGRESS, format!("{tenant_id}:{event_id}").as_bytes());
    uuid.unwrap_or_else(derived).as_u128()
}

/// The id of the event that says that an image is stored.
#[must_use]
pub fn image_at_cloud(media_id: &str) -> u128 {
    Uuid::new_v5(&MEDIA, format!("{media_id}:media.stored").as_bytes()).as_u128()
}

fn is_hyphenated_uuid(text: &str) -> bool {
    let is_right = |(at, byte): (usize, u8)| match HYPHENS.contains(&at) {
        true => byte == b'-',
        false => byte.is_ascii_hexdigit(),
    };
    text.len() == 36 && text.bytes().enumerate().all(is_right)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::hyphenated;

    #[test]
    fn ids_follow_the_vectors_of_the_contract() {
        for (tenant, event_id, expected) in [
            ("t-001", "BE6EAD4E-49B4-4366-A96B-EDF9725F68BF", "be6ead4e-49b4-4366-a96b-edf9725f68bf"),
            ("t-001", "sample-123", "04b91090-ed49-5a64-8463-9abb0c271840"),
            ("t-001", "e-1", "399f8955-eada-5f30-8d8b-d803da21e446"),
            ("t-002", "e-1", "d0610136-a120-5b8f-a254-0468497f500d"),
        ] {
            assert_eq!(hyphenated(at_cloud(tenant, event_id)), expected, "{tenant} {event_id}");
        }
        let media = "226550f6-c262-5647-a6c9-2545e81f2a84";
        assert_eq!(hyphenated(image_at_cloud(media)), "3f2edf58-386b-5e06-aeb7-f10fb511d1dd");
    }

    #[test]
    fn only_whole_uuids_change_their_case() {
        assert_eq!(
            normal_form("BE6EAD4E-49B4-4366-A96B-EDF9725F68BF"),
            "be6ead4e-49b4-4366-a96b-edf9725f68bf"
        );
        for other in ["E-1", "BE6EAD4E049B4-4366-A96B-EDF9725F68BF", "{BE6EAD4E-49B4-4366-A96B-EDF9725F68B}"]
        {
            assert_eq!(normal_form(other), other);
        }
    }
}
