//! The address of the database as libpq takes it, in both spellings: where the server is, and how the way is encrypted.

use std::path::PathBuf;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::store::DatabaseError;
use crate::store::tls::{Checks, Tls};

/// The parameters that the driver does not know, or not whole.
const OURS: [&str; 4] = ["sslmode", "sslrootcert", "sslcert", "sslkey"];
/// A value of `sslrootcert`: the CAs that the system trusts.
const SYSTEM: &str = "system";

/// Why an address cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The driver does not understand it.
    #[error(transparent)]
    Driver(DatabaseError),
    /// A mode that libpq does not know.
    #[error("`{0}` is no sslmode: disable, allow, prefer, require, verify-ca or verify-full")]
    Mode(String),
    /// `sslcert` without `sslkey`, or the other way round.
    #[error("sslcert and sslkey go together")]
    Pair,
    /// The CAs of the system vouch for anybody's name.
    #[error(
        "sslrootcert=system needs sslmode=verify-full: the CAs of the system vouch for every host there is"
    )]
    System,
}

/// How to reach the server.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) config: Config,
    pub(super) tls: Tls,
}

impl Link {
    /// Reads an address.
    pub(super) fn parse(address: &str) -> Result<Self, LinkError> {
        let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| address.starts_with(scheme));
        let (rest, ours) = if is_url { split_url(address) } else { split_words(address) };
        let mut config: Config =
            rest.parse().map_err(|error: tokio_postgres::Error| LinkError::Driver(error.into()))?;
        let last = |key: &str| ours.iter().rfind(|(name, _)| name == key).map(|(_, value)| value.as_str());
        let ca = last("sslrootcert");
        let (mode, checks) = encryption(last("sslmode"), ca)?;
        let own = match (last("sslcert"), last("sslkey")) {
            (Some(cert), Some(key)) => Some((PathBuf::from(cert), PathBuf::from(key))),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(LinkError::Pair),
        };
        let ca = ca.filter(|ca| *ca != SYSTEM).map(PathBuf::from);
        config.ssl_mode(mode);
        if config.get_hosts().is_empty() {
            // The driver asks for a name to encrypt by; an address is one.
            for address in config.get_hostaddrs().to_vec() {
                config.host(address.to_string());
            }
        }
        let is_socket = |host: &Host| matches!(host, Host::Unix(_));
        if !config.get_hosts().is_empty() && config.get_hosts().iter().all(is_socket) {
            config.ssl_mode(SslMode::Disable);
        }
        Ok(Self { config, tls: Tls { checks, ca, own } })
    }
}

/// | sslmode | encrypted | the certificate |
/// |---|---|---|
/// | disable | no | |
/// | allow, prefer (default) | if the server can | is not looked at |
/// | require | yes | is not looked at; with an sslrootcert as verify-ca |
/// | verify-ca | yes | a CA vouches for it |
/// | verify-full | yes | also names the host |
fn encryption(mode: Option<&str>, ca: Option<&str>) -> Result<(SslMode, Checks), LinkError> {
    let is_system = ca == Some(SYSTEM);
    match mode {
        None if is_system => Ok((SslMode::Require, Checks::ChainAndName)),
        Some("verify-full") => Ok((SslMode::Require, Checks::ChainAndName)),
        _ if is_system => Err(LinkError::System),
        Some("disable") => Ok((SslMode::Disable, Checks::Nothing)),
        None | Some("allow" | "prefer") => Ok((SslMode::Prefer, Checks::Nothing)),
        Some("require") if ca.is_none() => Ok((SslMode::Require, Checks::Nothing)),
        Some("require" | "verify-ca") => Ok((SslMode::Require, Checks::Chain)),
        Some(other) => Err(LinkError::Mode(other.to_owned())),
    }
}

/// An address without our parameters, and these.
type Split = (String, Vec<(String, String)>);

fn split_url(url: &str) -> Split {
    // A question mark before the last at sign belongs to a password.
    let credentials = url.rfind('@').unwrap_or(0);
    let Some(at) = url[credentials..].find('?') else { return (url.to_owned(), Vec::new()) };
    let (head, query) = url.split_at(credentials + at);
    let mut rest = Vec::new();
    let mut ours = Vec::new();
    for parameter in query[1..].split('&') {
        match parameter.split_once('=') {
            Some((key, value)) if OURS.contains(&key) => ours.push((key.to_owned(), decoded(value))),
            _ => rest.push(parameter),
        }
    }
    let mark = if rest.is_empty() { "" } else { "?" };
    (format!("{head}{mark}{}", rest.join("&")), ours)
}

