//! Environment names of the services that this program replaces: how their values become ours, and which are ignored.

/// Milliseconds into hours, rounded up.
pub(super) fn hours_of_ms(text: &str) -> Result<String, String> {
    units(text, 3_600_000, "milliseconds")
}

/// Milliseconds into minutes, rounded up.
pub(super) fn minutes_of_ms(text: &str) -> Result<String, String> {
    units(text, 60_000, "milliseconds")
}

/// Seconds into minutes, rounded up.
pub(super) fn minutes_of_seconds(text: &str) -> Result<String, String> {
    units(text, 60, "seconds")
}

/// A port alone; the address is every interface.
pub(super) fn any_address_at_port(text: &str) -> Result<String, String> {
    let port: u16 = text.trim().parse().map_err(|_| "a port from 0 to 65535".to_owned())?;
    Ok(format!("0.0.0.0:{port}"))
}

/// On for the word `true` alone; whatever else was written there meant off.
pub(super) fn only_true(text: &str) -> Result<String, String> {
    Ok((text == "true").to_string())
}

fn units(text: &str, per_unit: u64, unit: &str) -> Result<String, String> {
    let count: u64 = text.trim().parse().map_err(|_| format!("a whole number of {unit}"))?;
    Ok(count.div_ceil(per_unit).to_string())
}

/// Whether a variable meant something to the old services and means nothing here.
pub(super) fn is_ignored(name: &str) -> bool {
    const NAMES: [&str; 9] = [
        "MEDIA_STORE_URL",
        "WEIGHVISION_SESSION_URL",
        "DOWNSTREAM_TIMEOUT_MS",
        "CLOUD_INGESTION_URL_REQUIRED",
        "RUN_MODE",
        "PORT",
        "HOST",
        "DATADOG_RUM_ENV",
        "DD_LOGS_INJECTION",
    ];
    NAMES.contains(&name) || name.starts_with("EDGE_") && name.ends_with("_URL")
}
