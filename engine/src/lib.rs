//! The program: command line, configuration, HTTP, metrics export, and the supervision tree.

pub mod config;
