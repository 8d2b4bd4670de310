//! A model of the outbox: what the statements of `schema::store::outbox` do to its rows, one transaction at a time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use actors::sync::ports::{FromRows, Rows};
use chrono::TimeDelta;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use schema::clock::Timestamp;
use schema::clock::deadline::is_due;
use schema::store::StoreError;
use schema::store::outbox::choose::{Candidate, Limits, Stage, choose};
use schema::store::outbox::claim::{Batch, ClaimRequest, Claimed, ClaimedEvent, DueTenant};
use schema::store::outbox::settle::{Fate, Settled, Settlement};
use schema::store::sync_state::Change;
use schema::wire::batch::{self, EventRow};
use schema::wire::event::{SESSION_AMENDED, SESSION_CREATED, SESSION_FINALIZED};
use uuid::Uuid;

use super::cloud::ModelCloud;
use super::{Flaw, TENANT};

/// The longest that a row waits after a rejection.
const WAIT_MAX: TimeDelta = TimeDelta::seconds(300);

/// An event that is queued.
#[derive(Clone, Debug)]
pub struct NewRow {
    /// Its id.
    pub id: Uuid,
    /// Its group of lanes.
    pub group: i16,
    /// Its device.
    pub device: String,
    /// Its session, if any.
    pub session: Option<String>,
    /// Its type.
    pub event_type: &'static str,
}

/// What a row is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Waits.
    Pending,
    /// Is on its way.
    Sent,
    /// Waits for a person.
    Failed,
}

#[derive(Clone, Debug)]
struct Row {
    new: NewRow,
    seq: u64,
    occurred_at: Timestamp,
    /// Where the row version lies; a place that became free is used again.
    place: usize,
    status: Status,
    attempt_count: i32,
    reject_count: i32,
    next_attempt_at: Timestamp,
    claimed_by: Option<String>,
    lease_expires_at: Option<Timestamp>,
    batch_id: Option<Uuid>,
}

impl Row {
    /// Puts it on the line of a batch, which counts.
    fn send(&mut self, batch_id: Uuid, holder: &str, expires_at: Timestamp) {
        self.status = Status::Sent;
        self.attempt_count += 1;
        self.claimed_by = Some(holder.to_owned());
        self.lease_expires_at = Some(expires_at);
        self.batch_id = Some(batch_id);
    }

    /// Takes it off the line.
    fn wait(&mut self) {
        self.status = Status::Pending;
        (self.claimed_by, self.lease_expires_at, self.batch_id) = (None, None, None);
    }

    fn lane(&self) -> String {
        match &self.new.session {
            Some(session) => format!("s/{session}"),
            None => format!("d/{}", self.new.device),
        }
    }
}

#[derive(Clone, Debug)]
struct Lease {
    batch_id: Uuid,
    holder: String,
    expires_at: Timestamp,
}

/// The outbox.
#[derive(Debug)]
pub struct ModelOutbox {
    inner: Mutex<Inner>,
    cloud: Option<Arc<ModelCloud>>,
    flaw: Option<Flaw>,
}

#[derive(Debug, Default)]
struct Inner {
    random: Option<StdRng>,
    /// How many of a thousand transactions fail.
    failures: u32,
    /// By number, which is their order in each lane.
    rows: BTreeMap<u64, Row>,
    free_places: Vec<usize>,
    places: usize,
    leases: BTreeMap<i16, Lease>,
    paused_until: Option<Timestamp>,
    consecutive_failures: i32,
    acked: HashSet<Uuid>,
    queued: u64,
    /// How often somebody looked for something to send.
    looks: u64,
    fault: Option<String>,
}

impl Inner {
    /// A place for a row version: one that became free, like after a vacuum, else a new one.
    fn place(&mut self) -> usize {
        self.free_places.pop().unwrap_or_else(|| {
            self.places += 1;
            self.places
        })
    }