/// A value of a URL without its percent signs. Where one is not followed by two digits, it stands for itself.
fn decoded(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| byte == b'%').and_then(|digits| hex::decode(digits).ok());
        bytes.push(digits.as_ref().map_or(byte, |digits| digits[0]));
        rest = if digits.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn split_words(text: &str) -> Split {
    let mut rest = String::new();
    let mut ours = Vec::new();
    let mut left = text.trim_start();
    while !left.is_empty() {
        // What cannot be read is left to the driver, which says what is wrong with it.
        let Some((key, value, after)) = word(left) else {
            rest.push_str(left);
            break;
        };
        if OURS.contains(&key) {
            ours.push((key.to_owned(), value));
        } else {
            rest.push_str(&left[..left.len() - after.len()]);
            rest.push(' ');
        }
        left = after.trim_start();
    }
    (rest, ours)
}

/// The first `key = value`, and what follows it. A value may stand in quotes, and a backslash takes the next letter as it is.
fn word(text: &str) -> Option<(&str, String, &str)> {
    let (key, after) = text.split_once('=')?;
    let after = after.trim_start();
    let (is_quoted, body) = match after.strip_prefix('\'') {
        Some(body) => (true, body),
        None => (false, after),
    };
    let is_end = |letter: char| if is_quoted { letter == '\'' } else { letter.is_whitespace() };
    let mut value = String::new();
    let mut letters = body.char_indices();
    while let Some((at, letter)) = letters.next() {
        if is_end(letter) {
            return Some((key.trim_end(), value, &body[at + usize::from(is_quoted)..]));
        }
        value.push(if letter == '\\' { letters.next()?.1 } else { letter });
    }
    (!is_quoted).then_some((key.trim_end(), value, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, mode: SslMode, checks: Checks, ca: Option<&str>) {
        let link = Link::parse(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        assert_eq!(link.config.get_ssl_mode(), mode, "{address}");
        assert_eq!(link.tls.checks, checks, "{address}");
        assert_eq!(link.tls.ca, ca.map(PathBuf::from), "{address}");
        assert_eq!(link.config.get_user(), Some("u"), "{address}");
        assert_eq!(link.config.get_dbname(), Some("d"), "{address}");
    }

    #[test]
    fn an_address_says_how_the_way_is_encrypted() {
        check("postgres://u@h/d", SslMode::Prefer, Checks::Nothing, None);
        check("postgres://u@h/d?sslmode=disable", SslMode::Disable, Checks::Nothing, None);
        check("postgres://u@h/d?sslmode=allow", SslMode::Prefer, Checks::Nothing, None);
        check(
            "postgresql://u@h/d?sslmode=require&connect_timeout=3",
            SslMode::Require,
            Checks::Nothing,
            None,
        );
        check(
            "postgres://u:a?b@h/d?sslmode=require&sslrootcert=/a%20b.pem",
            SslMode::Require,
            Checks::Chain,
            Some("/a b.pem"),
        );
        check("postgres://u@h/d?sslmode=verify-ca", SslMode::Require, Checks::Chain, None);
        check("postgres://u@h/d?sslrootcert=system", SslMode::Require, Checks::ChainAndName, None);
        check(
            "host=h user=u dbname=d sslmode=verify-full sslrootcert='/a b.pem'",
            SslMode::Require,
            Checks::ChainAndName,
            Some("/a b.pem"),
        );
        check(
            "sslmode = verify-full host=h user = u password='it''s' dbname=d".replace("''", "\\'").as_str(),
            SslMode::Require,
            Checks::ChainAndName,
            None,
        );
        check(
            "host=/run/postgresql user=u dbname=d sslmode=require",
            SslMode::Disable,
            Checks::Nothing,
            None,
        );
        check("hostaddr=10.0.0.1 user=u dbname=d", SslMode::Prefer, Checks::Nothing, None);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (address, words) in [
            ("postgres://u@h/d?sslmode=verify", "is no sslmode"),
            ("postgres://u@h/d?sslmode=require&sslrootcert=system", "needs sslmode=verify-full"),
            ("postgres://u@h/d?sslcert=/c.pem", "go together"),
            ("postgres://u@h/d?sslcrl=/c.pem", "unknown option"),
            ("host=h user='u", "unterminated"),
        ] {
            let error = Link::parse(address).expect_err(address).to_string();
            assert!(error.contains(words), "{address}: {error}");
        }
    }

    #[test]
    fn a_certificate_of_ours_comes_with_its_key() {
        let link = Link::parse("postgres://u@h/d?sslcert=/c.pem&sslkey=/k.pem").expect("an address");
        assert_eq!(link.tls.own, Some((PathBuf::from("/c.pem"), PathBuf::from("/k.pem"))));
    }
}
