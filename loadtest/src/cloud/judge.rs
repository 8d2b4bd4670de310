//! What the cloud received, and whether it was allowed to arrive like that.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io::Write;

use bytes::Bytes;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use schema::clock::Timestamp;
use schema::wire::event::{SESSION_AMENDED, SESSION_CREATED, SESSION_FINALIZED, TELEMETRY_INGESTED};
use schema::wire::time;

use crate::cloud::batch::{Batch, Event, ReadingPayload, text};
use crate::cloud::digest::Digest;
use crate::cloud::log::EventLog;
use crate::cloud::mode::Mode;
use crate::cloud::seen::{Mark, Seen};
use crate::cloud::weighings::Weighings;

/// Violations kept with their details; the rest is only counted.
const VIOLATIONS_KEPT_MAX: usize = 1000;
/// Events kept as they came, newest last.
const EVENTS_KEPT_MAX: usize = 1000;
/// Entries the dedupe diagnostics can show.
const FIRST_SEEN_KEPT_MAX: usize = 200;

/// The greatest age that is told apart, milliseconds: an hour.
const AGE_MS_MAX: u64 = 3_600_000;

/// Something that must not happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Which rule was broken.
    pub kind: String,
    /// Where: ids and times.
    pub detail: String,
}

/// The answer of `GET /judge`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Batches that were read, whatever the answer was.
    pub received_batches: u64,
    /// Events taken for the first time.
    pub accepted: u64,
    /// Events seen before.
    pub duplicated: u64,
    /// Events refused one by one.
    pub rejected: u64,
    /// Accepted events by type.
    pub by_event_type: BTreeMap<String, u64>,
    /// Lanes seen.
    pub lanes: u64,
    /// Events older than what their lane had delivered in an earlier batch, when that is tolerated.
    pub late: u64,
    /// Violations, those without details included.
    pub violations_total: u64,
    /// The first violations.
    pub violations: Vec<Violation>,
}

/// A row of the dedupe diagnostics.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FirstSeen {
    tenant_id: String,
    event_id: String,
    first_seen_at: String,
}

/// The order in which one lane's events arrived.
#[derive(Debug, Default)]
struct Lane {
    /// Key of the last accepted event of earlier batches.
    accepted_key: Option<i64>,
    /// The current batch and the key of the last event in it.
    in_batch: (u64, i64),
    /// When session.created happened, and in which batch it was accepted.
    created: Option<(i64, u64)>,
    /// When session.finalized happened.
    finalized: Option<i64>,
}

/// Everything the cloud remembers.
#[derive(Debug)]
pub(crate) struct Judge {
    pub(crate) verdict: Verdict,
    pub(crate) seen: Seen,
    pub(crate) weighings: Weighings,
    /// Of what was taken since the start.
    pub(crate) digest: Digest,
    /// How old readings were when they came, milliseconds.
    pub(crate) ages_ms: Histogram<u64>,
    lanes: HashMap<String, Lane>,
    /// Events that were refused or forgotten once: the lane went on without them, so they may come late.
    refused_before: HashSet<String>,
    /// The last accepted events as they came.
    events: VecDeque<Bytes>,
    first_seen: VecDeque<FirstSeen>,
    tolerates_late: bool,
    /// Whether a state file brought ids along: sessions may then have begun before the judge looked.
    has_past: bool,
    journal: Option<std::io::BufWriter<std::fs::File>>,
    /// What was decided about each event.
    log: Option<EventLog>,
}

/// The counters and errors of an answer.
#[derive(Debug, Default)]
struct Answer {
    accepted: u64,
    duplicated: u64,
    rejected: u64,
    errors: Vec<Value>,
}

impl Judge {
    pub(crate) fn new(
        tolerates_late: bool,
        journal: Option<std::fs::File>,
        log: Option<EventLog>,
        seen: Seen,
    ) -> Self {
        Self {
            verdict: Verdict::default(),
            has_past: !seen.is_empty(),
            seen,
            weighings: Weighings::default(),
            digest: Digest::default(),
            ages_ms: Histogram::new_with_bounds(1, AGE_MS_MAX, 3).expect("the bounds are in order"),
            lanes: HashMap::new(),
            refused_before: HashSet::new(),
            events: VecDeque::new(),
            first_seen: VecDeque::new(),
            tolerates_late,
            journal: journal.map(std::io::BufWriter::new),
            log,
        }
    }