    /// The groups that are still those of a batch.
    fn held(&self, batch: &Batch) -> HashSet<i16> {
        let held = self.leases.iter().filter(|(_, lease)| lease.batch_id == batch.id);
        held.map(|(group, _)| *group).collect()
    }

    /// A row as it was read, or as its batch has marked it.
    fn as_read(&self, id: Uuid, attempt_count: i32, batch: &Batch) -> Option<u64> {
        let is_it = |row: &&Row| {
            let is_marked = row.attempt_count == attempt_count + 1 && row.batch_id == Some(batch.id);
            row.new.id == id && (row.attempt_count == attempt_count || is_marked)
        };
        self.rows.values().find(is_it).map(|row| row.seq)
    }

    /// A row that a settlement may change.
    fn to_settle(
        &self,
        (id, group, attempt_count): (Uuid, i16, i32),
        batch: &Batch,
        held: &HashSet<i16>,
        flaw: Option<Flaw>,
    ) -> Option<u64> {
        if flaw == Some(Flaw::SettleWithoutFence) {
            return self.rows.values().find(|row| row.new.id == id).map(|row| row.seq);
        }
        held.contains(&group).then(|| self.as_read(id, attempt_count, batch)).flatten()
    }

    /// Gives a row version a place of its own.
    fn write(&mut self, seq: u64) -> &mut Row {
        let place = self.place();
        let row = self.rows.get_mut(&seq).expect("it was found");
        let freed = std::mem::replace(&mut row.place, place);
        self.free_places.push(freed);
        self.rows.get_mut(&seq).expect("it was found")
    }
}

impl ModelOutbox {
    /// An outbox whose acknowledgements are compared with what a cloud has.
    #[must_use]
    pub fn new(cloud: Arc<ModelCloud>, flaw: Option<Flaw>, seed: u64) -> Self {
        let inner = Inner { random: Some(StdRng::seed_from_u64(seed)), ..Inner::default() };
        Self { inner: Mutex::new(inner), cloud: Some(cloud), flaw }
    }

    /// One that never fails and is compared with nothing.
    #[must_use]
    pub fn alone() -> Self {
        Self { inner: Mutex::default(), cloud: None, flaw: None }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nobody panics while it is held")
    }

    /// The rows as an engine of this name sees them.
    pub(super) fn seen_by(self: &Arc<Self>, edge_id: &str) -> Arc<dyn Rows> {
        Arc::new(View { outbox: Arc::clone(self), holder: edge_id.into() })
    }

    /// Queues an event.
    pub fn queue(&self, new: NewRow, now: Timestamp) {
        let mut inner = self.inner();
        inner.queued += 1;
        let (seq, place) = (inner.queued, inner.place());
        let row = Row {
            new,
            seq,
            occurred_at: now,
            place,
            status: Status::Pending,
            attempt_count: 0,
            reject_count: 0,
            next_attempt_at: now,
            claimed_by: None,
            lease_expires_at: None,
            batch_id: None,
        };
        inner.rows.insert(seq, row);
    }

    pub(super) fn fail(&self, failures: u32) {
        self.inner().failures = failures;
    }

    pub(super) fn fault(&self) -> Option<String> {
        self.inner().fault.clone()
    }

    pub(super) fn acked(&self) -> HashSet<Uuid> {
        self.inner().acked.clone()
    }

    pub(super) fn looks(&self) -> u64 {
        self.inner().looks
    }

    /// When the oldest row was queued that is not acknowledged.
    pub(super) fn oldest_at(&self) -> Option<Timestamp> {
        self.inner().rows.values().map(|row| row.occurred_at).min()
    }

    pub(super) fn is_at_rest(&self) -> bool {
        self.inner().rows.values().all(|row| row.status == Status::Failed)
    }

    pub(super) fn leases(&self) -> Option<String> {
        let inner = self.inner();
        (!inner.leases.is_empty()).then(|| format!("{:?}", inner.leases))
    }

