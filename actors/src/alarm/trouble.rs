//! The engine's own trouble, as conditions of alarms: told from the gauges that there are, by a pure function of them and of
//! how long they have stood so.
//!
//! | rule | place | stands when | for | over when |
//! |---|---|---|---|---|
//! | `engine_disk` | volume | used > 75 % (images), 80 % (database, root) | 5 min | 2 points below |
//! | `engine_disk_full` | volume | used > 90 % (images), 95 % (database, root) | 1 min | 2 points below |
//! | `engine_disk` | `runway` | fewer than 7 days until the volume is full without the cloud | 5 min | 8 days |
//! | `engine_disk_full` | `runway` | less than 1 day | 5 min | 2 days |
//! | `engine_database` | | it takes no writes | 1 min | it does |
//! | `engine_delivery` | `age` | the oldest event waits for more than a day | 5 min | it does not |
//! | `engine_delivery` | `cloud` | events wait and the cloud took none for an hour | 2 min | it does |
//! | `engine_clock` | `believed` | the wall clock is not believed | 1 min | it is |
//! | `engine_clock` | `cloud` | it differs by more than a minute from the cloud's | 10 min | it does not |
//! | `engine_certificate` | setting | fewer than 30 days are left | 1 min | 31 days |
//! | `engine_backup` | | the last one is older than 36 hours | 1 min | it is not |
//!
//! A gauge that shows nothing changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Between two looks at the gauges.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);

const HOUR_SECONDS: f64 = 3600.0;
const DAY_SECONDS: f64 = 86_400.0;
const MINUTE: Duration = Duration::from_secs(60);

/// What a rule of the engine says now.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// The rule.
    pub rule: &'static str,
    /// A volume, a setting, or a word; empty for the whole box.
    pub place: String,
    /// Whether it is so.
    pub stands: bool,
    /// The value.
    pub value: f64,
    /// The limit.
    pub limit: f64,
    /// The unit of both.
    pub unit: &'static str,
}

/// Reads gauges: the label's value, empty where there is none, and the value, of each series of a name.
pub trait Gauges: Send + Sync {
    /// All series of this name that show something.
    fn read(&self, name: &str) -> Vec<(String, f64)>;
}

/// One row of the table.
struct Row {
    rule: &'static str,
    gauge: &'static str,
    /// The only label that it is about; `None` for each.
    label: Option<&'static str>,
    /// The place; `None` for the label.
    place: Option<&'static str>,
    side: Side,
    limit: f64,
    /// Where it is over.
    back: f64,
    unit: &'static str,
    hold: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Above,
    Below,
}

impl Row {
    const fn above(
        rule: &'static str,
        gauge: &'static str,
        limit: f64,
        back: f64,
        unit: &'static str,
    ) -> Self {
        Self { rule, gauge, label: None, place: Some(""), side: Side::Above, limit, back, unit, hold: MINUTE }
    }

    const fn below(
        rule: &'static str,
        gauge: &'static str,
        limit: f64,
        back: f64,
        unit: &'static str,
    ) -> Self {
        Self { side: Side::Below, ..Self::above(rule, gauge, limit, back, unit) }
    }

    const fn of(self, label: &'static str) -> Self {
        Self { label: Some(label), place: None, ..self }
    }

    const fn of_each(self) -> Self {
        Self { label: None, place: None, ..self }
    }

    const fn at(self, place: &'static str) -> Self {
        Self { place: Some(place), ..self }
    }

    const fn held(self, minutes: u64) -> Self {
        Self { hold: Duration::from_secs(60 * minutes), ..self }
    }

    fn is_beyond(&self, value: f64) -> bool {
        match self.side {
            Side::Above => value > self.limit,
            Side::Below => value < self.limit,
        }
    }

    fn is_back(&self, value: f64) -> bool {
        match self.side {
            Side::Above => value <= self.back,
            Side::Below => value >= self.back,
        }
    }
}

const DISK: &str = "disk.used_ratio";
const RUNWAY: &str = "disk.runway_days";

