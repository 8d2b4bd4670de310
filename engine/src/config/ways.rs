//! The ways out of the barn: a table below `alarms.ways` for each, whose `kind` says what else is in it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use actors::alarm::way::TELL_MAX;
use actors::alarm::way::email::{EmailSettings, Encryption};
use actors::alarm::way::line::LineSettings;
use actors::alarm::way::ntfy::NtfySettings;
use actors::alarm::way::program::ProgramSettings;
use actors::alarm::way::siren::SirenSettings;
use actors::alarm::way::webhook::WebhookSettings;
use schema::id::is_id;
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::value::{Setting, Url};

/// Ways of one barn at most.
const WAYS_MAX: usize = 32;
/// Characters of a name.
const NAME_CHARS_MAX: usize = 32;
/// What the value of the key must be.
const SHAPE: &str = "a table for each way, such as [alarms.ways.horn] with kind = \"relay\"";

/// What one way is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaySettings {
    /// A siren that is a device of the barn.
    Siren(SirenSettings),
    /// A POST of JSON.
    Webhook(WebhookSettings),
    /// An ntfy server.
    Ntfy(NtfySettings),
    /// A program, such as one that sends an SMS.
    Program(ProgramSettings),
    /// A relay on a GPIO line.
    Relay(LineSettings),
    /// E-mail.
    Email(EmailSettings),
}

/// The kinds as they are written.
const KINDS: [&str; 6] = ["siren", "webhook", "ntfy", "program", "relay", "email"];

/// All ways by their names; what could not be read is kept as the words that say why, until everything is checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WaysSetting(BTreeMap<String, Result<WaySettings, String>>);

impl WaysSetting {
    /// The ways that can be used, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &WaySettings)> {
        self.0.iter().filter_map(|(name, way)| Some((name.as_str(), way.as_ref().ok()?)))
    }

    /// Whether there is a way of this name.
    pub fn knows(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// What is wrong with each way, in words that name it, and how to put it right.
    pub(super) fn mistakes(&self) -> Vec<(String, String)> {
        let mut mistakes = Vec::new();
        if self.0.len() > WAYS_MAX {
            mistakes.push((format!("has {} ways", self.0.len()), format!("leave at most {WAYS_MAX}")));
        }
        for (name, way) in &self.0 {
            let mut blame = |what: &str, help: &str| {
                mistakes.push((format!("way `{name}`: {what}"), help.to_owned()));
            };
            let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
            if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || !name.chars().all(is_plain) {
                blame("its name does not fit", "use a-z, 0-9, - and _, at most 32 of them");
            }
            match way {
                Ok(way) => way.check(&mut blame),
                Err(error) => blame(error, "docs/alarms.md has an example of each kind"),
            }
        }
        mistakes
    }

    /// Settings that work and are not safe.
    pub(super) fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        for (name, way) in self.iter() {
            let is_plain = |url: &str| url.starts_with("http://");
            let remark = match way {
                WaySettings::Webhook(way) if way.hmac_secret_file.is_none() => {
                    "is not signed: whoever reaches its receiver can send alarms; set hmac_secret_file"
                }
                WaySettings::Ntfy(way) if is_plain(&way.url) && way.token_file.is_some() => {
                    "sends its token in the clear: use https:// where the network is not yours alone"
                }
                WaySettings::Siren(_)
                | WaySettings::Webhook(_)
                | WaySettings::Ntfy(_)
                | WaySettings::Program(_)
                | WaySettings::Relay(_)
                | WaySettings::Email(_) => continue,
            };
            remarks.push(format!("alarms.ways.{name} {remark}"));
        }
        remarks
    }
}

impl WaySettings {
    fn read(table: &Table) -> Result<Self, String> {
        let mut table = table.clone();
        let Some(Value::String(kind)) = table.remove("kind") else {
            return Err(format!("it has no kind: one of {}", KINDS.join(", ")));
        };
        match kind.as_str() {
            "siren" => of(table).map(Self::Siren),
            "webhook" => of(table).map(Self::Webhook),
            "ntfy" => of(table).map(Self::Ntfy),
            "program" => of(table).map(Self::Program),
            "relay" => of(table).map(Self::Relay),
            "email" => of(table).map(Self::Email),
            other => Err(format!("kind {other:?} is none of {}", KINDS.join(", "))),
        }
    }

