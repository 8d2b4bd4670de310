//! What measuring needs of the database: the limits to compare with, the server's own figures, and an operator's script.

use crate::clock::Timestamp;
use crate::wire::time;

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[];

/// Devices and stations an operator lets in.
#[derive(Clone, Copy, Debug)]
pub struct Allowed<'a> {
    /// Tenant of all.
    pub tenant: &'a str,
    /// Farm of all.
    pub farm: &'a str,
    /// Barn of all.
    pub barn: &'a str,
    /// Device ids.
    pub devices: &'a [String],
    /// Station ids.
    pub stations: &'a [String],
}

/// The SQL text that enables devices and stations, as operators' scripts do it. Safe to run again.
#[must_use]
pub fn allowlist_script(allowed: &Allowed<'_>, now: Timestamp) -> String {
    let devices = enable("device_allowlist", "device_id", allowed, allowed.devices, now);
    let stations = enable("station_allowlist", "station_id", allowed, allowed.stations, now);
    devices + &stations
}

fn enable(table: &str, key: &str, allowed: &Allowed<'_>, ids: &[String], now: Timestamp) -> String {
    if ids.is_empty() {
        return String::new();
    }
    let now = literal(&time::format(now));
    let [tenant, farm, barn] = [allowed.tenant, allowed.farm, allowed.barn].map(literal);
    let rows: Vec<_> = ids
        .iter()
        .map(|id| format!("  ({tenant}, {}, {farm}, {barn}, TRUE, {now}, {now})", literal(id)))
        .collect();
    format!(
        "INSERT INTO {table} (tenant_id, {key}, farm_id, barn_id, enabled, created_at, updated_at) VALUES\n{}\n\
         ON CONFLICT (tenant_id, {key}) DO UPDATE SET enabled = TRUE, farm_id = EXCLUDED.farm_id, \
         barn_id = EXCLUDED.barn_id, updated_at = EXCLUDED.updated_at;\n",
        rows.join(",\n")
    )
}

/// A text as an SQL literal; ids have no control characters, so only the quote needs care.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_in_an_id_stays_inside_its_literal() {
        let devices = ["d-1".to_owned(), "o'hare".to_owned()];
        let allowed =
            Allowed { tenant: "t", farm: "f", barn: "b", devices: &devices, stations: &[] };
        let script = allowlist_script(&allowed, Timestamp::UNIX_EPOCH);
        assert!(script.contains("('t', 'o''hare', 'f', 'b', TRUE, '1970-01-01T00:00:00.000Z'"), "{script}");
        assert!(!script.contains("station_allowlist"));
    }
}
