//! The rules of a weighing session: one pure decision.

use chrono::Duration;
use schema::clock::Timestamp;
use schema::id::{self, Uuid};
use schema::store::outbox::put::NewEvent;
use schema::store::session::{Image, Parked, Session, Status, Weight};
use schema::wire::event::{
    SESSION_AMENDED, SESSION_CREATED, SESSION_FINALIZED, SessionAmended, SessionCreated, SessionFinalized,
    SessionPlace, WEIGHT_RECORDED, WeightRecorded,
};
use schema::wire::reject::{Reason, Reject};
use serde_json::Value;

use super::order::{Command, Order};

/// Why a finalize is a dead letter: its session never came.
pub const FINALIZE_WITHOUT_SESSION: &str = "FINALIZE_WITHOUT_SESSION";

/// Why a child is a dead letter: its session never came.
pub const CHILD_WITHOUT_SESSION: &str = "CHILD_WITHOUT_SESSION";
/// Why a child is a dead letter: as many wait for its session already as one create can bind.
pub const TOO_MANY_WITHOUT_SESSION: &str = "TOO_MANY_WITHOUT_SESSION";
/// Days for which a child waits for its session.
pub const CHILD_WAIT_DAYS: i64 = 30;

/// What is there when an order comes: of its session, as much as the order's decision needs.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The session, if it is there.
    pub session: Option<Session>,
    /// Its earliest and its latest bound weight, for orders that change or read the weights.
    pub outer_weights: Option<[Weight; 2]>,
    /// Whether the child that the order brings is there already.
    pub is_known: bool,
    /// Whether as much waits for the session as may.
    pub is_crowded: bool,
    /// What waits for the session, for a create and for an expiry.
    pub waiting: Waiting,
}

/// What came before its session.
#[derive(Clone, Debug, Default)]
pub struct Waiting {
    /// Weights by (time, row id).
    pub weights: Vec<Weight>,
    /// Images.
    pub images: Vec<Image>,
    /// Finalizes in the order of arrival.
    pub parked: Vec<Parked>,
    /// The newest inference result.
    pub result_id: Option<String>,
}

/// When a decision is made, and what it may use.
#[derive(Clone, Copy, Debug)]
pub struct At {
    /// Now.
    pub now: Timestamp,
    /// The id of the one row it may make.
    pub row_id: Uuid,
    /// How long a finalize waits for its session.
    pub finalize_wait: Duration,
}

/// What is to be written.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// The session as it is from now on.
    pub session: Option<Session>,
    /// A new weight.
    pub weight: Option<Weight>,
    /// A new image.
    pub image: Option<Image>,
    /// Whether the children that wait for the session are bound, and those that do not fit removed.
    pub is_binding: bool,
    /// Rows of children that wait for the session and do not fit it.
    pub foreign: Vec<Uuid>,
    /// A finalize that is to wait.
    pub park: Option<Parked>,
    /// Events of finalizes that no longer wait.
    pub unpark: Vec<String>,
    /// Children that came until then wait no longer.
    pub abandon_until: Option<Timestamp>,
    /// What was accepted and cannot be applied.
    pub letters: Vec<Letter>,
    /// What the cloud is told, in this order.
    pub events: Vec<NewEvent>,
}

/// A dead letter in the making.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Why.
    pub reason: &'static str,
    /// What cannot be applied.
    pub order: Order,
}

