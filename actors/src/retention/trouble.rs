//! What keeps passes from deleting until somebody acts. Each trouble is told once when it begins and once when it ends,
//! however many passes meet it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Why something is not deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The reason, which is told anew when it changes.
    pub reason: &'static str,
    /// What there is to say of this moment; may be empty.
    pub detail: String,
}

impl Trouble {
    /// The whole text.
    #[must_use]
    pub fn text(&self) -> String {
        if self.detail.is_empty() {
            self.reason.to_owned()
        } else {
            format!("{}: {}", self.reason, self.detail)
        }
    }
}

/// The troubles there are, by what they keep.
#[derive(Debug, Default)]
pub(super) struct Troubles(Mutex<BTreeMap<&'static str, Trouble>>);

impl Troubles {
    /// Takes note of how it stands.
    pub(super) fn note(&self, kept: &'static str, trouble: Option<Trouble>) {
        // The map is whole between any two of its calls.
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.remove(kept);
        match (&before, &trouble) {
            (Some(before), Some(trouble)) if before.reason == trouble.reason => {}
            (_, Some(Trouble { reason, detail })) => {
                tracing::error!(
                    kept,
                    reason,
                    detail,
                    "retention deletes less than it should, somebody must act"
                );
            }
            (Some(Trouble { reason, .. }), None) => {
                tracing::info!(kept, reason, "retention deletes again what it should");
            }
            (None, None) => {}
        }
        if let Some(trouble) = trouble {
            all.insert(kept, trouble);
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> BTreeMap<&'static str, Trouble> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
