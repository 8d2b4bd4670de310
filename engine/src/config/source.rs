//! Where values come from, and which source wins.
//!
//! Strongest first: flags of the command line, `FARMIQ_…` variables, variables of the old services, the file,
//! presets of the command (`up`), the default.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use toml::Value;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::keys::{SECTIONS, every_key};
use super::mistake::{Mistake, Text, line_and_column};
use super::old;
use super::table::{Key, Section, Source};
use super::value::Setting;

/// The variable that names the file.
pub(super) const FILE_VARIABLE: &str = "FARMIQ_CONFIG";
/// Likeness, from 0 to 1, above which a misspelt key is taken for a known one.
const LIKENESS_MIN: f64 = 0.82;

/// The environment variables of the process, or of a test.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// What the process was started with; names and values that are not UTF-8 are left out.
    pub fn of_process() -> Self {
        let text = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self(text.collect())
    }

    /// All variables and their values.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of one variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Environment {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

impl fmt::Debug for Environment {
    /// Names only: the values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Where the value of a key was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: it is the default.
    Default,
    /// Set by the command that runs, such as `up`.
    Preset,
    /// In the file, at this line.
    File {
        /// The path of the file.
        name: String,
        /// The line, from 1.
        line: usize,
        /// The bytes of the value.
        span: Range<usize>,
    },
    /// In this variable.
    Variable(String),
    /// In this flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Preset => f.write_str("set by up"),
            Self::File { name, line, .. } => write!(f, "{name}:{line}"),
            Self::Variable(name) => write!(f, "env {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A value before its type is known to fit.
enum Raw {
    Text(String),
    Toml(Value),
}

/// A value and its origin, nothing, or why it could not be had.
type Found = Result<Option<(Raw, Origin)>, Box<Mistake>>;

/// All sources together, and what went wrong while reading them.
pub(super) struct Sources<'a> {
    pub(super) environment: &'a Environment,
    pub(super) flags: &'a [Flag],
    pub(super) presets: &'a [(&'static str, String)],
    file: Option<Text>,
    entries: BTreeMap<String, (Value, Range<usize>)>,
    pub(super) origins: BTreeMap<&'static str, Origin>,
    pub(super) mistakes: Vec<Mistake>,
    /// Words about variables that are set and no longer mean anything.
    pub(super) notices: Vec<String>,
}

/// A value given on the command line.
#[derive(Debug, Clone)]
pub struct Flag {
    /// The flag as it is typed, such as `--http-listen`.
    pub name: &'static str,
    /// The key it sets.
    pub path: &'static str,
    /// Its value.
    pub value: String,
}

impl Source for Sources<'_> {
    /// The value of a key from the strongest source that has it; a mistake is noted and the default taken instead.
    fn take<T: Setting>(&mut self, key: &'static Key) -> T {
        let default = || T::from_text(key.default).expect("every default is readable: a test reads them all");
        let (raw, origin) = match self.find(key) {
            Ok(found) => found,
            Err(mistake) => {
                self.mistakes.push(*mistake);
                return default();
            }
        };
        self.origins.insert(key.path, origin);
        let read = match &raw {
            Raw::Text(text) => T::from_text(text),
            Raw::Toml(value) => T::from_toml(value),
        };
        let value = read.and_then(|value| within(key, value));
        value.unwrap_or_else(|right| {
            let found = if T::SECRET { "is not readable".to_owned() } else { format!("is {}", shown(&raw)) };
            self.blame(key.path, &found, &format!("expected {right}"));
            default()
        })
    }
}