/// Decides what an order does.
///
/// | session | order | then | what happens |
/// |---|---|---|---|
/// | none | create | created | row; waiting children are bound (those of another station or barn become dead letters), the newest inference result attached; `session.created`, `weight.recorded` per weight; then the finalize that was parked first is applied |
/// | none | weight, image | none | an unbound child |
/// | none | finalize | none | parked |
/// | none | weight, image, finalize when too many wait | none | a dead letter |
/// | none | expire | none | finalizes and children that have waited too long become dead letters |
/// | none | attach, cancel | none | nothing |
/// | created | create | created | nothing |
/// | created | weight | created | bound, initial weight anew; `weight.recorded` |
/// | created | image | created | bound, counted |
/// | created | finalize | finalized | final weight, end; `session.finalized` |
/// | created | attach | created | image as above, inference result set |
/// | created | cancel | cancelled | if it is idle |
/// | finalized | create, finalize, cancel | finalized | nothing |
/// | finalized | weight, image | finalized | bound, everything anew; `weight.recorded` for a weight, `session.amended` |
/// | finalized | attach | finalized | image as above, inference result set |
/// | created, finalized | weight, image, attach that is known | unchanged | nothing but the inference result |
/// | created, finalized | anything from another station or barn | unchanged | refused as `SESSION_CONFLICT` |
/// | cancelled | anything from outside | cancelled | refused as `SESSION_CLOSED` |
///
/// # Errors
/// `SESSION_CONFLICT`, `SESSION_CLOSED`.
pub fn decide(state: &State, order: &Order, at: At) -> Result<Changes, Reject> {
    let Some(session) = &state.session else { return Ok(without_session(state, order, at)) };
    let own = matches!(order.command, Command::Cancel { .. } | Command::Expire);
    if session.status == Status::Cancelled {
        return if own { Ok(Changes::default()) } else { Err(Reason::SessionClosed.into()) };
    }
    if !order.sender().fits(session) {
        return Err(Reason::SessionConflict.into());
    }
    let draft = Draft { session: session.clone(), changes: Changes::default(), at };
    Ok(match (session.status, &order.command) {
        (_, Command::Create { .. } | Command::Expire)
        | (Status::Finalized, Command::Finalize { .. } | Command::Cancel { .. })
        | (Status::Cancelled, _) => Changes::default(),
        (_, Command::Weight { .. } | Command::Image { .. }) if state.is_known => Changes::default(),
        (Status::Created | Status::Finalized, Command::Weight { weight_kg }) => {
            draft.weigh(order, *weight_kg, state.outer_weights.as_ref())
        }
        (Status::Created | Status::Finalized, Command::Image { media_object_id, .. }) => {
            draft.take_image(order, media_object_id).done()
        }
        (Status::Created | Status::Finalized, Command::Attach { media_object_id, result_id }) => {
            let media_object_id = media_object_id.as_deref().filter(|_| !state.is_known);
            draft.attach(order, media_object_id, result_id.as_ref())
        }
        (Status::Created, Command::Finalize { finalized_at }) => {
            let last = state.outer_weights.as_ref().map(|[_, last]| last.weight_kg);
            draft.finalize(order, *finalized_at, last).done()
        }
        (Status::Created, Command::Cancel { idle_since }) => draft.cancel(*idle_since),
    })
}

fn without_session(state: &State, order: &Order, at: At) -> Changes {
    let mut changes = Changes::default();
    match &order.command {
        Command::Create { farm_id, barn_id, device_id, station_id, batch_id } => {
            let session = Session {
                id: at.row_id,
                tenant_id: order.tenant_id.clone(),
                session_id: order.session_id.clone(),
                farm_id: farm_id.clone(),
                barn_id: barn_id.clone(),
                device_id: device_id.clone(),
                station_id: station_id.clone(),
                batch_id: batch_id.clone(),
                status: Status::Created,
                start_at: order.occurred_at,
                end_at: None,
                initial_weight_kg: None,
                final_weight_kg: None,
                image_count: 0,
                inference_result_id: state.waiting.result_id.clone(),
                created_event_id: order.event_id.clone(),
                finalized_event_id: None,
                amendment_count: 0,
                trace_id: Some(order.trace_id.clone()),
                created_at: at.now,
                updated_at: at.now,
            };
            return Draft { session, changes, at }.create(order, &state.waiting);
        }
        Command::Weight { .. } | Command::Image { .. } if state.is_known => {}
        Command::Weight { .. } | Command::Image { .. } | Command::Finalize { .. } if state.is_crowded => {
            changes.letters.push(Letter { reason: TOO_MANY_WITHOUT_SESSION, order: order.clone() });
        }
        Command::Weight { weight_kg } => {
            changes.weight = Some(weight(order, *weight_kg, false, at));
        }
        Command::Image { media_object_id, .. } => {
            changes.image = Some(image(order, media_object_id, false, at));
        }
        Command::Finalize { .. } => changes.park = Some(park(order, at)),
        Command::Expire => {
            for parked in state.waiting.parked.iter().filter(|parked| parked.expires_at <= at.now) {
                changes.unpark.push(parked.event_id.clone());
                changes.letters.push(Letter { reason: FINALIZE_WITHOUT_SESSION, order: unparked(parked) });
            }
            abandon_children(&mut changes, &state.waiting, at.now - Duration::days(CHILD_WAIT_DAYS));
        }
        Command::Attach { .. } | Command::Cancel { .. } => {}
    }
    changes
}

