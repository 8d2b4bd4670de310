//! What a database looks like after months: whatever comes round again costs what it cost in the first week, and nobody
//! waits for housekeeping.

mod children;
mod hot;
mod marks;
mod plans;
mod strays;
mod tallies;
