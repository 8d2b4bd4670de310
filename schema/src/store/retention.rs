//! Retention: what has become old enough to be deleted, and its deletion in chunks.

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[];