    pub(super) fn describe(&self) -> String {
        let inner = self.inner();
        let row = inner.rows.values().find(|row| row.status != Status::Failed);
        format!(
            "{} rows, {:?}, leases {:?}, paused until {:?}",
            inner.rows.len(),
            row,
            inner.leases,
            inner.paused_until
        )
    }

    /// Each row with its status, claims and rejections, by id.
    #[must_use]
    pub fn states(&self) -> BTreeMap<Uuid, (Status, i32, i32)> {
        let state = |row: &Row| (row.new.id, (row.status, row.attempt_count, row.reject_count));
        self.inner().rows.values().map(state).collect()
    }

    /// Groups that are leased.
    #[must_use]
    pub fn leased(&self) -> Vec<i16> {
        self.inner().leases.keys().copied().collect()
    }

    /// A transaction: it takes its time, and may fail before or after its commit.
    async fn transact<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> Result<T, StoreError> {
        let (wait, fails_before, fails_after) = {
            let mut inner = self.inner();
            let failures = inner.failures;
            let random = inner.random.as_mut().expect("a simulated outbox has a seed");
            let fails = random.random_ratio(failures, 1000);
            let is_after = random.random_ratio(1, 2);
            (Duration::from_micros(random.random_range(100..20_000)), fails && !is_after, fails && is_after)
        };
        tokio::time::sleep(wait).await;
        if fails_before {
            return Err(StoreError::Crowded);
        }
        let value = work(&mut self.inner());
        tokio::time::sleep(wait).await;
        if fails_after {
            return Err(StoreError::Unanswered { name: "simulated" });
        }
        Ok(value)
    }

    /// See `lease::release_mine`.
    pub fn release_mine(&self, holder: &str, groups: &[i16]) -> u64 {
        release_mine(&mut self.inner(), holder, groups)
    }

    /// See `claim::claim`.
    pub fn claim(&self, request: &ClaimRequest<'_>) -> Claimed {
        claim(&mut self.inner(), request, self.flaw)
    }

    /// See `lease::mark_sent`.
    pub fn mark_sent(&self, batch: &Batch, events: &[&ClaimedEvent]) -> u64 {
        mark_sent(&mut self.inner(), batch, events)
    }

    /// See `lease::renew`.
    pub fn renew(&self, batch: &Batch, expires_at: Timestamp) -> bool {
        renew(&mut self.inner(), batch, expires_at)
    }

    /// See `settle::settle`.
    pub fn settle(&self, batch: &Batch, settlement: &Settlement<'_>, now: Timestamp) -> Settled {
        settle(&mut self.inner(), batch, settlement, now, (self.cloud.as_deref(), self.flaw))
    }
}

fn release_mine(inner: &mut Inner, holder: &str, groups: &[i16]) -> u64 {
    let before = inner.leases.len();
    inner.leases.retain(|group, lease| !(groups.contains(group) && lease.holder == holder));
    (before - inner.leases.len()) as u64
}

fn free_groups(
    inner: &Inner,
    groups: &[i16],
    now: Timestamp,
    lease_max: TimeDelta,
    flaw: Option<Flaw>,
) -> Vec<i16> {
    let is_free = |group: &&i16| {
        flaw == Some(Flaw::ClaimWithoutLease)
            || inner.leases.get(group).is_none_or(|lease| is_due(lease.expires_at, now, lease_max))
    };
    groups.iter().filter(is_free).copied().collect()
}

fn due_tenants(inner: &mut Inner, groups: &[i16], now: Timestamp, lease_max: TimeDelta) -> Vec<DueTenant> {
    inner.looks += 1;
    let free = free_groups(inner, groups, now, lease_max, None);
    let is_due = |row: &Row| row.status != Status::Failed && free.contains(&row.new.group);
    if !inner.rows.values().any(is_due) {
        return Vec::new();
    }
    vec![DueTenant {
        tenant_id: TENANT.to_owned(),
        paused_until: inner.paused_until,
        consecutive_failures: inner.consecutive_failures,
    }]
}

