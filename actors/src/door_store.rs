//! Keeps the door's sessions and retained messages in the database: changes in, rows out. Of the engines on a database one
//! keeps the sessions, which it writes on the connection that holds the lock for that; retained messages all of them write.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::Arc;

use async_trait::async_trait;
use broker::store::{
    Change, Client, Owner, Queued, Received, Stored, StoredSession, Subscription, WaitingWill,
};
use broker::{DoorStore, DoorStoreError, Fault, Fingerprint, Identity, Publication, Qos};
use schema::id::{DeviceId, TenantId};
use schema::store::door::{
    self, Changes, Keeper, MessageRow, QueueRow, ReceivedRow, Retaken, SessionRow, SubscriptionRow, WillRow,
};
use schema::store::{Conn, Store, StoreError};
use tokio::sync::Mutex;
use uuid::Uuid;

/// The store of the door.
pub struct DatabaseDoorStore {
    store: Store,
    part: Mutex<Part>,
}

/// What this engine does for lasting sessions.
enum Part {
    /// Another engine keeps them, or nobody yet.
    Standby,
    /// It keeps them.
    Keeper(Box<Keeper>),
    /// It keeps them since this epoch, but the connection that held the lock is lost.
    Cut(i64),
}

impl DatabaseDoorStore {
    /// A store that keeps no sessions yet.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, part: Mutex::new(Part::Standby) }
    }

    /// The lock under which sessions are kept, taken again if its connection was lost.
    async fn keeper<'a>(&self, part: &'a mut Part) -> Result<&'a mut Keeper, DoorStoreError> {
        if let Part::Cut(epoch) = *part {
            *part = match Keeper::take_again(&self.store, epoch).await.map_err(failure)? {
                Retaken::Kept(keeper) => Part::Keeper(keeper),
                Retaken::NotYet => return Err(fault(Fault::Away, "the database still holds the lost lock")),
                Retaken::Replaced => Part::Standby,
            };
        }
        match part {
            Part::Keeper(keeper) => Ok(keeper),
            Part::Standby | Part::Cut(_) => Err(fault(Fault::Replaced, "another engine keeps the sessions")),
        }
    }

    /// Runs work on the connection that holds the lock.
    async fn run_as_keeper<T>(
        &self,
        part: &mut Part,
        name: &'static str,
        work: impl AsyncFnOnce(&mut Conn) -> Result<T, StoreError>,
    ) -> Result<T, DoorStoreError> {
        let keeper = self.keeper(part).await?;
        let epoch = keeper.epoch();
        let outcome = keeper.run(&self.store, name, work).await;
        if !keeper.is_connected() {
            *part = Part::Cut(epoch);
        }
        outcome.map_err(failure)
    }
}

#[async_trait]
impl DoorStore for DatabaseDoorStore {
    async fn keeps_sessions(&self) -> Result<bool, DoorStoreError> {
        let mut part = self.part.lock().await;
        if let Part::Standby = &*part {
            let Some(keeper) = Keeper::take(&self.store).await.map_err(failure)? else { return Ok(false) };
            *part = Part::Keeper(Box::new(keeper));
            return Ok(true);
        }
        let asked = self.run_as_keeper(&mut part, "mqtt_keeper_ping", async |conn| conn.ping().await).await;
        match asked {
            Err(DoorStoreError { fault: Fault::Replaced, .. }) => Ok(false),
            outcome => outcome.map(|()| true),
        }
    }

    async fn load(&self) -> Result<Stored, DoorStoreError> {
        let keeps_sessions = !matches!(&*self.part.lock().await, Part::Standby);
        let load = async |conn: &mut Conn| {
            if keeps_sessions {
                return door::load(conn).await;
            }
            Ok(door::Stored { retained: door::load_retained(conn).await?, ..door::Stored::default() })
        };
        Ok(stored(self.store.run("mqtt_load", load).await.map_err(failure)?))
    }

