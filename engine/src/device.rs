//! `farmiq-edge device`: lets devices in, gives them passwords and puts them out.

use std::fmt::Write;

use actors::credentials::desk::{Issued, Newcomer};
use actors::device::trouble::{silent_seconds, trouble};
use anyhow::Context;
use schema::clock::Timestamp;
use schema::id::{BarnId, DeviceId, FarmId, StationId, TenantId};
use schema::store::credential::Known;
use schema::wire::time::format;
use serde_json::{Value, json};

use crate::author::author;
use crate::cli::{DeviceAdd, DeviceCommand};
use crate::cluster::Cluster;
use crate::config::{Config, Secret};
use crate::{place, tree};

/// Devices read at once.
const PAGE_ROWS: i64 = 1000;

/// Does what is wished, and says what came of it.
///
/// # Errors
/// When there is no database, it has not the tables of this version, or the wish cannot be fulfilled.
pub async fn run(wish: &DeviceCommand, config: &Config) -> anyhow::Result<String> {
    let config = with_database(config)?;
    let desk = tree::desk_alone(&config)?;
    let author = author();
    Ok(match wish {
        DeviceCommand::Add(add) => {
            let (name, newcomer) = (&add.name, newcomer(add)?);
            let issued = desk
                .add(&newcomer, &author)
                .await
                .with_context(|| told("add", &name.tenant, &name.device))?;
            show_issued(&issued, &name.tenant, &name.device, name.json)
        }
        DeviceCommand::List { tenant, json } => {
            let tenants = tenant.clone().map(|tenant| vec![tenant]);
            let (mut devices, mut after) = (Vec::new(), (String::new(), String::new()));
            loop {
                let page = desk.list(tenants.as_deref(), (&after.0, &after.1), PAGE_ROWS).await?;
                let Some(last) = page.last() else { break };
                after = (last.tenant_id.clone(), last.device_id.clone());
                devices.extend(page);
            }
            let now = desk.clock.now();
            if *json { lines(&devices, now) } else { table(&devices, now) }
        }
        DeviceCommand::Show(name) => {
            let known = desk.find(&name.tenant, &name.device).await?;
            let known =
                known.with_context(|| format!("there is no device {} of {}", name.device, name.tenant))?;
            let now = desk.clock.now();
            if name.json { lines(&[known], now) } else { card(&known, now) }
        }
        DeviceCommand::Rotate { device: name, overlap } => {
            let issued = desk.rotate(&name.tenant, &name.device, *overlap, &author).await;
            let issued = issued.with_context(|| told("rotate", &name.tenant, &name.device))?;
            show_issued(&issued, &name.tenant, &name.device, name.json)
        }
        DeviceCommand::Place(wish) => place::run(wish, &config).await?,
        DeviceCommand::Revoke(name) => {
            let revoked = desk.revoke(&name.tenant, &name.device, &author).await;
            revoked.with_context(|| told("revoke", &name.tenant, &name.device))?;
            if name.json {
                format!("{}\n", json!({"tenant_id": name.tenant, "device_id": name.device, "revoked": true}))
            } else {
                format!(
                    "{} of {} is out: its password, its certificate and its tokens\n",
                    name.device, name.tenant
                )
            }
        }
    })
}

/// The same configuration with the private database of a `farmiq-edge up`, when none is named.
pub(crate) fn with_database(config: &Config) -> anyhow::Result<Config> {
    let mut config = config.clone();
    if config.database.url.is_none() {
        let private = Cluster::running(&config.edge.data_dir).with_context(|| {
            let place = config.edge.data_dir.display();
            format!("no database: database.url is not set, and no `farmiq-edge up` keeps its data in {place}")
        })?;
        config.database.url = Some(Secret::from(private));
    }
    Ok(config)
}

fn told(attempt: &str, tenant_id: &str, device_id: &str) -> String {
    format!("{attempt} device {device_id} of {tenant_id}")
}

fn newcomer(add: &DeviceAdd) -> anyhow::Result<Newcomer> {
    Ok(Newcomer {
        tenant_id: TenantId::new(&add.name.tenant)?,
        device_id: DeviceId::new(&add.name.device)?,
        farm_id: FarmId::new(&add.farm)?,
        barn_id: BarnId::new(&add.barn)?,
        station_id: add.station.as_deref().map(StationId::new).transpose()?,
        username: add.username.clone(),
    })
}

/// The one time a password is shown.
fn show_issued(issued: &Issued, tenant_id: &str, device_id: &str, is_for_programs: bool) -> String {
    let Issued { username, password, old_is_good_until } = issued;
    if is_for_programs {
        let issued = json!({"tenant_id": tenant_id, "device_id": device_id, "username": username,
            "password": password, "old_password_good_until": old_is_good_until.map(format)});
        return format!("{issued}\n");
    }
    let mut text = format!("user name  {username}\npassword   {password}\n\nIt is not shown again.");
    if let Some(until) = old_is_good_until {
        let _ = write!(text, " The one before is good until {}.", format(*until));
    }
    text.push('\n');
    text
}