fn claim(inner: &mut Inner, request: &ClaimRequest<'_>, flaw: Option<Flaw>) -> Claimed {
    let (seqs, candidates) = candidates(inner, request, flaw);
    let limits = Limits {
        now: request.now,
        claimed_by: request.holder,
        events_max: request.events_max,
        bytes_max: request.bytes_max,
        lease_max: request.lease,
        wait_max: request.wait_max,
    };
    let chosen = choose(&candidates, &limits);
    let mut counts: HashMap<i16, i64> = HashMap::new();
    candidates.iter().for_each(|row| *counts.entry(row.lane_group).or_default() += 1);
    let has_full_group = counts.values().any(|count| *count >= request.window_rows);
    let is_window_short = chosen.len() < request.events_max && has_full_group;
    if chosen.is_empty() {
        return Claimed { is_window_short, ..Claimed::default() };
    }
    let expires_at = request.now + request.lease;
    let (mut events, mut text) = (Vec::new(), String::new());
    for i in chosen {
        let (candidate, seq) = (&candidates[i], seqs[i]);
        let lease = Lease { batch_id: request.batch_id, holder: request.holder.to_owned(), expires_at };
        inner.leases.insert(candidate.lane_group, lease);
        // What waits is only read.
        if inner.rows[&seq].status == Status::Sent {
            inner.write(seq).send(request.batch_id, request.holder, expires_at);
        }
        let row = inner.rows[&seq].clone();
        let start = text.len();
        batch::write_event(&mut text, &event_row(&row, &format!("{{\"number\":{seq}}}")))
            .expect("it lacks nothing");
        events.push(ClaimedEvent {
            id: row.new.id,
            place: row.place.to_string(),
            lane_group: row.new.group,
            attempt_count: row.attempt_count,
            reject_count: row.reject_count,
            lane: row.lane(),
            event_type: row.new.event_type.to_owned(),
            span: start..text.len(),
        });
    }
    let (tenant_id, claimed_at) = (request.tenant_id.to_owned(), request.now);
    let batch = Batch { id: request.batch_id, tenant_id, claimed_at, events, text };
    Claimed { batch: Some(batch), is_window_short, ..Claimed::default() }
}

fn event_row<'a>(row: &'a Row, payload_json: &'a str) -> EventRow<'a> {
    EventRow {
        id: row.new.id,
        tenant_id: TENANT,
        farm_id: Some("f"),
        barn_id: Some("b"),
        device_id: Some(&row.new.device),
        station_id: None,
        session_id: row.new.session.as_deref(),
        event_type: row.new.event_type,
        occurred_at: row.occurred_at,
        trace_id: Some("t"),
        payload_json,
    }
}

