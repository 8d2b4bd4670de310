//! `farmiq-edge device place`: says where devices are from a shell.

use std::fmt::Write;

use actors::place::{PlaceDesk, Places, metric_of};
use anyhow::Context;
use schema::clock::Clock;
use schema::store::place::Place;
use serde_json::{Value, json};

use crate::author::author;
use crate::cli::place::{PlaceCommand, PlacePut};
use crate::config::Config;
use crate::tree;

/// Rows that a list shows.
const LIST_ROWS_MAX: i64 = 10_000;

/// Does what is wished, and says what came of it. `config` names a database.
///
/// # Errors
/// When the database is away or has not the tables of this version, or the wish cannot be fulfilled.
pub(crate) async fn run(wish: &PlaceCommand, config: &Config) -> anyhow::Result<String> {
    let store = tree::store_alone(config)?;
    let desk =
        PlaceDesk { reads: store.reads(), places: Places::new(store.clone()), store, clock: Clock::system() };
    Ok(match wish {
        PlaceCommand::Put(put) => {
            let place = desk.put(place_of(put, &desk), &author()).await;
            let place = place.with_context(|| format!("place device {} of {}", put.device, put.tenant))?;
            if put.json { format!("{}\n", object(&place)) } else { line(&place) }
        }
        PlaceCommand::List { tenant, device, barn, json } => {
            let places = desk.list(tenant, device.as_deref(), barn.as_deref(), LIST_ROWS_MAX).await?;
            places
                .iter()
                .map(|place| if *json { format!("{}\n", object(place)) } else { line(place) })
                .collect()
        }
        PlaceCommand::Remove { tenant, device, metric } => {
            let metric = metric.as_deref().unwrap_or_default();
            let removed = desk.remove(tenant, device, metric, &author()).await;
            removed.with_context(|| format!("forget the place of device {device} of {tenant}"))?;
            format!("the place of {device} is forgotten\n")
        }
    })
}

fn place_of(put: &PlacePut, desk: &PlaceDesk) -> Place {
    Place {
        tenant_id: put.tenant.clone(),
        device_id: put.device.clone(),
        metric_type: put.metric.clone().unwrap_or_default(),
        role: put.role.clone(),
        zone: put.zone.clone(),
        height_cm: put.height_cm,
        weight: put.weight,
        updated_at: desk.clock.now(),
    }
}

fn object(place: &Place) -> Value {
    json!({"tenant_id": place.tenant_id, "device_id": place.device_id, "metric_type": metric_of(&place.metric_type),
        "role": place.role, "zone": place.zone, "height_cm": place.height_cm, "weight": place.weight})
}

fn line(place: &Place) -> String {
    let mut text = format!(
        "{:<20} {:<20} {:<8}",
        place.device_id,
        metric_of(&place.metric_type).unwrap_or("*"),
        place.role
    );
    if let Some(zone) = &place.zone {
        let _ = write!(text, "  {zone}");
    }
    if let Some(height_cm) = place.height_cm {
        let _ = write!(text, "  {height_cm} cm");
    }
    let _ = writeln!(text, "  counts {}", place.weight);
    text
}