    async fn apply(&self, changes: &[Change]) -> Result<Vec<Uuid>, DoorStoreError> {
        let is_of_sessions = changes.iter().any(Change::is_of_session);
        let mut folded = fold(changes);
        if !is_of_sessions {
            let apply = async |conn: &mut Conn| door::apply(conn, &folded).await;
            self.store.run("mqtt_apply", apply).await.map_err(failure)?;
            return Ok(Vec::new());
        }
        let mut part = self.part.lock().await;
        let apply = async |conn: &mut Conn| match door::apply(conn, &folded).await {
            Err(error) if error.is_missing_parent() => {
                let gone = door::missing_sessions(conn, &folded).await?;
                folded.leave_out(&gone);
                door::apply(conn, &folded).await?;
                Ok(gone)
            }
            outcome => outcome.map(|()| Vec::new()),
        };
        self.run_as_keeper(&mut part, "mqtt_apply", apply).await
    }
}

fn failure(error: StoreError) -> DoorStoreError {
    // A row that went between two looks at it is looked for once more.
    let is_of_change = error.is_data() && !error.is_missing_parent();
    let fault = if is_of_change { Fault::Change } else { Fault::Away };
    DoorStoreError { fault, source: error.into() }
}

fn fault(fault: Fault, what: &'static str) -> DoorStoreError {
    DoorStoreError { fault, source: what.into() }
}

/// What changes come to, taken together: of everything that changed, how it is in the end.
fn fold(changes: &[Change]) -> Changes {
    let ended: HashSet<Uuid> = (changes.iter())
        .filter_map(|change| {
            let Change::Ended { id } = change else { return None };
            Some(*id)
        })
        .collect();
    let lives = |id: &Uuid| !ended.contains(id);
    let mut sessions = HashMap::new();
    let mut subscriptions = HashMap::new();
    let mut received = HashMap::new();
    let mut queue: BTreeMap<(Uuid, u64), Waiting<'_>> = BTreeMap::new();
    let mut wills: HashMap<Uuid, Option<&WaitingWill>> = HashMap::new();
    let mut retained: HashMap<&str, Option<&Publication>> = HashMap::new();
    for change in changes {
        match change {
            Change::Session { id, client, expiry_seconds, left_at } if lives(id) => {
                sessions.insert(*id, session_row(*id, client, *expiry_seconds, *left_at));
            }
            Change::Subscribed { id, subscription } if lives(id) => {
                subscriptions.insert((*id, &*subscription.filter), Some(subscription));
            }
            Change::Unsubscribed { id, filter } if lives(id) => {
                subscriptions.insert((*id, &**filter), None);
            }
            Change::Received { id, received: message } if lives(id) => {
                received.insert((*id, message.packet_id), Some(message));
            }
            Change::Released { id, packet_id } if lives(id) => {
                received.insert((*id, *packet_id), None);
            }
            Change::Queued { id, queued } if lives(id) => {
                queue.insert((*id, queued.sequence), Waiting::New(queued, queued.is_received));
            }
            Change::Taken { id, sequence } if lives(id) => {
                let waiting = queue.entry((*id, *sequence)).or_insert(Waiting::Received);
                if let Waiting::New(queued, _) = waiting {
                    *waiting = Waiting::New(queued, true);
                }
            }
            Change::Dequeued { id, sequence } if lives(id) => {
                queue.insert((*id, *sequence), Waiting::Gone);
            }
            Change::WillWaits(will) => {
                wills.insert(will.id, Some(&**will));
            }
            Change::WillGone { id } => {
                wills.insert(*id, None);
            }
            Change::Retained(publication) => {
                retained.insert(&publication.topic, Some(publication));
            }
            Change::Unretained(topic) => {
                retained.insert(topic, None);
            }
            // Of a session that is over nothing is left to write.
            Change::Session { .. }
            | Change::Subscribed { .. }
            | Change::Unsubscribed { .. }
            | Change::Received { .. }
            | Change::Released { .. }
            | Change::Queued { .. }
            | Change::Taken { .. }
            | Change::Dequeued { .. }
            | Change::Ended { .. } => {}
        }
    }
    let mut folded = Changes {
        sessions: sessions.into_values().collect(),
        sessions_gone: ended.into_iter().collect(),
        ..Changes::default()
    };
    for (key, subscription) in subscriptions {
        match subscription {
            Some(subscription) => folded.subscriptions.push(subscription_row(key.0, subscription)),
            None => folded.subscriptions_gone.push((key.0, key.1.to_owned())),
        }
    }
    for ((id, packet_id), message) in received {
        match message {
            Some(message) => folded.received.push(received_row(id, message)),
            None => folded.received_gone.push((id, i32::from(packet_id))),
        }
    }
    for ((id, sequence), waiting) in queue {
        match waiting {
            Waiting::New(queued, is_received) => folded.queue.push(queue_row(id, queued, is_received)),
            Waiting::Received => folded.queue_received.push((id, sequence.cast_signed())),
            Waiting::Gone => folded.queue_gone.push((id, sequence.cast_signed())),
        }
    }
    for (id, will) in wills {
        match will {
            Some(will) => folded.wills.push(will_row(will)),
            None => folded.wills_gone.push(id),
        }
    }
    for (topic, publication) in retained {
        match publication {
            Some(publication) => folded.retained.push(message_row(publication)),
            None => folded.retained_gone.push(topic.to_owned()),
        }
    }
    folded
}

