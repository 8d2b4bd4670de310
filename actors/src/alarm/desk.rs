//! Where people and programs ask about alarms, and act: lists from the rows, deeds by the owner, rules and modes in a transaction
//! of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use schema::clock::{Clock, Timestamp};
use schema::store::alarm::rule::{self as rules, ModeRow, RULES_MAX, RuleRow};
use schema::store::alarm::telling::{self, DrillRow, ResultRow, TellingRow};
use schema::store::alarm::{self as rows, AlarmRow, Barn, EventRow, Figures, Filter};
use schema::store::audit::{self, Action, Author, Deed};
use schema::store::{Conn, Store, StoreError};
use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use super::drill::Weekly;
use super::house::{Act, ActError};
use super::owner::{Done, Msg};
use super::rule::{BadRule, Mode, Rule};
use super::scene;
use super::way::MessageKind;
use crate::address::Address;

/// The longest that the owner may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Events of an alarm that are shown with it.
const EVENTS_SHOWN: i64 = 50;

/// Asks and acts. Cloning shares everything.
#[derive(Clone)]
pub struct AlarmDesk {
    /// The database, to write.
    pub store: Store,
    /// The same, to look.
    pub reads: Store,
    /// Wall time.
    pub clock: Clock,
    /// The owner of the alarms.
    pub owner: Address<Msg>,
    /// The name of the engine.
    pub edge_id: String,
    /// When drills are held by themselves.
    pub drill_at: Option<Weekly>,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum AlarmError {
    /// It cannot be done.
    #[error(transparent)]
    Act(#[from] ActError),
    /// A rule could not work.
    #[error(transparent)]
    Rule(#[from] BadRule),
    /// Somebody else edited the rule meanwhile.
    #[error("the rule has version {0} now: look at it again, and edit that")]
    OtherVersion(i32),
    /// There is no such rule.
    #[error("there is no such rule")]
    NoRule,
    /// There is no such drill.
    #[error("there is no such drill")]
    NoDrill,
    /// The drill is over.
    #[error("the drill is over: it was {0}")]
    DrillOver(String),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A rule that is in force.
#[derive(Clone, Debug)]
pub struct RuleInForce {
    /// The rule.
    pub rule: Arc<Rule>,
    /// Its version; 0 for the program's.
    pub version: i32,
    /// The row of an edited one.
    pub row: Option<RuleRow>,
}

/// An alarm and everything that is known of it.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The alarm.
    pub row: AlarmRow,
    /// What happened to it, the newest first.
    pub events: Vec<EventRow>,
    /// Who was told of its current occurrence, the newest first.
    pub tellings: Vec<TellingRow>,
    /// How that went.
    pub results: Vec<ResultRow>,
}

/// An edit of a rule.
#[derive(Clone, Debug)]
pub struct RuleEdit {
    /// The rule.
    pub body: Value,
    /// The version that it follows; whichever there is unless given.
    pub follows: Option<i32>,
    /// Why.
    pub reason: Option<String>,
}

impl AlarmDesk {
    /// Lists alarms in some states, in their order.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(
        &self,
        filter: Filter<'_>,
        states: &[&str],
        after: Option<&str>,
        limit: i64,
    ) -> Result<Vec<AlarmRow>, StoreError> {
        let read = async |conn: &mut Conn| rows::list(conn, filter, states, after, limit).await;
        self.reads.run("alarm_list", read).await
    }

    /// The rules of the barns of some alarms.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn rules_of(
        &self,
        alarms: &[AlarmRow],
    ) -> Result<BTreeMap<Barn, BTreeMap<String, RuleInForce>>, StoreError> {
        let barns: BTreeSet<_> = alarms.iter().map(barn_of).collect();
        let mut found = BTreeMap::new();
        for barn in barns {
            let rules = self.rules(&barn).await?;
            found.insert(barn, rules);
        }
        Ok(found)
    }

    /// Shows an alarm of a tenant or of the box.
    ///
    /// # Errors
    /// [`ActError::NoAlarm`], and when the database fails.
    pub async fn show(&self, tenant_id: Option<&str>, id: Uuid) -> Result<Shown, AlarmError> {
        let read = async |conn: &mut Conn| {
            let Some(row) = rows::find(conn, tenant_id, id).await? else { return Ok(None) };
            let events = rows::events(conn, id, None, EVENTS_SHOWN).await?;
            let (tellings, results) = telling::of_occurrence(conn, id, row.occurrence).await?;
            Ok(Some(Shown { row, events, tellings, results }))
        };
        let shown = self.reads.run("alarm_show", read).await?;
        Ok(shown.ok_or(ActError::NoAlarm)?)
    }

    /// Lists what happened, the newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn history(
        &self,
        filter: Filter<'_>,
        before: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<EventRow>, StoreError> {
        let read = async |conn: &mut Conn| rows::history(conn, filter, before, limit).await;
        self.reads.run("alarm_history", read).await
    }

    /// Counts alarms of the last day and of the last month.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn figures(&self, filter: Filter<'_>) -> Result<Figures, StoreError> {
        let now = self.clock.now();
        let ago = |days| now.checked_sub_signed(chrono::Duration::days(days)).unwrap_or(now);
        let read = async |conn: &mut Conn| rows::figures(conn, filter, (ago(1), ago(30))).await;
        self.reads.run("alarm_figures", read).await
    }

