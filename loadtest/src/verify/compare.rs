//! The judgment itself: what senders know beside what the database and the cloud have. Nothing here asks anybody.

use std::collections::{HashMap, HashSet};

use sha2::{Digest, Sha256};

use schema::wire::event::{
    SESSION_AMENDED, SESSION_CREATED, SESSION_FINALIZED, TELEMETRY_INGESTED, WEIGHT_RECORDED,
};

use super::arrivals::{Arrival, Arrivals};
use super::database::{Outgoing, Reading, Rows};
use super::findings::{Findings, Rule};
use super::mapping::at_cloud;
use super::message::{Key, Kind, Message, Messages};
use crate::ids::hyphenated;

/// Values of derived readings have two decimals.
const DERIVED_SCALE: f64 = 100.0;
/// The metric whose values are real weights, even where the others are derived.
const UNDERIVED_METRIC: &str = "weight";

/// What is known of the senders beside their ledger.
#[derive(Clone, Debug, Default)]
pub struct Senders {
    /// Devices whose messages the ledger does not hold, or not all of them.
    pub unwatched: HashSet<String>,
    /// Whether the value of each reading is [`derived_value`] of its event id.
    pub derives_values: bool,
}

/// A value that a judge can compute again from the event id alone.
#[must_use]
pub fn derived_value(event_id: &str) -> f64 {
    let digest = Sha256::digest(event_id.as_bytes());
    f64::from(u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])) / DERIVED_SCALE
}

/// Judges what the database has.
pub fn database(messages: &Messages, rows: &Rows, senders: &Senders, findings: &mut Findings) {
    let (mut stored, mut repeated) = (0, 0);
    for (key, message) in messages.acknowledged() {
        if message.kind == Kind::Image {
            continue;
        }
        findings.look(Rule::Kept, 1);
        repeated += usize::from(message.acknowledged > 1);
        match state(rows, key, message) {
            State::Stored => stored += 1,
            State::Refused(reason) => {
                *findings.refused.entry(reason.clone()).or_default() += 1;
                findings.differ(Rule::Accepted, &key.1, format!("refused: {reason} ({})", message.topic));
            }
            State::Nothing => {
                findings.differ(
                    Rule::Kept,
                    &key.1,
                    format!("neither stored nor refused ({})", message.topic),
                );
            }
            State::Both(reason) => {
                findings.differ(Rule::Kept, &key.1, format!("stored, and refused as {reason}"));
            }
        }
    }
    for (key, message) in messages.by_key.iter().filter(|(_, message)| message.refused > 0) {
        *findings.refused.entry("in the answer".to_owned()).or_default() += 1;
        findings.differ(Rule::Accepted, &key.1, format!("refused in the answer ({})", message.topic));
    }
    findings.count("stored", stored);
    findings.count("answered more than once", repeated);
    invented(messages, rows, senders, findings);
    contents(messages, rows, senders, findings);
    queued(rows, findings);
}

enum State {
    Stored,
    Refused(String),
    Both(String),
    Nothing,
}

fn state(rows: &Rows, key: &Key, message: &Message) -> State {
    // A refused message may be sent again in another form: only the same body must not be both.
    let is_same = |hash: &str| message.sha256.is_empty() || hash.is_empty() || hash == message.sha256;
    let refusal = rows.refusals.get(key).filter(|refusal| is_same(&refusal.sha256));
    match (is_stored(rows, key, &message.kind), refusal) {
        (true, None) => State::Stored,
        (true, Some(refusal)) => State::Both(refusal.reason.clone()),
        (false, Some(refusal)) => State::Refused(refusal.reason.clone()),
        (false, None) => State::Nothing,
    }
}

fn is_stored(rows: &Rows, key: &Key, kind: &Kind) -> bool {
    let session = |id: &String| rows.sessions.get(&(key.0.clone(), id.clone()));
    match kind {
        Kind::Reading => rows.readings.contains_key(key),
        Kind::Event => rows.events.contains(key),
        Kind::Created(id) => session(id).is_some(),
        Kind::Weight(_) => rows.weights.contains_key(key),
        // The same image under another id is success without a row.
        Kind::Picture(_) => rows.bindings.contains(key) || rows.marks.contains_key(key),
        Kind::Finalized(id) => {
            rows.set_aside.contains(key) || session(id).is_some_and(|session| session.status == "finalized")
        }
        Kind::Status | Kind::Image => true,
        Kind::Any => {
            rows.readings.contains_key(key)
                || rows.events.contains(key)
                || rows.marks.contains_key(key)
                || rows.weights.contains_key(key)
        }
    }
}

