//! The kinds of values a setting can have, and how each is read from text and from TOML.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Serialize, Serializer};
use toml::Value;

/// A value that can stand behind a key.
///
/// Environment variables, command-line flags and defaults arrive as text, the file as TOML; both end in the
/// same type. An `Err` says what would be right, as the end of the sentence "expected …".
pub trait Setting: Sized {
    /// Whether the value must never be shown.
    const SECRET: bool = false;
    /// The words that mean "no value" where the key is optional.
    const NOTHING: &'static [&'static str] = &[""];

    /// Reads the text of an environment variable, a flag, a secret's file or a default.
    fn from_text(text: &str) -> Result<Self, String>;

    /// Reads a value of the file; anything but a string must be said by the type itself.
    fn from_toml(value: &Value) -> Result<Self, String> {
        match value.as_str() {
            Some(text) => Self::from_text(text),
            None => Err("a string in quotes".into()),
        }
    }

    /// Shows the value as it would stand in the file, secrets masked.
    fn to_toml(&self) -> Value;

    /// The value as a whole number, for those that have one and can be held to a range.
    fn number(&self) -> Option<u64> {
        None
    }
}

/// What a secret looks like wherever it is shown.
const MASK: &str = "***";

/// A password, token or key: it is read, compared and sent, but never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself; the caller keeps it out of logs and answers.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}

impl Setting for Secret {
    const SECRET: bool = true;

    fn from_text(text: &str) -> Result<Self, String> {
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() { Err("a secret that is not empty".into()) } else { Ok(Self(text.into())) }
    }

    fn to_toml(&self) -> Value {
        MASK.into()
    }
}

/// The address of a server, as `scheme://host…`; a password inside it is masked when shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    /// The address as it was written, password included.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before `://`, in lower case.
    pub fn scheme(&self) -> String {
        self.0.split("://").next().unwrap_or_default().to_ascii_lowercase()
    }

    /// Whether an MQTT address asks for TLS.
    pub fn is_encrypted(&self) -> bool {
        matches!(self.scheme().as_str(), "mqtts" | "ssl")
    }

    /// Host and port; without a port the scheme's own (mqtt 1883, mqtts 8883, http 80, https 443).
    pub fn host_and_port(&self) -> Option<(String, u16)> {
        let (_, host) = self.authority();
        let (host, port) = match host.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
            Some(_) | None => (host, self.default_port()?),
        };
        Some((host.trim_matches(['[', ']']).to_owned(), port))
    }

    /// User name and password inside the address.
    pub fn credentials(&self) -> Option<(String, String)> {
        let (user, _) = self.authority();
        let (name, password) = user?.split_once(':').unwrap_or((user?, ""));
        Some((name.to_owned(), password.to_owned()))
    }

    fn authority(&self) -> (Option<&str>, &str) {
        let (_, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
        match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        }
    }

    fn default_port(&self) -> Option<u16> {
        match self.scheme().as_str() {
            "mqtt" | "tcp" => Some(1883),
            "mqtts" | "ssl" => Some(8883),
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        let authority_end = rest.find('/').unwrap_or(rest.len());
        match rest[..authority_end].rfind('@') {
            Some(at) => write!(f, "{scheme}://{MASK}{}", &rest[at..]),
            None => write!(f, "{scheme}://{rest}"),
        }
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Setting for Url {
    fn from_text(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        let scheme_fits = !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric() || c == '+');
        let host_fits =
            !rest.is_empty() && !rest.starts_with(['/', ':']) && !text.contains(char::is_whitespace);
        if scheme_fits && host_fits {
            Ok(Self(text.into()))
        } else {
            Err("an address such as https://host/path".into())
        }
    }

    fn to_toml(&self) -> Value {
        self.to_string().into()
    }
}

/// A `host:port` to send to; the host may be a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort(String);

impl HostPort {
    /// Host and port apart.
    pub fn host_and_port(&self) -> (String, u16) {
        let (host, port) = self.0.rsplit_once(':').expect("it was checked when it was read");
        (host.trim_matches(['[', ']']).to_owned(), port.parse().expect("it was checked when it was read"))
    }
}

impl Setting for HostPort {
    fn from_text(text: &str) -> Result<Self, String> {
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(Self(text.into())),
            _ => Err("host:port, such as 127.0.0.1:8125".into()),
        }
    }

    fn to_toml(&self) -> Value {
        self.0.as_str().into()
    }
}

