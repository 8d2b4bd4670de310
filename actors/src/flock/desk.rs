//! Where the flock's book is written and asked: barns, standards, flocks, records, and what they come to. Standards of a
//! site's own are in [`own`].

pub mod own;

use chrono::{Days, NaiveDate};
use schema::clock::{Clock, Timestamp};
use schema::store::audit::{self, Action, Author, Deed};
use schema::store::flock::record::{self, Kind, Record};
use schema::store::flock::standard::{self as sets, StandardSet};
use schema::store::flock::{self as rows, Barn, DirtyDay, Flock};
use schema::store::{Conn, Store, StoreError};
use serde_json::{Value, json};
use uuid::Uuid;

use super::agreement::{Comparison, comparisons};
use super::book::{DayFacts, Frame, outlook, reckon};
use super::breeds::{self, NotReadable};
use super::calendar::{Zone, age_days};
use super::day::believed;
use super::growth::Forecast;
use super::own::NotOwn;
use super::sample::{Bin, Summary, histogram};
use super::scales::{Scale, compare};
use super::source::{self, find_standard, summary_of, zone_of};
use super::standard::{Sex, Standard};

/// Days by which scales are compared: enough for scales that few birds visit.
const SCALE_DAYS: u64 = 3;
/// Birds that a flock may have.
pub const BIRDS_MAX: i32 = 10_000_000;

