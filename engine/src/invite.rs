//! `farmiq-edge console`: lets people in to the console, and out.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use actors::console::{ConsoleDesk, Guest, Role};
use anyhow::Context;
use chrono::Duration;
use schema::clock::Clock;
use serde_json::json;

use crate::author::author;
use crate::cli::console::{self, ConsoleCommand, Invite};
use crate::config::Config;
use crate::console::qr;
use crate::device::with_database;
use crate::tree;

/// Logins that a list shows.
const LIST_ROWS_MAX: i64 = 500;

/// Does what is wished, and says what came of it.
///
/// # Errors
/// When there is no database, it has not the tables of this version, or the wish cannot be fulfilled.
pub async fn run(wish: ConsoleCommand, config: &Config) -> anyhow::Result<String> {
    let with_database = with_database(config)?;
    let desk = ConsoleDesk { store: tree::store_alone(&with_database)?, clock: Clock::system() };
    Ok(match wish {
        ConsoleCommand::Invite(invite) => invite_one(&desk, invite, config).await?,
        ConsoleCommand::List { json } => list(&desk, json).await?,
        ConsoleCommand::End { name } => {
            let ended = desk.end_all(&name, &author()).await.context("end the logins")?;
            format!("{ended} logins and codes of {name} have ended\n")
        }
    })
}

async fn invite_one(desk: &ConsoleDesk, invite: Invite, config: &Config) -> anyhow::Result<String> {
    let tenants = if invite.tenant.is_empty() { vec!["*".to_owned()] } else { invite.tenant };
    let guest = Guest { name: invite.name, role: role(invite.role), tenants, key_mark: None };
    let lifetime = Duration::minutes(i64::from(invite.minutes));
    let code = desk.invite(&guest, lifetime, &author()).await.context("invite somebody")?;
    let base = invite.url.unwrap_or_else(|| address(config));
    let url = format!("{}/login?code={code}", base.trim_end_matches('/'));
    if invite.json {
        let ends_in_seconds = lifetime.num_seconds();
        return Ok(format!("{}\n", json!({"code": code, "url": url, "expires_in": ends_in_seconds})));
    }
    let picture = qr::for_terminal(&url).unwrap_or_default();
    let (first, second) = code.split_at(code.len() / 2);
    let Guest { name, role, .. } = guest;
    Ok(format!(
        "\n{picture}\n  {url}\n  code {first}-{second}, for {name} ({}), once, within {} minutes\n\n",
        role.as_str(),
        invite.minutes
    ))
}

async fn list(desk: &ConsoleDesk, is_for_programs: bool) -> anyhow::Result<String> {
    let sessions = desk.list(LIST_ROWS_MAX).await.context("list the logins")?;
    let mut text = String::new();
    for session in sessions {
        let by = if session.key_mark.is_some() { "key" } else { "invitation" };
        let _ = if is_for_programs {
            let row = json!({"name": session.name, "role": session.role, "tenants": session.tenants, "by": by,
                "created_at": session.created_at, "seen_at": session.seen_at, "ends_at": session.ends_at});
            writeln!(text, "{row}")
        } else {
            let seen = schema::wire::time::format(session.seen_at);
            writeln!(text, "{:<24}{:<10}{by:<12}last seen {seen}", session.name, session.role)
        };
    }
    if text.is_empty() && !is_for_programs {
        text.push_str("nobody is logged in\n");
    }
    Ok(text)
}

fn role(role: console::Role) -> Role {
    match role {
        console::Role::Viewer => Role::Viewer,
        console::Role::Farmer => Role::Farmer,
        console::Role::Engineer => Role::Engineer,
        console::Role::Admin => Role::Admin,
    }
}

/// Where a phone finds the console: what the port listens on, or where this machine is on its network.
pub(crate) fn address(config: &Config) -> String {
    let listen = config.http.listen;
    let scheme = if config.http.tls_cert.is_some() { "https" } else { "http" };
    let ip = if listen.ip().is_unspecified() { own_address().unwrap_or(listen.ip()) } else { listen.ip() };
    format!("{scheme}://{}", SocketAddr::new(ip, listen.port()))
}

/// The address by which this machine would reach others; nothing is sent.
fn own_address() -> Option<IpAddr> {
    // An address of a network for examples: every route but the one of the machine itself leads there.
    const ELSEWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(ELSEWHERE).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phone_is_told_an_address_it_can_reach() {
        let mut config = Config::default();
        config.http.listen = "192.168.1.20:3000".parse().unwrap();
        assert_eq!(address(&config), "http://192.168.1.20:3000");
        config.http.tls_cert = Some("/cert".into());
        config.http.listen = "0.0.0.0:8443".parse().unwrap();
        let told = address(&config);
        assert!(told.starts_with("https://") && told.ends_with(":8443"), "{told}");
    }
}