/// A share between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fraction(f64);

impl Fraction {
    /// The share as a number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl Setting for Fraction {
    fn from_text(text: &str) -> Result<Self, String> {
        match text.trim().parse::<f64>() {
            Ok(share) if (0.0..=1.0).contains(&share) => Ok(Self(share)),
            _ => Err("a number from 0 to 1".into()),
        }
    }

    fn from_toml(value: &Value) -> Result<Self, String> {
        match value {
            Value::Integer(_) | Value::Float(_) => Self::from_text(&value.to_string()),
            Value::String(_) | Value::Boolean(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => {
                Err("a number from 0 to 1, without quotes".into())
            }
        }
    }

    fn to_toml(&self) -> Value {
        self.0.into()
    }
}

/// Extra HTTP headers, by name; their values are secrets because one of them may be a token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(BTreeMap<String, Secret>);

impl Headers {
    /// The headers in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Secret)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}

/// What the text of [`Headers`] must be.
const HEADERS_SHAPE: &str = "a JSON object of strings, such as {\"x-site\":\"a\"}";

impl Setting for Headers {
    const SECRET: bool = true;

    fn from_text(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let read: BTreeMap<String, String> =
            serde_json::from_str(text).map_err(|_| HEADERS_SHAPE.to_owned())?;
        Ok(Self(read.into_iter().map(|(name, value)| (name, Secret(value))).collect()))
    }

    fn to_toml(&self) -> Value {
        if self.0.is_empty() { "".into() } else { MASK.into() }
    }
}

/// A key for people and programs that watch or repair the box over HTTP, or listen over MQTT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorKey {
    /// Whose it is; over MQTT it belongs to the user `operator:name`, and to nobody without a name.
    pub name: Option<String>,
    /// What is sent as `x-api-key`, or as password.
    pub key: Secret,
    /// What the key may do.
    pub role: Role,
    /// The tenants whose rows it may see; `*` means all.
    pub tenants: Vec<String>,
}

/// What an operator key must look like.
const OPERATOR_KEY_SHAPE: &str = "{ key = \"…\", role = \"read\", \"write\", \"act\" or \"admin\", tenants = [\"t-001\"] or [\"*\"] }, with or without a name = \"…\"";

impl Setting for OperatorKey {
    const SECRET: bool = true;

    fn from_text(_: &str) -> Result<Self, String> {
        Err(OPERATOR_KEY_SHAPE.into())
    }

    fn from_toml(value: &Value) -> Result<Self, String> {
        let wrong = || OPERATOR_KEY_SHAPE.to_owned();
        let table = value.as_table().ok_or_else(wrong)?;
        let name = table.get("name").map(String::from_toml).transpose()?;
        if table.len() != 3 + usize::from(name.is_some()) {
            return Err(wrong());
        }
        let field = |name: &str| table.get(name).ok_or_else(wrong);
        Ok(Self {
            name,
            key: Secret::from_toml(field("key")?)?,
            role: Role::from_toml(field("role")?)?,
            tenants: Vec::from_toml(field("tenants")?)?,
        })
    }

