//! What the numbers of a barn say about its birds.
//!
//! [`desk`] is where people and programs ask and write, [`keeper`] the chore that makes the days of flocks anew when their
//! inputs change. Everything else is pure functions, without a clock and without I/O. Weights are kilograms and ages are
//! days unless a name says otherwise. No function makes a verdict of too few weighings: what cannot be said is `None`.

pub mod agreement;
pub mod book;
pub mod breeds;
pub mod calendar;
pub mod climate;
pub mod day;
pub mod desk;
pub mod feed;
pub mod growth;
pub mod house;
pub mod keeper;
pub mod own;
pub mod sample;
pub mod scales;
pub mod sexes;
pub mod sheet;
pub mod silo;
pub(crate) mod source;
pub mod standard;
pub mod step;
