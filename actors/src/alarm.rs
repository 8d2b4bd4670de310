//! Alarms: what is wrong with the birds' air, water and light, and who must know.

pub mod way;
