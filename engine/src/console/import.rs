//! Tables that somebody brings: a standard of their own, or the records of a flock. Each is looked at first.

use askama::Template;
use schema::id::Uuid;

use super::frame::Frame;

/// Records of a flock as a table.
#[derive(Template)]
#[template(path = "import_records.html")]
pub(crate) struct RecordsPage {
    /// What surrounds it.
    pub(crate) f: Frame,
    /// The flock.
    pub(crate) id: Uuid,
    /// What it is called.
    pub(crate) name: String,
    /// The kinds of records, as a table names them.
    pub(crate) kinds: String,
    /// What was typed.
    pub(crate) csv: String,
    /// What was wrong with it.
    pub(crate) wrong: Option<String>,
    /// What would be written, and how much of each; empty before anybody has looked.
    pub(crate) found: Vec<(&'static str, usize)>,
}

/// The standards, and one to bring.
#[derive(Template)]
#[template(path = "standards.html")]
pub(crate) struct StandardsPage {
    /// What surrounds it.
    pub(crate) f: Frame,
    /// Name, breed and sex; who says so, and when.
    pub(crate) standards: Vec<(String, String)>,
    /// What was typed.
    pub(crate) v: StandardForm,
    /// Breeds, as a choice.
    pub(crate) lines: Vec<String>,
    /// Sexes: word on the wire, word of people.
    pub(crate) sexes: Vec<(&'static str, &'static str)>,
    /// What was wrong with it.
    pub(crate) wrong: Option<String>,
    /// What it would be; `None` before anybody has looked.
    pub(crate) found: Option<String>,
}

/// What was typed.
#[derive(Clone, Debug, Default)]
pub(crate) struct StandardForm {
    pub(crate) name: String,
    pub(crate) line: String,
    pub(crate) sex: String,
    pub(crate) source: String,
    pub(crate) year: String,
    pub(crate) csv: String,
}

impl StandardForm {
    /// Whether anything was typed.
    pub(crate) fn is_open(&self) -> bool {
        !self.csv.is_empty() || !self.name.is_empty()
    }
}
