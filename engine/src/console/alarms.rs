//! The pages of the alarms: what stands, what happened, drills, and one alarm with what to do.

use std::collections::BTreeMap;

use actors::alarm::desk::{AlarmError, RuleInForce};
use actors::alarm::house::{ActError, SHELF_MINUTES_CRITICAL_MAX, SHELF_MINUTES_MAX};
use actors::alarm::rule::{Mode, Test};
use actors::alarm::starting::{self, DRILL};
use actors::alarm::state::Side;
use actors::alarm::way::{Class, Words};
use askama::Template;
use schema::clock::Timestamp;
use schema::id::Uuid;
use schema::store::alarm::rule::ModeRow;
use schema::store::alarm::telling::{DrillRow, ResultRow};
use schema::store::alarm::{AlarmRow, EventRow, Figures};

use super::frame::{Frame, Status};
use super::icon;
use super::text::{Lang, Texts};
use super::weights::{Fact, Tag};
use super::words::{number, span};

/// States of what stands, the most urgent first.
pub(crate) const STANDING: [&str; 3] = ["UNACK", "ACKED", "RTNUN"];
/// For how many minutes one may be put aside, where its class allows it.
const SHELF_MINUTES: [u32; 3] = [30, 120, 480];

/// The page.
#[derive(Template)]
#[template(path = "alarms.html")]
pub(crate) struct AlarmsPage {
    /// What surrounds it.
    pub(crate) f: Frame,
    /// What is to be seen.
    pub(crate) v: Alarms,
    /// What was wrong.
    pub(crate) wrong: Option<&'static str>,
}

/// The page of one alarm.
#[derive(Template)]
#[template(path = "alarm.html")]
pub(crate) struct AlarmPage {
    /// What surrounds it.
    pub(crate) f: Frame,
    /// The alarm.
    pub(crate) a: AlarmView,
    /// What was wrong.
    pub(crate) wrong: Option<String>,
    /// What happened to it, the newest first.
    pub(crate) events: Vec<EventView>,
}

/// What is to be seen.
#[derive(Default)]
pub(crate) struct Alarms {
    /// The name of what is shown.
    pub(crate) show: &'static str,
    /// Name in the address, word, whether one is there.
    pub(crate) tabs: Vec<(&'static str, &'static str, bool)>,
    pub(crate) figures: Option<Vec<Fact>>,
    pub(crate) shows_alarms: bool,
    pub(crate) alarms: Vec<AlarmView>,
    pub(crate) events: Vec<EventView>,
    pub(crate) shows_drills: bool,
    /// Whether none was answered for too long.
    pub(crate) is_overdue: bool,
    /// When the next one is held or due, in words.
    pub(crate) next_drill: Option<String>,
    pub(crate) drills: Vec<Drill>,
    pub(crate) mode: Option<ModeView>,
    pub(crate) rules: Vec<Line>,
}

/// Something with a title, a sentence and a verdict.
pub(crate) struct Line {
    pub(crate) title: String,
    pub(crate) says: String,
    pub(crate) tag: Tag,
}

/// A drill, as evidence.
pub(crate) struct Drill {
    pub(crate) id: Uuid,
    pub(crate) line: Line,
    /// What became of it by each way.
    pub(crate) ways: Vec<String>,
    pub(crate) is_waiting: bool,
}

/// What a house is doing.
pub(crate) struct ModeView {
    pub(crate) name: &'static str,
    /// Who has said so, when and why; nobody where it follows from the flock.
    pub(crate) says: String,
    /// Name in the form, word, whether it is that now.
    pub(crate) choices: Vec<(&'static str, &'static str, bool)>,
}

/// Something that happened.
pub(crate) struct EventView {
    pub(crate) id: Uuid,
    pub(crate) title: String,
    pub(crate) says: String,
}

/// An alarm.
pub(crate) struct AlarmView {
    pub(crate) id: Uuid,
    pub(crate) class: &'static str,
    pub(crate) title: String,
    pub(crate) says: String,
    pub(crate) tag: Tag,
    pub(crate) value: String,
    pub(crate) limit: String,
    pub(crate) cause: String,
    pub(crate) first_action: String,
    pub(crate) occurrence: i64,
    pub(crate) is_unacknowledged: bool,
    /// For how long it may be put aside: minutes, and the same in words.
    pub(crate) shelves: Vec<(u32, String)>,
    pub(crate) is_shelved: bool,
}