    fn to_toml(&self) -> Value {
        let tenants = self.tenants.iter().map(|tenant| Value::from(tenant.as_str())).collect();
        let name = self.name.as_deref().map(|name| ("name", name.into()));
        let fields =
            [("key", self.key.to_toml()), ("role", self.role.to_toml()), ("tenants", Value::Array(tenants))];
        let fields = name.into_iter().chain(fields);
        Value::Table(fields.map(|(name, value)| (name.to_owned(), value)).collect())
    }
}

impl<T: Setting> Setting for Option<T> {
    const SECRET: bool = T::SECRET;

    fn from_text(text: &str) -> Result<Self, String> {
        if T::NOTHING.contains(&text.trim()) { Ok(None) } else { T::from_text(text).map(Some) }
    }

    fn from_toml(value: &Value) -> Result<Self, String> {
        match value.as_str() {
            Some(text) if T::NOTHING.contains(&text.trim()) => Ok(None),
            _ => T::from_toml(value).map(Some),
        }
    }

    fn to_toml(&self) -> Value {
        self.as_ref().map_or_else(|| "".into(), T::to_toml)
    }

    fn number(&self) -> Option<u64> {
        self.as_ref().and_then(T::number)
    }
}

impl<T: Setting> Setting for Vec<T> {
    const SECRET: bool = T::SECRET;

    /// A list in brackets, as TOML or JSON writes it, or plain items between commas or line breaks.
    fn from_text(text: &str) -> Result<Self, String> {
        if text.trim_start().starts_with('[') {
            let as_toml = || format!("list = {text}").parse::<toml::Table>().ok()?.remove("list");
            let list = serde_json::from_str(text).ok().or_else(as_toml);
            return Self::from_toml(&list.ok_or("a list that is closed and whose strings are in quotes")?);
        }
        let items = text.split([',', '\n']).map(str::trim).filter(|item| !item.is_empty());
        items.map(T::from_text).collect()
    }

    fn from_toml(value: &Value) -> Result<Self, String> {
        let items = value.as_array().ok_or("a list in brackets")?;
        let items =
            items.iter().map(|item| T::from_toml(item).map_err(|right| format!("a list, each item {right}")));
        items.collect()
    }

    fn to_toml(&self) -> Value {
        Value::Array(self.iter().map(T::to_toml).collect())
    }
}

impl Setting for String {
    fn from_text(text: &str) -> Result<Self, String> {
        Ok(text.into())
    }

    fn to_toml(&self) -> Value {
        self.as_str().into()
    }
}

impl Setting for PathBuf {
    fn from_text(text: &str) -> Result<Self, String> {
        Ok(text.into())
    }

    fn to_toml(&self) -> Value {
        self.to_string_lossy().into_owned().into()
    }
}

impl Setting for SocketAddr {
    const NOTHING: &'static [&'static str] = &["", "off"];

    fn from_text(text: &str) -> Result<Self, String> {
        text.trim().parse().map_err(|_| "an IP address and port, such as 0.0.0.0:3000 or [::]:3000".into())
    }

    fn to_toml(&self) -> Value {
        self.to_string().into()
    }
}

impl Setting for bool {
    fn from_text(text: &str) -> Result<Self, String> {
        match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err("true or false".into()),
        }
    }

    fn from_toml(value: &Value) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| "true or false, without quotes".into())
    }

    fn to_toml(&self) -> Value {
        (*self).into()
    }
}

/// Whole numbers; the range of a key is checked where its key is known.
macro_rules! whole_numbers {
    ($($ty:ty),+) => {$(
        impl Setting for $ty {
            fn from_text(text: &str) -> Result<Self, String> {
                text.trim().parse().map_err(|_| "a whole number, not negative".into())
            }

            fn from_toml(value: &Value) -> Result<Self, String> {
                let number = value.as_integer().ok_or("a whole number, without quotes")?;
                number.try_into().map_err(|_| "a whole number, not negative".into())
            }

            fn to_toml(&self) -> Value {
                i64::try_from(*self).unwrap_or(i64::MAX).into()
            }

            fn number(&self) -> Option<u64> {
                u64::try_from(*self).ok()
            }
        }
    )+};
}
whole_numbers!(u16, u32, u64, usize);

