//! Last wills whose clients have gone and may still come back.

use bytes::Bytes;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::store::{Conn, StoreError};

pub(super) const WILLS: &str = "-- mqtt_wills
SELECT will_id, tenant_id, device_id, client_id, topic, payload, qos, retain, properties, expiry_seconds, due_at
FROM mqtt_wills";

pub(super) const PUT_WILLS: &str = "-- mqtt_put_wills
INSERT INTO mqtt_wills (will_id, tenant_id, device_id, client_id, topic, payload, qos, retain, properties,
    expiry_seconds, due_at)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::smallint[],
    $8::boolean[], $9::bytea[], $10::bigint[], $11::timestamptz[])
ON CONFLICT DO NOTHING";

pub(super) const DELETE_WILLS: &str = "-- mqtt_delete_wills
DELETE FROM mqtt_wills WHERE will_id = ANY($1)";

/// A last will that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WillRow {
    /// Its key.
    pub will_id: Uuid,
    /// Tenant and device it belongs to, if to one.
    pub device: Option<(String, String)>,
    /// The name its client gave itself.
    pub client_id: String,
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
    /// Seconds after its publication in which it is of use.
    pub expiry_seconds: Option<i64>,
    /// When it is published.
    pub due_at: Timestamp,
}

pub(super) async fn load(conn: &Conn) -> Result<Vec<WillRow>, StoreError> {
    let will = |row: &Row| WillRow {
        will_id: row.get(0),
        device: row.get::<_, Option<String>>(1).zip(row.get(2)),
        client_id: row.get(3),
        topic: row.get(4),
        payload: Bytes::from(row.get::<_, Vec<u8>>(5)),
        qos: row.get(6),
        retain: row.get(7),
        properties: Bytes::from(row.get::<_, Vec<u8>>(8)),
        expiry_seconds: row.get(9),
        due_at: row.get(10),
    };
    Ok(conn.query(WILLS, &[]).await?.iter().map(will).collect())
}

pub(super) async fn put(conn: &Conn, rows: &[WillRow]) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = rows.iter().map(|row| row.will_id).collect();
    let tenants: Vec<_> = rows.iter().map(|row| row.device.as_ref().map(|(tenant, _)| tenant)).collect();
    let devices: Vec<_> = rows.iter().map(|row| row.device.as_ref().map(|(_, device)| device)).collect();
    let clients: Vec<&str> = rows.iter().map(|row| row.client_id.as_str()).collect();
    let topics: Vec<&str> = rows.iter().map(|row| row.topic.as_str()).collect();
    let payloads: Vec<&[u8]> = rows.iter().map(|row| &*row.payload).collect();
    let qualities: Vec<i16> = rows.iter().map(|row| row.qos).collect();
    let retain: Vec<bool> = rows.iter().map(|row| row.retain).collect();
    let properties: Vec<&[u8]> = rows.iter().map(|row| &*row.properties).collect();
    let expiries: Vec<Option<i64>> = rows.iter().map(|row| row.expiry_seconds).collect();
    let due: Vec<Timestamp> = rows.iter().map(|row| row.due_at).collect();
    conn.execute(
        PUT_WILLS,
        &[
            &ids,
            &tenants,
            &devices,
            &clients,
            &topics,
            &payloads,
            &qualities,
            &retain,
            &properties,
            &expiries,
            &due,
        ],
    )
    .await?;
    Ok(())
}

pub(super) async fn delete(conn: &Conn, gone: &[Uuid]) -> Result<(), StoreError> {
    if !gone.is_empty() {
        conn.execute(DELETE_WILLS, &[&gone]).await?;
    }
    Ok(())
}