fn invented(messages: &Messages, rows: &Rows, senders: &Senders, findings: &mut Findings) {
    let watched = rows.readings.iter().filter(|(_, reading)| !senders.unwatched.contains(&reading.device));
    let readings: Vec<_> = watched.map(|(key, _)| key).collect();
    findings.look(Rule::Invented, readings.len() + rows.events.len());
    for key in readings.into_iter().chain(&rows.events) {
        if !messages.by_key.contains_key(key) {
            findings.differ(Rule::Invented, &key.1, "stored, and nobody sent it");
        }
    }
}

fn contents(messages: &Messages, rows: &Rows, senders: &Senders, findings: &mut Findings) {
    for (key, message) in &messages.by_key {
        let mark = rows.marks.get(key).filter(|mark| mark.topic == message.topic);
        if let Some(hash) = mark.and_then(|mark| mark.hash.as_ref())
            && !message.sha256.is_empty()
        {
            findings.look(Rule::Content, 1);
            if *hash != message.sha256 {
                let detail = format!("body {hash} was stored, {} was sent", message.sha256);
                findings.differ(Rule::Content, &key.1, detail);
            }
        }
    }
    for (key, reading) in &rows.readings {
        if reading.copies != 1 {
            findings.differ(Rule::Content, &key.1, format!("stored {} times", reading.copies));
        }
        let is_derived = senders.derives_values && reading.metric != UNDERIVED_METRIC;
        if is_derived && !senders.unwatched.contains(&reading.device) {
            let expected = derived_value(&key.1);
            findings.look(Rule::Content, 1);
            if reading.value.to_bits() != expected.to_bits() {
                let detail = format!("value {} was stored, {expected} was sent", reading.value);
                findings.differ(Rule::Content, &key.1, detail);
            }
        }
    }
}

/// What is stored has its event, once.
fn queued(rows: &Rows, findings: &mut Findings) {
    let bound = rows.weights.iter().filter(|(_, weight)| weight.is_bound).map(|(key, _)| key);
    let stored: Vec<_> = rows.readings.keys().chain(bound).collect();
    findings.look(Rule::Queued, stored.len());
    for key in stored {
        let id = (key.0.clone(), at_cloud(&key.0, &key.1));
        if !rows.outbox.contains_key(&id) && !rows.discarded.contains(&id) {
            findings.differ(Rule::Queued, &key.1, "stored without an event for the cloud");
        }
    }
    for ((_, id), outgoing) in rows.outbox.iter().filter(|(_, outgoing)| outgoing.copies != 1) {
        findings.differ(Rule::Queued, hyphenated(*id), format!("{} rows in the outbox", outgoing.copies));
    }
}

/// Judges what the cloud has, as far as the ledger alone can tell: every acknowledged message that causes an event.
pub fn cloud_by_ledger(messages: &Messages, arrivals: &Arrivals, findings: &mut Findings) {
    for (key, message) in messages.acknowledged() {
        let causes_event = match message.kind {
            Kind::Reading | Kind::Created(_) | Kind::Weight(_) | Kind::Finalized(_) | Kind::Any => true,
            Kind::Picture(_) | Kind::Event | Kind::Status | Kind::Image => false,
        };
        if causes_event {
            findings.look(Rule::Delivered, 1);
            if !arrivals.has(&key.0, at_cloud(&key.0, &key.1)) {
                findings.differ(Rule::Delivered, &key.1, "acknowledged and not at the cloud");
            }
        }
    }
}