/// The heads of the free groups, in the order of sending.
fn candidates(inner: &Inner, request: &ClaimRequest<'_>, flaw: Option<Flaw>) -> (Vec<u64>, Vec<Candidate>) {
    let in_groups = |row: &&Row| request.groups.contains(&row.new.group);
    let waits = |row: &&Row| {
        let is_rejected = row.reject_count > 0 && row.status != Status::Failed;
        is_rejected && !is_due(row.next_attempt_at, request.now, request.wait_max)
    };
    let held: HashSet<String> = inner.rows.values().filter(in_groups).filter(waits).map(Row::lane).collect();
    let created = |row: &Row, status: &dyn Fn(Status) -> bool| {
        let is_created = |other: &Row| {
            other.new.session == row.new.session
                && other.new.event_type == SESSION_CREATED
                && status(other.status)
        };
        row.new.session.is_some() && inner.rows.values().any(is_created)
    };
    let rows_max = usize::try_from(request.window_rows).unwrap_or(usize::MAX).max(request.events_max);
    let window = usize::try_from(request.window_rows).unwrap_or(usize::MAX);
    let (mut seqs, mut candidates) = (Vec::new(), Vec::new());
    for group in free_groups(inner, request.groups, request.now, request.lease, flaw) {
        let may_go = |row: &&Row| {
            let is_held = held.contains(&row.lane()) && flaw != Some(Flaw::RejectionHoldsNothing);
            let is_waiting = waits(row) && flaw == Some(Flaw::RejectionHoldsNothing);
            row.new.group == group
                && row.status != Status::Failed
                && !is_held
                && !is_waiting
                && !created(row, &|status| status == Status::Failed)
        };
        for row in inner.rows.values().filter(may_go).take(window) {
            let ends = [SESSION_FINALIZED, SESSION_AMENDED].contains(&row.new.event_type);
            seqs.push(row.seq);
            candidates.push(Candidate {
                id: row.new.id,
                place: row.place.to_string(),
                attempt_count: row.attempt_count,
                reject_count: row.reject_count,
                lane_group: group,
                lane: row.lane(),
                event_type: row.new.event_type.to_owned(),
                stage: if row.status == Status::Pending || flaw == Some(Flaw::ClaimWithoutLease) {
                    Stage::Waiting
                } else {
                    Stage::InFlight
                },
                next_attempt_at: row.next_attempt_at,
                claimed_by: row.claimed_by.clone(),
                lease_expires_at: row.lease_expires_at,
                payload_bytes: 20,
                is_barred: ends && created(row, &|_| true),
            });
        }
    }
    seqs.truncate(rows_max);
    candidates.truncate(rows_max);
    (seqs, candidates)
}

fn renew(inner: &mut Inner, batch: &Batch, expires_at: Timestamp) -> bool {
    let mut groups = 0;
    for lease in inner.leases.values_mut().filter(|lease| lease.batch_id == batch.id) {
        lease.expires_at = expires_at;
        groups += 1;
    }
    let is_marked = |row: &&mut Row| row.batch_id == Some(batch.id) && row.status == Status::Sent;
    inner.rows.values_mut().filter(is_marked).for_each(|row| row.lease_expires_at = Some(expires_at));
    groups > 0
}

fn mark_sent(inner: &mut Inner, batch: &Batch, events: &[&ClaimedEvent]) -> u64 {
    let mut marked = 0;
    for event in events {
        let Some(lease) = inner.leases.get(&event.lane_group).filter(|lease| lease.batch_id == batch.id)
        else {
            continue;
        };
        let (holder, expires_at) = (lease.holder.clone(), lease.expires_at);
        let is_it = |row: &&Row| {
            row.place.to_string() == event.place
                && row.new.id == event.id
                && row.attempt_count == event.attempt_count
                && row.status == Status::Pending
        };
        if let Some(seq) = inner.rows.values().find(is_it).map(|row| row.seq) {
            inner.write(seq).send(batch.id, &holder, expires_at);
            marked += 1;
        }
    }
    marked
}

