//! The days of a flock as a table.

use actors::flock::book::DayFacts;
use serde_json::Value;

/// The days as CSV, a head with the names of the API first. What cannot be said is empty.
pub(crate) fn csv_of(days: &[DayFacts]) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for day in days {
        // Numbers and words of our own, into memory.
        writer.serialize(day).expect("days are flat");
    }
    let bytes = writer.into_inner().expect("memory takes what is written");
    String::from_utf8(bytes).expect("CSV of texts is text")
}

/// The names and values of a day, for people.
pub(crate) fn pairs(day: &DayFacts) -> Vec<(String, String)> {
    let Ok(Value::Object(map)) = serde_json::to_value(day) else { return Vec::new() };
    let text = |value: Value| match value {
        Value::Null => None,
        Value::Number(number) => number
            .as_f64()
            .filter(|_| number.is_f64())
            .map_or_else(|| Some(number.to_string()), |value| Some(format!("{value:.3}"))),
        Value::String(text) => Some(text),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => Some(value.to_string()),
    };
    map.into_iter().filter_map(|(name, value)| Some((name, text(value)?))).collect()
}
