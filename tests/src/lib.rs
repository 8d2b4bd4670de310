//! The fixtures of the integration tests: a real database, a whole barn in process, devices and the judge of a cloud.

pub mod postgres;
