//! The transaction of an order: what is read before the decision, and what is written after it.

use chrono::Duration;
use schema::id::Uuid;
use schema::store::dead_letter::{self, DeadLetter, Source};
use schema::store::device::{self, Seen};
use schema::store::ledger;
use schema::store::media::{self, MediaObject};
use schema::store::session::{self, Session, Status};
use schema::store::{Conn, StoreError, dedupe, outbox};
use schema::wire::reject::{Reason, Reject};

use super::Reply;
use super::order::{Command, Order};
use super::state::{self, At, Changes, Letter, State, Waiting, decide};

/// Why a dead letter of a session is closed.
const REDRIVEN: &str = "applied again";

/// How an order ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was applied.
    Applied,
    /// Its event had been seen before.
    Duplicate {
        /// Whether the first one on the same topic had another body.
        is_conflict: bool,
    },
    /// It was refused for good.
    Refused(Reject),
}

/// What a committed order did.
#[derive(Clone, Debug)]
pub struct Applied {
    /// How it ended.
    pub outcome: Outcome,
    /// What is there now.
    pub reply: Reply,
    /// Types of the events it caused.
    pub events: Vec<&'static str>,
    /// Reasons of the dead letters it made.
    pub letters: Vec<&'static str>,
    /// Whether the session was cancelled.
    pub is_cancelled: bool,
    /// Whether an image was bound.
    pub has_bound_image: bool,
    /// The stored image whose bytes are not those that the device declares.
    pub other_image: Option<MediaObject>,
}

/// Applies an order as part of the caller's transaction.
///
/// # Errors
/// When the database fails.
pub async fn apply(
    conn: &Conn,
    order: &Order,
    seen: Option<&Seen>,
    at: At,
    dedupe_ttl: Duration,
) -> Result<Applied, StoreError> {
    session::lock(conn, &order.tenant_id, &order.session_id).await?;
    let mut applied = Applied {
        outcome: Outcome::Applied,
        reply: Reply::Nothing,
        events: Vec::new(),
        letters: Vec::new(),
        is_cancelled: false,
        has_bound_image: false,
        other_image: None,
    };
    if let Some(letter_id) = order.letter_id
        && !dead_letter::take(conn, letter_id).await?
    {
        return Ok(applied);
    }
    if let Some(is_conflict) = find_duplicate(conn, order, at, dedupe_ttl).await? {
        applied.outcome = Outcome::Duplicate { is_conflict };
    } else {
        match decide(&load(conn, order).await?, order, at) {
            Ok(changes) => write(conn, order, &changes, at, &mut applied).await?,
            Err(reject) => refuse(conn, order, reject, at, &mut applied).await?,
        }
    }
    if !matches!(applied.outcome, Outcome::Refused(_)) {
        applied.other_image = declare_hash(conn, order).await?;
    }
    // Last, since a writer of readings may hold the row of this device together with others.
    if let Some(seen) = seen {
        device::seen(conn, &[seen], at.now).await?;
    }
    count(conn, order, applied.outcome, at).await?;
    applied.reply = reply(conn, order, applied.outcome).await?;
    Ok(applied)
}

/// Enters an order that came in into the ledger: not what came of an earlier one, and not a refused message, which is counted
/// where its refusal is recorded.
async fn count(conn: &Conn, order: &Order, outcome: Outcome, at: At) -> Result<(), StoreError> {
    let Some(mark) = &order.mark else { return Ok(()) };
    let outcome = match outcome {
        Outcome::Applied => ledger::Outcome::Stored,
        Outcome::Duplicate { .. } => ledger::Outcome::Duplicate,
        Outcome::Refused(_) if mark.is_of_call() => ledger::Outcome::Refused,
        Outcome::Refused(_) => return Ok(()),
    };
    ledger::count_one(conn, &order.tenant_id, outcome, at.now).await
}

/// Marks the event as seen. `Some` when it had been seen before, and then whether it had another body.
async fn find_duplicate(
    conn: &Conn,
    order: &Order,
    at: At,
    ttl: Duration,
) -> Result<Option<bool>, StoreError> {
    let Some(mark) = &order.mark else { return Ok(None) };
    let (tenant_id, event_id) = (order.tenant_id.as_str(), order.event_id.as_str());
    let (topic, hash) = (mark.topic.as_str(), mark.hash.as_str());
    if dedupe::mark(conn, dedupe::Mark { tenant_id, event_id, topic, hash }, at.now, ttl).await? {
        return Ok(None);
    }
    Ok(Some(dedupe::conflicts(conn, &[[tenant_id, event_id, topic, hash]]).await? > 0))
}