/// Reads and writes the book. Cloning shares the database.
#[derive(Clone, Debug)]
pub struct FlockDesk {
    /// The database, to write.
    pub store: Store,
    /// The same, to look.
    pub reads: Store,
    /// Wall time.
    pub clock: Clock,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    /// There is no such flock.
    #[error("there is no such flock")]
    NoFlock,
    /// There is no such record of the flock.
    #[error("the flock has no such record")]
    NoRecord,
    /// There is no such standard.
    #[error("there is no such standard")]
    NoStandard,
    /// The barn is taken.
    #[error("the barn has another flock on one of these days, or one of this batch: end it first")]
    BarnTaken,
    /// The flock has its end.
    #[error("the flock has ended, or was placed after that day")]
    Ended,
    /// The record was corrected before.
    #[error("the record has been corrected: correct its correction")]
    Corrected,
    /// The reference names a record of another flock.
    #[error("external_ref is that of a record of another flock: it has one record in a tenant")]
    ReferenceTaken,
    /// The day is outside of the flock's.
    #[error("the day {0} is none of the flock's: it was placed on {1}{2}")]
    OtherDay(NaiveDate, NaiveDate, String),
    /// A value does not fit its kind.
    #[error("{0}")]
    Value(&'static str),
    /// A standard of the name is there.
    #[error("there is a standard of this name and sex: choose another name")]
    StandardTaken,
    /// A text is no standard.
    #[error(transparent)]
    NotReadable(#[from] NotReadable),
    /// Flocks make no standard.
    #[error(transparent)]
    NotOwn(#[from] NotOwn),
    /// A time zone is not known.
    #[error("{0:?} is not a time zone of the IANA database, such as Asia/Bangkok")]
    Zone(String),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A standard to bring.
#[derive(Clone, Debug)]
pub struct NewStandard {
    /// Whose it will be.
    pub tenant_id: String,
    /// What people call it.
    pub name: String,
    /// `REFERENCE`, `STANDARD` or `TARGET`.
    pub kind: String,
    /// Breed.
    pub genetic_line_code: String,
    /// Sex.
    pub sex: Sex,
    /// Who says so.
    pub source: String,
    /// When that was said.
    pub year: i32,
    /// Its days.
    pub csv: String,
}

/// A record to write, or what a correction says instead.
#[derive(Clone, Debug)]
pub struct NewRecord {
    /// What it tells of.
    pub kind: Kind,
    /// Of which day; today unless given.
    pub day: Option<NaiveDate>,
    /// `MORNING` or `EVENING`.
    pub part: Option<String>,
    /// How much, in the unit of its kind.
    pub value: Option<f64>,
    /// Birds of a hand weighing.
    pub birds: Option<i32>,
    /// Why.
    pub cause: Option<String>,
    /// Anything else.
    pub note: Option<String>,
    /// What makes a repetition known.
    pub external_ref: Option<String>,
    /// `MANUAL` or `API_IMPORT`.
    pub source: &'static str,
}

impl NewRecord {
    /// Whether it fits its kind.
    ///
    /// # Errors
    /// [`BookError::Value`].
    pub fn check(&self) -> Result<(), BookError> {
        let wrong = match (self.kind, self.value) {
            (Kind::Note, _) => self.note.is_none().then_some("a note needs its text in note"),
            (_, None) => Some("value is required"),
            (_, Some(value)) if !(0.0..=1e9).contains(&value) => {
                Some("value must be from 0 to 1,000,000,000")
            }
            (Kind::Mortality | Kind::Cull | Kind::Thinning, Some(value)) => {
                (value.fract() != 0.0).then_some("value must be whole birds")
            }
            (Kind::HandWeighing, _) if self.birds.is_none() => {
                Some("a hand weighing needs its number of birds")
            }
            (Kind::HandWeighing, Some(value)) => {
                let is_bird = (0.01..=20.0).contains(&value);
                (!is_bird).then_some("value must be the mean weight of a bird, 0.01 to 20 kg")
            }
            (
                Kind::FeedDelivered
                | Kind::FeedLeft
                | Kind::FeedReturned
                | Kind::FeedIntake
                | Kind::WaterMeter,
                Some(_),
            ) => None,
        };
        wrong.map_or(Ok(()), |wrong| Err(BookError::Value(wrong)))
    }
}

/// The weights of a day.
#[derive(Clone, Debug)]
pub struct DayHistogram {
    /// What they come to.
    pub summary: Option<Summary>,
    /// Bins of 5 % of their mean.
    pub bins: Vec<Bin>,
}

impl FlockDesk {
    /// Writes what is known of a barn; in another time zone its flocks' days are made anew.
    ///
    /// # Errors
    /// [`BookError::Zone`], and when the database fails.
    pub async fn put_barn(&self, barn: &Barn, author: &Author) -> Result<(), BookError> {
        let zone = Zone::parse(&barn.time_zone).ok_or_else(|| BookError::Zone(barn.time_zone.clone()))?;
        let place = [&*barn.tenant_id, &*barn.farm_id, &*barn.barn_id];
        let now = self.clock.now();
        let target = format!("{}/{}", barn.farm_id, barn.barn_id);
        let detail = json!({"name": barn.name, "time_zone": barn.time_zone});
        let write = async |conn: &Conn| {
            let before = rows::barn(conn, place).await?;
            rows::put_barn(conn, barn).await?;
            if before.is_none_or(|before| before.time_zone != barn.time_zone) {
                rows::mark_all(conn, place, zone.day(now)).await?;
            }
            note(conn, author, Action::BarnPut, (&barn.tenant_id, &target), detail, now).await
        };
        Ok(self.transaction("barn_put", write).await?)
    }

    /// Barns of a tenant, or of all.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn barns(&self, tenant_id: Option<&str>, limit: i64) -> Result<Vec<Barn>, StoreError> {
        self.barns_behind(tenant_id, [""; 3], limit).await
    }

    /// The same behind the barn of these names: tenant, farm and barn.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn barns_behind(
        &self,
        tenant_id: Option<&str>,
        after: [&str; 3],
        limit: i64,
    ) -> Result<Vec<Barn>, StoreError> {
        self.reads.run("barns", async |conn| rows::barns(conn, tenant_id, after, limit).await).await
    }

    /// The breeders' standards and those of a tenant, or of all.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn standards(
        &self,
        tenant_id: Option<&str>,
        limit: i64,
    ) -> Result<Vec<StandardSet>, StoreError> {
        let own = self.reads.run("standards", async |conn| sets::list(conn, tenant_id, limit).await).await?;
        Ok(breeds::bundled().iter().map(|bundled| bundled.set.clone()).chain(own).collect())
    }

    /// A standard.
    ///
    /// # Errors
    /// [`BookError::NoStandard`], and when the database fails.
    pub async fn standard(&self, tenant_id: &str, id: Uuid) -> Result<(StandardSet, Standard), BookError> {
        let find = async |conn: &mut Conn| find_standard(conn, tenant_id, id).await;
        self.reads.run("standard", find).await?.ok_or(BookError::NoStandard)
    }

    /// Brings a standard, or only says whether it could be brought.
    ///
    /// # Errors
    /// [`BookError::NotReadable`], [`BookError::StandardTaken`], and when the database fails.
    pub async fn import_standard(
        &self,
        new: &NewStandard,
        is_dry_run: bool,
        author: &Author,
    ) -> Result<(StandardSet, Standard), BookError> {
        let standard = breeds::read_csv(&new.csv)?;
        let now = self.clock.now();
        let set = StandardSet {
            id: schema::id::new_id(),
            tenant_id: new.tenant_id.clone(),
            name: new.name.clone(),
            kind: new.kind.clone(),
            genetic_line_code: new.genetic_line_code.clone(),
            sex: new.sex.as_str().to_owned(),
            source: new.source.clone(),
            year: new.year,
            created_at: now,
        };
        if is_dry_run {
            return Ok((set, standard));
        }
        let detail = json!({"name": set.name, "sex": set.sex, "days": standard.days().len()});
        self.keep_standard(&set, &standard, (Action::StandardImport, detail), author).await?;
        Ok((set, standard))
    }

    async fn keep_standard(
        &self,
        set: &StandardSet,
        standard: &Standard,
        (action, detail): (Action, Value),
        author: &Author,
    ) -> Result<(), BookError> {
        let days = breeds::rows(standard);
        let write = async |conn: &Conn| {
            let is_new = sets::put(conn, set, &days).await?;
            if is_new {
                let target = set.id.to_string();
                note(conn, author, action, (&set.tenant_id, &target), detail, set.created_at).await?;
            }
            Ok(is_new)
        };
        let is_new = self.transaction("standard_put", write).await?;
        if is_new { Ok(()) } else { Err(BookError::StandardTaken) }
    }

    /// Places a flock. Without a standard named, it is compared with the breeder's of its line and sex, where there is one.
    ///
    /// # Errors
    /// [`BookError::BarnTaken`], [`BookError::NoStandard`], and when the database fails.
    pub async fn create(&self, flock: Flock, author: &Author) -> Result<Flock, BookError> {
        let standard_set_id = match flock.standard_set_id {
            Some(id) => Some(self.standard(&flock.tenant_id, id).await?.0.id),
            None => breeds_own(&flock),
        };
        let flock = Flock { standard_set_id, ..flock };
        let now = self.clock.now();
        let place = [&*flock.tenant_id, &*flock.farm_id, &*flock.barn_id];
        let detail = json!({"batch_id": flock.batch_id, "placed_on": flock.placed_on, "birds": flock.birds});
        let target = flock.id.to_string();
        let write = async |conn: &Conn| {
            let is_new = rows::put(conn, &flock).await?;
            if is_new {
                let zone = zone_of(conn, place).await?;
                rows::mark_all(conn, place, zone.day(now)).await?;
                note(conn, author, Action::FlockCreate, (&flock.tenant_id, &target), detail, now).await?;
            }
            Ok(is_new)
        };
        if !self.transaction("flock_create", write).await? {
            return Err(BookError::BarnTaken);
        }
        Ok(flock)
    }

    /// Flocks, the newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn flocks(
        &self,
        tenant_id: Option<&str>,
        barn_id: Option<&str>,
        is_present_only: bool,
        limit: i64,
    ) -> Result<Vec<Flock>, StoreError> {
        self.flocks_behind(tenant_id, barn_id, is_present_only, None, limit).await
    }