    /// Does something about an alarm.
    ///
    /// # Errors
    /// [`AlarmError::Act`].
    pub async fn act(
        &self,
        tenant_id: Option<&str>,
        id: Uuid,
        act: Act,
        author: Author,
    ) -> Result<Done, AlarmError> {
        let tenant_id = tenant_id.map(str::to_owned);
        self.ask(|reply| Msg::Act { tenant_id, id, act, author, reply: reply.into() }).await
    }

    /// Begins a drill.
    ///
    /// # Errors
    /// [`AlarmError::Act`].
    pub async fn drill(&self, barn: Barn, author: Author) -> Result<Done, AlarmError> {
        self.ask(|reply| Msg::Drill { barn, author, reply: reply.into() }).await
    }

    async fn ask(
        &self,
        message: impl FnOnce(ractor::concurrency::OneshotSender<Result<Done, ActError>>) -> Msg,
    ) -> Result<Done, AlarmError> {
        let (reply, answer) = ractor::concurrency::oneshot();
        if !self.owner.cast(message(reply)) {
            return Err(ActError::NotOwner.into());
        }
        match timeout(ANSWER_MAX, answer).await {
            Ok(Ok(outcome)) => Ok(outcome?),
            Ok(Err(_)) | Err(_) => Err(ActError::NotOwner.into()),
        }
    }

    /// Somebody answers a drill.
    ///
    /// # Errors
    /// [`AlarmError::NoDrill`], [`AlarmError::DrillOver`], and those of [`AlarmDesk::act`].
    pub async fn answer_drill(
        &self,
        tenant_id: Option<&str>,
        id: Uuid,
        author: Author,
    ) -> Result<Done, AlarmError> {
        let read = async |conn: &mut Conn| telling::find_drill(conn, tenant_id, id).await;
        let drill = self.reads.run("alarm_drill", read).await?.ok_or(AlarmError::NoDrill)?;
        if drill.result != "waiting" {
            return Err(AlarmError::DrillOver(drill.result));
        }
        let act = Act::Acknowledge { occurrence: u64::try_from(drill.occurrence).ok() };
        self.act(tenant_id, drill.alarm_id, act, author).await
    }

    /// Lists drills, the newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn drills(
        &self,
        tenant_id: Option<&str>,
        barn_id: Option<&str>,
        before: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<(DrillRow, Vec<ResultRow>)>, StoreError> {
        let read = async |conn: &mut Conn| {
            let mut found = Vec::new();
            for drill in telling::drills(conn, tenant_id, barn_id, before, limit).await? {
                let (tellings, mut results) =
                    telling::of_occurrence(conn, drill.alarm_id, drill.occurrence).await?;
                // That it was over is no part of the exercise.
                let calls: BTreeSet<i32> = tellings
                    .iter()
                    .filter(|telling| telling.kind == MessageKind::Drill.as_str())
                    .map(|telling| telling.number)
                    .collect();
                results.retain(|result| calls.contains(&result.number));
                found.push((drill, results));
            }
            Ok(found)
        };
        self.reads.run("alarm_drills", read).await
    }