/// Judges what the cloud has beside what the database says it sent.
pub fn cloud_by_database(messages: &Messages, rows: &Rows, arrivals: &Arrivals, findings: &mut Findings) {
    for ((tenant, id), outgoing) in &rows.outbox {
        findings.look(Rule::Delivered, 1);
        if !arrivals.has(tenant, *id) {
            findings.differ(Rule::Delivered, hyphenated(*id), missing(outgoing));
        }
    }
    for (key, message) in messages.acknowledged() {
        let is_watched = matches!(message.kind, Kind::Reading | Kind::Any) && !is_refused(rows, key);
        let id = (key.0.clone(), at_cloud(&key.0, &key.1));
        // Those with a row were looked at above.
        if is_watched && !rows.outbox.contains_key(&id) && !arrivals.has(&id.0, id.1) {
            findings.look(Rule::Delivered, 1);
            findings.differ(Rule::Delivered, &key.1, "acknowledged, and neither queued nor at the cloud");
        }
    }
    for (key, arrival) in &arrivals.by_id {
        findings.look(Rule::DeliveredInvented, 1);
        if !rows.outbox.contains_key(key) && !rows.discarded.contains(key) {
            let detail = format!("{} of {} is at the cloud alone", arrival.event_type, arrival.device_id);
            findings.differ(Rule::DeliveredInvented, hyphenated(key.1), detail);
        }
    }
    for id in &arrivals.odd {
        findings.differ(Rule::DeliveredInvented, id, "no UUID in lower case");
    }
    delivered_contents(rows, arrivals, findings);
}

fn is_refused(rows: &Rows, key: &Key) -> bool {
    rows.refusals.contains_key(key)
}

fn missing(outgoing: &Outgoing) -> String {
    let Outgoing { event_type, status, error, .. } = outgoing;
    let error = error.as_deref().filter(|error| !error.is_empty());
    format!(
        "{event_type} is {status} and not at the cloud{}",
        error.map_or(String::new(), |e| format!(": {e}"))
    )
}

fn delivered_contents(rows: &Rows, arrivals: &Arrivals, findings: &mut Findings) {
    if !arrivals.has_log {
        return;
    }
    for (key, reading) in &rows.readings {
        let id = at_cloud(&key.0, &key.1);
        let Some(arrival) = arrivals.by_id.get(&(key.0.clone(), id)) else { continue };
        findings.look(Rule::DeliveredContent, 1);
        if !is_of(arrival, reading) {
            let detail = format!("the database has {reading:?}, the cloud {arrival:?}");
            findings.differ(Rule::DeliveredContent, &key.1, detail);
        }
    }
    for (key, weight) in &rows.weights {
        let id = at_cloud(&key.0, &key.1);
        let Some(arrival) = arrivals.by_id.get(&(key.0.clone(), id)) else { continue };
        findings.look(Rule::DeliveredContent, 1);
        let is_same = arrival.event_type == WEIGHT_RECORDED
            && arrival.session_id == weight.session_id
            && arrival.payload.weight_kg.map(f64::to_bits) == Some(weight.weight_kg.to_bits());
        if !is_same {
            let detail = format!("the database has {weight:?}, the cloud {arrival:?}");
            findings.differ(Rule::DeliveredContent, &key.1, detail);
        }
    }
}

fn is_of(arrival: &Arrival, reading: &Reading) -> bool {
    let payload = &arrival.payload;
    arrival.event_type == TELEMETRY_INGESTED
        && arrival.device_id == reading.device
        && arrival.at_millis == reading.at_micros.div_euclid(1000)
        && payload.metric_type.as_deref() == Some(reading.metric.as_str())
        && payload.metric_value.map(f64::to_bits) == Some(reading.value.to_bits())
        && payload.unit == reading.unit
}

/// An event as it came to the cloud: its place, its id, the time it is ordered by, and its number in the outbox.
type Arrived = (usize, u128, i64, i64);