const ROWS: &[Row] = &[
    Row::above("engine_disk", DISK, 0.75, 0.73, "").of("media").held(5),
    Row::above("engine_disk", DISK, 0.80, 0.78, "").of("db").held(5),
    Row::above("engine_disk", DISK, 0.80, 0.78, "").of("root").held(5),
    Row::above("engine_disk_full", DISK, 0.90, 0.88, "").of("media"),
    Row::above("engine_disk_full", DISK, 0.95, 0.93, "").of("db"),
    Row::above("engine_disk_full", DISK, 0.95, 0.93, "").of("root"),
    Row::below("engine_disk", RUNWAY, 7.0, 8.0, "d").at("runway").held(5),
    Row::below("engine_disk_full", RUNWAY, 1.0, 2.0, "d").at("runway").held(5),
    Row::below("engine_database", "db.up", 1.0, 1.0, ""),
    Row::above("engine_delivery", "outbox.oldest_pending_age_seconds", DAY_SECONDS, DAY_SECONDS, "s")
        .at("age")
        .held(5),
    Row::above("engine_delivery", SILENCE, HOUR_SECONDS, HOUR_SECONDS, "s").at("cloud").held(2),
    Row::above("engine_clock", "retention.clock_unbelievable", 0.0, 0.0, "").at("believed"),
    Row::above("engine_clock", SKEW, 60.0, 60.0, "s").at("cloud").held(10),
    Row::below("engine_certificate", "tls.certificate_days_left", 30.0, 31.0, "d").of_each(),
    Row::above("engine_backup", "backup.age_seconds", 36.0 * HOUR_SECONDS, 36.0 * HOUR_SECONDS, "s"),
];

/// Seconds without a batch that the cloud took, zero while nothing waits.
const SILENCE: &str = "silence of the cloud";
/// Seconds between our clock and the cloud's.
const SKEW: &str = "skew of the clock";

fn read(gauges: &dyn Gauges, name: &str) -> Vec<(String, f64)> {
    let one = |name: &str| gauges.read(name).first().map(|(_, value)| *value);
    let derived = |value: Option<f64>| value.map(|value| vec![(String::new(), value)]).unwrap_or_default();
    match name {
        SILENCE => {
            derived(one("sync.last_success_age_seconds").map(|age| {
                if one("outbox.pending").is_some_and(|pending| pending > 0.0) { age } else { 0.0 }
            }))
        }
        SKEW => derived(one("sync.clock_skew_ms").map(|skew_ms| skew_ms.abs() / 1000.0)),
        name => gauges.read(name),
    }
}

/// What stands, and since when the gauges have been saying the opposite.
#[derive(Default)]
pub struct Judge {
    known: BTreeMap<(usize, String), Known>,
}

#[derive(Default)]
struct Known {
    stands: bool,
    beyond_since: Option<Instant>,
}

impl Judge {
    /// What the gauges come to at this moment: a condition for each that shows something.
    pub fn look(&mut self, gauges: &dyn Gauges, now: Instant) -> Vec<Condition> {
        let mut conditions = Vec::new();
        for (index, row) in ROWS.iter().enumerate() {
            let series = read(gauges, row.gauge);
            for (label, value) in series
                .into_iter()
                .filter(|(label, value)| !value.is_nan() && row.label.is_none_or(|wanted| wanted == label))
            {
                let place = row.place.map_or(label, str::to_owned);
                let known = self.known.entry((index, place.clone())).or_default();
                let stands = known.turn(row, value, now);
                let Row { rule, limit, unit, .. } = *row;
                conditions.push(Condition { rule, place, stands, value, limit, unit });
            }
        }
        conditions
    }
}

impl Known {
    fn turn(&mut self, row: &Row, value: f64, now: Instant) -> bool {
        if !row.is_beyond(value) {
            self.beyond_since = None;
            self.stands &= !row.is_back(value);
        } else if !self.stands {
            let since = *self.beyond_since.get_or_insert(now);
            self.stands = now.duration_since(since) >= row.hold;
        }
        self.stands
    }
}

/// Where the conditions are seen. Cloning shares it.
#[derive(Clone)]
pub struct Troubles {
    current: Arc<watch::Sender<Arc<[Condition]>>>,
}

impl Default for Troubles {
    fn default() -> Self {
        Self { current: Arc::new(watch::Sender::new(Arc::from(Vec::new()))) }
    }
}

