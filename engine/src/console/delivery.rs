//! The page of what goes to the cloud, and of the box: what waits, whether anything was lost, what was given up, and how long the disk
//! lasts.

use actors::sync::status::{CloudState, CloudView};
use askama::Template;
use schema::clock::Timestamp;
use schema::id::Uuid;
use schema::store::ledger::Totals;
use schema::store::outbox::queries::{Counts, Dead};
use schema::store::sync_state::Summary;

use super::chart::spark;
use super::frame::Frame;
use super::icon;
use super::text::Texts;
use super::weights::{Fact, Tag};
use super::words::{bytes, number, span};
use crate::finding::{Finding, Verdict};
use crate::runway::{PROMISE_DAYS, Runway};

/// Days of a full bar.
const RUNWAY_BAR_DAYS: f64 = 4.0 * PROMISE_DAYS;

/// The page.
#[derive(Template)]
#[template(path = "delivery.html")]
pub(crate) struct DeliveryPage {
    /// What surrounds it.
    pub(crate) f: Frame,
    /// What is to be seen.
    pub(crate) v: Delivery,
}

/// The page that asks whether it is meant.
#[derive(Template)]
#[template(path = "redrive.html")]
pub(crate) struct SurePage {
    /// What surrounds it.
    pub(crate) f: Frame,
    /// The question.
    pub(crate) question: &'static str,
    /// What will be done.
    pub(crate) says: String,
    /// What was wrong.
    pub(crate) wrong: Option<&'static str>,
    /// To these.
    pub(crate) ids: Vec<Uuid>,
    /// `chosen`, `all` or `discard`.
    pub(crate) which: &'static str,
}

/// What the doctor found.
pub(crate) struct RepairRow {
    pub(crate) tag: Tag,
    pub(crate) text: String,
    pub(crate) advice: String,
}

impl RepairRow {
    /// A finding that somebody should see; `None` of one that is as it should be.
    pub(crate) fn of(t: &Texts, finding: &Finding) -> Option<Self> {
        let (class, name, text) = match finding.verdict {
            Verdict::Ok => return None,
            Verdict::Warn => ("look", "look", t.repair_look),
            Verdict::Fail => ("act", "act", t.repair_act),
        };
        Some(Self {
            tag: Tag { class, icon: icon::svg(name), text: text.to_owned() },
            text: format!("{}: {}", finding.subject, finding.text),
            advice: finding.advice.clone(),
        })
    }
}

/// How long the disk lasts.
pub(crate) struct RunwayBar {
    pub(crate) text: String,
    pub(crate) class: &'static str,
    pub(crate) bar: String,
}

/// Something that was given up.
pub(crate) struct DeadRow {
    pub(crate) id: Uuid,
    pub(crate) what: String,
    pub(crate) why: String,
}

/// What is known.
pub(crate) struct Known<'a> {
    pub(crate) counts: &'a Counts,
    pub(crate) summary: &'a Summary,
    pub(crate) cloud: &'a CloudView,
    pub(crate) totals: &'a Totals,
    pub(crate) dead: &'a [Dead],
    pub(crate) by_type: &'a [(String, i64)],
    pub(crate) findings: &'a [Finding],
    pub(crate) runway: Option<Runway>,
    pub(crate) version: &'a str,
    pub(crate) edge_id: &'a str,
    pub(crate) may_redrive: bool,
    pub(crate) now: Timestamp,
}

/// What is to be seen.
pub(crate) struct Delivery {
    pub(crate) cloud: Tag,
    pub(crate) waiting: String,
    pub(crate) oldest: Option<String>,
    pub(crate) says: String,
    pub(crate) error: Option<String>,
    pub(crate) whole: Tag,
    pub(crate) ledger: Vec<Fact>,
    /// What waits, by type.
    pub(crate) types: Vec<(String, String)>,
    pub(crate) repairs: Vec<RepairRow>,
    /// How many findings are as they should be.
    pub(crate) sound: String,
    pub(crate) runway: Option<RunwayBar>,
    pub(crate) machine: Vec<Fact>,
    pub(crate) dead: Vec<DeadRow>,
    pub(crate) dead_count: String,
    pub(crate) may_redrive: bool,
}