/// How a barn is, by the alarms that stand.
///
/// | there is | the barn asks to |
/// |---|---|
/// | a critical or high one that stands and nobody has acknowledged | act |
/// | any other that stands, or that nobody has acknowledged | look |
/// | none | do nothing |
pub(crate) fn status(rows: &[AlarmRow]) -> Status {
    let of = |row: &AlarmRow| {
        let is_shown = !matches!(row.state.as_str(), "NORM" | "SHLVD" | "DSUPR" | "OOSRV");
        if !is_shown {
            Status::Ok
        } else if row.is_active && row.is_unacknowledged && row.class != "low" {
            Status::Act
        } else {
            Status::Look
        }
    };
    rows.iter().map(of).max().unwrap_or(Status::Ok)
}

/// The most urgent first: by state, then by class, then the newest.
pub(crate) fn urgency(row: &AlarmRow) -> (u8, u8, std::cmp::Reverse<Option<Timestamp>>) {
    let state = match row.state.as_str() {
        "UNACK" => 0,
        "ACKED" => 1,
        _ => 2,
    };
    let class = match row.class.as_str() {
        "critical" => 0,
        "high" => 1,
        _ => 2,
    };
    (state, class, std::cmp::Reverse(row.raised_at))
}

/// For how long an alarm may be put aside.
fn shelves(t: &Texts, row: &AlarmRow) -> Vec<(u32, String)> {
    let is_there = row.is_active || row.is_unacknowledged;
    if !is_there || row.state == "SHLVD" || row.rule_id == DRILL {
        return Vec::new();
    }
    let minutes_max = if row.class == "critical" { SHELF_MINUTES_CRITICAL_MAX } else { SHELF_MINUTES_MAX };
    let offered = SHELF_MINUTES.into_iter().filter(|minutes| *minutes <= minutes_max);
    offered.map(|minutes| (minutes, span(t, f64::from(minutes) * 60.0))).collect()
}

/// The rules of a barn by their ids.
pub(crate) type Rules = BTreeMap<String, RuleInForce>;

/// What a rule is called: as it is in force here, else as the program brings it, else by its id.
fn title_of(lang: Lang, rules: Option<&Rules>, id: &str) -> String {
    if let Some(rule) = rules.and_then(|rules| rules.get(id)) {
        return said(lang, &rule.rule.title);
    }
    let ours = starting::rules().into_iter().find(|rule| rule.id == id);
    ours.map_or_else(|| id.replace('_', " "), |rule| said(lang, &rule.title))
}

/// A value with its unit, as people say it.
fn measured(t: &Texts, value: f64, unit: &str) -> String {
    match unit {
        "d" => format!("{} {}", number(value, 0), t.days_unit),
        "h" => format!("{} {}", number(value, 1), t.unit_h),
        "min" => format!("{} {}", number(value, 0), t.unit_min),
        "s" => span(t, value),
        unit => format!("{} {unit}", number(value, 1)),
    }
}

/// The words of a language.
fn said(lang: Lang, words: &Words) -> String {
    match lang {
        Lang::En => words.en.clone(),
        Lang::Th => words.th.clone(),
    }
}

/// What a state is called, and how it looks.
fn state_tag(t: &Texts, row: &AlarmRow) -> Tag {
    let (class, name, text) = match row.state.as_str() {
        "UNACK" => ("act", "act", t.state_unack),
        "ACKED" => ("look", "look", t.state_acked),
        "RTNUN" => ("look", "wait", t.state_returned),
        "SHLVD" => ("", "wait", t.state_shelved),
        "DSUPR" | "OOSRV" => ("", "wait", t.state_off),
        _ => ("good", "ok", t.state_normal),
    };
    Tag { class, icon: icon::svg(name), text: text.to_owned() }
}

fn class_of(class: &str) -> &'static str {
    match class {
        "critical" => "critical",
        "high" => "warning",
        _ => "",
    }
}

