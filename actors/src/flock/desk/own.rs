//! Standards that are made of a site's own finished flocks.

use chrono::Datelike;
use schema::store::Conn;
use schema::store::audit::{Action, Author};
use schema::store::flock::standard::StandardSet;
use schema::store::flock::{self as rows, Finished, Flock};
use serde_json::json;
use uuid::Uuid;

use super::{BookError, FlockDesk};
use crate::flock::book::DayFacts;
use crate::flock::own::{FLOCKS_MAX, NotOwn, OwnDay, derive};
use crate::flock::sample::VERDICT_WEIGHINGS_MIN;
use crate::flock::standard::{Sex, Standard};

/// Which flocks a standard is to be made of.
#[derive(Clone, Debug)]
pub struct OwnStandard {
    /// Whose flocks, and whose standard.
    pub tenant_id: String,
    /// Only of this farm.
    pub farm_id: Option<String>,
    /// Only of this barn.
    pub barn_id: Option<String>,
    /// What people will call it.
    pub name: String,
    /// Breed.
    pub genetic_line_code: String,
    /// Sex.
    pub sex: Sex,
    /// Fewest flocks that a day is made of.
    pub flocks_min: usize,
}

impl FlockDesk {
    /// Makes a standard of a site's own finished flocks, the newest ones, or only says what it would be. It says of itself
    /// that it is its own, and of each day how many flocks it is of.
    ///
    /// # Errors
    /// [`BookError::NotOwn`], [`BookError::StandardTaken`], and when the database fails.
    pub async fn derive_standard(
        &self,
        wish: &OwnStandard,
        is_dry_run: bool,
        author: &Author,
    ) -> Result<(StandardSet, Standard), BookError> {
        let now = self.clock.now();
        let finished = Finished {
            tenant_id: &wish.tenant_id,
            farm_id: wish.farm_id.as_deref(),
            barn_id: wish.barn_id.as_deref(),
            genetic_line_code: &wish.genetic_line_code,
            sex: wish.sex.as_str(),
            today: now.date_naive(),
        };
        let limit = i64::try_from(FLOCKS_MAX).unwrap_or(i64::MAX);
        let list = async |conn: &mut Conn| rows::finished(conn, &finished, limit).await;
        let flocks = self.reads.run("flocks_finished", list).await?;
        let mut own: Vec<(Flock, Vec<OwnDay>)> = Vec::new();
        for flock in flocks {
            let days = own_days(&self.facts(&flock).await?.1);
            if !days.is_empty() {
                own.push((flock, days));
            }
        }
        let days: Vec<Vec<OwnDay>> = own.iter().map(|(_, days)| days.clone()).collect();
        let standard = derive(&days, wish.flocks_min)?;
        // The newest come first.
        let (Some((newest, _)), Some((oldest, _))) = (own.first(), own.last()) else {
            return Err(NotOwn::Flocks { found: 0, wanted: wish.flocks_min }.into());
        };
        let set = StandardSet {
            id: schema::id::new_id(),
            tenant_id: wish.tenant_id.clone(),
            name: wish.name.clone(),
            kind: "TARGET".to_owned(),
            genetic_line_code: wish.genetic_line_code.clone(),
            sex: wish.sex.as_str().to_owned(),
            source: format!(
                "own: mean of {} finished flocks, placed from {} to {}",
                own.len(),
                oldest.placed_on,
                newest.placed_on
            ),
            year: newest.ended_on.unwrap_or(newest.placed_on).year(),
            created_at: now,
        };
        if !is_dry_run {
            let flocks: Vec<Uuid> = own.iter().map(|(flock, _)| flock.id).collect();
            let detail =
                json!({"name": set.name, "sex": set.sex, "days": standard.days().len(), "flocks": flocks});
            self.keep_standard(&set, &standard, (Action::StandardDerive, detail), author).await?;
        }
        Ok((set, standard))
    }
}

/// The days of a flock that bear a verdict. What it has eaten is known where that was written down from the beginning.
fn own_days(facts: &[DayFacts]) -> Vec<OwnDay> {
    let fed_from = facts.iter().find(|day| day.feed_intake_kg.is_some()).map(|day| day.age_days);
    let is_fed = fed_from.is_some_and(|age_days| age_days <= 1);
    let is_firm = |day: &&DayFacts| usize::try_from(day.n).is_ok_and(|n| n >= VERDICT_WEIGHINGS_MIN);
    let day = |day: &DayFacts| {
        Some(OwnDay {
            age_day: u16::try_from(day.age_days).ok()?,
            mean_g: 1000.0 * day.mean_corrected_kg.or(day.mean_kg)?,
            cum_feed_intake_g: day.cum_feed_intake_g.filter(|_| is_fed),
        })
    };
    facts.iter().filter(is_firm).filter_map(day).collect()
}