fn settle(
    inner: &mut Inner,
    batch: &Batch,
    settlement: &Settlement<'_>,
    now: Timestamp,
    (cloud, flaw): (Option<&ModelCloud>, Option<Flaw>),
) -> Settled {
    let mut settled = Settled::default();
    let held = inner.held(batch);
    for event in &settlement.acked {
        let seq = if flaw == Some(Flaw::SettleByPlace) {
            inner.rows.values().find(|row| row.place.to_string() == event.place).map(|row| row.seq)
        } else {
            inner.to_settle((event.id, event.lane_group, event.attempt_count), batch, &held, flaw)
        };
        let Some(row) = seq.and_then(|seq| inner.rows.remove(&seq)) else { continue };
        inner.free_places.push(row.place);
        if cloud.is_some_and(|cloud| !cloud.has(row.new.id)) {
            inner
                .fault
                .get_or_insert(format!("{} is acknowledged, and the cloud does not have it", row.new.id));
        }
        if !inner.acked.insert(row.new.id) {
            inner.fault.get_or_insert(format!("{} is acknowledged twice", row.new.id));
        }
        settled.acked.insert(row.new.id);
    }
    for rejection in &settlement.rejected {
        let found = (rejection.id, rejection.lane_group, rejection.attempt_count);
        let Some(seq) = inner.to_settle(found, batch, &held, flaw) else { continue };
        if inner.rows[&seq].status == Status::Failed {
            continue;
        }
        let row = inner.write(seq);
        row.reject_count += i32::from(rejection.is_counted);
        row.attempt_count = rejection.attempt_count + 1;
        row.wait();
        match rejection.fate {
            Fate::Retry { at } => row.next_attempt_at = at,
            Fate::Failed { .. } => row.status = Status::Failed,
        }
    }
    for event in &settlement.returned {
        let found = (event.id, event.lane_group, event.attempt_count);
        let Some(seq) = inner.to_settle(found, batch, &held, flaw) else { continue };
        let has_failed = settlement.failure.is_some();
        let is_touched = match inner.rows[&seq].status {
            Status::Pending => has_failed,
            Status::Sent => true,
            Status::Failed => false,
        };
        if is_touched {
            let row = inner.write(seq);
            row.wait();
            if has_failed {
                row.attempt_count = event.attempt_count + 1;
            }
        }
    }
    if settlement.is_last {
        inner.leases.retain(|_, lease| lease.batch_id != batch.id);
    }
    match &settlement.change {
        Some(Change::Success { .. }) => (inner.paused_until, inner.consecutive_failures) = (None, 0),
        Some(Change::Failure { failures_before, paused_until, .. }) => {
            if inner.consecutive_failures <= *failures_before {
                inner.consecutive_failures += 1;
            }
            let waits = inner.paused_until.filter(|until| !is_due(*until, now, WAIT_MAX));
            inner.paused_until = Some(waits.map_or(*paused_until, |until| until.max(*paused_until)));
        }
        None => {}
    }
    settled
}

/// The outbox as one engine sees it.
#[derive(Debug)]
struct View {
    outbox: Arc<ModelOutbox>,
    holder: Arc<str>,
}

impl Rows for View {
    fn holder(&self) -> FromRows<'_, Arc<str>> {
        Box::pin(async move { Ok(Arc::clone(&self.holder)) })
    }

    fn release_mine<'a>(&'a self, holder: &'a str, groups: &'a [i16]) -> FromRows<'a, u64> {
        Box::pin(self.outbox.transact(move |inner| release_mine(inner, holder, groups)))
    }

    fn due_tenants<'a>(
        &'a self,
        groups: &'a [i16],
        now: Timestamp,
        lease_max: TimeDelta,
    ) -> FromRows<'a, Vec<DueTenant>> {
        Box::pin(self.outbox.transact(move |inner| due_tenants(inner, groups, now, lease_max)))
    }

    fn claim<'a>(&'a self, request: &'a ClaimRequest<'a>) -> FromRows<'a, Claimed> {
        let flaw = self.outbox.flaw;
        Box::pin(self.outbox.transact(move |inner| claim(inner, request, flaw)))
    }

    fn renew<'a>(&'a self, batch: &'a Batch, lease_expires_at: Timestamp) -> FromRows<'a, bool> {
        Box::pin(self.outbox.transact(move |inner| renew(inner, batch, lease_expires_at)))
    }

    fn mark_sent<'a>(
        &'a self,
        batch: &'a Batch,
        events: &'a [&'a ClaimedEvent],
        _: Timestamp,
    ) -> FromRows<'a, u64> {
        Box::pin(self.outbox.transact(move |inner| mark_sent(inner, batch, events)))
    }

    fn settle<'a>(
        &'a self,
        batch: &'a Batch,
        settlement: &'a Settlement<'a>,
        now: Timestamp,
    ) -> FromRows<'a, Settled> {
        let against = (self.outbox.cloud.as_deref(), self.outbox.flaw);
        Box::pin(self.outbox.transact(move |inner| settle(inner, batch, settlement, now, against)))
    }
}
