//! SUBSCRIBE and UNSUBSCRIBE, and the filters in them.

use std::num::NonZeroU32;

use crate::door::packet::property::{NOT_HERE, Properties, Value, id};
use crate::door::packet::reader::Reader;
use crate::door::packet::{Malformed, Reason, Version, qos};
use crate::filter::{self, Shared};
use crate::message::Qos;

/// Filters one packet may have.
const FILTERS_PER_PACKET_MAX: usize = 1000;

/// A SUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subscribe<'a> {
    pub(crate) packet_id: u16,
    /// Goes with every message that is sent because of these filters.
    pub(crate) subscription_id: Option<NonZeroU32>,
    pub(crate) filters: Vec<Asked<'a>>,
}

/// A filter a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked<'a> {
    /// As it was sent: perhaps of a shared subscription, which [`Shared::parse`] takes apart.
    pub(crate) filter: &'a str,
    pub(crate) options: SubscribeOptions,
}

/// How a subscription behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SubscribeOptions {
    /// The QoS it asks for at most.
    pub(crate) qos: Qos,
    /// What the client itself published is not sent to it.
    pub(crate) no_local: bool,
    /// A live message keeps its retain flag.
    pub(crate) retain_as_published: bool,
    pub(crate) retain_handling: RetainHandling,
}

/// Whether a subscription brings the retained messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetainHandling {
    Send,
    /// Only if there was no such subscription before.
    SendIfNew,
    Never,
}

/// An UNSUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unsubscribe<'a> {
    pub(crate) packet_id: u16,
    pub(crate) filters: Vec<&'a str>,
}

/// Reads the body of a SUBSCRIBE.
pub(crate) fn subscribe(version: Version, body: &[u8]) -> Result<Subscribe<'_>, Malformed> {
    let mut reader = Reader::new(body);
    let packet_id = reader.packet_id()?;
    let subscription_id = subscription_id(Properties::take(&mut reader, version)?)?;
    let mut filters = Vec::new();
    while !reader.is_empty() {
        check_count(filters.len())?;
        let filter = topic_filter(reader.text()?)?;
        let options = options(version, reader.byte()?)?;
        if options.no_local && Shared::parse(filter).is_some() {
            return Err(Malformed::protocol("no local on a shared subscription"));
        }
        filters.push(Asked { filter, options });
    }
    if filters.is_empty() {
        return Err(Malformed::protocol("subscribe without a filter"));
    }
    Ok(Subscribe { packet_id, subscription_id, filters })
}

/// Reads the body of an UNSUBSCRIBE.
pub(crate) fn unsubscribe(version: Version, body: &[u8]) -> Result<Unsubscribe<'_>, Malformed> {
    let mut reader = Reader::new(body);
    let packet_id = reader.packet_id()?;
    Properties::take(&mut reader, version)?.skip(false)?;
    let mut filters = Vec::new();
    while !reader.is_empty() {
        check_count(filters.len())?;
        filters.push(topic_filter(reader.text()?)?);
    }
    if filters.is_empty() {
        return Err(Malformed::protocol("unsubscribe without a filter"));
    }
    Ok(Unsubscribe { packet_id, filters })
}

fn subscription_id(mut properties: Properties<'_>) -> Result<Option<NonZeroU32>, Malformed> {
    let mut found = None;
    while let Some(property) = properties.next()? {
        match (property.id, property.value) {
            (id::SUBSCRIPTION_ID, Value::Variable(number)) => {
                let id = NonZeroU32::new(number).ok_or(Malformed::protocol("subscription identifier 0"))?;
                found = Some(id);
            }
            (id::USER_PROPERTY, Value::Pair) => {}
            (_, _) => return Err(NOT_HERE),
        }
    }
    Ok(found)
}

fn check_count(filters: usize) -> Result<(), Malformed> {
    if filters < FILTERS_PER_PACKET_MAX {
        Ok(())
    } else {
        Err(Malformed::with("too many filters in one packet", Reason::QUOTA_EXCEEDED))
    }
}

fn topic_filter(filter: &str) -> Result<&str, Malformed> {
    let is_valid = match Shared::parse(filter) {
        Some(share) => share.is_valid(),
        None => filter::is_valid(filter) && !filter.starts_with("$share/"),
    };
    if is_valid { Ok(filter) } else { Err(Malformed::new("topic filter")) }
}

fn options(version: Version, bits: u8) -> Result<SubscribeOptions, Malformed> {
    let reserved = match version {
        Version::V4 => 0xfc,
        Version::V5 => 0xc0,
    };
    if bits & reserved != 0 {
        return Err(Malformed::new("reserved bits of a subscription"));
    }
    let retain_handling = match bits >> 4 {
        0 => RetainHandling::Send,
        1 => RetainHandling::SendIfNew,
        2 => RetainHandling::Never,
        _ => return Err(Malformed::protocol("retain handling above 2")),
    };
    Ok(SubscribeOptions {
        qos: qos(bits & 0x03).map_err(|malformed| Malformed::protocol(malformed.rule))?,
        no_local: bits & 0x04 != 0,
        retain_as_published: bits & 0x08 != 0,
        retain_handling,
    })
}