/// Notes the hash that the device declares of its image, also when it had announced the image before: over HTTP it
/// declares none.
async fn declare_hash(conn: &Conn, order: &Order) -> Result<Option<MediaObject>, StoreError> {
    let (Some(sha256), Some(media_object_id)) =
        (order.command.declared_sha256(), order.command.media_object_id())
    else {
        return Ok(None);
    };
    session::declare_hash(conn, &order.tenant_id, &order.session_id, media_object_id, sha256).await?;
    let Ok(media_id) = Uuid::try_parse(media_object_id) else { return Ok(None) };
    let object = media::declare_hash(conn, &order.tenant_id, media_id, sha256).await?;
    Ok(object.filter(MediaObject::is_other_than_declared))
}

/// Reads what the decision needs.
async fn load(conn: &Conn, order: &Order) -> Result<State, StoreError> {
    let (tenant_id, session_id) = (order.tenant_id.as_str(), order.session_id.as_str());
    let mut state = State { session: session::find(conn, tenant_id, session_id).await?, ..State::default() };
    if let Some(media_object_id) = order.command.media_object_id() {
        let image = session::find_image(conn, tenant_id, session_id, media_object_id, &order.event_id);
        state.is_known = image.await?.is_some();
    }
    match order.command {
        Command::Weight { .. } => {
            state.is_known = session::find_weight(conn, tenant_id, &order.event_id).await?.is_some();
            state.outer_weights = session::outer_weights(conn, tenant_id, session_id).await?;
        }
        Command::Finalize { .. } => {
            state.outer_weights = session::outer_weights(conn, tenant_id, session_id).await?;
        }
        Command::Create { ref farm_id, ref barn_id, .. } if state.session.is_none() => {
            state.waiting = Waiting {
                weights: session::unbound_weights(conn, tenant_id, session_id).await?,
                images: session::unbound_images(conn, tenant_id, session_id).await?,
                parked: session::parked(conn, tenant_id, session_id).await?,
                result_id: session::newest_result(conn, (tenant_id, session_id), farm_id, barn_id).await?,
            };
        }
        Command::Expire if state.session.is_none() => {
            state.waiting = Waiting {
                weights: session::unbound_weights(conn, tenant_id, session_id).await?,
                images: session::unbound_images(conn, tenant_id, session_id).await?,
                parked: session::parked(conn, tenant_id, session_id).await?,
                result_id: None,
            };
        }
        Command::Create { .. }
        | Command::Image { .. }
        | Command::Attach { .. }
        | Command::Cancel { .. }
        | Command::Expire => {}
    }
    let is_child =
        matches!(order.command, Command::Weight { .. } | Command::Image { .. } | Command::Finalize { .. });
    // Who has a dead letter applied again has a reason.
    if is_child && state.session.is_none() && order.letter_id.is_none() {
        state.is_crowded = session::is_crowded(conn, tenant_id, session_id).await?;
    }
    Ok(state)
}

async fn write(
    conn: &Conn,
    order: &Order,
    changes: &Changes,
    at: At,
    applied: &mut Applied,
) -> Result<(), StoreError> {
    if let Some(weight) = &changes.weight {
        session::put_weight(conn, weight).await?;
    }
    if let Some(image) = &changes.image {
        session::put_image(conn, image).await?;
        applied.has_bound_image = image.is_bound;
    }
    if let Some(session) = &changes.session {
        session::put(conn, session).await?;
        applied.is_cancelled = session.status == Status::Cancelled;
        if changes.is_binding {
            session::bind_children(conn, &session.tenant_id, &session.session_id, &changes.foreign).await?;
            applied.has_bound_image = session.image_count > 0;
        }
    }
    if let Some(image) = &changes.image
        && let Ok(media_id) = Uuid::try_parse(&image.media_object_id)
    {
        let session = (image.tenant_id.as_str(), image.session_id.as_str());
        session::adopt_image(conn, session, media_id, &image.sender, at.now).await?;
    }
    if let Some(parked) = &changes.park {
        session::park(conn, parked).await?;
    }
    if !changes.unpark.is_empty() {
        session::unpark(conn, &order.tenant_id, &changes.unpark).await?;
    }
    if let Some(until) = changes.abandon_until {
        session::drop_unbound(conn, &order.tenant_id, &order.session_id, until).await?;
    }
    for letter in &changes.letters {
        put_letter(conn, letter, at).await?;
        applied.letters.push(letter.reason);
    }
    outbox::put::put(conn, &changes.events, at.now).await?;
    applied.events = changes.events.iter().map(|event| event.event_type).collect();
    if let Some(letter_id) = order.letter_id {
        dead_letter::settle(conn, letter_id, REDRIVEN, at.now).await?;
    }
    Ok(())
}

