//! Log lines as JSON objects: time, level, message, who speaks, and the fields of the event and of its spans.

use std::fmt::Debug;
use std::io::Write;

use schema::clock::Clock;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Writes each event as one line on stdout.
pub(super) struct JsonLines {
    clock: Clock,
    speaker: [(&'static str, String); 4],
}

impl JsonLines {
    pub(super) fn new(speaker: [(&'static str, String); 4]) -> Self {
        Self { clock: Clock::system(), speaker }
    }

    fn line(&self, level: &Level, mut fields: Fields) -> String {
        let message = fields.0.remove("message").unwrap_or_default();
        let head = [
            ("timestamp", schema::wire::time::format(self.clock.now()).into()),
            ("level", Value::from(level.as_str().to_ascii_lowercase())),
            ("message", message),
        ];
        let speaker = self.speaker.iter().map(|(name, value)| (*name, Value::from(value.as_str())));
        let mut line = String::from("{");
        for (name, value) in head.into_iter().chain(speaker) {
            line.push_str(&format!("\"{name}\":{value},"));
        }
        // A field named like one of these would make the key appear twice.
        let taken = |name: &str| {
            ["timestamp", "level"].contains(&name) || self.speaker.iter().any(|(own, _)| *own == name)
        };
        for (name, value) in fields.0.iter().filter(|(name, _)| !taken(name)) {
            line.push_str(&format!("{}:{value},", Value::from(name.as_str())));
        }
        line.pop();
        line.push_str("}\n");
        line
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for JsonLines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            record.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(of_span) = span.extensions().get::<Fields>() {
                fields.0.extend(of_span.0.clone());
            }
        }
        event.record(&mut fields);
        // A log that cannot be written cannot be complained about either.
        let _ = std::io::stdout().lock().write_all(self.line(event.metadata().level(), fields).as_bytes());
    }
}

/// The fields of an event or of a span.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        // Events of the `log` crate carry their place in fields of this prefix.
        if !field.name().starts_with("log.") {
            self.0.insert(field.name().to_owned(), value.into());
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    /// An error with its causes, since an error's own text never repeats them.
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let causes = std::iter::successors(value.source(), |error| error.source());
        let text = causes.fold(value.to_string(), |text, cause| format!("{text}: {cause}"));
        self.put(field, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_json_object_that_begins_with_the_time() {
        let speaker = [("service", "farmiq-edge"), ("env", "dev"), ("version", "1.0"), ("edge_id", "barn-7")];
        let lines = JsonLines::new(speaker.map(|(name, value)| (name, value.to_owned())));
        let mut fields = Fields::default();
        fields.0.insert("message".into(), "started \"well\"\n".into());
        fields.0.insert("tenant_id".into(), "t-001".into());
        fields.0.insert("version".into(), "of something else".into());
        let line = lines.line(&Level::WARN, fields);
        assert!(line.starts_with("{\"timestamp\":\"20") && line.ends_with("}\n"), "{line}");
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["level"], "warn");
        assert_eq!(read["message"], "started \"well\"\n");
        assert_eq!(
            (&read["service"], &read["env"], &read["version"]),
            (&"farmiq-edge".into(), &"dev".into(), &"1.0".into())
        );
        assert_eq!((&read["edge_id"], &read["tenant_id"]), (&"barn-7".into(), &"t-001".into()));
        assert_eq!(line.matches("\"version\"").count(), 1);
    }
}
