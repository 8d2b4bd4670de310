//! Keeps the days of the houses: today and yesterday of each barn are reckoned anew again and again, since nobody tells of the
//! air, what is missing of the last weeks a few days at a time, and an older day when something came in late for it.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use chrono::{Days, NaiveDate};
use schema::clock::{Clock, Timestamp};
use schema::store::flock::barn;
use schema::store::house::{self as rows, Barn, Day, LateHour};
use schema::store::{Conn, Store, StoreError};

use super::{HouseDay, METRICS, as_left_out, left_out, summarize};
use crate::chore::Chore;
use crate::flock::calendar::Zone;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(60);
/// The pause when there is more to do.
const NEXT_ROUND: Duration = Duration::from_millis(500);
/// How old today's figures may be,
const TODAY_MINUTES: i64 = 5;
/// and those of yesterday, to which buffers may bring something.
const YESTERDAY_MINUTES: i64 = 30;
/// Days that are made when they are missing.
const PAST_DAYS: u64 = 60;
/// What comes in for an older time than this is late.
const LATE_HOURS: i64 = 24;
/// Days that are reckoned again at most when something comes in late for them.
const LATE_DAYS: i64 = 400;
/// So long after it came in at least its minutes are closed.
const CLOSED_AFTER: chrono::Duration = chrono::Duration::seconds(150);
/// How far back it is looked for what came in, beside the last look: no statement may run for longer.
const COMMIT_LAG: chrono::Duration = chrono::Duration::seconds(45);
/// How far back the first look goes.
const FIRST_LOOK: chrono::Duration = chrono::Duration::minutes(10);
/// Late hours that are remembered.
const LATE_MAX: usize = 10_000;
/// Days that are reckoned in one round.
const DAYS_PER_ROUND: usize = 20;

/// The chore.
#[derive(Clone)]
pub struct HouseKeeper {
    store: Store,
    clock: Clock,
    looked_until: Option<Timestamp>,
    /// What came in late, with when that was seen.
    late: Vec<(LateHour, Timestamp)>,
}

impl HouseKeeper {
    /// One that has seen to nothing yet.
    #[must_use]
    pub fn new(store: Store, clock: Clock) -> Self {
        Self { store, clock, looked_until: None, late: Vec::new() }
    }

    /// Looks for what came in late since the last look.
    async fn look_for_late(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let from = self.looked_until.unwrap_or(now - FIRST_LOOK).min(now) - COMMIT_LAG;
        let span = (now - chrono::Duration::days(LATE_DAYS), now - chrono::Duration::hours(LATE_HOURS));
        let read = async |conn: &mut Conn| rows::late(conn, (from, now), span, &METRICS).await;
        for hour in self.store.reads().run("house_late", read).await? {
            let known = self.late.iter().position(|(known, _)| *known == hour);
            match known {
                Some(place) => self.late[place].1 = now,
                None if self.late.len() < LATE_MAX => self.late.push((hour, now)),
                None => {}
            }
        }
        self.looked_until = Some(now);
        Ok(())
    }

    /// Days of a barn, so many at most, for which something came in late whose minutes are closed.
    fn take_late(&mut self, place: &Barn, zone: Zone, room: usize, now: Timestamp) -> BTreeSet<NaiveDate> {
        let mut days = BTreeSet::new();
        self.late.retain(|(late, seen_at)| {
            let day = zone.day(late.hour);
            let is_due = late.barn == *place
                && now.signed_duration_since(*seen_at) >= CLOSED_AFTER
                && (days.len() < room || days.contains(&day));
            if is_due {
                days.insert(day);
            }
            !is_due
        });
        days
    }

    /// Reckons what is due of a barn, up to so many days; says how many there were.
    async fn see_to(&mut self, place: &Barn, room: usize, now: Timestamp) -> Result<usize, StoreError> {
        let read = async |conn: &mut Conn| {
            let known = barn(conn, [&place.tenant_id, &place.farm_id, &place.barn_id]).await?;
            let zone = known.and_then(|barn| Zone::parse(&barn.time_zone)).unwrap_or(Zone::UTC);
            let today = zone.day(now);
            let first = today.checked_sub_days(Days::new(PAST_DAYS)).unwrap_or(today);
            Ok((zone, rows::days(conn, place, (first, today)).await?, first, today))
        };
        let (zone, days, first, today) = self.store.reads().run("house_days", read).await?;
        let mut due = due(&days, zone, (first, today), now);
        due.truncate(room);
        let late = self.take_late(place, zone, room - due.len(), now);
        due.extend(late);
        for day in &due {
            self.reckon(place, zone, *day, now).await?;
        }
        Ok(due.len())
    }

    async fn reckon(
        &self,
        place: &Barn,
        zone: Zone,
        day: NaiveDate,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (from, end) = zone.span(day);
        let span = (from, end.min(now));
        let faults = left_out();
        let read =
            async |conn: &mut Conn| rows::minutes(conn, place, &METRICS, span, as_left_out(&faults)).await;
        let minutes = self.store.reads().run("house_minutes", read).await?;
        let house: HouseDay = summarize(&minutes, span);
        let day = Day {
            day,
            time_zone: zone.name().to_owned(),
            summary: serde_json::to_value(&house).unwrap_or_default(),
            rebuilt_at: now,
        };
        self.store.run("house_day", async |conn| rows::put_day(conn, place, &day).await).await
    }
}