/// Children that came until then become dead letters.
fn abandon_children(changes: &mut Changes, waiting: &Waiting, until: Timestamp) {
    let weights = waiting.weights.iter().filter(|weight| weight.created_at <= until).map(weight_order);
    let images = waiting.images.iter().filter(|image| image.created_at <= until).map(image_order);
    let letters = weights.chain(images).map(|order| Letter { reason: CHILD_WITHOUT_SESSION, order });
    let before = changes.letters.len();
    changes.letters.extend(letters);
    changes.abandon_until = (changes.letters.len() > before).then_some(until);
}

/// A session that is being changed.
struct Draft {
    session: Session,
    changes: Changes,
    at: At,
}

impl Draft {
    fn create(mut self, order: &Order, waiting: &Waiting) -> Changes {
        let payload = SessionCreated {
            session: place(&self.session),
            batch_id: self.session.batch_id.as_deref(),
            start_at: self.session.start_at,
        };
        let (id, at) = (id::outbox_id(&order.tenant_id, &order.event_id), self.session.start_at);
        let event = self.event(id, SESSION_CREATED, at, &order.trace_id, &payload);
        self.changes.events.push(event);
        self.changes.is_binding = true;
        let (weights, foreign_weights): (Vec<_>, Vec<_>) =
            waiting.weights.iter().partition(|weight| weight.sender.fits(&self.session));
        let (images, foreign_images): (Vec<_>, Vec<_>) =
            waiting.images.iter().partition(|image| image.sender.fits(&self.session));
        let (parked, foreign_parked): (Vec<_>, Vec<_>) =
            waiting.parked.iter().map(unparked).partition(|order| order.sender().fits(&self.session));
        self.changes.foreign = (foreign_weights.iter().map(|weight| weight.id))
            .chain(foreign_images.iter().map(|image| image.id))
            .collect();
        let foreign = (foreign_weights.into_iter().map(weight_order))
            .chain(foreign_images.into_iter().map(image_order))
            .chain(foreign_parked);
        let reason = Reason::SessionConflict.code();
        self.changes.letters.extend(foreign.map(|order| Letter { reason, order }));
        self.changes.unpark = waiting.parked.iter().map(|parked| parked.event_id.clone()).collect();
        self.session.image_count = i32::try_from(images.len()).unwrap_or(i32::MAX);
        self.session.initial_weight_kg = weights.first().map(|weight| weight.weight_kg);
        for weight in &weights {
            let event = self.weight_event(weight, &order.trace_id);
            self.changes.events.push(event);
        }
        if let Some(order) = parked.first()
            && let Command::Finalize { finalized_at } = order.command
        {
            self = self.finalize(order, finalized_at, weights.last().map(|weight| weight.weight_kg));
        }
        self.done()
    }

    fn weigh(mut self, order: &Order, weight_kg: f64, outer: Option<&[Weight; 2]>) -> Changes {
        let new = weight(order, weight_kg, true, self.at);
        let event = self.weight_event(&new, &order.trace_id);
        self.changes.events.push(event);
        let place = |weight: &Weight| (weight.occurred_at, weight.id);
        let is_first = outer.is_none_or(|[first, _]| place(&new) < place(first));
        let is_last = outer.is_none_or(|[_, last]| place(&new) > place(last));
        let before = self.session.clone();
        if is_first {
            self.session.initial_weight_kg = Some(weight_kg);
        }
        if is_last && self.session.status == Status::Finalized {
            self.session.final_weight_kg = Some(weight_kg);
        }
        self.changes.weight = Some(new);
        self.amend(order, &before, "weight").done()
    }

