//! Weighing sessions.