impl Delivery {
    /// What is to be seen of what is known.
    pub(crate) fn of(t: &Texts, known: &Known<'_>) -> Self {
        let Known { counts, totals, now, .. } = known;
        let waiting = counts.pending + counts.claimed + counts.sent;
        let age = |at: Timestamp| span(t, seconds_since(at, *now));
        let sound = known.findings.iter().filter(|finding| finding.verdict == Verdict::Ok).count();
        Self {
            cloud: cloud(t, known.cloud.state),
            waiting: number(waiting as f64, 0),
            oldest: counts.oldest_pending_at.map(age),
            says: says(t, known),
            error: error(t, known),
            whole: whole(t, totals),
            ledger: ledger(t, totals),
            types: known.by_type.iter().map(|(name, rows)| (name.clone(), number(*rows as f64, 0))).collect(),
            repairs: known.findings.iter().filter_map(|finding| RepairRow::of(t, finding)).collect(),
            sound: number(sound as f64, 0),
            runway: known.runway.map(|runway| runway_bar(t, &runway)),
            machine: machine(t, known),
            dead: known.dead.iter().map(|dead| dead_row(t, dead, *now)).collect(),
            dead_count: number(known.dead.len() as f64, 0),
            may_redrive: known.may_redrive,
        }
    }
}

fn seconds_since(at: Timestamp, now: Timestamp) -> f64 {
    (now - at).num_milliseconds() as f64 / 1000.0
}

fn cloud(t: &Texts, state: CloudState) -> Tag {
    let (class, name, text) = match state {
        CloudState::Up => ("good", "ok", t.cloud_up),
        CloudState::Down => ("look", "look", t.cloud_down),
        CloudState::Unknown => ("", "unknown", t.cloud_unknown),
        CloudState::Disabled => ("", "wait", t.cloud_disabled),
    };
    Tag { class, icon: icon::svg(name), text: text.to_owned() }
}

fn says(t: &Texts, known: &Known<'_>) -> String {
    match known.cloud.last_success_at.or(known.summary.last_success_at) {
        Some(at) => format!("{} {} {}", t.last_sent, span(t, seconds_since(at, known.now)), t.ago),
        None => t.never_sent.to_owned(),
    }
}

fn error(t: &Texts, known: &Known<'_>) -> Option<String> {
    if known.cloud.state != CloudState::Down {
        return None;
    }
    let error = known.cloud.last_error.as_ref().or(known.summary.last_error.as_ref())?;
    let until = known.summary.paused_until.filter(|until| *until > known.now);
    let again = until.map_or_else(String::new, |until| {
        format!(" · {} {}", t.again_in, span(t, seconds_since(known.now, until)))
    });
    Some(format!("{error}{again}"))
}

fn whole(t: &Texts, totals: &Totals) -> Tag {
    if totals.difference == 0 {
        Tag { class: "good", icon: icon::svg("ok"), text: t.ledger_whole.to_owned() }
    } else {
        let text = format!("{} {}", t.ledger_differs, number(totals.difference as f64, 0));
        Tag { class: "act", icon: icon::svg("act"), text }
    }
}

fn ledger(t: &Texts, totals: &Totals) -> Vec<Fact> {
    let line = &totals.line;
    let rows = [
        (t.came_in, line.received),
        (t.stored, line.stored),
        (t.duplicate, line.duplicate),
        (t.refused, line.refused),
        (t.for_cloud, line.queued),
        (t.acknowledged_by_cloud, line.acked),
        (t.waiting, line.waiting),
        (t.given_up, line.failed),
    ];
    rows.into_iter().map(|(name, count)| Fact::new(name, number(count as f64, 0), "")).collect()
}

fn runway_bar(t: &Texts, runway: &Runway) -> RunwayBar {
    RunwayBar {
        text: format!("{} {} {}", t.runway, number(runway.days.floor(), 0), t.unit_d),
        class: if runway.is_enough() { "" } else { "look" },
        bar: spark::bar(runway.days / RUNWAY_BAR_DAYS),
    }
}

fn machine(t: &Texts, known: &Known<'_>) -> Vec<Fact> {
    let mut facts = vec![
        Fact::new(t.box_name, known.edge_id.to_owned(), ""),
        Fact::new(t.version, known.version.to_owned(), ""),
    ];
    if let Some(runway) = known.runway {
        facts.push(Fact::new(t.disk_free, bytes(runway.free_bytes as f64), ""));
        facts.push(Fact::new(t.events_a_day, number(runway.events_per_day, 0), ""));
    }
    facts
}

fn dead_row(t: &Texts, dead: &Dead, now: Timestamp) -> DeadRow {
    let since = dead.failed_at.unwrap_or(dead.created_at);
    // What the cloud said, for people first; the reason is the engine's.
    let message = dead.last_error_message.as_ref().or(dead.last_error_code.as_ref()).cloned();
    let when = format!("{} {}", span(t, seconds_since(since, now)), t.ago);
    let reason = dead.dlq_reason.clone().filter(|reason| message.as_ref() != Some(reason));
    let parts = [message, reason, Some(when)];
    DeadRow {
        id: dead.id,
        what: format!("{} · {}", dead.event_type, dead.source),
        why: parts.into_iter().flatten().collect::<Vec<_>>().join(" · "),
    }
}