    fn take_image(mut self, order: &Order, media_object_id: &str) -> Self {
        let before = self.session.clone();
        self.changes.image = Some(image(order, media_object_id, true, self.at));
        self.session.image_count = self.session.image_count.saturating_add(1);
        self.amend(order, &before, "image")
    }

    fn attach(mut self, order: &Order, media_object_id: Option<&str>, result_id: Option<&String>) -> Changes {
        if let Some(media_object_id) = media_object_id {
            self = self.take_image(order, media_object_id);
        }
        if let Some(result_id) = result_id {
            self.session.inference_result_id = Some(result_id.clone());
        }
        if media_object_id.is_none() && result_id.is_none() { Changes::default() } else { self.done() }
    }

    /// A child of a finalized session amends it.
    fn amend(mut self, order: &Order, before: &Session, cause: &'static str) -> Self {
        let Some(end_at) = self.session.end_at else { return self };
        self.session.amendment_count += 1;
        let payload = SessionAmended {
            session: place(&self.session),
            final_weight_kg: self.session.final_weight_kg,
            image_count: self.session.image_count,
            amendment: self.session.amendment_count,
            cause,
            cause_event_id: &order.event_id,
            previous_final_weight_kg: before.final_weight_kg,
            previous_image_count: before.image_count,
        };
        let id = id::caused_event_id(&order.tenant_id, &order.event_id, SESSION_AMENDED);
        let mut event = self.event(id, SESSION_AMENDED, order.received_at, &order.trace_id, &payload);
        event.order_at = Some(order.received_at.max(end_at));
        self.changes.events.push(event);
        self
    }

    fn finalize(
        mut self,
        order: &Order,
        finalized_at: Option<Timestamp>,
        final_weight_kg: Option<f64>,
    ) -> Self {
        let start_at = self.session.start_at;
        let by_ts = (order.occurred_at > start_at).then_some(order.occurred_at);
        let end_at = finalized_at.or(by_ts).unwrap_or(order.received_at).max(start_at);
        self.session.status = Status::Finalized;
        self.session.end_at = Some(end_at);
        self.session.final_weight_kg = final_weight_kg;
        self.session.finalized_event_id = Some(order.event_id.clone());
        let payload = SessionFinalized {
            session: place(&self.session),
            batch_id: self.session.batch_id.as_deref(),
            final_weight_kg,
            image_count: self.session.image_count,
            start_at,
            end_at,
        };
        let id = id::outbox_id(&order.tenant_id, &order.event_id);
        let event = self.event(id, SESSION_FINALIZED, end_at, &order.trace_id, &payload);
        self.changes.events.push(event);
        self
    }

    fn cancel(mut self, idle_since: Timestamp) -> Changes {
        if self.session.updated_at > idle_since {
            return Changes::default();
        }
        self.session.status = Status::Cancelled;
        self.done()
    }

    fn done(mut self) -> Changes {
        self.session.updated_at = self.at.now;
        self.changes.session = Some(self.session);
        self.changes
    }

    fn weight_event(&self, weight: &Weight, trace_id: &str) -> NewEvent {
        let payload = WeightRecorded {
            session: place(&self.session),
            weight_kg: weight.weight_kg,
            occurred_at: weight.occurred_at,
        };
        let id = id::outbox_id(&weight.tenant_id, &weight.event_id);
        let trace_id = weight.trace_id.as_deref().unwrap_or(trace_id);
        self.event(id, WEIGHT_RECORDED, weight.occurred_at, trace_id, &payload)
    }

    /// An event of the session, which stands nowhere before the session's beginning in its lane.
    fn event(
        &self,
        id: Uuid,
        event_type: &'static str,
        occurred_at: Timestamp,
        trace_id: &str,
        payload: &impl serde::Serialize,
    ) -> NewEvent {
        let session = &self.session;
        NewEvent {
            id,
            tenant_id: session.tenant_id.clone(),
            farm_id: session.farm_id.clone(),
            barn_id: session.barn_id.clone(),
            device_id: session.device_id.clone(),
            station_id: Some(session.station_id.clone()),
            session_id: Some(session.session_id.clone()),
            event_type,
            occurred_at,
            order_at: (occurred_at < session.start_at).then_some(session.start_at),
            trace_id: trace_id.to_owned(),
            payload: serde_json::to_value(payload).expect("texts and finite numbers always serialize"),
        }
    }
}

