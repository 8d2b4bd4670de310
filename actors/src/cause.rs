//! Why something failed, as far down as the errors tell.

use std::error::Error;
use std::iter::successors;

/// The causes of an error in one sentence, the last one last; `None` when it has none. The error's own text is not among
/// them.
pub fn cause_of(error: &dyn Error) -> Option<String> {
    let causes: Vec<String> =
        successors(error.source(), |&cause| cause.source()).map(ToString::to_string).collect();
    (!causes.is_empty()).then(|| causes.join(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    #[test]
    fn the_last_cause_is_told() {
        let error = |text, source: Option<Layer>| Layer { text, source: source.map(Box::new) };
        let last = error("relation \"x\" does not exist", None);
        assert_eq!(cause_of(&last), None);
        let first = error("run a chore", Some(error("db error", Some(last))));
        assert_eq!(cause_of(&first).as_deref(), Some("db error: relation \"x\" does not exist"));
    }
}
