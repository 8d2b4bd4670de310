//! What the MQTT door keeps across restarts: sessions with their subscriptions and queues, last wills that wait, and
//! retained messages.
//!
//! Changes come many at a time and are written as rows: of each kind one statement, whatever the number of rows.

mod keeper;
mod will;

use std::collections::HashSet;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::clock::Timestamp;
pub use crate::store::door::keeper::{Keeper, Retaken};
pub use crate::store::door::will::WillRow;
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[
    SESSIONS,
    SUBSCRIPTIONS,
    RECEIVED,
    QUEUE,
    RETAINED,
    PUT_SESSIONS,
    DELETE_SESSIONS,
    PUT_SUBSCRIPTIONS,
    DELETE_SUBSCRIPTIONS,
    PUT_RECEIVED,
    DELETE_RECEIVED,
    PUT_QUEUE,
    MARK_QUEUE,
    DELETE_QUEUE,
    PUT_RETAINED,
    DELETE_RETAINED,
    MISSING_SESSIONS,
    keeper::TAKE,
    keeper::RAISE,
    keeper::EPOCH,
    will::WILLS,
    will::PUT_WILLS,
    will::DELETE_WILLS,
];

/// A session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// Its key.
    pub session_id: Uuid,
    /// Tenant and device it belongs to, if to one.
    pub device: Option<(String, String)>,
    /// The operator it belongs to, if to one.
    pub operator: Option<String>,
    /// The name its client gave itself.
    pub client_id: String,
    /// Seconds it outlives its connection.
    pub expiry_seconds: i64,
    /// When its connection ended; `None` while it lasted.
    pub left_at: Option<Timestamp>,
}

/// A subscription of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionRow {
    /// The session.
    pub session_id: Uuid,
    /// The filter, with its share name.
    pub filter: String,
    /// 0, 1 or 2.
    pub qos: i16,
    /// Not what the client published itself.
    pub no_local: bool,
    /// With the retain flag as it was published.
    pub retain_as_published: bool,
    /// The number the client gave it.
    pub subscription_id: Option<i64>,
}

/// A packet id that is taken and not released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedRow {
    /// The session.
    pub session_id: Uuid,
    /// The packet id.
    pub packet_id: i32,
    /// What the message was that took it; `None` where an earlier program stored it.
    pub fingerprint: Option<i64>,
}

/// A message as it was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageRow {
    /// Its topic.
    pub topic: String,
    /// Its body.
    pub payload: Bytes,
    /// 0, 1 or 2.
    pub qos: i16,
    /// To be retained.
    pub retain: bool,
    /// Properties of MQTT 5, as they are encoded.
    pub properties: Bytes,
    /// Nobody wants it after this.
    pub expires_at: Option<Timestamp>,
}

/// A message in the queue of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueRow {
    /// The session.
    pub session_id: Uuid,
    /// Its place.
    pub sequence: i64,
    /// The message.
    pub message: MessageRow,
    /// 1 or 2: how it is sent.
    pub qos: i16,
    /// The retain flag it is sent with.
    pub retain: bool,
    /// Numbers of subscriptions, with commas between them.
    pub subscription_ids: String,
    /// The subscriber has it.
    pub is_received: bool,
    /// When it was queued.
    pub queued_at: Timestamp,
}

/// Everything that is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Sessions.
    pub sessions: Vec<SessionRow>,
    /// Their subscriptions.
    pub subscriptions: Vec<SubscriptionRow>,
    /// Their packet ids that are taken and not released.
    pub received: Vec<ReceivedRow>,
    /// Their queues, by session and place.
    pub queue: Vec<QueueRow>,
    /// Last wills that wait.
    pub wills: Vec<WillRow>,
    /// Retained messages.
    pub retained: Vec<MessageRow>,
}