impl<'a> Sources<'a> {
    pub(super) fn new(
        environment: &'a Environment,
        flags: &'a [Flag],
        presets: &'a [(&'static str, String)],
    ) -> Self {
        let mut sources = Self {
            environment,
            flags,
            presets,
            file: None,
            entries: BTreeMap::new(),
            origins: BTreeMap::new(),
            mistakes: Vec::new(),
            notices: Vec::new(),
        };
        sources.examine_environment();
        sources
    }

    /// Reads the file; what is unknown or misspelt in it becomes a mistake.
    pub(super) fn read_file(&mut self, path: &Path) {
        let name = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => Text::new(name, text),
            Err(error) => {
                let what = format!("the configuration file {name} cannot be read: {error}");
                return self.mistakes.push(Mistake::new(what, format!("check --config and {FILE_VARIABLE}")));
            }
        };
        let (table, errors) = DeTable::parse_recoverable(&text.text);
        let broken: Vec<_> = errors.iter().map(|error| error.span().unwrap_or_default()).collect();
        for (error, span) in errors.iter().zip(broken.iter().cloned()) {
            self.mistakes.push(Mistake::in_file(&text, span, error.message(), "this is not TOML"));
        }
        for (section_name, section) in table.get_ref() {
            self.take_section(&text, section_name.get_ref(), section_name.span(), section.get_ref());
        }
        // A value that is not TOML is one mistake, not also one of its type.
        self.entries.retain(|_, (_, span)| broken.iter().all(|broken| !span.contains(&broken.start)));
        self.file = Some(text);
    }

    fn take_section(&mut self, text: &Text, name: &str, span: Range<usize>, section: &DeValue<'_>) {
        let known = SECTIONS.iter().find(|section| section.name == name);
        let (Some(known), Some(keys)) = (known, section.as_table()) else {
            let what = format!("`{name}` is not a section of the configuration");
            return self.mistakes.push(Mistake::in_file(text, span, what, suggest_section(name)));
        };
        for (key, value) in keys {
            let path = format!("{name}.{}", key.get_ref());
            if !is_known(known, key.get_ref()) {
                let what = format!("`{path}` is not a key of the configuration");
                self.mistakes.push(Mistake::in_file(text, key.span(), what, suggest(&path)));
                continue;
            }
            let read = Value::deserialize(ValueDeserializer::from(value.clone()));
            match read {
                Ok(read) => drop(self.entries.insert(path, (read, value.span()))),
                Err(error) => {
                    let what = format!("`{path}`: {}", error.message());
                    self.mistakes.push(Mistake::in_file(
                        text,
                        value.span(),
                        what,
                        "write a value TOML can hold",
                    ));
                }
            }
        }
    }

    /// Looks for variables that claim to be ours and are not, and for those that no longer mean anything.
    fn examine_environment(&mut self) {
        for name in self.environment.0.keys() {
            let is_key = || {
                every_key().any(|key| key.env_name() == *name || key.secret && key.env_file_name() == *name)
            };
            if old::is_ignored(name) {
                self.notices.push(format!("{name} is set and no longer used"));
            } else if name.starts_with("FARMIQ_")
                && name != FILE_VARIABLE
                && !is_service_link(name)
                && !is_key()
            {
                let what = format!("the environment variable {name} is not a key of the configuration");
                let path = name.trim_start_matches("FARMIQ_").to_ascii_lowercase().replacen("__", ".", 1);
                self.mistakes.push(Mistake::new(what, suggest_variable(&path)));
            }
        }
    }

    /// Notes a mistake at the place where the key has its value.
    pub(super) fn blame(&mut self, path: &'static str, what: &str, help: &str) {
        let mistake = match (self.origins.get(path), &self.file) {
            (Some(Origin::File { span, .. }), Some(file)) => {
                Mistake::in_file(file, span.clone(), format!("`{path}` {what}"), help)
            }
            (Some(Origin::Variable(name)), _) => Mistake::new(format!("{name} ({path}) {what}"), help),
            (Some(Origin::Flag(name)), _) => Mistake::new(format!("{name} ({path}) {what}"), help),
            _ => Mistake::new(format!("`{path}` {what}"), help),
        };
        self.mistakes.push(mistake);
    }

    fn find(&self, key: &'static Key) -> Result<(Raw, Origin), Box<Mistake>> {
        if let Some(flag) = self.flags.iter().find(|flag| flag.path == key.path) {
            return Ok((Raw::Text(flag.value.clone()), Origin::Flag(flag.name)));
        }
        if let Some(found) = self.find_in_environment(key)? {
            return Ok(found);
        }
        if let Some(found) = self.find_in_file(key)? {
            return Ok(found);
        }
        let preset = self.presets.iter().find(|(path, _)| *path == key.path);
        Ok(match preset {
            Some((_, value)) => (Raw::Text(value.clone()), Origin::Preset),
            None => (Raw::Text(key.default.to_owned()), Origin::Default),
        })
    }

    fn find_in_environment(&self, key: &'static Key) -> Found {
        let name = key.env_name();
        let file_name = key.env_file_name();
        let file = self.environment.get(&file_name).filter(|_| key.secret);
        match (self.environment.get(&name), file) {
            (Some(_), Some(_)) => {
                Err(Mistake::new(format!("{name} and {file_name} are both set"), "keep one of them").into())
            }
            (Some(text), None) => Ok(Some((Raw::Text(text.to_owned()), Origin::Variable(name)))),
            (None, Some(file)) => match read_secret(file) {
                Ok(secret) => Ok(Some((Raw::Text(secret), Origin::Variable(file_name)))),
                Err(error) => {
                    Err(Mistake::new(format!("{file_name}: {error}"), "name a readable file").into())
                }
            },
            (None, None) => self.find_by_old_name(key),
        }
    }

    /// An old variable that is set to nothing counts as not set: compose files write `${NAME:-}`.
    fn find_by_old_name(&self, key: &'static Key) -> Found {
        let set = |name| self.environment.get(name).filter(|text| !text.is_empty());
        let Some((old, text)) = key.old.iter().find_map(|old| Some((old, set(old.name)?))) else {
            return Ok(None);
        };
        let converted = match old.convert {
            None => text.to_owned(),
            Some(convert) => convert(text).map_err(|right| {
                Mistake::new(format!("{} ({}) is {text:?}", old.name, key.path), format!("expected {right}"))
            })?,
        };
        Ok(Some((Raw::Text(converted), Origin::Variable(old.name.to_owned()))))
    }

    fn find_in_file(&self, key: &'static Key) -> Found {
        let Some(file) = &self.file else { return Ok(None) };
        let file_key = format!("{}_file", key.path);
        let origin = |span: &Range<usize>| Origin::File {
            name: file.name.clone(),
            line: line_and_column(&file.text, span.start).0,
            span: span.clone(),
        };
        match (self.entries.get(key.path), self.entries.get(&file_key)) {
            (Some((value, span)), None) => Ok(Some((Raw::Toml(value.clone()), origin(span)))),
            (Some(_), Some((_, span))) => {
                let what = format!("`{}` and `{file_key}` are both set", key.path);
                Err(Mistake::in_file(file, span.clone(), what, "keep one of them").into())
            }
            (None, Some((value, span))) => match read_secret(value.as_str().unwrap_or_default()) {
                Ok(secret) => Ok(Some((Raw::Text(secret), origin(span)))),
                Err(error) => {
                    let what = format!("`{file_key}`: {error}");
                    Err(Mistake::in_file(file, span.clone(), what, "name a readable file").into())
                }
            },
            (None, None) => Ok(None),
        }
    }
}

