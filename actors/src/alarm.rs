//! Alarms: what is wrong with the birds' air, water and light, and who must know.

pub mod desk;
pub mod drill;
pub mod escalation;
pub mod feed;
pub mod flood;
pub mod guard;
pub mod heartbeat;
pub mod house;
pub mod owner;
pub mod probe;
pub mod rule;
pub mod scene;
pub mod starting;
pub mod state;
pub mod trouble;
pub mod way;