    /// The same behind the flock of this day of placement and id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn flocks_behind(
        &self,
        tenant_id: Option<&str>,
        barn_id: Option<&str>,
        is_present_only: bool,
        after: Option<(NaiveDate, Uuid)>,
        limit: i64,
    ) -> Result<Vec<Flock>, StoreError> {
        let read = async |conn: &mut Conn| {
            rows::list_behind(conn, tenant_id, barn_id, is_present_only, after, limit).await
        };
        self.reads.run("flocks", read).await
    }

    /// A flock.
    ///
    /// # Errors
    /// [`BookError::NoFlock`], and when the database fails.
    pub async fn flock(&self, tenant_id: &str, id: Uuid) -> Result<Flock, BookError> {
        let find = async |conn: &mut Conn| rows::find(conn, tenant_id, id).await;
        self.reads.run("flock", find).await?.ok_or(BookError::NoFlock)
    }

    /// The flock of a batch, with the time from its first midnight to the one behind its last day, which a flock that
    /// has not ended has none of. `None` when no flock has this name, or those of several barns.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn of_batch(
        &self,
        tenant_id: &str,
        batch_id: &str,
        barn_id: Option<&str>,
    ) -> Result<Option<(Flock, Timestamp, Option<Timestamp>)>, StoreError> {
        let find = async |conn: &mut Conn| rows::by_batch(conn, tenant_id, batch_id, barn_id).await;
        let Some(flock) = self.reads.run("flock_by_batch", find).await? else { return Ok(None) };
        let zone = self.zone(&flock).await?;
        let (from, to) = (zone.span(flock.placed_on).0, flock.ended_on.map(|ended_on| zone.span(ended_on).1));
        Ok(Some((flock, from, to)))
    }

    /// Ends a flock: `day` is its last.
    ///
    /// # Errors
    /// [`BookError::NoFlock`], [`BookError::Ended`], and when the database fails.
    pub async fn end(
        &self,
        tenant_id: &str,
        id: Uuid,
        day: NaiveDate,
        author: &Author,
    ) -> Result<Flock, BookError> {
        self.flock(tenant_id, id).await?;
        let now = self.clock.now();
        let write = async |conn: &Conn| {
            let is_ended = rows::end(conn, tenant_id, id, day, now).await?;
            if is_ended {
                rows::forget_days(conn, tenant_id, id, day).await?;
                let detail = json!({"ended_on": day});
                note(conn, author, Action::FlockEnd, (tenant_id, &id.to_string()), detail, now).await?;
            }
            Ok(is_ended)
        };
        if !self.transaction("flock_end", write).await? {
            return Err(BookError::Ended);
        }
        self.flock(tenant_id, id).await
    }

    /// Writes a record of a flock; the day of it is made anew. One that came before with the same reference is given back.
    ///
    /// # Errors
    /// [`BookError`] when it does not fit, and when the database fails.
    pub async fn record(
        &self,
        tenant_id: &str,
        flock_id: Uuid,
        new: &NewRecord,
        author: &Author,
    ) -> Result<Record, BookError> {
        new.check()?;
        self.write(tenant_id, flock_id, new, None, false, author).await
    }

    /// Corrects a record by what it should have said, or takes it away.
    ///
    /// # Errors
    /// [`BookError`] when it does not fit or was corrected before, and when the database fails.
    pub async fn correct(
        &self,
        tenant_id: &str,
        flock_id: Uuid,
        record_id: Uuid,
        new: Option<&NewRecord>,
        author: &Author,
    ) -> Result<Record, BookError> {
        let find = async |conn: &mut Conn| record::find(conn, tenant_id, record_id).await;
        let wrong = self.reads.run("flock_record", find).await?;
        let wrong = wrong.filter(|record| record.flock_id == flock_id).ok_or(BookError::NoRecord)?;
        let void = || NewRecord {
            kind: Kind::parse(&wrong.kind).unwrap_or(Kind::Note),
            day: Some(wrong.day),
            part: wrong.part.clone(),
            value: wrong.value,
            birds: wrong.birds,
            cause: wrong.cause.clone(),
            note: wrong.note.clone(),
            external_ref: None,
            source: "MANUAL",
        };
        if let Some(new) = new {
            new.check()?;
            let day = new.day.or(Some(wrong.day));
            return self
                .write(tenant_id, flock_id, &NewRecord { day, ..new.clone() }, Some(&wrong), false, author)
                .await;
        }
        self.write(tenant_id, flock_id, &void(), Some(&wrong), true, author).await
    }

    async fn write(
        &self,
        tenant_id: &str,
        flock_id: Uuid,
        new: &NewRecord,
        wrong: Option<&Record>,
        is_void: bool,
        author: &Author,
    ) -> Result<Record, BookError> {
        let flock = self.flock(tenant_id, flock_id).await?;
        let now = self.clock.now();
        let zone = self.zone(&flock).await?;
        let today = zone.day(now);
        let day = new.day.unwrap_or(today);
        let is_own = day >= flock.placed_on && day <= flock.ended_on.unwrap_or(today).min(today);
        if !is_own {
            let end =
                flock.ended_on.map_or(format!(", today is {today}"), |end| format!(", it ended on {end}"));
            return Err(BookError::OtherDay(day, flock.placed_on, end));
        }
        let record = Record {
            id: schema::id::new_id(),
            tenant_id: tenant_id.to_owned(),
            flock_id,
            kind: new.kind.as_str().to_owned(),
            day,
            part: new.part.clone(),
            value: new.value,
            birds: new.birds,
            cause: new.cause.clone(),
            note: new.note.clone(),
            source: new.source.to_owned(),
            external_ref: new.external_ref.clone(),
            corrects: wrong.map(|wrong| wrong.id),
            is_void,
            author: author.actor.clone(),
            // Of the day it tells of: now, or its evening.
            occurred_at: now.min(zone.span(day).1),
            created_at: now,
        };
        let action = if wrong.is_some() { Action::FlockCorrect } else { Action::FlockRecord };
        let write = async |conn: &Conn| {
            let is_new = record::add(conn, &record).await?;
            if is_new {
                let days = [Some(record.day), wrong.map(|wrong| wrong.day).filter(|day| *day != record.day)];
                for day in days.into_iter().flatten() {
                    rows::mark(conn, &DirtyDay { tenant_id: tenant_id.to_owned(), flock_id, day }).await?;
                }
                let detail = json!({"record_id": record.id, "kind": record.kind, "day": record.day});
                note(conn, author, action, (tenant_id, &flock_id.to_string()), detail, now).await?;
            }
            Ok(is_new)
        };
        if self.transaction("flock_record", write).await? {
            return Ok(record);
        }
        let Some(reference) = record.external_ref.as_deref() else { return Err(BookError::Corrected) };
        let read = async |conn: &mut Conn| record::by_ref(conn, tenant_id, reference).await;
        let known = self.store.run("flock_record_by_ref", read).await?;
        known.filter(|known| known.flock_id == flock_id).ok_or(BookError::ReferenceTaken)
    }

    /// Records of a flock as they were written, newest first.
    ///
    /// # Errors
    /// [`BookError::NoFlock`], and when the database fails.
    pub async fn records(
        &self,
        tenant_id: &str,
        flock_id: Uuid,
        before: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<Record>, BookError> {
        self.flock(tenant_id, flock_id).await?;
        let read = async |conn: &mut Conn| record::list(conn, tenant_id, flock_id, before, limit).await;
        Ok(self.reads.run("flock_records", read).await?)
    }

    /// The days of a flock, reckoned.
    ///
    /// # Errors
    /// [`BookError::NoFlock`], and when the database fails.
    pub async fn days(&self, tenant_id: &str, flock_id: Uuid) -> Result<(Flock, Vec<DayFacts>), BookError> {
        let flock = self.flock(tenant_id, flock_id).await?;
        let facts = self.facts(&flock).await?.1;
        Ok((flock, facts))
    }

    /// When a flock will have a target weight, grams (its own unless given), and the age of the day that this is told by.
    ///
    /// # Errors
    /// [`BookError::NoFlock`], [`BookError::Value`] without a target, and when the database fails.
    pub async fn forecast(
        &self,
        tenant_id: &str,
        flock_id: Uuid,
        target_weight_g: Option<f64>,
    ) -> Result<(Flock, f64, Option<(i64, Forecast)>), BookError> {
        let flock = self.flock(tenant_id, flock_id).await?;
        let (frame, facts) = self.facts(&flock).await?;
        let target_weight_g = target_weight_g
            .or(frame.target_weight_g)
            .ok_or(BookError::Value("the flock has no target weight: name one"))?;
        Ok((flock, target_weight_g, outlook(&frame, &facts, target_weight_g)))
    }

    async fn facts(&self, flock: &Flock) -> Result<(Frame, Vec<DayFacts>), BookError> {
        let last = flock.ended_on.unwrap_or(NaiveDate::MAX);
        let read = async |conn: &mut Conn| {
            let days = rows::days(conn, &flock.tenant_id, flock.id, (flock.placed_on, last)).await?;
            let standard = match flock.standard_set_id {
                Some(id) => find_standard(conn, &flock.tenant_id, id).await?,
                None => None,
            };
            Ok((days, standard))
        };
        let (days, standard) = self.reads.run("flock_facts", read).await?;
        let frame = Frame {
            placed_on: flock.placed_on,
            birds: u32::try_from(flock.birds).unwrap_or_default(),
            area_m2: flock.area_m2,
            target_weight_g: flock.target_weight_g,
            standard: standard.map(|(_, standard)| standard),
        };
        let days: Vec<_> = days.into_iter().map(|day| (day.day, summary_of(day.summary))).collect();
        let facts = reckon(&frame, &days);
        Ok((frame, facts))
    }

    /// The weights of a day that are believed.
    ///
    /// # Errors
    /// [`BookError::NoFlock`], and when the database fails.
    pub async fn histogram(
        &self,
        tenant_id: &str,
        flock_id: Uuid,
        day: NaiveDate,
    ) -> Result<DayHistogram, BookError> {
        let flock = self.flock(tenant_id, flock_id).await?;
        let read = async |conn: &mut Conn| source::inputs(conn, &flock, day).await;
        let weights = believed(&self.reads.run("flock_histogram", read).await?);
        Ok(DayHistogram { summary: Summary::of(&weights), bins: histogram(&weights) })
    }

    /// The scales of a flock beside each other, by a day and the two before it.
    ///
    /// # Errors
    /// [`BookError::NoFlock`], and when the database fails.
    pub async fn scales(
        &self,
        tenant_id: &str,
        flock_id: Uuid,
        day: NaiveDate,
    ) -> Result<Vec<Scale>, BookError> {
        let flock = self.flock(tenant_id, flock_id).await?;
        let zone = self.zone(&flock).await?;
        let days: Vec<_> = (0..SCALE_DAYS)
            .filter_map(|back| day.checked_sub_days(Days::new(back)))
            .map(|day| (day, zone.span(day)))
            .collect();
        let read = async |conn: &mut Conn| rows::scales(conn, &flock, &days).await;
        Ok(compare(&self.reads.run("flock_scales", read).await?))
    }

    /// How the cameras of a flock agree with its scales.
    ///
    /// # Errors
    /// [`BookError::NoFlock`], and when the database fails.
    pub async fn comparison(
        &self,
        tenant_id: &str,
        flock_id: Uuid,
    ) -> Result<(Flock, Vec<Comparison>), BookError> {
        let flock = self.flock(tenant_id, flock_id).await?;
        let span = (flock.placed_on, flock.ended_on.unwrap_or(NaiveDate::MAX));
        let read = async |conn: &mut Conn| rows::days(conn, tenant_id, flock_id, span).await;
        let days = self.reads.run("flock_comparison", read).await?;
        let days: Vec<_> = days.into_iter().map(|day| (day.day, summary_of(day.summary).cameras)).collect();
        Ok((flock, comparisons(&days)))
    }

    /// The time zone of a flock's barn.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn zone(&self, flock: &Flock) -> Result<Zone, StoreError> {
        let place = [&*flock.tenant_id, &*flock.farm_id, &*flock.barn_id];
        self.reads.run("barn_zone", async |conn| zone_of(conn, place).await).await
    }

    async fn transaction<T>(
        &self,
        name: &'static str,
        work: impl AsyncFnOnce(&Conn) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.store.run(name, async |conn| conn.transaction(name, work).await).await
    }
}

/// The day of a flock on which it is so old, if there is such.
#[must_use]
pub fn day_of_age(placed_on: NaiveDate, age: f64) -> Option<NaiveDate> {
    let days = age.ceil().clamp(0.0, 100_000.0) as i64;
    placed_on.checked_add_signed(chrono::Duration::days(days))
}

fn breeds_own(flock: &Flock) -> Option<Uuid> {
    let is_own = |set: &StandardSet| set.genetic_line_code == flock.genetic_line_code && set.sex == flock.sex;
    breeds::bundled().iter().map(|bundled| &bundled.set).find(|set| is_own(set)).map(|set| set.id)
}

async fn note(
    conn: &Conn,
    author: &Author,
    action: Action,
    (tenant_id, target): (&str, &str),
    detail: Value,
    now: Timestamp,
) -> Result<(), StoreError> {
    let tenants = [tenant_id.to_owned()];
    let deed = Deed { action, tenants: Some(&tenants), target: Some(target), detail };
    audit::record(conn, author, &deed, now).await
}

/// How old a flock is today.
#[must_use]
pub fn age_today(flock: &Flock, zone: Zone, now: Timestamp) -> i64 {
    age_days(flock.placed_on, flock.ended_on.unwrap_or_else(|| zone.day(now)))
}