/// What is to be written. No key stands in two lists of the same table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Sessions that began or changed.
    pub sessions: Vec<SessionRow>,
    /// Sessions that are over, with all that belongs to them.
    pub sessions_gone: Vec<Uuid>,
    /// Subscriptions that were made or replaced.
    pub subscriptions: Vec<SubscriptionRow>,
    /// Subscriptions that were taken back.
    pub subscriptions_gone: Vec<(Uuid, String)>,
    /// Packet ids that were taken.
    pub received: Vec<ReceivedRow>,
    /// Packet ids that were released.
    pub received_gone: Vec<(Uuid, i32)>,
    /// Messages that wait.
    pub queue: Vec<QueueRow>,
    /// Messages their subscribers have.
    pub queue_received: Vec<(Uuid, i64)>,
    /// Messages that do not wait any more.
    pub queue_gone: Vec<(Uuid, i64)>,
    /// Last wills that wait from now on.
    pub wills: Vec<WillRow>,
    /// Last wills that do not wait any more.
    pub wills_gone: Vec<Uuid>,
    /// Retained messages.
    pub retained: Vec<MessageRow>,
    /// Topics without a retained message.
    pub retained_gone: Vec<String>,
}

impl Changes {
    /// Sessions whose rows must be there before these changes are written.
    fn needed(&self) -> Vec<Uuid> {
        let subscriptions = self.subscriptions.iter().map(|row| row.session_id);
        let received = self.received.iter().map(|row| row.session_id);
        let queue = self.queue.iter().map(|row| row.session_id);
        let begun: HashSet<Uuid> = self.sessions.iter().map(|row| row.session_id).collect();
        let mut needed: Vec<Uuid> =
            subscriptions.chain(received).chain(queue).filter(|id| !begun.contains(id)).collect();
        needed.sort_unstable();
        needed.dedup();
        needed
    }

    /// Leaves out what belongs to sessions that are gone.
    pub fn leave_out(&mut self, gone: &[Uuid]) {
        self.subscriptions.retain(|row| !gone.contains(&row.session_id));
        self.received.retain(|row| !gone.contains(&row.session_id));
        self.queue.retain(|row| !gone.contains(&row.session_id));
    }
}

const SESSIONS: &str = "-- mqtt_sessions
SELECT session_id, tenant_id, device_id, operator, client_id, expiry_seconds, left_at FROM mqtt_sessions";

const SUBSCRIPTIONS: &str = "-- mqtt_subscriptions
SELECT session_id, filter, qos, no_local, retain_as_published, subscription_id FROM mqtt_subscriptions";

const RECEIVED: &str = "-- mqtt_received
SELECT session_id, packet_id, fingerprint FROM mqtt_received";

const QUEUE: &str = "-- mqtt_queue
SELECT topic, payload, published_qos, published_retain, properties, expires_at,
       session_id, sequence, qos, retain, subscription_ids, is_received, queued_at
FROM mqtt_queue ORDER BY session_id, sequence";

const RETAINED: &str = "-- mqtt_retained
SELECT topic, payload, qos, true, properties, expires_at FROM mqtt_retained";

/// Reads everything.
///
/// # Errors
/// When the database fails.
pub async fn load(conn: &mut Conn) -> Result<Stored, StoreError> {
    conn.transaction("mqtt_load", async |conn| {
        let session = |row: &Row| SessionRow {
            session_id: row.get(0),
            device: row.get::<_, Option<String>>(1).zip(row.get(2)),
            operator: row.get(3),
            client_id: row.get(4),
            expiry_seconds: row.get(5),
            left_at: row.get(6),
        };
        let subscription = |row: &Row| SubscriptionRow {
            session_id: row.get(0),
            filter: row.get(1),
            qos: row.get(2),
            no_local: row.get(3),
            retain_as_published: row.get(4),
            subscription_id: row.get(5),
        };
        let received = |row: &Row| ReceivedRow {
            session_id: row.get(0),
            packet_id: row.get(1),
            fingerprint: row.get(2),
        };
        let queued = |row: &Row| QueueRow {
            message: message(row),
            session_id: row.get(6),
            sequence: row.get(7),
            qos: row.get(8),
            retain: row.get(9),
            subscription_ids: row.get(10),
            is_received: row.get(11),
            queued_at: row.get(12),
        };
        Ok(Stored {
            sessions: conn.query(SESSIONS, &[]).await?.iter().map(session).collect(),
            subscriptions: conn.query(SUBSCRIPTIONS, &[]).await?.iter().map(subscription).collect(),
            received: conn.query(RECEIVED, &[]).await?.iter().map(received).collect(),
            queue: conn.query(QUEUE, &[]).await?.iter().map(queued).collect(),
            wills: will::load(conn).await?,
            retained: load_retained(conn).await?,
        })
    })
    .await
}

