//! The files of the console: in the program, named after their contents, so that browsers keep them for good.

use std::io::Write;
use std::sync::LazyLock;

use axum::body::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

/// Hexadecimal digits of a hash in a name.
const HASH_DIGITS: usize = 12;
/// Where they are served.
pub(crate) const PATH: &str = "/assets";

/// A file.
pub(crate) struct Asset {
    /// What templates call it.
    name: &'static str,
    /// Where it is.
    pub(crate) url: String,
    /// What it is.
    pub(crate) content_type: &'static str,
    /// Its bytes.
    pub(crate) plain: Bytes,
    /// The same, packed; `None` where that saves nothing.
    pub(crate) packed: Option<Bytes>,
}

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    let font = Asset::of("noto-sans-thai.woff2", "font/woff2", include_bytes!("assets/noto-sans-thai.woff2"));
    let style = include_str!("assets/console.css").replace("{{noto-sans-thai.woff2}}", &font.url);
    let script = "text/javascript; charset=utf-8";
    vec![
        Asset::of("console.css", "text/css; charset=utf-8", style.as_bytes()),
        Asset::of("console.js", script, include_bytes!("assets/console.js")),
        Asset::of("htmx.js", script, include_bytes!("assets/htmx-2.0.11.min.js")),
        Asset::of("icon.svg", "image/svg+xml", include_bytes!("assets/icon.svg")),
        font,
    ]
});

impl Asset {
    fn of(name: &'static str, content_type: &'static str, bytes: &[u8]) -> Self {
        let hash = hex::encode(Sha256::digest(bytes));
        let (stem, ending) = name.rsplit_once('.').unwrap_or((name, ""));
        let packed = pack(bytes);
        Self {
            name,
            url: format!("{PATH}/{stem}.{}.{ending}", &hash[..HASH_DIGITS]),
            content_type,
            plain: Bytes::copy_from_slice(bytes),
            packed: (packed.len() < bytes.len()).then(|| packed.into()),
        }
    }
}

/// Where a file is that a template names.
pub(crate) fn url(name: &str) -> &'static str {
    ASSETS.iter().find(|asset| asset.name == name).map_or("", |asset| &asset.url)
}

/// The file at a place below [`PATH`].
pub(crate) fn at(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.url == path)
}

/// Bytes, packed by gzip.
pub(crate) fn pack(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 3), Compression::default());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("a vector takes everything")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The budget of a first page, beside its own bytes.
    const PACKED_BYTES_MAX: usize = 33_000;

    #[test]
    fn files_are_named_after_their_contents_and_small() {
        let style = url("console.css");
        assert!(style.starts_with("/assets/console.") && style.ends_with(".css"), "{style}");
        assert!(at(style).is_some() && at("/assets/console.css").is_none());
        let text = String::from_utf8_lossy(&at(style).unwrap().plain);
        assert!(
            text.contains(url("noto-sans-thai.woff2")) && !text.contains("{{"),
            "the font is named by its hash"
        );
        let packed: usize = ["console.css", "console.js", "htmx.js", "icon.svg"]
            .map(|name| at(url(name)).unwrap())
            .map(|asset| asset.packed.as_ref().map_or(asset.plain.len(), Bytes::len))
            .iter()
            .sum();
        assert!(packed < PACKED_BYTES_MAX, "{packed}");
    }

    #[test]
    fn what_others_made_is_as_they_made_it() {
        let check = |name: &str, expected: &str| {
            let found = hex::encode(Sha256::digest(&at(url(name)).unwrap().plain));
            assert_eq!(found, expected, "{name}");
        };
        check("htmx.js", HTMX_SHA256);
        check("noto-sans-thai.woff2", FONT_SHA256);
    }

    const HTMX_SHA256: &str = "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717";
    const FONT_SHA256: &str = "1f5a173641bbcb3ca4fb0a986858b6b07f8cd5dd2ed61236b40548c7a3c7292f";
}
