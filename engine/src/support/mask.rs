//! What no text of a support archive may show: the secrets that the box knows, and whatever looks like one.

use crate::config::{Config, Environment, Secret, Url, every_key};
use crate::first_keys::KEPT_FILES;

/// What stands in the place of a secret.
const MASKED: &str = "***";
/// Characters of the shortest text that is taken for a secret wherever it occurs.
const CHARS_MIN: usize = 6;
/// What a value follows that nobody may see, in lower case.
const NAMES: [&str; 20] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "secret_key",
    "token",
    "api_key",
    "api-key",
    "apikey",
    "access_key",
    "accesskeyid",
    "authorization",
    "signature",
    "x-amz-credential",
    "x-amz-security-token",
    "credential",
    "hmac",
    "private_key",
    "cookie",
    "payload",
];
/// How words begin that are secrets wherever they stand: tokens, hashes of passwords, keys of AWS.
const BEGINNINGS: [&str; 5] = ["eyJ", "$argon2", "$7$", "AKIA", "ASIA"];
/// Schemes of the Authorization header, which a secret follows.
const SCHEMES: [&str; 2] = ["bearer", "basic"];

/// Takes secrets out of texts.
pub(super) struct Mask {
    /// The longest first, since one may be part of another.
    known: Vec<String>,
}

impl Mask {
    /// Knows the secrets of the configuration, of the environment, and those that the box made.
    pub(super) fn of(config: &Config, environment: &Environment) -> Self {
        let mut known = configured(config);
        for key in every_key().filter(|key| key.secret) {
            let names = std::iter::once(key.env_name()).chain(key.old.iter().map(|old| old.name.to_owned()));
            known.extend(names.filter_map(|name| environment.get(&name).map(str::to_owned)));
        }
        for name in KEPT_FILES.iter().filter(|name| **name != "edge-id") {
            known.extend(std::fs::read_to_string(config.edge.data_dir.join(name)));
        }
        let parts: Vec<String> = known.iter().flat_map(|text| parts(text)).collect();
        known.extend(parts);
        known = known.into_iter().map(|text| text.trim().to_owned()).collect();
        known.retain(|text| text.chars().count() >= CHARS_MIN);
        known.sort_by_key(|text| std::cmp::Reverse(text.len()));
        known.dedup();
        Self { known }
    }

    /// The text without secrets.
    pub(super) fn apply(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.known {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), MASKED);
            }
        }
        let mut masked = String::with_capacity(text.len());
        let mut is_key = false;
        for line in text.split_inclusive('\n') {
            if line.contains("-----BEGIN") && line.contains("PRIVATE KEY") {
                is_key = !line.contains("-----END");
                masked.push_str("*** private key\n");
            } else if is_key {
                is_key = !line.contains("-----END");
            } else {
                masked.push_str(&mask_line(line));
            }
        }
        masked
    }
}

/// Every secret of the configuration.
fn configured(config: &Config) -> Vec<String> {
    let one = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.expose().to_owned());
    let url = |url: &Option<Url>| url.as_ref().map(|url| url.as_str().to_owned());
    let single = [
        one(&config.database.url),
        one(&config.mqtt.password),
        one(&config.media.access_key),
        one(&config.media.secret_key),
        one(&config.media.upload_secret),
        one(&config.inference.rabbitmq_url),
        one(&config.cloud.api_key),
        one(&config.cloud.hmac_secret),
        one(&config.cloud.authorization),
        one(&config.cloud.proxy),
        one(&config.backup.passphrase),
        one(&config.backup.access_key),
        one(&config.backup.secret_key),
        url(&config.cloud.url).filter(|url| url.contains('@')),
        Some(config.mqtt.url.as_str().to_owned()).filter(|url| url.contains('@')),
        url(&config.media.endpoint).filter(|url| url.contains('@')),
    ];
    let mut known: Vec<String> = single.into_iter().flatten().collect();
    known.extend(config.auth.jwt_secrets.iter().map(|secret| secret.expose().to_owned()));
    known.extend(config.auth.operator_keys.iter().map(|key| key.key.expose().to_owned()));
    known.extend(config.cloud.headers_json.iter().map(|(_, secret)| secret.expose().to_owned()));
    known
}

/// Secrets inside a secret: the password of an address, the second word of a header, the password of a connection string.
fn parts(text: &str) -> Vec<String> {
    let mut parts = Vec::new();
    if let Some((_, rest)) = text.split_once("://")
        && let Some((user, _)) = rest.rsplit_once('@')
    {
        parts.extend(user.split_once(':').map(|(_, password)| password.to_owned()));
    }
    if let Some((scheme, secret)) = text.trim().split_once(' ')
        && SCHEMES.contains(&scheme.to_lowercase().as_str())
    {
        parts.push(secret.to_owned());
    }
    if let Some((_, rest)) = text.split_once("password=") {
        let (rest, ends) = match rest.strip_prefix('\'') {
            Some(quoted) => (quoted, &['\''][..]),
            None => (rest, &[' ', '&'][..]),
        };
        parts.extend(rest.split(ends).next().map(str::to_owned));
    }
    parts
}

