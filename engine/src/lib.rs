//! The program: command line, configuration, HTTP, metrics export, and the supervision tree.

mod author;
pub mod backup;
pub mod broker_config;
mod certificates;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod descriptors;
pub mod device;
pub mod doctor;
pub mod first_keys;
pub mod greeting;
pub mod health;
pub mod http;
pub mod init;
pub mod model;
pub mod observe;
pub mod parts;
pub mod reload;
pub mod restore;
pub mod runway;
pub mod support;
pub mod systemd;
pub mod tree;
pub mod update;
