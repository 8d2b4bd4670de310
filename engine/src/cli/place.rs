//! The arguments of `farmiq-edge device place`.

use clap::{Args, Subcommand};

use super::id;

pub(super) const PLACE_EXAMPLES: &str = "\
Examples:
  farmiq-edge device place put --tenant t-001 --device d-001 --role inside --zone north --height-cm 40
  farmiq-edge device place put --tenant t-001 --device d-009 --role outside
  farmiq-edge device place put --tenant t-001 --device d-001 --metric light_intensity --role light
  farmiq-edge device place list --tenant t-001
  farmiq-edge device place remove --tenant t-001 --device d-009

The means of a house are those of its sound devices inside (roles inside, air and light), each
counting as much as its weight. A device that nobody placed counts as one inside.";

/// What can be done about where devices are.
#[derive(Debug, Subcommand)]
pub enum PlaceCommand {
    /// Say where a device is, or one of its metrics.
    Put(PlacePut),
    /// List where devices are.
    List {
        /// Their tenant.
        #[arg(long, value_name = "ID", value_parser = id)]
        tenant: String,
        /// Only this device.
        #[arg(long, value_name = "ID", value_parser = id)]
        device: Option<String>,
        /// Only the devices of this barn.
        #[arg(long, value_name = "ID", value_parser = id)]
        barn: Option<String>,
        /// Say it for a program.
        #[arg(long)]
        json: bool,
    },
    /// Forget where a device is, or one of its metrics.
    Remove {
        /// Its tenant.
        #[arg(long, value_name = "ID", value_parser = id)]
        tenant: String,
        /// The device.
        #[arg(long, value_name = "ID", value_parser = id)]
        device: String,
        /// Of this metric alone.
        #[arg(long, value_name = "METRIC", value_parser = id)]
        metric: Option<String>,
    },
}

/// A place to write down.
#[derive(Debug, Args)]
pub struct PlacePut {
    /// Its tenant.
    #[arg(long, value_name = "ID", value_parser = id)]
    pub tenant: String,
    /// The device.
    #[arg(long, value_name = "ID", value_parser = id)]
    pub device: String,
    /// Of this metric alone [default: of all that have no place of their own].
    #[arg(long, value_name = "METRIC", value_parser = id)]
    pub metric: Option<String>,
    /// What it stands for.
    #[arg(long, value_name = "ROLE", value_parser = ["inside", "outside", "water", "scale", "light", "air"])]
    pub role: String,
    /// Where in the house.
    #[arg(long, value_name = "TEXT", value_parser = zone)]
    pub zone: Option<String>,
    /// Above the floor.
    #[arg(long, value_name = "CM", value_parser = height)]
    pub height_cm: Option<f64>,
    /// What it counts in the means of its house; 0 for nothing.
    #[arg(long, value_name = "N", default_value = "1", value_parser = weight)]
    pub weight: f64,
    /// Say it for a program.
    #[arg(long)]
    pub json: bool,
}

fn zone(text: &str) -> Result<String, String> {
    let is_good = (1..=128).contains(&text.len()) && !text.chars().any(char::is_control);
    if is_good { Ok(text.to_owned()) } else { Err("1 to 128 bytes without control characters".to_owned()) }
}

fn height(text: &str) -> Result<f64, String> {
    within(text, 10_000.0)
}

fn weight(text: &str) -> Result<f64, String> {
    within(text, 1_000.0)
}

fn within(text: &str, max: f64) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| (0.0..=max).contains(number));
    number.ok_or_else(|| format!("a number from 0 to {max}"))
}