    /// The rules of a barn.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn rules(&self, barn: &Barn) -> Result<BTreeMap<String, RuleInForce>, StoreError> {
        let edited = self.reads.run("alarm_rules", async |conn| rules::newest(conn, barn).await).await?;
        Ok(in_force(barn, &edited))
    }

    /// All versions of a rule, the newest first; of one that nobody edited, none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn rule_history(&self, barn: &Barn, rule_id: &str) -> Result<Vec<RuleRow>, StoreError> {
        self.reads.run("alarm_rule_history", async |conn| rules::history(conn, barn, rule_id).await).await
    }

    /// Writes a new version of a rule, or a new rule.
    ///
    /// # Errors
    /// [`AlarmError::Rule`], [`AlarmError::OtherVersion`], and when the database fails.
    pub async fn put_rule(
        &self,
        barn: &Barn,
        edit: &RuleEdit,
        author: &Author,
    ) -> Result<RuleInForce, AlarmError> {
        let now = self.clock.now();
        let write = async |conn: &Conn| {
            let edited = rules::newest(conn, barn).await?;
            let (row, rule) = match next_version(barn, &edited, edit, author, now) {
                Ok(next) => next,
                Err(error) => return Ok(Err(error)),
            };
            if !rules::put(conn, barn, &row).await? {
                return Ok(Err(AlarmError::OtherVersion(row.version)));
            }
            let detail = json!({"version": row.version, "reason": row.reason, "barn_id": barn.barn_id});
            note(conn, barn, (Action::AlarmRule, &row.rule_id, detail), author, now).await?;
            let version = row.version;
            Ok(Ok(RuleInForce { rule: Arc::new(rule), version, row: Some(row) }))
        };
        let written =
            self.store.run("alarm_rule_put", async |conn| conn.transaction("alarm_rule_put", write).await);
        let written = written.await??;
        self.owner.cast(Msg::Refresh);
        Ok(written)
    }

    /// What a house is doing, and who has said so.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn mode(&self, barn: &Barn) -> Result<(Mode, Option<ModeRow>), StoreError> {
        let now = self.clock.now();
        let read = async |conn: &mut Conn| {
            let scene = scene::scene_of(conn, barn, &self.edge_id, now).await?;
            Ok((scene.mode, rules::mode(conn, barn).await?))
        };
        self.reads.run("alarm_mode", read).await
    }

    /// Says what a house is doing.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_mode(
        &self,
        barn: &Barn,
        mode: Mode,
        reason: Option<String>,
        author: &Author,
    ) -> Result<ModeRow, StoreError> {
        let now = self.clock.now();
        let row =
            ModeRow { mode: mode.as_str().to_owned(), reason, author: author.actor.clone(), since: now };
        let write = async |conn: &Conn| {
            rules::put_mode(conn, barn, &row).await?;
            let detail = json!({"mode": row.mode, "reason": row.reason});
            note(conn, barn, (Action::AlarmMode, &barn.barn_id, detail), author, now).await
        };
        self.store
            .run("alarm_mode_put", async |conn| conn.transaction("alarm_mode_put", write).await)
            .await?;
        self.owner.cast(Msg::Refresh);
        Ok(row)
    }
}

/// The barn of an alarm.
#[must_use]
pub fn barn_of(row: &AlarmRow) -> Barn {
    let AlarmRow { tenant_id, farm_id, barn_id, .. } = row.clone();
    Barn { tenant_id, farm_id, barn_id }
}

fn in_force(barn: &Barn, edited: &[RuleRow]) -> BTreeMap<String, RuleInForce> {
    let of_place = scene::rules_of(edited).into_iter();
    let of_place = of_place.filter(|(id, _)| scene::is_of_box(id) == barn.is_box());
    of_place
        .map(|(id, (rule, version))| {
            let row = edited.iter().find(|row| row.rule_id == id).cloned();
            (id, RuleInForce { rule, version, row })
        })
        .collect()
}

fn next_version(
    barn: &Barn,
    edited: &[RuleRow],
    edit: &RuleEdit,
    author: &Author,
    now: Timestamp,
) -> Result<(RuleRow, Rule), AlarmError> {
    let all = scene::rules_of(edited);
    let known: BTreeSet<String> = all.keys().cloned().collect();
    let id = edit.body["id"].as_str().unwrap_or_default();
    let before = all.get(id);
    let rule = Rule::read(&edit.body, before.map(|(rule, _)| &**rule), &known)?;
    if scene::is_of_box(&rule.id) != barn.is_box() || (barn.is_box() && before.is_none()) {
        let problem =
            "id: rules whose names begin with engine_ are those of the box, and come with the program";
        return Err(BadRule(problem.to_owned()).into());
    }
    if before.is_none() && i64::try_from(known.len()).is_ok_and(|count| count >= RULES_MAX) {
        return Err(BadRule(format!("a barn has {RULES_MAX} rules at most")).into());
    }
    let current = before.map_or(0, |(_, version)| *version);
    if edit.follows.is_some_and(|follows| follows != current) {
        return Err(AlarmError::OtherVersion(current));
    }
    let row = RuleRow {
        rule_id: rule.id.clone(),
        version: current + 1,
        body: serde_json::to_value(&rule).map_err(|error| BadRule(error.to_string()))?,
        reason: edit.reason.clone(),
        author: author.actor.clone(),
        created_at: now,
    };
    Ok((row, rule))
}

async fn note(
    conn: &Conn,
    barn: &Barn,
    (action, target, detail): (Action, &str, Value),
    author: &Author,
    now: Timestamp,
) -> Result<(), StoreError> {
    let tenants = [barn.tenant_id.clone()];
    let tenants = (!barn.is_box()).then_some(&tenants[..]);
    audit::record(conn, author, &Deed { action, tenants, target: Some(target), detail }, now).await
}