/// Judges the order of the readings of each device. A reading may come late when it came in late; it must not come after
/// a newer one that the engine took in later. A reading that the cloud had refused is excused.
pub fn order(rows: &Rows, arrivals: &Arrivals, findings: &mut Findings) {
    let mut lanes: HashMap<(&str, &str), Vec<Arrived>> = HashMap::new();
    for ((tenant, id), arrival) in &arrivals.by_id {
        let is_watched = arrival.event_type == TELEMETRY_INGESTED && !arrival.was_refused;
        let Some(outgoing) = rows.outbox.get(&(tenant.clone(), *id)).filter(|_| is_watched) else { continue };
        let lane = lanes.entry((tenant, &arrival.device_id)).or_default();
        lane.push((arrival.place, *id, outgoing.order_micros, outgoing.seq));
    }
    for ((_, device), mut lane) in lanes {
        lane.sort_unstable();
        findings.look(Rule::Order, lane.len());
        let mut newest = i64::MIN;
        for (at, (_, id, order, seq)) in lane.iter().enumerate() {
            let overtaken_by = |earlier: &&Arrived| earlier.2 > *order && earlier.3 > *seq;
            let other = if *order < newest { lane[..at].iter().find(overtaken_by) } else { None };
            if let Some((_, other, _, _)) = other {
                let detail =
                    format!("{device}: {} is newer, came in later, and arrived before", hyphenated(*other));
                findings.differ(Rule::Order, hyphenated(*id), detail);
            }
            newest = newest.max(*order);
        }
    }
}

/// One beginning, one end behind it.
#[derive(Default)]
struct Course<'a> {
    created: Vec<&'a Arrival>,
    finalized: Vec<&'a Arrival>,
    amended: Vec<&'a Arrival>,
}

/// Judges the sessions: those that the cloud knows, and those whose beginning and end were acknowledged.
pub fn sessions(messages: &Messages, rows: Option<&Rows>, arrivals: &Arrivals, findings: &mut Findings) {
    let mut courses: HashMap<Key, Course<'_>> = HashMap::new();
    for ((tenant, _), arrival) in &arrivals.by_id {
        let key = (tenant.clone(), arrival.session_id.clone());
        match arrival.event_type.as_str() {
            SESSION_CREATED => courses.entry(key).or_default().created.push(arrival),
            SESSION_FINALIZED => courses.entry(key).or_default().finalized.push(arrival),
            SESSION_AMENDED => courses.entry(key).or_default().amended.push(arrival),
            _ => {}
        }
    }
    let (began, ended) = promised(messages, rows);
    findings.look(Rule::Sessions, courses.len());
    for (key, course) in &courses {
        if let Some(fault) = fault(course) {
            findings.differ(Rule::Sessions, &key.1, fault);
        }
    }
    let none = Course::default();
    for key in &began {
        let course = courses.get(key).unwrap_or(&none);
        if course.created.is_empty() {
            findings.differ(Rule::Sessions, &key.1, "its beginning was acknowledged and did not arrive");
        } else if ended.contains(key) && course.finalized.is_empty() {
            findings.differ(Rule::Sessions, &key.1, "its end was acknowledged and did not arrive");
        }
    }
}

/// Sessions whose beginning, and whose end, somebody acknowledged and did not refuse.
fn promised(messages: &Messages, rows: Option<&Rows>) -> (HashSet<Key>, HashSet<Key>) {
    let (mut began, mut ended) = (HashSet::new(), HashSet::new());
    for (key, message) in messages.acknowledged() {
        if rows.is_some_and(|rows| is_refused(rows, key)) {
            continue;
        }
        match &message.kind {
            Kind::Created(session) => began.insert((key.0.clone(), session.clone())),
            Kind::Finalized(session) => ended.insert((key.0.clone(), session.clone())),
            Kind::Reading
            | Kind::Weight(_)
            | Kind::Picture(_)
            | Kind::Event
            | Kind::Status
            | Kind::Image
            | Kind::Any => false,
        };
    }
    (began, ended)
}

fn fault(course: &Course<'_>) -> Option<String> {
    let Course { created, finalized, amended } = course;
    if created.len() > 1 || finalized.len() > 1 {
        return Some(format!("began {} times and ended {} times", created.len(), finalized.len()));
    }
    let began = created.first();
    for (name, later) in
        finalized.iter().map(|it| ("its end", it)).chain(amended.iter().map(|it| ("a change", it)))
    {
        match began {
            None => return Some(format!("{name} arrived without a beginning")),
            Some(began) if later.batch <= began.batch => {
                return Some(format!(
                    "{name} arrived in batch {}, its beginning in batch {}",
                    later.batch, began.batch
                ));
            }
            Some(_) => {}
        }
    }
    None
}

#[cfg(test)]
mod tests;