impl AlarmView {
    /// An alarm as it stands now, with the words of its rule.
    pub(crate) fn of(f: &Frame, row: &AlarmRow, rules: Option<&Rules>, now: Timestamp) -> Self {
        let t = f.t;
        let rule = rules.and_then(|rules| rules.get(&row.rule_id));
        let words =
            |pick: fn(&RuleInForce) -> &Words| rule.map(|rule| said(f.lang, pick(rule))).unwrap_or_default();
        let title = title_of(f.lang, rules, &row.rule_id);
        let title = if row.place.is_empty() { title } else { format!("{title} · {}", row.place) };
        let unit = row.unit.as_deref().unwrap_or_default();
        let since = row.raised_at.map(|at| format!("{} {} {}", t.since, span(t, seconds(at, now)), t.ago));
        let value = row.value.map(|value| measured(t, value, unit));
        let limit = row.limit_value.map(|limit| format!("{} {}", t.limit, measured(t, limit, unit)));
        let by = row.acknowledged_by.as_ref().filter(|_| !row.is_unacknowledged);
        let by = by.map(|who| format!("{} {}", t.acknowledged_by, person(who)));
        let is_shelved = row.state == "SHLVD";
        let until = row.shelved_until.filter(|until| is_shelved && *until > now);
        let until = until.map(|until| format!("{} {}", t.comes_back_in, span(t, seconds(now, until))));
        let who = row.shelved_by.as_ref().filter(|_| is_shelved);
        let who = who.map(|who| format!("{} {}", t.shelved_by, person(who)));
        let reason = row.shelf_reason.clone().filter(|_| is_shelved);
        let hidden = row.suppressed_by.as_deref().map(|cause| because(f, rules, cause));
        let parts = [value.clone(), limit.clone(), since, by, who, until, reason, hidden, row.why.clone()];
        Self {
            id: row.id,
            class: class_of(&row.class),
            title,
            says: parts.into_iter().flatten().collect::<Vec<_>>().join(" · "),
            tag: state_tag(t, row),
            value: value.unwrap_or_default(),
            limit: limit.unwrap_or_default(),
            cause: words(|rule| &rule.rule.cause),
            first_action: words(|rule| &rule.rule.first_action),
            occurrence: row.occurrence,
            is_unacknowledged: row.is_unacknowledged,
            shelves: shelves(t, row),
            is_shelved,
        }
    }
}

impl EventView {
    /// Something that happened.
    pub(crate) fn of(f: &Frame, row: &EventRow, rules: Option<&Rules>, when: String) -> Self {
        let title = title_of(f.lang, rules, &row.rule_id);
        let title = if row.place.is_empty() { title } else { format!("{title} · {}", row.place) };
        let why = row.why.as_deref().map(|why| because(f, rules, why));
        let value = row.value.map(|value| number(value, 1));
        let parts = [Some(when), Some(kind(f.t, &row.kind)), value, Some(person(&row.author)), why];
        let says =
            parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" · ");
        Self { id: row.alarm_id, title, says }
    }
}

fn kind(t: &Texts, kind: &str) -> String {
    let word = match kind {
        "raised" => t.event_raised,
        "ended" => t.event_returned,
        "acknowledged" => t.event_acknowledged,
        "shelved" => t.state_shelved,
        "unshelved" => t.event_unshelved,
        "suppressed" => t.event_suppressed,
        "unsuppressed" => t.event_unsuppressed,
        "out_of_service" => t.event_out_of_service,
        "in_service" => t.event_in_service,
        "restarted" => t.event_restarted,
        other => other,
    };
    word.to_owned()
}

/// Why an alarm is hidden; any other reason stays as it is.
fn because(f: &Frame, rules: Option<&Rules>, why: &str) -> String {
    let t = f.t;
    if let Some(mode) = why.strip_prefix("mode:").and_then(Mode::parse) {
        return format!("{}: {}", t.house_mode, mode_word(t, mode));
    }
    match why.strip_prefix("alarm:") {
        Some(rule) => format!("{}: {}", t.cause_known, title_of(f.lang, rules, rule)),
        None => why.to_owned(),
    }
}

/// Who did something, as people know that one.
fn person(author: &str) -> String {
    author.rsplit(['/', ':']).next().unwrap_or(author).to_owned()
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    (to - from).num_milliseconds() as f64 / 1000.0
}

/// Figures of the last time.
pub(crate) fn figures(f: &Frame, rules: &Rules, figures: &Figures, now: Timestamp) -> Vec<Fact> {
    let t = f.t;
    let longest =
        figures.longest_since.map_or_else(|| t.none.to_owned(), |since| span(t, seconds(since, now)));
    let causes: Vec<String> = figures
        .top_causes
        .iter()
        .take(3)
        .map(|cause| format!("{} ({})", title_of(f.lang, Some(rules), &cause.rule_id), cause.raises))
        .collect();
    vec![
        Fact::new(t.alarms_day, number(figures.raised_today as f64, 0), ""),
        Fact::new(t.stands_longest, longest, ""),
        Fact::new(t.top_causes, if causes.is_empty() { t.none.to_owned() } else { causes.join(", ") }, ""),
    ]
}