    fn to_toml(&self) -> Value {
        let (kind, value) = match self {
            Self::Siren(way) => ("siren", table_of(way)),
            Self::Webhook(way) => ("webhook", table_of(way)),
            Self::Ntfy(way) => ("ntfy", table_of(way)),
            Self::Program(way) => ("program", table_of(way)),
            Self::Relay(way) => ("relay", table_of(way)),
            Self::Email(way) => ("email", table_of(way)),
        };
        let mut table = Table::from_iter([("kind".to_owned(), Value::from(kind))]);
        table.extend(value);
        Value::Table(table)
    }

    /// What the type of each setting does not say.
    fn check(&self, blame: &mut impl FnMut(&str, &str)) {
        match self {
            Self::Siren(way) => {
                for (name, id) in [
                    ("tenant", &way.tenant),
                    ("farm", &way.farm),
                    ("barn", &way.barn),
                    ("device", &way.device),
                ] {
                    if !is_id(id) {
                        blame(
                            &format!("{name} is {id:?}, which can be no id"),
                            "name the device as in `farmiq-edge device list`",
                        );
                    }
                }
                // A trial gives two commands.
                check_seconds("answer_seconds", way.answer_seconds, 2, blame);
            }
            Self::Webhook(way) => {
                check_url(&way.url, blame);
                check_seconds("timeout_seconds", way.timeout_seconds, way.attempts_max + 1, blame);
                check_secret("hmac_secret_file", way.hmac_secret_file.as_ref(), blame);
                check_ca(&way.url, way.tls_ca.as_ref(), blame);
            }
            Self::Ntfy(way) => {
                check_url(&way.url, blame);
                check_seconds("timeout_seconds", way.timeout_seconds, way.attempts_max + 1, blame);
                check_secret("token_file", way.token_file.as_ref(), blame);
                check_ca(&way.url, way.tls_ca.as_ref(), blame);
                let is_topic = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
                if way.topic.is_empty() || way.topic.len() > 64 || !way.topic.chars().all(is_topic) {
                    blame("topic does not fit", "use letters, digits, - and _, at most 64 of them");
                }
            }
            Self::Program(way) => {
                if !way.command.first().is_some_and(|path| path.starts_with('/')) {
                    let help = "write it such as command = [\"/usr/local/bin/send-sms\", \"--modem\", \"0\"]";
                    blame("command does not begin with the whole path of a program", help);
                }
                check_seconds("timeout_seconds", way.timeout_seconds, 1, blame);
            }
            Self::Relay(way) => {
                if !way.chip.is_absolute() {
                    blame("chip is no whole path", "write it such as \"/dev/gpiochip0\"");
                }
            }
            Self::Email(way) => check_email(way, blame),
        }
    }
}

fn check_email(way: &EmailSettings, blame: &mut impl FnMut(&str, &str)) {
    if way.server.is_empty() {
        blame("server is empty", "name the SMTP server");
    }
    if way.to.is_empty() {
        blame("to is empty", "name who is to get it, such as to = [\"farmer@example.org\"]");
    }
    for address in way.to.iter().chain([&way.from]) {
        if !actors::alarm::way::email::is_address(address) {
            blame(&format!("{address:?} is no address"), "write it such as farmer@example.org");
        }
    }
    if way.username.is_some() != way.password_file.is_some() {
        blame("username and password_file belong together", "set both, or none");
    }
    let is_here = matches!(way.server.as_str(), "localhost" | "127.0.0.1" | "::1");
    if way.encryption == Encryption::None && way.username.is_some() && !is_here {
        blame("its password would travel in the clear", "set encryption = \"starttls\" or \"tls\"");
    }
    check_secret("password_file", way.password_file.as_ref(), blame);
    check_file("tls_ca", way.tls_ca.as_ref(), blame);
    check_seconds("timeout_seconds", way.timeout_seconds, 1, blame);
}