fn table(devices: &[Known], now: Timestamp) -> String {
    let head = [
        "TENANT",
        "DEVICE",
        "FARM",
        "BARN",
        "STATION",
        "STATE",
        "USER NAME",
        "PASSWORD SINCE",
        "LAST SEEN",
        "TROUBLE",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(devices.iter().map(|known| {
        let any = |id: &Option<String>| id.clone().unwrap_or_else(|| "any".to_owned());
        let credential = known.credential.as_ref();
        [
            known.tenant_id.clone(),
            known.device_id.clone(),
            any(&known.farm_id),
            any(&known.barn_id),
            any(&known.station_id),
            state(known).to_owned(),
            credential.map_or("-".to_owned(), |credential| credential.username.clone()),
            moment(credential.and_then(|credential| credential.rotated_at.or(Some(credential.created_at)))),
            moment(known.last_seen_at),
            trouble(known, now).map_or("-".to_owned(), |trouble| trouble.text),
        ]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; 10] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}

fn card(known: &Known, now: Timestamp) -> String {
    let any = |id: &Option<String>| id.clone().unwrap_or_else(|| "any".to_owned());
    let mut lines = vec![
        ("device", format!("{} of {}", known.device_id, known.tenant_id)),
        ("state", state(known).to_owned()),
        ("farm", any(&known.farm_id)),
        ("barn", any(&known.barn_id)),
        ("station", any(&known.station_id)),
    ];
    match &known.credential {
        None => lines.push(("password", "none".to_owned())),
        Some(credential) => {
            lines.push(("user name", credential.username.clone()));
            lines.push((
                "password",
                format!("since {}", format(credential.rotated_at.unwrap_or(credential.created_at))),
            ));
            if credential.has_two {
                let end = credential
                    .overlap_ends_at
                    .map_or("for ever".to_owned(), |end| format!("until {}", format(end)));
                lines.push(("older one", format!("good {end}")));
            }
            let mosquitto =
                if credential.has_mosquitto_hash { "can be told of it" } else { "needs a rotate" };
            lines.push(("mosquitto", mosquitto.to_owned()));
        }
    }
    lines.push(("last seen", moment(known.last_seen_at)));
    let signs = &known.signs;
    let said = [("says", &signs.state), ("firmware", &signs.firmware_version)];
    lines.extend(said.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
    lines.extend(trouble(known, now).map(|trouble| ("trouble", trouble.text)));
    lines.into_iter().map(|(name, value)| format!("{name:<10} {value}\n")).collect()
}

/// What a device may do, in a word.
fn state(known: &Known) -> &'static str {
    let is_locked = known.credential.as_ref().is_some_and(|credential| !credential.is_enabled);
    match known.is_allowed {
        _ if known.is_pending && known.is_allowed == Some(false) => "pending",
        None => "not allowed",
        Some(false) => "revoked",
        Some(true) if is_locked => "no password",
        Some(true) => "enabled",
    }
}

fn moment(time: Option<Timestamp>) -> String {
    time.map_or("-".to_owned(), format)
}

/// One object per line.
fn lines(devices: &[Known], now: Timestamp) -> String {
    devices.iter().map(|known| format!("{}\n", object(known, now))).collect()
}

fn object(known: &Known, now: Timestamp) -> Value {
    let credential = known.credential.as_ref().map(|credential| {
        json!({"username": credential.username, "enabled": credential.is_enabled,
            "created_at": format(credential.created_at), "rotated_at": credential.rotated_at.map(format),
            "has_two_passwords": credential.has_two,
            "old_password_good_until": credential.overlap_ends_at.map(format),
            "known_to_mosquitto": credential.has_mosquitto_hash})
    });
    let signs = &known.signs;
    json!({"tenant_id": known.tenant_id, "device_id": known.device_id, "farm_id": known.farm_id,
        "barn_id": known.barn_id, "station_id": known.station_id, "state": state(known),
        "credential": credential, "last_seen_at": known.last_seen_at.map(format), "reported_state": signs.state,
        "firmware_version": signs.firmware_version, "health": signs.health, "message": signs.message,
        "usual_interval_seconds": signs.usual_seconds, "silent_seconds": silent_seconds(known, now),
        "refusals_last_day": signs.refusals, "trouble": trouble(known, now).map(|trouble| trouble.text)})
}

#[cfg(test)]
mod tests {
    use schema::store::credential::Signs;

    use super::*;

    fn known(is_allowed: Option<bool>, is_pending: bool) -> Known {
        Known {
            tenant_id: "t".to_owned(),
            device_id: "d".to_owned(),
            farm_id: Some("f".to_owned()),
            barn_id: None,
            station_id: None,
            is_allowed,
            is_pending,
            credential: None,
            last_seen_at: None,
            signs: Signs::default(),
        }
    }

    #[test]
    fn a_device_is_shown_by_the_state_it_is_in() {
        assert_eq!(state(&known(Some(true), false)), "enabled");
        assert_eq!(state(&known(Some(false), false)), "revoked");
        assert_eq!(state(&known(Some(false), true)), "pending");
        assert_eq!(state(&known(None, false)), "not allowed");
    }

    #[test]
    fn columns_stand_below_each_other() {
        let text = table(&[known(Some(true), false)], Timestamp::UNIX_EPOCH);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0].find("STATE"), lines[1].find("enabled"), "{text}");
        assert_eq!(lines[0].find("TROUBLE"), lines[1].find("has not been heard of"), "{text}");
        assert_eq!(object(&known(Some(true), false), Timestamp::UNIX_EPOCH)["barn_id"], Value::Null);
    }

    #[test]
    fn a_password_is_shown_with_what_to_do_about_the_old_one() {
        let issued = Issued {
            username: "t/d".to_owned(),
            password: "Secret".to_owned(),
            old_is_good_until: schema::wire::time::parse("2026-02-12T09:00:00Z"),
        };
        let text = show_issued(&issued, "t", "d", false);
        assert!(
            text.contains("password   Secret\n") && text.contains("until 2026-02-12T09:00:00.000Z"),
            "{text}"
        );
        let text = show_issued(&Issued { old_is_good_until: None, ..issued }, "t", "d", true);
        let value: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((&value["password"], &value["old_password_good_until"]), (&json!("Secret"), &Value::Null));
    }
}
