//! UUIDs as the numbers they are: sixteen bytes instead of a string of thirty-six.

use rand::Rng;

/// A new UUIDv4 in its usual text form, as devices make them.
pub fn new_event_id(random: &mut impl Rng) -> String {
    let bits = random.random::<u128>();
    let id = (bits & !(0xF000_u128 << 64) & !(0xC000_u128 << 48)) | (0x4000_u128 << 64) | (0x8000_u128 << 48);
    hyphenated(id)
}

/// The usual text form.
#[must_use]
pub fn hyphenated(id: u128) -> String {
    let hex = format!("{id:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Reads the lower-case, hyphenated form and no other, because the cloud compares ids as texts.
#[must_use]
pub fn parse(text: &str) -> Option<u128> {
    let bytes = text.as_bytes();
    if bytes.len() != 36 {
        return None;
    }
    let mut id = 0_u128;
    for (at, byte) in bytes.iter().enumerate() {
        let digit = match (at, byte) {
            (8 | 13 | 18 | 23, b'-') => continue,
            (8 | 13 | 18 | 23, _) => return None,
            (_, b'0'..=b'9') => byte - b'0',
            (_, b'a'..=b'f') => byte - b'a' + 10,
            _ => return None,
        };
        id = (id << 4) | u128::from(digit);
    }
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn new_event_ids_are_version_four_uuids_that_read_back() {
        let mut random = StdRng::seed_from_u64(3);
        for _ in 0..100 {
            let id = new_event_id(&mut random);
            assert_eq!(&id[14..15], "4", "{id}");
            assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"), "{id}");
            assert_eq!(parse(&id).map(hyphenated), Some(id));
        }
    }

    #[test]
    fn only_the_lower_case_hyphenated_form_is_a_number() {
        for text in
            ["", "e-1", "BE6EAD4E-49B4-4366-A96B-EDF9725F68BF", "be6ead4e049b4-4366-a96b-edf9725f68bf"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