    /// Forgets everything but its files.
    pub(crate) fn reset(&mut self) {
        let (journal, log) = (self.journal.take(), self.log.take());
        *self = Self { journal, ..Self::new(self.tolerates_late, None, log, Seen::default()) };
    }

    pub(crate) fn violate(&mut self, kind: &str, detail: impl Into<String>) {
        self.verdict.violations_total += 1;
        if self.verdict.violations.len() < VIOLATIONS_KEPT_MAX {
            self.verdict.violations.push(Violation { kind: kind.to_owned(), detail: detail.into() });
        }
    }

    /// Loses an event that was taken, as a cloud does that restores a backup: it may come again, however late. `false`: it
    /// was not there.
    pub(crate) fn forget(&mut self, tenant_id: &str, event_id: &str, occurred_at: Timestamp) -> bool {
        let was_there = self.seen.remove(tenant_id, event_id);
        if was_there {
            self.digest.remove(tenant_id, event_id, occurred_at);
            self.refused_before.insert(event_id.to_owned());
        }
        was_there
    }

    pub(crate) fn verdict(&self) -> Verdict {
        Verdict { lanes: self.lanes.len() as u64, ..self.verdict.clone() }
    }

    pub(crate) fn last_events(&self, limit: usize) -> Vec<Bytes> {
        self.events.iter().skip(self.events.len().saturating_sub(limit)).cloned().collect()
    }

    pub(crate) fn first_seen(&self, tenant_id: &str, limit: usize) -> Vec<FirstSeen> {
        let is_asked = |entry: &&FirstSeen| tenant_id.is_empty() || entry.tenant_id == tenant_id;
        self.first_seen.iter().rev().filter(is_asked).take(limit).cloned().collect()
    }

    /// Remembers that a batch was refused as a whole. Of a single event the cloud has now said no to that event.
    pub(crate) fn refuse(&mut self, batch: &Batch<'_>) {
        if let [only] = batch.events.as_slice() {
            self.note_refusal(text(Event::read(only).event_id).into_owned());
        }
    }

    fn note_refusal(&mut self, event_id: String) {
        if let Some(log) = &mut self.log {
            log.refused(&event_id);
        }
        self.refused_before.insert(event_id);
    }

    /// Works through a well-formed batch and makes the body of the answer.
    pub(crate) fn take(&mut self, batch: &Batch<'_>, mode: &Mode, now: Timestamp) -> Value {
        self.check_frame(batch);
        let mut answer = Answer::default();
        for (index, raw) in batch.events.iter().enumerate() {
            let event = Event::read(raw);
            if *mode == Mode::RejectWithoutIds && index == 0 {
                self.note_refusal(text(event.event_id).into_owned());
                answer.rejected += 1;
                answer.errors.push(json!({"error": "publish failed"}));
                continue;
            }
            self.take_event(raw, &event, batch, mode, now, &mut answer);
        }
        if let Some(journal) = &mut self.journal {
            journal.flush().expect("the state file can be written");
        }
        if let Some(log) = &mut self.log {
            log.flush();
        }
        self.verdict.accepted += answer.accepted;
        self.verdict.duplicated += answer.duplicated;
        self.verdict.rejected += answer.rejected;
        answer.body(mode)
    }

    fn check_frame(&mut self, batch: &Batch<'_>) {
        let sent_at = text(batch.sent_at);
        if wire_time(&sent_at).is_none() {
            self.violate("sent_at", format!("{sent_at:?} is no UTC time with three fraction digits"));
        }
        if text(batch.edge_id).is_empty() {
            self.violate("edge_id", "edge_id is missing");
        }
    }

    fn take_event(
        &mut self,
        raw: &RawValue,
        event: &Event<'_>,
        batch: &Batch<'_>,
        mode: &Mode,
        now: Timestamp,
        answer: &mut Answer,
    ) {
        let event_id = text(event.event_id);
        if let Some(missing) = event.missing() {
            self.violate("incomplete", format!("{missing}: {}", excerpt(raw)));
            return answer.reject(&event_id, missing);
        }
        let tenant_id = text(event.tenant_id);
        self.check_fields(event, &tenant_id, &event_id, batch);
        let order = self.check_order(event, &tenant_id, &event_id);
        match self.seen.get(&tenant_id, &event_id) {
            Mark::New => {}
            Mark::Accepted | Mark::Lost => return answer.duplicated += 1,
        }
        if let Mode::RejectIds { ids, marks } = mode
            && let Some(error) = ids.get(event_id.as_ref())
        {
            self.note_refusal(event_id.clone().into_owned());
            if *marks {
                self.seen.insert(&tenant_id, &event_id, Mark::Lost);
            }
            return answer.reject(&event_id, error);
        }
        self.seen.insert(&tenant_id, &event_id, Mark::Accepted);
        answer.accepted += 1;
        self.accept(raw, event, order, &tenant_id, &event_id, now);
    }

