//! Names of images: keys and paths, made of ids whose odd characters are replaced.

use std::fmt::Write;

use schema::clock::Timestamp;
use schema::id::Uuid;

/// Types that may be uploaded, each with its extension.
pub const CONTENT_TYPES: [(&str, &str); 3] =
    [("image/jpeg", ".jpg"), ("image/png", ".png"), ("image/webp", ".webp")];

/// Bytes of an extension at most; a longer one is none.
const EXTENSION_BYTES_MAX: usize = 16;

/// Where an image belongs.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// Tenant.
    pub tenant_id: &'a str,
    /// Farm.
    pub farm_id: &'a str,
    /// Barn.
    pub barn_id: &'a str,
    /// The camera.
    pub device_id: &'a str,
}

impl Owner<'_> {
    /// How every key of this owner begins.
    #[must_use]
    pub fn key_prefix(&self) -> String {
        let Self { tenant_id, farm_id, barn_id, device_id } = self;
        let [tenant, farm, barn, device] = [tenant_id, farm_id, barn_id, device_id].map(|id| cleaned(id));
        format!("tenants/{tenant}/farms/{farm}/barns/{barn}/devices/{device}/images/")
    }

    /// The key of a new image that is offered `now`.
    #[must_use]
    pub fn object_key(&self, now: Timestamp, id: Uuid, extension: &str) -> String {
        format!("{}{}/{id}{extension}", self.key_prefix(), now.format("%Y/%m/%d"))
    }

    /// The place of an image below the root of a directory.
    #[must_use]
    pub fn path(
        &self,
        session_id: Option<&str>,
        captured_at: Timestamp,
        media_id: Uuid,
        extension: &str,
    ) -> String {
        let mut path = [self.tenant_id, self.farm_id, self.barn_id].map(part).join("/");
        match session_id {
            Some(session_id) => write!(path, "/{}", part(session_id)),
            None => write!(path, "/monitoring/{}", part(self.device_id)),
        }
        .expect("a text can always be written to");
        let captured_at = captured_at.format("%Y%m%dT%H%M%S%.3fZ");
        format!("{path}/{captured_at}_{media_id}{extension}")
    }
}

/// The extension of an image, with its dot: that of the file name, else that of the type.
#[must_use]
pub fn extension(filename: Option<&str>, content_type: &str) -> String {
    let named = filename.and_then(|name| name.rsplit_once('.')).map(|(_, extension)| cleaned(extension));
    match named.filter(|extension| (1..=EXTENSION_BYTES_MAX).contains(&extension.len())) {
        Some(extension) => format!(".{extension}"),
        None => {
            let known = CONTENT_TYPES.iter().find(|(name, _)| *name == content_type);
            known.map_or(".jpg", |(_, extension)| extension).to_owned()
        }
    }
}

/// Whether a file name is only a name.
#[must_use]
pub fn is_plain_filename(name: &str) -> bool {
    !name.contains(['/', '\\']) && !name.contains("..") && !name.chars().any(char::is_control)
}

/// An id with every character replaced that a key should not have.
fn cleaned(id: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    id.chars().map(|c| if is_plain(c) { c } else { '_' }).collect()
}

/// An id as one name of a path: dots alone would climb.
fn part(id: &str) -> String {
    let cleaned = cleaned(id);
    if cleaned.chars().all(|c| c == '.') { "_".repeat(cleaned.len()) } else { cleaned }
}

#[cfg(test)]
mod tests {
    use schema::wire;

    use super::*;

    const OWNER: Owner<'_> = Owner { tenant_id: "t-001", farm_id: "f 1", barn_id: "..", device_id: "wv-ü" };

    fn at() -> Timestamp {
        wire::time::parse("2026-02-12T09:32:15.052Z").expect("a time")
    }

    #[test]
    fn keys_and_paths_are_made_of_cleaned_ids() {
        let id = Uuid::nil();
        assert_eq!(
            OWNER.object_key(at(), id, ".jpg"),
            format!("tenants/t-001/farms/f_1/barns/../devices/wv-_/images/2026/02/12/{id}.jpg")
        );
        let name = format!("20260212T093215.052Z_{id}.jpg");
        assert_eq!(OWNER.path(None, at(), id, ".jpg"), format!("t-001/f_1/__/monitoring/wv-_/{name}"));
        assert_eq!(OWNER.path(Some("..."), at(), id, ".jpg"), format!("t-001/f_1/__/___/{name}"));
    }

    #[test]
    fn extensions_come_from_the_name_or_the_type() {
        let check = |name, content_type, expected: &str| {
            assert_eq!(extension(name, content_type), expected, "{name:?} {content_type}");
        };
        check(Some("a.tar.gz"), "image/jpeg", ".gz");
        check(Some("a.JPG"), "image/png", ".JPG");
        check(Some("a.j p"), "image/png", ".j_p");
        check(Some("a"), "image/png", ".png");
        check(Some("a."), "image/webp", ".webp");
        check(None, "image/jpeg", ".jpg");
        check(None, "image/other", ".jpg");
        check(Some("a.0123456789abcdefg"), "image/jpeg", ".jpg");
    }

    #[test]
    fn a_filename_is_only_a_name() {
        for bad in ["../a.jpg", "a/b.jpg", "a\\b.jpg", "..", "a..jpg", "a\0.jpg"] {
            assert!(!is_plain_filename(bad), "{bad:?}");
        }
        for good in ["a.jpg", "cam 1_left.JPG", "ü.png"] {
            assert!(is_plain_filename(good), "{good:?}");
        }
    }
}
