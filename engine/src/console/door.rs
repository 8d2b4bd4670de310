//! The pages before the console: the login, and what is said to somebody who gets no page.

use askama::Template;

use super::text::{Lang, Texts};

/// The login.
#[derive(Template)]
#[template(path = "login.html")]
pub(crate) struct LoginPage {
    /// Its language.
    pub(crate) lang: Lang,
    /// What is said in it.
    pub(crate) t: &'static Texts,
    /// Its title.
    pub(crate) title: &'static str,
    /// What was wrong.
    pub(crate) wrong: Option<&'static str>,
    /// Where to go then.
    pub(crate) to: String,
    /// The code that the address brought along.
    pub(crate) code: String,
    /// Whether the login by key is open.
    pub(crate) is_key_open: bool,
    /// Where it is, for the change of language.
    pub(crate) back: String,
}

/// A word instead of a page.
#[derive(Template)]
#[template(path = "message.html")]
pub(crate) struct MessagePage {
    /// Its language.
    pub(crate) lang: Lang,
    /// What is said in it.
    pub(crate) t: &'static Texts,
    /// Its title.
    pub(crate) title: &'static str,
    /// What it says.
    pub(crate) text: String,
    /// Where to go.
    pub(crate) onward: &'static str,
    /// Where it is, for the change of language.
    pub(crate) back: String,
}
