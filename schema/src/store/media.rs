//! Images: the uploads that were offered, and the objects that are there.

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[];