/// What became of a message in a queue.
enum Waiting<'a> {
    /// It came, and perhaps its subscriber has it already.
    New(&'a Queued, bool),
    /// Its subscriber has it.
    Received,
    Gone,
}

fn session_row(
    session_id: Uuid,
    client: &Client,
    expiry_seconds: u32,
    left_at: Option<schema::clock::Timestamp>,
) -> SessionRow {
    let (device, operator) = owner_columns(&client.owner);
    SessionRow {
        session_id,
        device,
        operator,
        client_id: client.client_id.to_string(),
        expiry_seconds: i64::from(expiry_seconds),
        left_at,
    }
}

fn owner_columns(owner: &Owner) -> (Option<(String, String)>, Option<String>) {
    match owner {
        Owner::Anonymous => (None, None),
        Owner::Device(Identity { tenant_id, device_id }) => {
            (Some((tenant_id.as_str().to_owned(), device_id.as_str().to_owned())), None)
        }
        Owner::Operator(name) => (None, Some(name.to_string())),
    }
}

fn will_row(will: &WaitingWill) -> WillRow {
    let WaitingWill { id, client, topic, payload, qos, retain, carried, expiry_seconds, due_at } = will;
    WillRow {
        will_id: *id,
        device: owner_columns(&client.owner).0,
        client_id: client.client_id.to_string(),
        topic: topic.to_string(),
        payload: payload.clone(),
        qos: *qos as i16,
        retain: *retain,
        properties: carried.clone(),
        expiry_seconds: expiry_seconds.map(i64::from),
        due_at: *due_at,
    }
}

fn subscription_row(session_id: Uuid, subscription: &Subscription) -> SubscriptionRow {
    let Subscription { filter, qos, no_local, retain_as_published, id } = subscription;
    SubscriptionRow {
        session_id,
        filter: filter.to_string(),
        qos: *qos as i16,
        no_local: *no_local,
        retain_as_published: *retain_as_published,
        subscription_id: id.map(|id| i64::from(id.get())),
    }
}

fn received_row(session_id: Uuid, message: &Received) -> ReceivedRow {
    let Received { packet_id, fingerprint } = message;
    let fingerprint = fingerprint.map(|Fingerprint(number)| number.cast_signed());
    ReceivedRow { session_id, packet_id: i32::from(*packet_id), fingerprint }
}

fn queue_row(session_id: Uuid, queued: &Queued, is_received: bool) -> QueueRow {
    let Queued { sequence, publication, qos, retain, subscription_ids, is_received: _, queued_at } = queued;
    let subscription_ids: Vec<String> = subscription_ids.iter().map(NonZeroU32::to_string).collect();
    QueueRow {
        session_id,
        sequence: sequence.cast_signed(),
        message: message_row(publication),
        qos: *qos as i16,
        retain: *retain,
        subscription_ids: subscription_ids.join(","),
        is_received,
        queued_at: *queued_at,
    }
}

fn message_row(publication: &Publication) -> MessageRow {
    let Publication { topic, payload, qos, retain, carried, expires_at, publisher: _ } = publication;
    MessageRow {
        topic: topic.to_string(),
        payload: payload.clone(),
        qos: *qos as i16,
        retain: *retain,
        properties: carried.clone(),
        expires_at: *expires_at,
    }
}