/// A refused order leaves no mark, so that it may come again; one in conflict with another station is kept.
async fn refuse(
    conn: &Conn,
    order: &Order,
    reject: Reject,
    at: At,
    applied: &mut Applied,
) -> Result<(), StoreError> {
    applied.outcome = Outcome::Refused(reject);
    if order.mark.is_some() {
        dedupe::unmark(conn, &order.tenant_id, &order.event_id).await?;
    }
    if let Some(letter_id) = order.letter_id {
        return dead_letter::failed_again(conn, letter_id).await;
    }
    if reject.reason == Reason::SessionConflict {
        let letter = Letter { reason: reject.reason.code(), order: order.clone() };
        put_letter(conn, &letter, at).await?;
        applied.letters.push(letter.reason);
    }
    Ok(())
}

async fn put_letter(conn: &Conn, letter: &Letter, at: At) -> Result<(), StoreError> {
    let order = &letter.order;
    let letter = DeadLetter {
        tenant_id: &order.tenant_id,
        source: Source::Session,
        reason: letter.reason,
        event_type: order.command.event_type(),
        event_id: &order.event_id,
        session_id: Some(&order.session_id),
        device_id: order.device_id.as_deref(),
        body: state::body(order),
        attempt_count: 1,
        trace_id: Some(&order.trace_id),
        first_seen_at: order.received_at,
    };
    dead_letter::put(conn, &letter, at.now).await
}

/// What is there for whoever asked.
async fn reply(conn: &Conn, order: &Order, outcome: Outcome) -> Result<Reply, StoreError> {
    let (tenant_id, session_id, event_id) = (&*order.tenant_id, &*order.session_id, &*order.event_id);
    if order.letter_id.is_some() {
        return Ok(if outcome == Outcome::Applied { Reply::Redriven } else { Reply::Nothing });
    }
    let found =
        async || -> Result<Option<Session>, StoreError> { session::find(conn, tenant_id, session_id).await };
    Ok(match &order.command {
        Command::Create { .. } => found().await?.map_or(Reply::Nothing, |row| Reply::Session(Box::new(row))),
        Command::Weight { .. } => {
            session::find_weight(conn, tenant_id, event_id).await?.map_or(Reply::Nothing, Reply::Weight)
        }
        Command::Image { media_object_id, .. } => {
            let image = session::find_image(conn, tenant_id, session_id, media_object_id, event_id).await?;
            image.map_or(Reply::Nothing, Reply::Image)
        }
        Command::Finalize { .. } => match found().await? {
            Some(row) => Reply::Session(Box::new(row)),
            None if outcome == Outcome::Applied || is_kept(conn, order).await? => Reply::Parked,
            None => Reply::Nothing,
        },
        Command::Attach { media_object_id, .. } => {
            let Some(row) = found().await? else { return Ok(Reply::Nothing) };
            let image = match media_object_id {
                Some(media) => session::find_image(conn, tenant_id, session_id, media, event_id).await?,
                None => None,
            };
            Reply::Attached(Box::new(row), image)
        }
        Command::Cancel { .. } | Command::Expire => Reply::Nothing,
    })
}

/// Whether a finalize that came before waits for its session still, or has waited for too long.
async fn is_kept(conn: &Conn, order: &Order) -> Result<bool, StoreError> {
    let parked = session::parked(conn, &order.tenant_id, &order.session_id).await?;
    if parked.iter().any(|parked| parked.event_id == order.event_id) {
        return Ok(true);
    }
    dead_letter::has(conn, &order.tenant_id, Source::Session, &order.event_id).await
}