/// Reads the retained messages.
///
/// # Errors
/// When the database fails.
pub async fn load_retained(conn: &Conn) -> Result<Vec<MessageRow>, StoreError> {
    Ok(conn.query(RETAINED, &[]).await?.iter().map(message).collect())
}

fn message(row: &Row) -> MessageRow {
    MessageRow {
        topic: row.get(0),
        payload: Bytes::from(row.get::<_, Vec<u8>>(1)),
        qos: row.get(2),
        retain: row.get(3),
        properties: Bytes::from(row.get::<_, Vec<u8>>(4)),
        expires_at: row.get(5),
    }
}

const MISSING_SESSIONS: &str = "-- mqtt_missing_sessions
SELECT id FROM unnest($1::uuid[]) AS id WHERE NOT EXISTS (SELECT FROM mqtt_sessions WHERE session_id = id)";

/// The sessions whose rows changes need and that are not there any more: somebody deleted them.
///
/// # Errors
/// When the database fails.
pub async fn missing_sessions(conn: &Conn, changes: &Changes) -> Result<Vec<Uuid>, StoreError> {
    let rows = conn.query(MISSING_SESSIONS, &[&changes.needed()]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

const PUT_SESSIONS: &str = "-- mqtt_put_sessions
INSERT INTO mqtt_sessions (session_id, tenant_id, device_id, operator, client_id, expiry_seconds, left_at)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::timestamptz[])
ON CONFLICT (session_id) DO UPDATE SET expiry_seconds = excluded.expiry_seconds, left_at = excluded.left_at";

const DELETE_SESSIONS: &str = "-- mqtt_delete_sessions
DELETE FROM mqtt_sessions WHERE session_id = ANY($1)";

const PUT_SUBSCRIPTIONS: &str = "-- mqtt_put_subscriptions
INSERT INTO mqtt_subscriptions
    (session_id, filter_sha256, filter, qos, no_local, retain_as_published, subscription_id)
SELECT * FROM unnest($1::uuid[], $2::bytea[], $3::text[], $4::smallint[], $5::boolean[], $6::boolean[], $7::bigint[])
ON CONFLICT (session_id, filter_sha256) DO UPDATE SET qos = excluded.qos, no_local = excluded.no_local,
    retain_as_published = excluded.retain_as_published, subscription_id = excluded.subscription_id";

const DELETE_SUBSCRIPTIONS: &str = "-- mqtt_delete_subscriptions
DELETE FROM mqtt_subscriptions AS known USING unnest($1::uuid[], $2::bytea[]) AS gone (session_id, filter_sha256)
WHERE known.session_id = gone.session_id AND known.filter_sha256 = gone.filter_sha256";

const PUT_RECEIVED: &str = "-- mqtt_put_received
INSERT INTO mqtt_received (session_id, packet_id, fingerprint)
SELECT * FROM unnest($1::uuid[], $2::integer[], $3::bigint[])
ON CONFLICT (session_id, packet_id) DO UPDATE SET fingerprint = excluded.fingerprint";

const DELETE_RECEIVED: &str = "-- mqtt_delete_received
DELETE FROM mqtt_received AS known USING unnest($1::uuid[], $2::integer[]) AS gone (session_id, packet_id)
WHERE known.session_id = gone.session_id AND known.packet_id = gone.packet_id";

const PUT_QUEUE: &str = "-- mqtt_put_queue
INSERT INTO mqtt_queue (session_id, sequence, topic, payload, published_qos, published_retain, properties, expires_at,
    qos, retain, subscription_ids, is_received, queued_at)
SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::bytea[], $5::smallint[], $6::boolean[], $7::bytea[],
    $8::timestamptz[], $9::smallint[], $10::boolean[], $11::text[], $12::boolean[], $13::timestamptz[])
ON CONFLICT DO NOTHING";

