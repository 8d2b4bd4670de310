//! What a person sees of work that takes minutes: a line on the terminal, and nothing where there is none.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often a line shows that something is still being done.
const TICK: Duration = Duration::from_millis(200);

/// A line of progress. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Progress(ProgressBar);

impl Progress {
    /// A line on stderr, if that is a terminal.
    #[must_use]
    pub fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// Something begins that nobody knows the length of.
    pub fn begins(&self, what: &'static str) {
        self.0.set_style(ProgressStyle::default_spinner());
        self.0.set_message(what);
    }

    /// Something begins that is counted in bytes.
    pub fn counts(&self, what: &'static str, bytes: u64) {
        let style = ProgressStyle::with_template("{msg} [{wide_bar}] {bytes}/{total_bytes} {eta}");
        self.0.set_style(style.expect("the template is right"));
        self.0.reset();
        self.0.set_length(bytes);
        self.0.set_message(what);
    }

    /// Something begins that is counted in pieces.
    pub fn counts_pieces(&self, what: &'static str, pieces: u64) {
        let style = ProgressStyle::with_template("{msg} [{wide_bar}] {pos}/{len} {eta}");
        self.0.set_style(style.expect("the template is right"));
        self.0.reset();
        self.0.set_length(pieces);
        self.0.set_message(what);
    }

    /// So much more is done.
    pub fn add(&self, amount: u64) {
        self.0.inc(amount);
    }

    /// All is done.
    pub fn ends(&self) {
        self.0.finish_and_clear();
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}
