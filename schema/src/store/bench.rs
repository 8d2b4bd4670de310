//! Placeholder until its module is written.
/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[];