const MARK_QUEUE: &str = "-- mqtt_mark_queue
UPDATE mqtt_queue AS known SET is_received = true FROM unnest($1::uuid[], $2::bigint[]) AS taken (session_id, sequence)
WHERE known.session_id = taken.session_id AND known.sequence = taken.sequence";

const DELETE_QUEUE: &str = "-- mqtt_delete_queue
DELETE FROM mqtt_queue AS known USING unnest($1::uuid[], $2::bigint[]) AS gone (session_id, sequence)
WHERE known.session_id = gone.session_id AND known.sequence = gone.sequence";

const PUT_RETAINED: &str = "-- mqtt_put_retained
INSERT INTO mqtt_retained (topic_sha256, topic, payload, qos, properties, expires_at)
SELECT * FROM unnest($1::bytea[], $2::text[], $3::bytea[], $4::smallint[], $5::bytea[], $6::timestamptz[])
ON CONFLICT (topic_sha256) DO UPDATE SET payload = excluded.payload, qos = excluded.qos,
    properties = excluded.properties, expires_at = excluded.expires_at";

const DELETE_RETAINED: &str = "-- mqtt_delete_retained
DELETE FROM mqtt_retained WHERE topic_sha256 = ANY($1)";

/// Writes changes, all or none of them. Writing them once more changes nothing.
///
/// # Errors
/// When the database fails.
pub async fn apply(conn: &mut Conn, changes: &Changes) -> Result<(), StoreError> {
    conn.transaction("mqtt_apply", async |conn| {
        delete_sessions(conn, &changes.sessions_gone).await?;
        put_sessions(conn, &changes.sessions).await?;
        put_subscriptions(conn, &changes.subscriptions).await?;
        if !changes.subscriptions_gone.is_empty() {
            let (ids, filters): (Vec<Uuid>, Vec<Vec<u8>>) =
                changes.subscriptions_gone.iter().map(|(id, filter)| (*id, sha256(filter))).unzip();
            conn.execute(DELETE_SUBSCRIPTIONS, &[&ids, &filters]).await?;
        }
        put_received(conn, &changes.received).await?;
        run_pairs(conn, DELETE_RECEIVED, &changes.received_gone).await?;
        put_queue(conn, &changes.queue).await?;
        run_pairs(conn, MARK_QUEUE, &changes.queue_received).await?;
        run_pairs(conn, DELETE_QUEUE, &changes.queue_gone).await?;
        will::put(conn, &changes.wills).await?;
        will::delete(conn, &changes.wills_gone).await?;
        put_retained(conn, &changes.retained).await?;
        if !changes.retained_gone.is_empty() {
            let topics: Vec<Vec<u8>> = changes.retained_gone.iter().map(|topic| sha256(topic)).collect();
            conn.execute(DELETE_RETAINED, &[&topics]).await?;
        }
        Ok(())
    })
    .await
}

async fn delete_sessions(conn: &Conn, gone: &[Uuid]) -> Result<(), StoreError> {
    if !gone.is_empty() {
        conn.execute(DELETE_SESSIONS, &[&gone]).await?;
    }
    Ok(())
}

async fn put_sessions(conn: &Conn, rows: &[SessionRow]) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let column = |of: fn(&SessionRow) -> Option<&str>| rows.iter().map(of).collect::<Vec<_>>();
    let ids: Vec<Uuid> = rows.iter().map(|row| row.session_id).collect();
    let tenants = column(|row| row.device.as_ref().map(|(tenant, _)| tenant.as_str()));
    let devices = column(|row| row.device.as_ref().map(|(_, device)| device.as_str()));
    let operators = column(|row| row.operator.as_deref());
    let clients = column(|row| Some(&row.client_id));
    let expiries: Vec<i64> = rows.iter().map(|row| row.expiry_seconds).collect();
    let left: Vec<Option<Timestamp>> = rows.iter().map(|row| row.left_at).collect();
    conn.execute(PUT_SESSIONS, &[&ids, &tenants, &devices, &operators, &clients, &expiries, &left]).await?;
    Ok(())
}