/// Closed lists of words.
macro_rules! choices {
    ($($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $variant_doc:literal])+ $variant:ident = $word:literal $(| $alias:literal)*,)+ })+) => {$(
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[doc = $variant_doc])+ $variant,)+ }

        impl $name {
            /// The word that stands for it in the configuration.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl Setting for $name {
            fn from_text(text: &str) -> Result<Self, String> {
                match text.trim().to_ascii_lowercase().as_str() {
                    $($word $(| $alias)* => Ok(Self::$variant),)+
                    _ => Err(format!("one of {}", [$($word),+].join(", "))),
                }
            }

            fn to_toml(&self) -> Value {
                self.as_str().into()
            }
        }
    )+};
}

choices! {
    /// What a device must show at the HTTP endpoints.
    AuthMode {
        /// A bearer token.
        Jwt = "jwt",
        /// A client certificate.
        Mtls = "mtls",
        /// Either of the two.
        JwtOrMtls = "jwt_or_mtls",
        /// Also nothing at all: insecure, for devices that cannot do better.
        Compat = "compat",
    }
    /// Where MQTT comes from.
    MqttMode {
        /// A broker of its own, to which the engine is a client.
        External = "external",
        /// The broker inside the engine.
        Embedded = "embedded",
    }
    /// What carries messages to subscribers that are promised nothing.
    LiveWay {
        /// The queues of the embedded broker.
        Queues = "queues",
        /// The router of the crate rumqttd, inside the engine.
        Rumqttd = "rumqttd",
    }
    /// Where images are kept.
    MediaBackend {
        /// Below a directory.
        Filesystem = "filesystem",
        /// In a bucket.
        S3 = "s3",
    }
    /// What is done with the outbox.
    OutboxMode {
        /// Rows are sent to the cloud.
        Send = "send",
        /// Nothing is sent and nothing acknowledged.
        Noop = "noop",
    }
    /// How the cloud recognizes this box.
    CloudAuth {
        /// Not at all.
        None = "none",
        /// By a key in a header.
        ApiKey = "api_key",
        /// By a signature over each request.
        Hmac = "hmac",
    }
    /// What an operator key may do.
    Role {
        /// Look.
        Read = "read",
        /// Look, and call in a device's stead.
        Write = "write",
        /// Besides, look after devices and the box: what asks for an engineer.
        Act = "act",
        /// Look, trigger and repair.
        Admin = "admin",
    }
    /// What tells inference workers of jobs.
    InferenceQueue {
        /// The table of the jobs.
        Postgres = "postgres",
        /// Work orders in RabbitMQ, and the table.
        Rabbitmq = "rabbitmq",
    }
    /// The least urgent messages that are logged.
    LogLevel {
        /// Everything.
        Trace = "trace" | "silly",
        /// Detail of each message.
        Debug = "debug" | "verbose",
        /// Lifecycle.
        Info = "info",
        /// What recovered by itself.
        Warn = "warn" | "warning",
        /// What someone must act on.
        Error = "error" | "fatal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart() {
        let check = |text: &str, host: &str, port: u16, user: Option<(&str, &str)>| {
            let url = Url::from_text(text).unwrap();
            assert_eq!(url.host_and_port(), Some((host.to_owned(), port)), "{text}");
            let user = user.map(|(name, password)| (name.to_owned(), password.to_owned()));
            assert_eq!(url.credentials(), user, "{text}");
        };
        check("mqtt://localhost:5100", "localhost", 5100, None);
        check("mqtts://broker.barn/", "broker.barn", 8883, None);
        check("https://u:p@w@cloud/api?x=1", "cloud", 443, Some(("u", "p@w")));
        check("mqtt://[::1]:1884", "::1", 1884, None);
        check("mqtt://u@[::1]", "::1", 1883, Some(("u", "")));
    }
}
