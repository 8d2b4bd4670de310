//! What is wrong with a configuration: every mistake at once, each with its place and the way out.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, NamedSource, SourceSpan};

use super::keys::every_key;

/// One mistake.
#[derive(Debug, Clone, thiserror::Error, Diagnostic)]
#[error("{what}")]
pub struct Mistake {
    /// Where and what was found; never the value of a secret.
    pub what: String,
    /// What would be right.
    #[help]
    pub help: Option<String>,
    /// The file, when the mistake is in it.
    #[source_code]
    file: Option<NamedSource<Arc<String>>>,
    #[label("here")]
    span: Option<SourceSpan>,
    /// Line and column in the file, from 1.
    position: Option<(usize, usize)>,
}

impl Mistake {
    /// A mistake outside the file: in the environment, in a flag, or in something that is missing.
    pub(super) fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { what: what.into(), help: Some(help.into()), file: None, span: None, position: None }
    }

    /// A mistake at a place of the file.
    pub(super) fn in_file(
        file: &Text,
        span: Range<usize>,
        what: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            file: Some(NamedSource::new(&file.name, file.shown.clone()).with_language("TOML")),
            position: Some(line_and_column(&file.text, span.start)),
            span: Some(span.into()),
            ..Self::new(what, help)
        }
    }
}

/// All mistakes of a configuration; there is at least one.
#[derive(Debug, Clone, thiserror::Error, Diagnostic)]
#[error("the configuration has {}", count(.mistakes.len()))]
pub struct Mistakes {
    /// In the order in which they were found.
    #[related]
    pub mistakes: Vec<Mistake>,
}

impl Mistakes {
    /// The report for people, in color when `color`.
    pub fn report(&self, color: bool) -> String {
        let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_context_lines(1).with_width(110);
        let mut report = String::new();
        for mistake in &self.mistakes {
            let rendered = handler.render_report(&mut report, mistake);
            rendered.expect("writing into a string cannot fail");
            report.push('\n');
        }
        format!("{report}{self}\n")
    }

    /// One line per mistake: place, what was found, what would be right.
    pub fn lines(&self) -> Vec<String> {
        self.mistakes.iter().map(line).collect()
    }
}

fn line(mistake: &Mistake) -> String {
    let place = match (&mistake.file, mistake.position) {
        (Some(file), Some((line, column))) => format!("{}:{line}:{column}: ", file.name()),
        _ => String::new(),
    };
    let help = mistake.help.as_deref().map(|help| format!("; {help}")).unwrap_or_default();
    format!("{place}{}{help}", mistake.what)
}

fn count(mistakes: usize) -> impl fmt::Display {
    if mistakes == 1 { "one mistake".to_owned() } else { format!("{mistakes} mistakes") }
}

/// Line and column of a byte of the text, both from 1.
pub(super) fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..at.min(text.len())];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// The text of the file, and the same text as it may be shown.
#[derive(Debug)]
pub(super) struct Text {
    /// The path, for people.
    pub(super) name: String,
    /// What was read.
    pub(super) text: String,
    shown: Arc<String>,
}

impl Text {
    pub(super) fn new(name: String, text: String) -> Self {
        let shown = Arc::new(text.split_inclusive('\n').map(masked).collect());
        Self { name, text, shown }
    }
}

/// A line of the file, without its value unless the key is known to be no secret; as many bytes as before.
fn masked(line: &str) -> String {
    let trimmed = line.trim_start();
    if trimmed.starts_with(['#', '[']) && !trimmed.contains('=') {
        return line.to_owned();
    }
    let (key, value) = line.split_at(line.find('=').map_or(0, |at| at + 1));
    let leaf = key.trim_end_matches('=').rsplit('.').next().unwrap_or_default().trim();
    let of_this_name = || every_key().filter(|key| key.name == leaf);
    if of_this_name().next().is_some() && of_this_name().all(|key| !key.secret) {
        return line.to_owned();
    }
    let hide = |c: char| if c.is_whitespace() { c.to_string() } else { "*".repeat(c.len_utf8()) };
    key.chars().map(|c| c.to_string()).chain(value.chars().map(hide)).collect()
}