/// A drill, and what became of it by each way.
pub(crate) fn drill(t: &Texts, row: &DrillRow, results: &[ResultRow], when: String) -> Drill {
    let (class, name, text) = match row.result.as_str() {
        "answered" => ("good", "ok", t.drill_answered),
        "waiting" => ("look", "wait", t.drill_waiting),
        _ => ("act", "act", t.drill_unanswered),
    };
    let human =
        row.acknowledged_at.map(|at| format!("{} {}", t.to_human, span(t, seconds(row.started_at, at))));
    let by = row.acknowledged_by.as_ref().map(|who| person(who));
    let begun = if row.is_scheduled { t.by_schedule.to_owned() } else { person(&row.author) };
    let parts = [by, human, Some(format!("{} {begun}", t.begun_by))];
    let ways = results.iter().map(|result| {
        let confirmed = result.confirmed_by.as_ref().map(|who| format!(" · {who}")).unwrap_or_default();
        match &result.failure {
            None => {
                let after = number(result.latency_ms as f64 / 1000.0, 1);
                format!("{}: {} {after} {}{confirmed}", result.way, t.told_after, t.unit_s)
            }
            Some(_) => format!("{}: {} · {}", result.way, t.not_told, result.detail),
        }
    });
    Drill {
        id: row.id,
        line: Line {
            title: when,
            says: parts.into_iter().flatten().collect::<Vec<_>>().join(" · "),
            tag: Tag { class, icon: icon::svg(name), text: text.to_owned() },
        },
        ways: ways.collect(),
        is_waiting: row.result == "waiting",
    }
}

/// A rule, in words.
pub(crate) fn rule(f: &Frame, rule: &RuleInForce) -> Line {
    let t = f.t;
    let (class, name, text) =
        if rule.rule.is_enabled { ("good", "ok", t.rule_on) } else { ("", "wait", t.rule_off) };
    let bad = match rule.rule.class {
        Class::Critical => t.class_critical,
        Class::High => t.class_high,
        Class::Low => t.class_low,
    };
    let limit = if let Test::Level { side, limit, .. } = &rule.rule.test {
        let sign = if *side == Side::Above { ">" } else { "<" };
        Some(format!("{sign} {}", number(*limit, 1)))
    } else {
        None
    };
    let edited = rule.row.as_ref().map(|row| format!("{} {}", t.edited_by, person(&row.author)));
    let words = [Some(bad.to_owned()), limit, Some(said(f.lang, &rule.rule.cause)), edited];
    Line {
        title: said(f.lang, &rule.rule.title),
        says: words.into_iter().flatten().collect::<Vec<_>>().join(" · "),
        tag: Tag { class, icon: icon::svg(name), text: text.to_owned() },
    }
}

fn mode_word(t: &Texts, mode: Mode) -> &'static str {
    match mode {
        Mode::Empty => t.mode_empty,
        Mode::PreHeat => t.mode_pre_heat,
        Mode::Growing => t.mode_growing,
        Mode::Catching => t.mode_catching,
    }
}

/// What a house is doing, and who has said so when.
pub(crate) fn mode(t: &Texts, mode: Mode, said: Option<(&ModeRow, String)>) -> ModeView {
    let says = said.filter(|(row, _)| row.mode == mode.as_str()).map(|(row, when)| {
        let parts = [Some(format!("{} {}", t.by, person(&row.author))), Some(when), row.reason.clone()];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" · ")
    });
    ModeView {
        name: mode_word(t, mode),
        says: says.unwrap_or_else(|| t.mode_by_flock.to_owned()),
        choices: Mode::ALL.map(|one| (one.as_str(), mode_word(t, one), one == mode)).to_vec(),
    }
}