fn check_url(text: &str, blame: &mut impl FnMut(&str, &str)) {
    match Url::from_text(text) {
        Ok(url) if !matches!(url.scheme().as_str(), "http" | "https") => {
            blame("url begins with another scheme", "it must begin with http:// or https://");
        }
        Ok(url) if url.credentials().is_some() => {
            blame("url has a user or a password in it", "put the secret into a file of its own");
        }
        Ok(url) if url.host_and_port().is_none() => blame("url has no port that can be one", "correct it"),
        Ok(_) => {}
        Err(right) => blame("url is no address", &format!("expected {right}")),
    }
}

fn check_ca(url: &str, ca: Option<&PathBuf>, blame: &mut impl FnMut(&str, &str)) {
    if ca.is_some() && url.starts_with("http://") {
        blame("tls_ca is set, but url asks for no TLS", "write url as https://…");
    }
    check_file("tls_ca", ca, blame);
}

/// A way that takes longer than a telling may would never have told.
fn check_seconds(name: &str, seconds: u64, times: u32, blame: &mut impl FnMut(&str, &str)) {
    let most = TELL_MAX.as_secs() / u64::from(times.max(1));
    if seconds == 0 || times > 11 || seconds > most {
        let what = format!("{name} is {seconds}");
        let help = format!("from 1 to {most}, so that all tries fit into {} s", TELL_MAX.as_secs());
        blame(&what, &help);
    }
}

fn check_secret(name: &str, path: Option<&PathBuf>, blame: &mut impl FnMut(&str, &str)) {
    let Some(path) = path else { return };
    match std::fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => blame(&format!("{name} is empty"), "write the secret into it"),
        Ok(_) => {}
        Err(error) => {
            blame(&format!("{name} {} cannot be read: {error}", path.display()), "name a readable file");
        }
    }
}

fn check_file(name: &str, path: Option<&PathBuf>, blame: &mut impl FnMut(&str, &str)) {
    if let Some(path) = path
        && let Err(error) = std::fs::File::open(path)
    {
        blame(&format!("{name} {} cannot be read: {error}", path.display()), "name a readable file");
    }
}

fn of<T: DeserializeOwned>(table: Table) -> Result<T, String> {
    Value::Table(table).try_into().map_err(|error: toml::de::Error| error.message().trim().to_owned())
}

fn table_of(settings: &impl Serialize) -> Table {
    Table::try_from(settings).expect("settings are texts, numbers and lists")
}

impl Setting for WaysSetting {
    /// From the environment: the same as JSON.
    fn from_text(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let table: Table = serde_json::from_str(text).map_err(|_| "a JSON object of ways".to_owned())?;
        Self::from_toml(&Value::Table(table))
    }

    fn from_toml(value: &Value) -> Result<Self, String> {
        let ways = value.as_table().ok_or(SHAPE)?;
        let read = |(name, way): (&String, &Value)| {
            let table = way.as_table().ok_or_else(|| SHAPE.to_owned());
            (name.clone(), table.and_then(WaySettings::read))
        };
        Ok(Self(ways.iter().map(read).collect()))
    }

