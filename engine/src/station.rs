//! `farmiq-edge station`: lets weighing stations speak, and silences them.

use actors::stations::{NewStation, StationDesk};
use anyhow::Context;
use schema::clock::Clock;
use schema::id::{BarnId, FarmId, StationId, TenantId};
use schema::store::station::Station;
use schema::wire::time::format;
use serde_json::json;

use crate::author::author;
use crate::cli::station::StationCommand;
use crate::config::Config;
use crate::device::with_database;
use crate::tree;

/// Stations read at once.
const PAGE_ROWS: i64 = 1000;

/// Does what is wished, and says what came of it.
///
/// # Errors
/// When there is no database, it has not the tables of this version, or the wish cannot be fulfilled.
pub async fn run(wish: StationCommand, config: &Config) -> anyhow::Result<String> {
    let store = tree::store_alone(&with_database(config)?)?;
    let desk = StationDesk { store, clock: Clock::system() };
    let author = author();
    Ok(match wish {
        StationCommand::Add { name, farm, barn } => {
            let new = NewStation {
                tenant_id: TenantId::new(&name.tenant)?,
                station_id: StationId::new(&name.station)?,
                farm_id: FarmId::new(&farm)?,
                barn_id: BarnId::new(&barn)?,
            };
            let station = desk.add(&new, &author).await?.context("the station was removed meanwhile")?;
            line(&station, name.json)
        }
        StationCommand::List { tenant, json } => {
            let tenants = tenant.map(|tenant| vec![tenant]);
            let (mut text, mut after) = (String::new(), (String::new(), String::new()));
            loop {
                let page = desk.list(tenants.as_deref(), (&after.0, &after.1), PAGE_ROWS).await?;
                let Some(last) = page.last() else { break };
                after = (last.tenant_id.clone(), last.station_id.clone());
                text.extend(page.iter().map(|station| line(station, json)));
            }
            text
        }
        StationCommand::Revoke(name) => {
            let station = desk.revoke([&name.tenant, &name.station], &author).await?;
            let unknown = || format!("there is no station {} of {}", name.station, name.tenant);
            line(&station.with_context(unknown)?, name.json)
        }
    })
}

fn line(station: &Station, is_for_programs: bool) -> String {
    let state = match (station.enabled, station.provision_state.as_str()) {
        (true, _) => "enabled",
        (false, "pending") => "pending",
        (false, _) => "revoked",
    };
    if is_for_programs {
        let station = json!({"tenant_id": station.tenant_id, "station_id": station.station_id,
            "farm_id": station.farm_id, "barn_id": station.barn_id, "state": state,
            "created_at": format(station.created_at), "updated_at": format(station.updated_at)});
        return format!("{station}\n");
    }
    let any = |id: &Option<String>| id.clone().unwrap_or_else(|| "any".to_owned());
    format!(
        "{}  {}  {}/{}  {state}  since {}\n",
        station.tenant_id,
        station.station_id,
        any(&station.farm_id),
        any(&station.barn_id),
        format(station.updated_at),
    )
}