impl Troubles {
    /// The conditions as they are now, and as they change.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<[Condition]>> {
        self.current.subscribe()
    }

    /// Looks at the gauges for as long as it is polled. It needs no database, and no tree.
    pub async fn keep(&self, gauges: Arc<dyn Gauges>) -> std::convert::Infallible {
        let mut judge = Judge::default();
        loop {
            let conditions = judge.look(&*gauges, Instant::now());
            self.current.send_if_modified(|current| {
                let has_news = **current != *conditions;
                if has_news {
                    *current = conditions.into();
                }
                has_news
            });
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Shown(BTreeMap<&'static str, Vec<(&'static str, f64)>>);

    impl Gauges for Shown {
        fn read(&self, name: &str) -> Vec<(String, f64)> {
            let shown = self.0.get(name).cloned().unwrap_or_default();
            shown.into_iter().map(|(label, value)| (label.to_owned(), value)).collect()
        }
    }

    /// What stands after so many seconds of it.
    fn standing(
        judge: &mut Judge,
        shown: &Shown,
        seconds: u64,
        began_at: Instant,
    ) -> Vec<(&'static str, String)> {
        let conditions = judge.look(shown, began_at + Duration::from_secs(seconds));
        let standing = conditions.into_iter().filter(|condition| condition.stands);
        standing.map(|condition| (condition.rule, condition.place)).collect()
    }

    #[test]
    fn each_row_stands_after_its_time_and_ends_beyond_its_hysteresis() {
        let check = |gauge: &'static str,
                     label: &'static str,
                     bad: f64,
                     between: f64,
                     good: f64,
                     hold,
                     expected: &[(&str, &str)]| {
            let began_at = Instant::now();
            let mut judge = Judge::default();
            let shown = |value| {
                let mut shown = Shown(BTreeMap::from([(gauge, vec![(label, value)])]));
                shown.0.entry("outbox.pending").or_insert_with(|| vec![("", 1.0)]);
                shown
            };
            let mut at = |value: f64, seconds| standing(&mut judge, &shown(value), seconds, began_at);
            assert!(at(bad, 0).is_empty(), "{gauge} {label} at once");
            assert!(at(bad, hold - 1).is_empty(), "{gauge} {label} before its time");
            let expected: Vec<_> =
                expected.iter().map(|(rule, place)| (*rule, (*place).to_owned())).collect();
            assert_eq!(at(bad, hold), expected, "{gauge} {label}");
            assert_eq!(at(between, hold + 1), expected, "{gauge} {label} in between");
            assert!(at(good, hold + 2).is_empty(), "{gauge} {label} is over");
            assert!(at(bad, hold + 3).is_empty(), "{gauge} {label} begins anew");
        };
        check(DISK, "media", 0.76, 0.74, 0.72, 300, &[("engine_disk", "media")]);
        check(DISK, "db", 0.82, 0.79, 0.77, 300, &[("engine_disk", "db")]);
        check(DISK, "media", 0.91, 0.895, 0.70, 60, &[("engine_disk_full", "media")]);
        check(DISK, "db", 0.96, 0.94, 0.70, 60, &[("engine_disk_full", "db")]);
        check(RUNWAY, "", 6.5, 7.5, 8.0, 300, &[("engine_disk", "runway")]);
        check("db.up", "", 0.0, 0.0, 1.0, 60, &[("engine_database", "")]);
        check(
            "outbox.oldest_pending_age_seconds",
            "",
            90_000.0,
            90_000.0,
            10.0,
            300,
            &[("engine_delivery", "age")],
        );
        check("sync.last_success_age_seconds", "", 3700.0, 3700.0, 1.0, 120, &[("engine_delivery", "cloud")]);
        check("retention.clock_unbelievable", "", 1.0, 1.0, 0.0, 60, &[("engine_clock", "believed")]);
        check("sync.clock_skew_ms", "", -70_000.0, -70_000.0, 5.0, 600, &[("engine_clock", "cloud")]);
        check(
            "tls.certificate_days_left",
            "http.tls_cert",
            29.0,
            30.5,
            90.0,
            60,
            &[("engine_certificate", "http.tls_cert")],
        );
        check("backup.age_seconds", "", 130_000.0, 130_000.0, 5.0, 60, &[("engine_backup", "")]);
    }

    #[test]
    fn a_gauge_that_shows_nothing_changes_nothing() {
        let (began_at, mut judge) = (Instant::now(), Judge::default());
        let of = |value| Shown(BTreeMap::from([("db.up", vec![("", value)])]));
        standing(&mut judge, &of(0.0), 0, began_at);
        assert_eq!(standing(&mut judge, &of(0.0), 60, began_at).len(), 1);
        assert!(judge.look(&of(f64::NAN), began_at + Duration::from_secs(61)).is_empty());
        assert_eq!(standing(&mut judge, &of(0.0), 62, began_at).len(), 1, "it still stands");
        assert!(judge.look(&Shown::default(), began_at).is_empty());
    }

    #[test]
    fn a_silent_cloud_is_no_trouble_while_nothing_waits() {
        let (began_at, mut judge) = (Instant::now(), Judge::default());
        let shown = |pending| {
            Shown(BTreeMap::from([
                ("sync.last_success_age_seconds", vec![("", 9999.0)]),
                ("outbox.pending", vec![("", pending)]),
            ]))
        };
        for seconds in [0, 600] {
            assert!(standing(&mut judge, &shown(0.0), seconds, began_at).is_empty());
        }
        standing(&mut judge, &shown(3.0), 601, began_at);
        assert_eq!(
            standing(&mut judge, &shown(3.0), 721, began_at),
            [("engine_delivery", "cloud".to_owned())]
        );
    }
}