/// Which days are to be reckoned, the newest first: those that are missing or of another time zone, and the last two when they
/// are old.
fn due(days: &[Day], zone: Zone, (first, today): (NaiveDate, NaiveDate), now: Timestamp) -> Vec<NaiveDate> {
    let known: HashMap<NaiveDate, &Day> = days.iter().map(|day| (day.day, day)).collect();
    let is_due = |day: &NaiveDate| {
        let Some(row) = known.get(day).filter(|row| row.time_zone == zone.name()) else { return true };
        let age = now.signed_duration_since(row.rebuilt_at).num_minutes();
        // A day that was reckoned before it was over is not done, however long ago that was.
        let was_over = row.rebuilt_at >= zone.span(*day).1 + chrono::Duration::hours(24);
        match (today - *day).num_days() {
            0 => !(0..TODAY_MINUTES).contains(&age),
            _ if !was_over => !(0..YESTERDAY_MINUTES).contains(&age),
            _ => false,
        }
    };
    let mut due: Vec<NaiveDate> = first.iter_days().take_while(|day| *day <= today).filter(is_due).collect();
    due.reverse();
    due
}

impl Chore for HouseKeeper {
    const NAME: &'static str = "house";
    type Error = StoreError;

    async fn run(&mut self) -> Result<Duration, StoreError> {
        let now = self.clock.now();
        self.look_for_late(now).await?;
        let barns = self.store.reads().run("house_barns", async |conn| rows::barns(conn).await).await?;
        let mut room = DAYS_PER_ROUND;
        for barn in &barns {
            room -= self.see_to(barn, room, now).await?;
            if room == 0 {
                return Ok(NEXT_ROUND);
            }
        }
        Ok(EVERY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    fn row(day: &str, zone: &str, rebuilt_at: &str) -> Day {
        let rebuilt_at = schema::wire::time::parse(rebuilt_at).unwrap();
        Day { day: date(day), time_zone: zone.to_owned(), summary: serde_json::Value::Null, rebuilt_at }
    }

    #[test]
    fn what_comes_in_late_has_its_day_reckoned_once_when_its_minutes_are_closed() {
        let store = Store::new(&schema::store::StoreSettings::new("host=nowhere", "test")).unwrap();
        let mut keeper = HouseKeeper::new(store, Clock::system());
        let barn = |name: &str| Barn {
            tenant_id: "t".to_owned(),
            farm_id: "f".to_owned(),
            barn_id: name.to_owned(),
        };
        let time = |text: &str| schema::wire::time::parse(text).unwrap();
        let seen_at = time("2026-02-12T09:00:00Z");
        for (name, hour) in
            [("a", "2026-02-03T16:00:00Z"), ("a", "2026-02-03T17:00:00Z"), ("b", "2026-02-01T00:00:00Z")]
        {
            keeper.late.push((LateHour { barn: barn(name), hour: time(hour) }, seen_at));
        }
        let zone = Zone::parse("Asia/Bangkok").unwrap();
        let mut take = |room, after_seconds| {
            let now = seen_at + chrono::Duration::seconds(after_seconds);
            keeper
                .take_late(&barn("a"), zone, room, now)
                .into_iter()
                .map(|day| day.to_string())
                .collect::<Vec<_>>()
        };
        assert!(take(9, 149).is_empty(), "its minutes may be open");
        assert_eq!(take(1, 150), ["2026-02-03"]);
        assert_eq!(take(9, 150), ["2026-02-04"], "of the other side of midnight there");
        assert!(take(9, 150).is_empty());
        assert_eq!(keeper.late.len(), 1, "that of another barn waits");
    }

    #[test]
    fn the_last_days_are_reckoned_again_and_what_is_missing_once() {
        let now = schema::wire::time::parse("2026-02-12T09:00:00Z").unwrap();
        let zone = Zone::parse("Asia/Bangkok").unwrap();
        let of = |rows: &[Day]| {
            let days = due(rows, zone, (date("2026-02-08"), date("2026-02-12")), now);
            days.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let rows = [
            row("2026-02-08", "UTC", "2026-02-10T00:00:00Z"),
            row("2026-02-09", "Asia/Bangkok", "2026-02-11T00:00:00Z"),
            row("2026-02-11", "Asia/Bangkok", "2026-02-12T08:50:00Z"),
            row("2026-02-12", "Asia/Bangkok", "2026-02-12T08:54:00Z"),
        ];
        assert_eq!(of(&rows), ["2026-02-12", "2026-02-10", "2026-02-08"]);
        let rows = [row("2026-02-11", "Asia/Bangkok", "2026-02-11T09:00:00Z")];
        assert_eq!(of(&rows).len(), 5, "one that was not over then is due");
        let ahead = [row("2026-02-12", "Asia/Bangkok", "2026-02-12T10:00:00Z")];
        assert_eq!(of(&ahead)[0], "2026-02-12", "of a clock that was ahead");
    }
}