    fn check_fields(&mut self, event: &Event<'_>, tenant_id: &str, event_id: &str, batch: &Batch<'_>) {
        if batch.tenant_id.as_deref() != Some(tenant_id) {
            self.violate("foreign_tenant", format!("{event_id} belongs to {tenant_id}"));
        }
        let key = text(event.idempotency_key);
        if key.strip_prefix(tenant_id).and_then(|rest| rest.strip_prefix(':')) != Some(event_id) {
            self.violate("idempotency_key", format!("{event_id} has idempotency_key {key:?}"));
        }
        let has_empty = [event.device_id, event.station_id, event.session_id]
            .into_iter()
            .flatten()
            .any(|field| matches!(field.get(), "null" | "\"\""));
        if has_empty {
            self.violate("empty_field", format!("{event_id} has an empty id instead of none"));
        }
        if text(event.event_type) == TELEMETRY_INGESTED {
            let payload = event.payload.map_or("", RawValue::get);
            let is_usable = serde_json::from_str::<ReadingPayload<'_>>(payload)
                .is_ok_and(|payload| !payload.metric_type.is_empty());
            if !is_usable {
                self.violate("payload", format!("{event_id} lacks metric_type or a numeric metric_value"));
            }
        }
    }

    /// Checks the place of an event in its lane and returns its lane and order key.
    fn check_order(&mut self, event: &Event<'_>, tenant_id: &str, event_id: &str) -> (String, i64) {
        let occurred_at = text(event.occurred_at);
        let Some(at) = wire_time(&occurred_at) else {
            self.violate("occurred_at", format!("{event_id} occurred at {occurred_at:?}"));
            return (String::new(), 0);
        };
        let batch = self.verdict.received_batches;
        let event_type = text(event.event_type);
        let session_id = text(event.session_id);
        let name = lane_name(tenant_id, &session_id, &text(event.device_id), &text(event.station_id));
        let lane = self.lanes.entry(name.clone()).or_default();
        let is_session = !session_id.is_empty();
        let created = lane.created;
        let mut key = at.timestamp_micros();
        if is_session && event_type != SESSION_CREATED {
            key = key.max(created.map_or(i64::MIN, |(at, _)| at));
        }
        if is_session && event_type == SESSION_AMENDED {
            key = key.max(lane.finalized.unwrap_or(i64::MIN));
        }
        let (last_batch, last_key) = lane.in_batch;
        let is_backwards = last_batch == batch && key < last_key;
        lane.in_batch = (batch, key);
        if is_backwards {
            self.violate(
                "batch_order",
                format!("{event_id} at {occurred_at} goes back inside a batch of {name}"),
            );
        }
        let needs_created = matches!(event_type.as_ref(), SESSION_FINALIZED | SESSION_AMENDED);
        let is_ahead = created.map_or(!self.has_past, |(_, accepted_in)| accepted_in == batch);
        if is_session && needs_created && is_ahead {
            self.violate(
                "ahead_of_created",
                format!("{event_type} {event_id} of {name} before created was acked"),
            );
        }
        if is_session && event_type == SESSION_FINALIZED && !self.is_seen(tenant_id, event_id) {
            self.check_single_end(&name, event_id);
        }
        (name, key)
    }

    fn is_seen(&self, tenant_id: &str, event_id: &str) -> bool {
        self.seen.get(tenant_id, event_id) != Mark::New
    }

    fn check_single_end(&mut self, name: &str, event_id: &str) {
        let is_excused = self.refused_before.contains(event_id);
        if !is_excused && self.lanes.get(name).is_some_and(|lane| lane.finalized.is_some()) {
            self.violate("second_finalized", format!("{event_id} finalizes {name} again"));
        }
    }