fn read_secret(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("the file {path:?} cannot be read: {error}"))
}

fn within<T: Setting>(key: &Key, value: T) -> Result<T, String> {
    match (key.range.first(), value.number()) {
        (Some((least, most)), Some(number)) if !(*least..=*most).contains(&number) => {
            Err(format!("a number from {least} to {most}"))
        }
        _ => Ok(value),
    }
}

fn shown(raw: &Raw) -> String {
    match raw {
        Raw::Text(text) => format!("{text:?}"),
        Raw::Toml(value) => value.to_string(),
    }
}

fn is_known(section: &Section, name: &str) -> bool {
    section
        .keys
        .iter()
        .any(|key| key.name == name || key.secret && name.strip_suffix("_file") == Some(key.name))
}

/// Kubernetes gives every container variables about every service; for a service whose name begins with
/// `farmiq-` they begin like ours.
fn is_service_link(name: &str) -> bool {
    let port_part = name.rfind("_PORT").map(|at| &name[at + "_PORT".len()..]);
    let is_port = port_part.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
    !name.contains("__") && (name.ends_with("_SERVICE_HOST") || is_port)
}

fn suggest(path: &str) -> String {
    match closest(path, every_key().map(|key| key.path)) {
        Some(path) => format!("did you mean `{path}`?"),
        None => "`farmiq-edge check-config` lists every key".into(),
    }
}

fn suggest_variable(path: &str) -> String {
    match closest(path, every_key().map(|key| key.path)) {
        Some(path) => {
            let key =
                every_key().find(|key| key.path == path).expect("the path is taken from the list of keys");
            format!("did you mean {}?", key.env_name())
        }
        None => "take it away, or see `farmiq-edge check-config` for every key".into(),
    }
}

fn suggest_section(name: &str) -> String {
    match closest(name, SECTIONS.iter().map(|section| section.name)) {
        Some(section) => format!("did you mean `[{section}]`?"),
        None => {
            format!("the sections are {}", SECTIONS.iter().map(|s| s.name).collect::<Vec<_>>().join(", "))
        }
    }
}

fn closest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |candidate: &'a str| (strsim::jaro_winkler(word, candidate), candidate);
    let best = candidates.map(likeness).max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(likeness, _)| *likeness >= LIKENESS_MIN).map(|(_, candidate)| candidate)
}
