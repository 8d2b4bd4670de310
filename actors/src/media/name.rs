//! Names of images: keys and paths, made of ids whose odd characters are replaced.

use std::fmt::Write;

use chrono::NaiveDateTime;
use schema::clock::Timestamp;
use schema::id::Uuid;

/// Types that may be uploaded, each with its extension.
pub const CONTENT_TYPES: [(&str, &str); 3] =
    [("image/jpeg", ".jpg"), ("image/png", ".png"), ("image/webp", ".webp")];

/// How the name of a file ends that is still being written.
pub const DRAFT_SUFFIX: &str = ".part";
/// How the time in the name of a file is written.
const CAPTURED_AT_FORMAT: &str = "%Y%m%dT%H%M%S%.3fZ";
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
        let captured_at = captured_at.format(CAPTURED_AT_FORMAT);
        format!("{path}/{captured_at}_{media_id}{extension}")
    }
}

/// How the keys of every image of a place begin; a part that is not known may be any.
#[must_use]
pub fn key_prefix_of(tenant_id: &str, farm_id: Option<&str>, barn_id: Option<&str>) -> String {
    let mut prefix = format!("tenants/{}/farms/", cleaned(tenant_id));
    if let Some(farm_id) = farm_id {
        prefix = format!("{prefix}{}/barns/", cleaned(farm_id));
        if let Some(barn_id) = barn_id {
            prefix = format!("{prefix}{}/", cleaned(barn_id));
        }
    }
    prefix
}

/// Whether the engine could have given an image this path below the root of a directory.
#[must_use]
pub fn is_path(path: &str) -> bool {
    let Some((place, name)) = path.rsplit_once('/') else { return false };
    is_place(place) && is_file_name(name)
}

/// Whether the engine could have given this path to a file that is still being written.
#[must_use]
pub fn is_draft_path(path: &str) -> bool {
    let (place, name) = path.rsplit_once('/').unwrap_or(("", path));
    let id = name.strip_prefix('.').and_then(|name| name.strip_suffix(DRAFT_SUFFIX));
    (place.is_empty() || is_place(place)) && id.is_some_and(is_uuid)
}

/// Whether the engine could have given an image this key.
#[must_use]
pub fn is_key(key: &str) -> bool {
    let parts: Vec<&str> = key.split('/').collect();
    let [
        "tenants",
        tenant,
        "farms",
        farm,
        "barns",
        barn,
        "devices",
        device,
        "images",
        year,
        month,
        day,
        name,
    ] = parts.as_slice()
    else {
        return false;
    };
    let is_date = [(year, 4), (month, 2), (day, 2)]
        .iter()
        .all(|(part, digits)| part.len() == *digits && part.bytes().all(|byte| byte.is_ascii_digit()));
    is_date && [tenant, farm, barn, device].iter().all(|id| is_part(id)) && is_id_with_extension(name)
}

/// Whether files of ours lie in such a directory: that of a session, or of a device without one.
fn is_place(place: &str) -> bool {
    let parts: Vec<&str> = place.split('/').collect();
    let is_known = matches!(parts.as_slice(), [_, _, _, _] | [_, _, _, "monitoring", _]);
    is_known && parts.iter().all(|part| is_part(part))
}

fn is_file_name(name: &str) -> bool {
    let Some((captured_at, name)) = name.split_once('_') else { return false };
    let is_time = NaiveDateTime::parse_from_str(captured_at, CAPTURED_AT_FORMAT).is_ok();
    is_time && is_id_with_extension(name)
}

fn is_id_with_extension(name: &str) -> bool {
    let Some((id, extension)) = name.split_once('.') else { return false };
    is_uuid(id) && (1..=EXTENSION_BYTES_MAX).contains(&extension.len()) && is_part(extension)
}

/// Whether a text is an id as the engine writes it.
fn is_uuid(text: &str) -> bool {
    Uuid::try_parse(text).is_ok_and(|id| id.hyphenated().to_string() == text)
}

/// Whether a text is an id that was cleaned.
fn is_part(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_plain)
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
    id.chars().map(|c| if is_plain(c) { c } else { '_' }).collect()
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
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
    fn the_names_that_are_made_are_recognized_and_no_others() {
        let id = Uuid::from_u128(7);
        assert!(is_key(&OWNER.object_key(at(), id, ".jpg")));
        for path in [OWNER.path(None, at(), id, ".jpg"), OWNER.path(Some("s-1"), at(), id, ".JPG")] {
            assert!(is_path(&path), "{path}");
            let (place, _) = path.rsplit_once('/').expect("a place");
            assert!(is_draft_path(&format!("{place}/.{id}.part")), "{place}");
        }
        let name = format!("20260212T093215.052Z_{id}.jpg");
        for other in [
            name.clone(),
            format!("t/f/b/{name}"),
            format!("media/t/f/b/s/{name}"),
            format!("t/f/b/s/x/y/{name}"),
            format!("t/f//s/{name}"),
            format!("t/f/b/s p/{name}"),
            format!("t/f/b/s/{id}.jpg"),
            "t/f/b/s/20260212T093215.052Z_photo.jpg".to_owned(),
            format!("t/f/b/s/20261312T093215.052Z_{id}.jpg"),
            format!("t/f/b/s/{}", name.replace(".jpg", "")),
            format!("t/f/b/s/{}", name.replace(".jpg", ".")),
            format!("t/f/b/s/{}", name.replace("00007", "0000G")),
            format!("t/f/b/s/20260212T093215.052Z_{}.jpg", id.simple()),
        ] {
            assert!(!is_path(&other), "{other}");
        }
        for other in [".part", "t/f/b/s/.x.part", "t/f/.x.part", "t/f/b/s/x.part", "lost+found/.part"] {
            assert!(!is_draft_path(other), "{other}");
        }
        let key = format!("tenants/t/farms/f/barns/b/devices/d/images/2026/02/12/{id}.jpg");
        assert!(is_key(&key));
        for (what, with) in
            [("tenants/", "x/tenants/"), ("2026", "26"), (".jpg", ""), ("images", "files"), ("/t/", "//")]
        {
            assert!(!is_key(&key.replacen(what, with, 1)), "{what} → {with}");
        }
    }

    #[test]
    fn keys_of_a_place_begin_with_what_is_known_of_it() {
        assert_eq!(key_prefix_of("t 1", Some("f"), Some("b/1")), "tenants/t_1/farms/f/barns/b_1/");
        assert_eq!(key_prefix_of("t", Some("f"), None), "tenants/t/farms/f/barns/");
        assert_eq!(key_prefix_of("t", None, Some("b")), "tenants/t/farms/");
        assert!(OWNER.key_prefix().starts_with(&key_prefix_of("t-001", Some("f 1"), Some(".."))));
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