fn place(session: &Session) -> SessionPlace<'_> {
    SessionPlace {
        session_id: &session.session_id,
        tenant_id: &session.tenant_id,
        farm_id: &session.farm_id,
        barn_id: &session.barn_id,
        device_id: &session.device_id,
        station_id: &session.station_id,
    }
}

fn weight(order: &Order, weight_kg: f64, is_bound: bool, at: At) -> Weight {
    Weight {
        id: at.row_id,
        tenant_id: order.tenant_id.clone(),
        session_id: order.session_id.clone(),
        sender: order.sender(),
        weight_kg,
        occurred_at: order.occurred_at,
        event_id: order.event_id.clone(),
        trace_id: Some(order.trace_id.clone()),
        is_bound,
        created_at: at.now,
    }
}

fn image(order: &Order, media_object_id: &str, is_bound: bool, at: At) -> Image {
    let image_role =
        if let Command::Image { image_role, .. } = &order.command { image_role.clone() } else { None };
    Image {
        id: at.row_id,
        tenant_id: order.tenant_id.clone(),
        session_id: order.session_id.clone(),
        media_object_id: media_object_id.to_owned(),
        sender: order.sender(),
        occurred_at: order.occurred_at,
        event_id: order.event_id.clone(),
        image_role,
        sha256: order.command.declared_sha256().map(str::to_owned),
        trace_id: Some(order.trace_id.clone()),
        is_bound,
        created_at: at.now,
    }
}

fn park(order: &Order, at: At) -> Parked {
    Parked {
        tenant_id: order.tenant_id.clone(),
        event_id: order.event_id.clone(),
        session_id: order.session_id.clone(),
        device_id: order.device_id.clone(),
        station_id: order.station_id.clone(),
        occurred_at: order.occurred_at,
        received_at: order.received_at,
        expires_at: at.now + at.finalize_wait,
        trace_id: Some(order.trace_id.clone()),
        body: body(order),
    }
}

/// An order as it is kept.
#[must_use]
pub fn body(order: &Order) -> Value {
    serde_json::to_value(order).expect("texts, times and finite numbers always serialize")
}

/// The order of a finalize that has waited. What its body does not tell any more, the row's columns do.
fn unparked(parked: &Parked) -> Order {
    serde_json::from_value(parked.body.clone()).unwrap_or_else(|_| Order {
        station_id: parked.station_id.clone(),
        device_id: parked.device_id.clone(),
        ..child(
            [&parked.tenant_id, &parked.session_id, &parked.event_id],
            parked.trace_id.as_deref(),
            [parked.occurred_at, parked.received_at],
            Command::Finalize { finalized_at: None },
        )
    })
}

fn weight_order(weight: &Weight) -> Order {
    let ids = [&*weight.tenant_id, &weight.session_id, &weight.event_id];
    let command = Command::Weight { weight_kg: weight.weight_kg };
    child(ids, weight.trace_id.as_deref(), [weight.occurred_at, weight.created_at], command)
        .sent_by(weight.sender.clone())
}

fn image_order(image: &Image) -> Order {
    let ids = [&*image.tenant_id, &image.session_id, &image.event_id];
    let command = Command::Image {
        media_object_id: image.media_object_id.clone(),
        image_role: image.image_role.clone(),
        sha256: image.sha256.clone(),
    };
    child(ids, image.trace_id.as_deref(), [image.occurred_at, image.created_at], command)
        .sent_by(image.sender.clone())
}

fn child(
    [tenant_id, session_id, event_id]: [&str; 3],
    trace_id: Option<&str>,
    [occurred_at, received_at]: [Timestamp; 2],
    command: Command,
) -> Order {
    Order {
        event_id: event_id.to_owned(),
        occurred_at,
        trace_id: trace_id.unwrap_or_default().to_owned(),
        ..Order::own(tenant_id, session_id, command, received_at)
    }
}

#[cfg(test)]
mod tests;