async fn put_subscriptions(conn: &Conn, rows: &[SubscriptionRow]) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = rows.iter().map(|row| row.session_id).collect();
    let hashes: Vec<Vec<u8>> = rows.iter().map(|row| sha256(&row.filter)).collect();
    let filters: Vec<&str> = rows.iter().map(|row| row.filter.as_str()).collect();
    let qualities: Vec<i16> = rows.iter().map(|row| row.qos).collect();
    let no_local: Vec<bool> = rows.iter().map(|row| row.no_local).collect();
    let retain: Vec<bool> = rows.iter().map(|row| row.retain_as_published).collect();
    let numbers: Vec<Option<i64>> = rows.iter().map(|row| row.subscription_id).collect();
    conn.execute(PUT_SUBSCRIPTIONS, &[&ids, &hashes, &filters, &qualities, &no_local, &retain, &numbers])
        .await?;
    Ok(())
}

async fn put_received(conn: &Conn, rows: &[ReceivedRow]) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = rows.iter().map(|row| row.session_id).collect();
    let packet_ids: Vec<i32> = rows.iter().map(|row| row.packet_id).collect();
    let fingerprints: Vec<Option<i64>> = rows.iter().map(|row| row.fingerprint).collect();
    conn.execute(PUT_RECEIVED, &[&ids, &packet_ids, &fingerprints]).await?;
    Ok(())
}

async fn put_queue(conn: &Conn, rows: &[QueueRow]) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = rows.iter().map(|row| row.session_id).collect();
    let sequences: Vec<i64> = rows.iter().map(|row| row.sequence).collect();
    let topics: Vec<&str> = rows.iter().map(|row| row.message.topic.as_str()).collect();
    let payloads: Vec<&[u8]> = rows.iter().map(|row| &*row.message.payload).collect();
    let published: Vec<i16> = rows.iter().map(|row| row.message.qos).collect();
    let published_retain: Vec<bool> = rows.iter().map(|row| row.message.retain).collect();
    let properties: Vec<&[u8]> = rows.iter().map(|row| &*row.message.properties).collect();
    let expiries: Vec<Option<Timestamp>> = rows.iter().map(|row| row.message.expires_at).collect();
    let qualities: Vec<i16> = rows.iter().map(|row| row.qos).collect();
    let retain: Vec<bool> = rows.iter().map(|row| row.retain).collect();
    let numbers: Vec<&str> = rows.iter().map(|row| row.subscription_ids.as_str()).collect();
    let received: Vec<bool> = rows.iter().map(|row| row.is_received).collect();
    let queued: Vec<Timestamp> = rows.iter().map(|row| row.queued_at).collect();
    conn.execute(
        PUT_QUEUE,
        &[
            &ids,
            &sequences,
            &topics,
            &payloads,
            &published,
            &published_retain,
            &properties,
            &expiries,
            &qualities,
            &retain,
            &numbers,
            &received,
            &queued,
        ],
    )
    .await?;
    Ok(())
}

async fn put_retained(conn: &Conn, rows: &[MessageRow]) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let hashes: Vec<Vec<u8>> = rows.iter().map(|row| sha256(&row.topic)).collect();
    let topics: Vec<&str> = rows.iter().map(|row| row.topic.as_str()).collect();
    let payloads: Vec<&[u8]> = rows.iter().map(|row| &*row.payload).collect();
    let qualities: Vec<i16> = rows.iter().map(|row| row.qos).collect();
    let properties: Vec<&[u8]> = rows.iter().map(|row| &*row.properties).collect();
    let expiries: Vec<Option<Timestamp>> = rows.iter().map(|row| row.expires_at).collect();
    conn.execute(PUT_RETAINED, &[&hashes, &topics, &payloads, &qualities, &properties, &expiries]).await?;
    Ok(())
}

/// Runs a statement over pairs of a session and a number, unless there is none.
async fn run_pairs<N>(conn: &Conn, sql: &str, pairs: &[(Uuid, N)]) -> Result<(), StoreError>
where
    N: Copy + Sync + tokio_postgres::types::ToSql,
{
    if !pairs.is_empty() {
        let (ids, numbers): (Vec<Uuid>, Vec<N>) = pairs.iter().copied().unzip();
        conn.execute(sql, &[&ids, &numbers]).await?;
    }
    Ok(())
}

fn sha256(text: &str) -> Vec<u8> {
    Sha256::digest(text).to_vec()
}
