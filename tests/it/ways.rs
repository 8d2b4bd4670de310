//! The ways out of the barn, each with the real thing at its other end where there is one, and with a failure of it.

pub(crate) mod alone;
mod heart;
mod mail;
mod posted;
pub(crate) mod siren;

use std::sync::Arc;

use actors::alarm::way::{Class, Message, MessageKind, Way, Ways, Words};

/// What is told of a house that is too hot.
fn message(kind: MessageKind) -> Message {
    Message {
        kind,
        class: Class::Critical,
        rule: "house_hot".to_owned(),
        place: Some("north".to_owned()),
        value: Some(35.2),
        limit: Some(35.0),
        unit: Some("°C".to_owned()),
        title: Words::new("house too hot", "โรงเรือนร้อนเกินไป"),
        text: Words::new("35.2 °C, the limit is 35 °C.", "35.2 °C เกินขีดจำกัด 35 °C"),
        first_action: Words::new("Look at the fans.", "ตรวจพัดลม"),
        sounds: kind != MessageKind::Trial,
        ..Message::trial("Barn 1")
    }
}

/// The registry with this way alone.
fn only(way: impl Way + 'static) -> Ways {
    Ways::new([Arc::new(way) as Arc<dyn Way>])
}
