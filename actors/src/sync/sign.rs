//! How the engine proves to the cloud who it is.

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// The proof that every request carries.
#[derive(Clone)]
pub enum CloudAuth {
    /// None.
    None,
    /// `x-api-key`.
    ApiKey(String),
    /// `x-edge-timestamp` and `x-edge-signature`, made with this secret.
    Hmac(String),
}

impl std::fmt::Debug for CloudAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::ApiKey(_) => "ApiKey(..)",
            Self::Hmac(_) => "Hmac(..)",
        })
    }
}

/// The value of `x-edge-signature`. The cloud refuses a signature that it has seen: each attempt has its own timestamp
/// (Unix epoch, milliseconds).
#[must_use]
pub fn signature(secret: &str, timestamp_ms: i64, method: &str, path: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key may have any length");
    mac.update(format!("{timestamp_ms}.{method}.{path}.").as_bytes());
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

/// The path that is signed: without one trailing slash.
#[must_use]
pub fn signed_path(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_follow_the_vectors_of_the_contract() {
        let check = |method, path, body: &str, expected: &str| {
            let signed = signature("secret", 1_700_000_000_000, method, path, body.as_bytes());
            assert_eq!(signed, format!("sha256={expected}"));
        };
        check(
            "POST",
            "/api/v1/edge/batch",
            r#"{"tenant_id":"t-001","events":[]}"#,
            "b54951f15c8f9ba78701cd872958c1249fcd5f5e8d6a13fc1bd247d422196fc3",
        );
        check(
            "GET",
            "/api/v1/edge/diagnostics/handshake",
            "",
            "c195c9e71beecf722ce7088aeb87f29c95434a8496f1cad19e60e1685ff9f64f",
        );
    }

    #[test]
    fn one_trailing_slash_is_not_signed() {
        assert_eq!(signed_path("/a/b"), "/a/b");
        assert_eq!(signed_path("/a/b/"), "/a/b");
        assert_eq!(signed_path("/a//"), "/a/");
        assert_eq!(signed_path("/"), "");
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(format!("{:?}", CloudAuth::Hmac("s3cret".to_owned())), "Hmac(..)");
    }
}