fn stored(rows: door::Stored) -> Stored {
    let door::Stored { sessions, subscriptions, received, queue, wills, retained } = rows;
    let mut by_id: HashMap<Uuid, StoredSession> = HashMap::new();
    for row in sessions {
        let SessionRow { session_id, device, operator, client_id, expiry_seconds, left_at } = row;
        let Some(owner) = owner(device, operator) else { continue };
        let session = StoredSession {
            id: session_id,
            client: Client { owner, client_id: client_id.into() },
            expiry_seconds: u32::try_from(expiry_seconds).unwrap_or(u32::MAX),
            left_at,
            subscriptions: Vec::new(),
            received: Vec::new(),
            queue: Vec::new(),
        };
        by_id.insert(session_id, session);
    }
    for row in subscriptions {
        if let Some(session) = by_id.get_mut(&row.session_id) {
            session.subscriptions.push(subscription(row));
        }
    }
    for ReceivedRow { session_id, packet_id, fingerprint } in received {
        if let (Some(session), Ok(packet_id)) = (by_id.get_mut(&session_id), u16::try_from(packet_id)) {
            let fingerprint = fingerprint.map(|number| Fingerprint(number.cast_unsigned()));
            session.received.push(Received { packet_id, fingerprint });
        }
    }
    for row in queue {
        if let Some(session) = by_id.get_mut(&row.session_id) {
            session.queue.push(queued(row));
        }
    }
    Stored {
        sessions: by_id.into_values().collect(),
        wills: wills.into_iter().filter_map(will).collect(),
        retained: retained.into_iter().map(publication).collect(),
    }
}

/// Whose a row is; `None` for ids that this program does not accept.
fn owner(device: Option<(String, String)>, operator: Option<String>) -> Option<Owner> {
    Some(match (device, operator) {
        (Some((tenant_id, device_id)), _) => Owner::Device(Identity {
            tenant_id: TenantId::new(&tenant_id).ok()?,
            device_id: DeviceId::new(&device_id).ok()?,
        }),
        (None, Some(name)) => Owner::Operator(name.into()),
        (None, None) => Owner::Anonymous,
    })
}

fn will(row: WillRow) -> Option<WaitingWill> {
    let WillRow {
        will_id,
        device,
        client_id,
        topic,
        payload,
        qos,
        retain,
        properties,
        expiry_seconds,
        due_at,
    } = row;
    Some(WaitingWill {
        id: will_id,
        client: Client { owner: owner(device, None)?, client_id: client_id.into() },
        topic: topic.into(),
        payload,
        qos: quality(qos),
        retain,
        carried: properties,
        expiry_seconds: expiry_seconds.map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX)),
        due_at,
    })
}

fn subscription(row: SubscriptionRow) -> Subscription {
    let SubscriptionRow { session_id: _, filter, qos, no_local, retain_as_published, subscription_id } = row;
    Subscription {
        filter: Arc::from(filter),
        qos: quality(qos),
        no_local,
        retain_as_published,
        id: subscription_id.and_then(|id| NonZeroU32::new(u32::try_from(id).ok()?)),
    }
}

fn queued(row: QueueRow) -> Queued {
    let QueueRow { session_id: _, sequence, message, qos, retain, subscription_ids, is_received, queued_at } =
        row;
    Queued {
        sequence: sequence.cast_unsigned(),
        publication: Arc::new(publication(message)),
        qos: quality(qos),
        retain,
        subscription_ids: subscription_ids.split(',').filter_map(|id| id.parse().ok()).collect(),
        is_received,
        queued_at,
    }
}

fn publication(row: MessageRow) -> Publication {
    let MessageRow { topic, payload, qos, retain, properties, expires_at } = row;
    Publication {
        topic: Arc::from(topic),
        payload,
        qos: quality(qos),
        retain,
        carried: properties,
        expires_at,
        publisher: 0,
    }
}

fn quality(qos: i16) -> Qos {
    match qos {
        0 => Qos::AtMostOnce,
        1 => Qos::AtLeastOnce,
        _ => Qos::ExactlyOnce,
    }
}