/// Why nothing was done, in words; `None` for what is no answer to a deed.
pub(crate) fn wrong(t: &Texts, error: &AlarmError) -> Option<&'static str> {
    match error {
        AlarmError::DrillOver(_) => Some(t.wrong_drill_over),
        AlarmError::Act(act) => match act {
            ActError::NothingToAcknowledge(_) => Some(t.wrong_acknowledged),
            ActError::OtherOccurrence(..) => Some(t.wrong_occurrence),
            ActError::NothingToShelve => Some(t.wrong_over),
            ActError::ShelfTooLong(_) => Some(t.wrong_too_long),
            ActError::NotShelved => Some(t.wrong_not_shelved),
            ActError::IsDrill => Some(t.wrong_is_drill),
            ActError::DrillGoesOn => Some(t.wrong_drill_goes_on),
            ActError::NotOwner => Some(t.wrong_not_owner),
            // What no page offers.
            ActError::OutOfService | ActError::InService => None,
            ActError::NoAlarm | ActError::NoBarn => None,
        },
        AlarmError::Rule(_)
        | AlarmError::OtherVersion(_)
        | AlarmError::NoRule
        | AlarmError::NoDrill
        | AlarmError::Store(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use schema::store::alarm::Barn;

    use super::*;

    fn row(state: &str, class: &str) -> AlarmRow {
        let is_active = matches!(state, "UNACK" | "ACKED" | "SHLVD");
        let is_unacknowledged = matches!(state, "UNACK" | "RTNUN");
        let barn =
            Barn { tenant_id: "t-001".to_owned(), farm_id: "f-001".to_owned(), barn_id: "b-001".to_owned() };
        AlarmRow {
            class: class.to_owned(),
            state: state.to_owned(),
            is_active,
            is_unacknowledged,
            occurrence: 1,
            rounds: 1,
            ..AlarmRow::unraised(&barn, "house_hot", "", Timestamp::UNIX_EPOCH)
        }
    }

    #[test]
    fn a_barn_is_as_bad_as_its_worst_alarm() {
        let check = |alarms: &[(&str, &str)], expected| {
            let rows: Vec<_> = alarms.iter().map(|(state, class)| row(state, class)).collect();
            assert_eq!(status(&rows), expected, "{alarms:?}");
        };
        check(&[], Status::Ok);
        check(&[("SHLVD", "critical"), ("DSUPR", "critical"), ("OOSRV", "high")], Status::Ok);
        check(&[("RTNUN", "critical")], Status::Look);
        check(&[("ACKED", "critical")], Status::Look);
        check(&[("UNACK", "low")], Status::Look);
        check(&[("UNACK", "low"), ("UNACK", "high")], Status::Act);
    }

    #[test]
    fn the_most_urgent_is_first() {
        let mut rows =
            [("RTNUN", "critical"), ("ACKED", "critical"), ("UNACK", "low"), ("UNACK", "critical")]
                .map(|(state, class)| row(state, class));
        rows.sort_by_key(urgency);
        let order = rows.map(|row| format!("{} {}", row.state, row.class));
        assert_eq!(order, ["UNACK critical", "UNACK low", "ACKED critical", "RTNUN critical"]);
    }

    #[test]
    fn a_critical_alarm_is_put_aside_for_half_an_hour_and_any_other_for_a_shift() {
        let offered = |row: &AlarmRow| -> Vec<u32> {
            shelves(Lang::En.texts(), row).into_iter().map(|(minutes, _)| minutes).collect()
        };
        assert_eq!(offered(&row("UNACK", "critical")), [30]);
        assert_eq!(offered(&row("ACKED", "high")), [30, 120, 480]);
        assert!(offered(&row("SHLVD", "low")).is_empty());
        assert!(offered(&row("NORM", "low")).is_empty());
    }

    #[test]
    fn a_rule_is_called_by_its_title() {
        let check = |lang, id: &str, expected: &str| assert_eq!(title_of(lang, None, id), expected);
        check(Lang::En, "mains_lost", "Mains lost");
        check(Lang::Th, "mains_lost", "ไฟฟ้าดับ");
        check(Lang::En, "somebody_s_own", "somebody s own");
    }

    #[test]
    fn a_value_has_a_unit_that_people_know() {
        let check = |lang: Lang, value, unit: &str, expected: &str| {
            assert_eq!(measured(lang.texts(), value, unit), expected);
        };
        check(Lang::En, 2.0, "d", "2 days");
        check(Lang::Th, 2.0, "d", "2 วัน");
        check(Lang::En, 31.04, "ppm", "31.0 ppm");
        check(Lang::En, 600.0, "s", "10 min");
        check(Lang::Th, 5.5, "h", "5.5 ชม.");
    }
}