    fn to_toml(&self) -> Value {
        let ways = self.iter().map(|(name, way)| (name.to_owned(), way.to_toml()));
        Value::Table(ways.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> WaysSetting {
        WaysSetting::from_toml(&Value::Table(text.parse().unwrap())).unwrap()
    }

    #[test]
    fn a_way_of_each_kind_is_read_and_shown_as_it_was() {
        let text = r#"
            [siren]
            kind = "siren"
            tenant = "t-001"
            farm = "f-001"
            barn = "b-001"
            device = "siren-1"
            [office]
            kind = "webhook"
            url = "https://10.0.0.5/alarms"
            attempts_max = 2
            [phones]
            kind = "ntfy"
            url = "http://10.0.0.5:2586"
            topic = "barn-1"
            language = "th"
            [sms]
            kind = "program"
            command = ["/usr/local/bin/send-sms"]
            to = ["+66811112222"]
            [horn]
            kind = "relay"
            chip = "/dev/gpiochip0"
            line = 17
            [mail]
            kind = "email"
            server = "mail.example"
            from = "barn@example.org"
            to = ["farmer@example.org"]
        "#;
        let ways = read(text);
        assert_eq!(ways.mistakes(), []);
        let names: Vec<_> = ways.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["horn", "mail", "office", "phones", "siren", "sms"]);
        assert_eq!(WaysSetting::from_toml(&ways.to_toml()).unwrap(), ways);
        assert_eq!(WaysSetting::from_text(&serde_json::to_string(&ways.to_toml()).unwrap()).unwrap(), ways);
        assert!(ways.remarks().iter().any(|remark| remark.contains("alarms.ways.office is not signed")));
    }

    #[test]
    fn every_mistake_is_named_with_its_way_and_what_would_be_right() {
        let check = |text: &str, what: &str, help: &str| {
            let mistakes = read(text).mistakes();
            let is_found = mistakes.iter().any(|(found, right)| found.contains(what) && right.contains(help));
            assert!(is_found, "{what}, {help}: {mistakes:?}");
        };
        check("[Horn]\nkind = \"relay\"\nchip = \"/dev/gpiochip0\"\nline = 1", "way `Horn`: its name", "a-z");
        check("[a]\nline = 1", "way `a`: it has no kind", "docs/alarms.md");
        check("[a]\nkind = \"fax\"", "kind \"fax\" is none of siren", "");
        check(
            "[a]\nkind = \"relay\"\nchip = \"gpiochip0\"\nline = 1",
            "chip is no whole path",
            "/dev/gpiochip0",
        );
        check("[a]\nkind = \"relay\"\nchip = \"/dev/gpiochip0\"\nlina = 1", "unknown field `lina`", "");
        check("[a]\nkind = \"program\"\ncommand = [\"send-sms\"]", "whole path", "/usr/local/bin");
        check("[a]\nkind = \"program\"\ncommand = []", "whole path", "");
        let webhook = |more: &str| format!("[a]\nkind = \"webhook\"\n{more}");
        check(&webhook("url = \"https://u:p@host/\""), "has a user or a password", "file of its own");
        check(&webhook("url = \"ftp://host/\""), "another scheme", "https://");
        check(&webhook("url = \"http://host/\"\ntls_ca = \"/nowhere\""), "asks for no TLS", "https");
        check(
            &webhook("url = \"https://host/\"\ntls_ca = \"/nowhere\""),
            "/nowhere cannot be read",
            "readable",
        );
        check(
            &webhook("url = \"https://host/\"\nhmac_secret_file = \"/nowhere\""),
            "hmac_secret_file /nowhere",
            "readable",
        );
        check(&webhook("url = \"https://host/\"\nhmac_secret = \"hush\""), "unknown field `hmac_secret`", "");
        check(
            &webhook("url = \"https://host/\"\ntimeout_seconds = 60"),
            "timeout_seconds is 60",
            "from 1 to 11",
        );
        check("[a]\nkind = \"ntfy\"\nurl = \"http://host\"\ntopic = \"a b\"", "topic does not fit", "");
        check(
            "[a]\nkind = \"siren\"\ntenant = \"t\"\nfarm = \"f\"\nbarn = \"b\"\ndevice = \"a/b\"",
            "device is",
            "device list",
        );
        let email = |more: &str| format!("[a]\nkind = \"email\"\nserver = \"mail.example\"\n{more}");
        check(&email("from = \"a\"\nto = [\"b@example.org\"]"), "\"a\" is no address", "");
        check(&email("from = \"a@example.org\"\nto = []"), "to is empty", "");
        check(
            &email(
                "from = \"a@example.org\"\nto = [\"b@example.org\"]\nusername = \"u\"\nencryption = \"none\"",
            ),
            "in the clear",
            "starttls",
        );
        assert!(WaysSetting::from_text("nonsense").is_err());
        assert!(
            !format!("{:?}", read(&webhook("url = \"https://u:hush@host/\"")).mistakes()).contains("hush")
        );
    }
}
