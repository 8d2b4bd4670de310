//! What somebody found out about the engine or its machine, and what to do about it.

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Works, but someone should look at it.
    Warn,
    /// Does not work.
    Fail,
}

impl Verdict {
    /// The word for programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One line of a report.
#[derive(Debug, Clone)]
pub struct Finding {
    pub(crate) verdict: Verdict,
    pub(crate) subject: &'static str,
    pub(crate) text: String,
    /// What to do; empty when there is nothing to do.
    pub(crate) advice: String,
}

impl Finding {
    pub(crate) fn new(
        verdict: Verdict,
        subject: &'static str,
        text: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { verdict, subject, text: text.into(), advice: advice.into() }
    }

    pub(crate) fn ok(subject: &'static str, text: impl Into<String>) -> Self {
        Self::new(Verdict::Ok, subject, text, "")
    }

    /// Whether the engine cannot do its work because of it.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        self.verdict == Verdict::Fail
    }
}