/// A line without what looks like a secret.
fn mask_line(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    let mut masked = String::with_capacity(line.len());
    let mut at = 0;
    while at < line.len() {
        if let Some((keep, skip)) = secret_at(line, &lower, at) {
            masked.push_str(&line[at..at + keep]);
            masked.push_str(MASKED);
            at += keep + skip;
            continue;
        }
        let next = line[at..].chars().next().expect("there is more of the line");
        masked.push(next);
        at += next.len_utf8();
    }
    masked
}

/// What begins here: so many bytes that stay, followed by so many that are secret.
fn secret_at(line: &str, lower: &str, at: usize) -> Option<(usize, usize)> {
    let rest = &line[at..];
    let is_start = at == 0 || !line.as_bytes()[at - 1].is_ascii_alphanumeric();
    if let Some(address) = rest.strip_prefix("://") {
        let authority = &address[..address.find(['/', ' ', '"', '\'', '?', '\n']).unwrap_or(address.len())];
        return authority.rfind('@').filter(|end| *end > 0).map(|end| (3, end));
    }
    if !is_start {
        return None;
    }
    if BEGINNINGS.iter().any(|beginning| rest.starts_with(beginning)) {
        return Some((0, rest.find([' ', '"', '\'', '\n']).unwrap_or(rest.len())));
    }
    let lower = &lower[at..];
    if let Some(scheme) = SCHEMES.iter().find(|scheme| lower.starts_with(**scheme)) {
        let value = rest[scheme.len()..].strip_prefix(' ').map_or(0, word);
        return (value >= CHARS_MIN).then_some((scheme.len() + 1, value));
    }
    let name = NAMES.iter().filter(|name| lower.starts_with(**name)).max_by_key(|name| name.len())?;
    let after = &rest[name.len()..];
    let gap =
        after.find(|c: char| !matches!(c, '"' | '\'' | '\\' | ' ' | ':' | '=' | '%')).unwrap_or(after.len());
    if !after[..gap].contains(['=', ':']) {
        return None;
    }
    let value = value_length(&after[gap..], after[..gap].ends_with('"'));
    (value > 0).then_some((name.len() + gap, value))
}

/// The length of a value: up to its closing quote, of an object as a whole, or a word, with the scheme before it.
fn value_length(value: &str, is_quoted: bool) -> usize {
    if is_quoted {
        return value.find(['"', '\n']).unwrap_or(value.len());
    }
    if value.starts_with(['{', '[']) {
        return value.trim_end_matches('\n').len();
    }
    let first = word(value);
    let is_scheme = SCHEMES.contains(&value[..first].to_ascii_lowercase().as_str());
    if is_scheme && value[first..].starts_with(' ') { first + 1 + word(&value[first + 1..]) } else { first }
}

/// The length of what stands before a space, a quote, or what separates values.
fn word(text: &str) -> usize {
    text.find([' ', '"', '\'', '&', ',', ';', '}', ')', ']', '\n', '\\']).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(text: &str) -> String {
        Mask { known: vec!["known-secret".to_owned()] }.apply(text)
    }

    #[test]
    fn what_looks_like_a_secret_goes_and_the_rest_stays() {
        for (text, expected) in [
            ("a known-secret b", "a *** b"),
            ("postgresql://farmiq:hush@db/farmiq", "postgresql://***@db/farmiq"),
            ("amqp://u:p%40ss@rabbit:5672/v and http://x/y", "amqp://***@rabbit:5672/v and http://x/y"),
            ("PUT /u?expires=5&signature=abcdef&x=1", "PUT /u?expires=5&signature=***&x=1"),
            (
                "?X-Amz-Credential=AKID%2F1&X-Amz-Signature=00ff&a=b",
                "?X-Amz-Credential=***&X-Amz-Signature=***&a=b",
            ),
            ("Authorization: Bearer abc.def.ghi", "Authorization: ***"),
            ("sent Bearer abcdefgh on", "sent Bearer *** on"),
            (r#"{"password":"a b, c","n":1}"#, r#"{"password":"***","n":1}"#),
            (r#"{"payload":{"t":1},"n":1}"#, r#"{"payload":***"#),
            ("host=db password=hush user=x", "host=db password=*** user=x"),
            ("eyJhbGciOi.eyJzdWIi.sig next", "*** next"),
            ("hash $argon2id$v=19$m=1,t=2$x$y end", "hash *** end"),
            ("AKIAIOSFODNN7EXAMPLE", "***"),
            (r#"auth_refused{reason="token"} 5"#, r#"auth_refused{reason="token"} 5"#),
            ("jwt_lifetime_seconds = 600", "jwt_lifetime_seconds = 600"),
            ("the token is bad", "the token is bad"),
            ("ünï token=ü next", "ünï token=*** next"),
        ] {
            assert_eq!(mask(text), expected, "{text}");
        }
        let key = "a\n-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\nb\n";
        assert_eq!(mask(key), "a\n*** private key\nb\n");
    }

    #[test]
    fn the_secret_inside_a_secret_is_known_too() {
        assert_eq!(parts("amqp://user:hush-hush@host/v"), ["hush-hush"]);
        assert_eq!(parts("Bearer abcdef"), ["abcdef"]);
        assert_eq!(parts("host=db password='hush hush' user=x"), ["hush hush"]);
    }
}