    fn accept(
        &mut self,
        raw: &RawValue,
        event: &Event<'_>,
        (name, key): (String, i64),
        tenant_id: &str,
        event_id: &str,
        now: Timestamp,
    ) {
        let event_type = text(event.event_type);
        if let Some(at) = wire_time(&text(event.occurred_at)) {
            self.digest.add(tenant_id, event_id, at);
            if event_type == TELEMETRY_INGESTED {
                self.ages_ms.saturating_record((now - at).num_milliseconds().max(0).unsigned_abs());
            }
        }
        if !name.is_empty() {
            self.advance(&name, key, &event_type, event_id);
        }
        let payload = event.payload.map_or("", RawValue::get);
        self.weighings.take(tenant_id, &text(event.session_id), &event_type, payload);
        match self.verdict.by_event_type.get_mut(event_type.as_ref()) {
            Some(count) => *count += 1,
            None => drop(self.verdict.by_event_type.insert(event_type.into_owned(), 1)),
        }
        if let Some(journal) = &mut self.journal {
            writeln!(journal, "{tenant_id}\t{event_id}").expect("the state file can be written");
        }
        if let Some(log) = &mut self.log {
            log.accepted(self.verdict.received_batches, raw);
        }
        keep(&mut self.events, EVENTS_KEPT_MAX, Bytes::copy_from_slice(raw.get().as_bytes()));
        let first_seen = FirstSeen {
            tenant_id: tenant_id.to_owned(),
            event_id: event_id.to_owned(),
            first_seen_at: time::format(now),
        };
        keep(&mut self.first_seen, FIRST_SEEN_KEPT_MAX, first_seen);
    }

    /// Moves a lane on to a newly accepted event, and says when that was a step back.
    fn advance(&mut self, name: &str, key: i64, event_type: &str, event_id: &str) {
        let batch = self.verdict.received_batches;
        let is_excused = event_type == SESSION_CREATED || self.refused_before.contains(event_id);
        let lane = self.lanes.get_mut(name).expect("the lane was made when the order was checked");
        let has_second_start = event_type == SESSION_CREATED
            && lane.created.is_some()
            && !self.refused_before.contains(event_id);
        match event_type {
            SESSION_CREATED => {
                lane.created.get_or_insert((key, batch));
            }
            SESSION_FINALIZED => {
                lane.finalized.get_or_insert(key);
            }
            _ => {}
        }
        let is_late = !is_excused && lane.accepted_key.is_some_and(|last| key < last);
        if event_type == SESSION_CREATED || !is_late {
            lane.accepted_key = Some(key);
        }
        if has_second_start {
            self.violate("second_created", format!("{event_id} creates {name} again"));
        }
        if is_late && self.tolerates_late {
            self.verdict.late += 1;
        } else if is_late {
            self.violate("lane_order", format!("{event_id} is older than what {name} delivered before"));
        }
    }
}

impl Answer {
    fn reject(&mut self, event_id: &str, error: &str) {
        self.rejected += 1;
        self.errors.push(json!({"event_id": event_id, "error": error}));
    }

    fn body(self, mode: &Mode) -> Value {
        let mut body =
            json!({"accepted": self.accepted, "duplicated": self.duplicated, "rejected": self.rejected});
        if *mode == Mode::BareOk {
            return json!({"ok": true});
        }
        if *mode == Mode::CountMismatch {
            body["rejected"] = json!(self.rejected + 1);
        }
        if !self.errors.is_empty() {
            body["errors"] = Value::Array(self.errors);
        }
        body
    }
}

fn keep<T>(ring: &mut VecDeque<T>, limit: usize, item: T) {
    if ring.len() == limit {
        ring.pop_front();
    }
    ring.push_back(item);
}

fn lane_name(tenant: &str, session: &str, device: &str, station: &str) -> String {
    match (session, device) {
        ("", "") => format!("{tenant} station {station}"),
        ("", _) => format!("{tenant} device {device}"),
        (_, _) => format!("{tenant} session {session}"),
    }
}

/// A time in the one form that is written: UTC, three fraction digits, `Z`.
fn wire_time(text: &str) -> Option<Timestamp> {
    let is_in_form = text.len() == 24 && text.ends_with('Z') && text.as_bytes()[19] == b'.';
    if is_in_form { time::parse(text) } else { None }
}

fn excerpt(raw: &RawValue) -> String {
    raw.get().chars().take(200).collect()
}
