//! The audit log: who did what, to which, when and from where.
//!
//! A row is written in the transaction of what it tells of, or before it, so that nothing is done without one.

use serde_json::Value;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::id;
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[RECORD, LIST];

/// Rows of one list at most.
const LIST_ROWS_MAX: i64 = 1000;

/// Who does something, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// `operator:` and the name of a key, `shell:` and a user id, or `anyone`, where no key is needed.
    pub actor: String,
    /// An address, or the name of a machine.
    pub origin: String,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A device is let in.
    DeviceAdd,
    /// A device gets another password.
    DeviceRotate,
    /// A device is put out.
    DeviceRevoke,
    /// It is said where a device is.
    PlacePut,
    /// The place of a device is forgotten.
    PlaceRemove,
    /// A station is let in.
    StationAdd,
    /// A station is silenced.
    StationRevoke,
    /// Dead letters are taken up again.
    Redrive,
    /// Dead letters are thrown away.
    Discard,
    /// Rows of a sender that was lost are freed.
    Unclaim,
    /// A pass over what has become old is ordered.
    JanitorRun,
    /// What the cloud has acknowledged is sent again.
    Resend,
    /// An attempt to send is ordered.
    SyncTrigger,
    /// What is known of a barn changes.
    BarnPut,
    /// A standard is brought.
    StandardImport,
    /// A standard is made of own flocks.
    StandardDerive,
    /// A flock is placed.
    FlockCreate,
    /// A flock ends.
    FlockEnd,
    /// Something is written down of a flock.
    FlockRecord,
    /// What was written down of a flock is corrected.
    FlockCorrect,
    /// A weighing is kept out of the statistics.
    SessionExclude,
    /// A weighing enters the statistics again.
    SessionInclude,
    /// A person is let in to the console once.
    ConsoleInvite,
    /// Somebody logs in to the console.
    ConsoleLogin,
    /// Somebody leaves the console.
    ConsoleLogout,
    /// A person's logins to the console end.
    ConsoleEnd,
    /// Somebody knows of an alarm.
    AlarmAcknowledge,
    /// An alarm is put aside.
    AlarmShelve,
    /// An alarm is taken up again.
    AlarmUnshelve,
    /// The sensor of an alarm is taken out of service.
    AlarmOutOfService,
    /// The sensor of an alarm is put back into service.
    AlarmInService,
    /// A rule of alarms is edited.
    AlarmRule,
    /// What a house is doing changes.
    AlarmMode,
    /// A drill is begun or answered.
    AlarmDrill,
    /// Another model is used from then on.
    ModelSwitch,
    /// A backup is restored: what came in after it is not there.
    Restore,
}

impl Action {
    /// The text in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DeviceAdd => "device.add",
            Self::DeviceRotate => "device.rotate",
            Self::DeviceRevoke => "device.revoke",
            Self::PlacePut => "place.put",
            Self::PlaceRemove => "place.remove",
            Self::StationAdd => "station.add",
            Self::StationRevoke => "station.revoke",
            Self::Redrive => "redrive",
            Self::Discard => "discard",
            Self::Unclaim => "unclaim",
            Self::JanitorRun => "janitor.run",
            Self::Resend => "sync.resend",
            Self::SyncTrigger => "sync.trigger",
            Self::BarnPut => "barn.put",
            Self::StandardImport => "standard.import",
            Self::StandardDerive => "standard.derive",
            Self::FlockCreate => "flock.create",
            Self::FlockEnd => "flock.end",
            Self::FlockRecord => "flock.record",
            Self::FlockCorrect => "flock.correct",
            Self::SessionExclude => "session.exclude",
            Self::SessionInclude => "session.include",
            Self::ConsoleInvite => "console.invite",
            Self::ConsoleLogin => "console.login",
            Self::ConsoleLogout => "console.logout",
            Self::ConsoleEnd => "console.end",
            Self::AlarmAcknowledge => "alarm.acknowledge",
            Self::AlarmShelve => "alarm.shelve",
            Self::AlarmUnshelve => "alarm.unshelve",
            Self::AlarmOutOfService => "alarm.out_of_service",
            Self::AlarmInService => "alarm.in_service",
            Self::AlarmRule => "alarm.rule",
            Self::AlarmMode => "alarm.mode",
            Self::AlarmDrill => "alarm.drill",
            Self::ModelSwitch => "model.switch",
            Self::Restore => "restore",
        }
    }
}

/// Something that somebody does.
#[derive(Clone, Debug)]
pub struct Deed<'a> {
    /// What.
    pub action: Action,
    /// To whose rows; `None` means the whole box, or every tenant.
    pub tenants: Option<&'a [String]>,
    /// To which: a device, for example.
    pub target: Option<&'a str>,
    /// How, as an object. No secret belongs here.
    pub detail: Value,
}

const RECORD: &str = "-- audit_record
INSERT INTO audit_log (id, happened_at, actor, origin, action, tenant_id, target, detail_json)
SELECT t.id, $3, $4, $5, $6, t.tenant_id, $7, $8 FROM unnest($1::uuid[], $2::text[]) AS t (id, tenant_id)";

/// Writes a deed down, one row for each tenant, as part of the caller's transaction.
///
/// # Errors
/// When the database fails.
pub async fn record(conn: &Conn, author: &Author, deed: &Deed<'_>, now: Timestamp) -> Result<(), StoreError> {
    let tenants: Vec<Option<&str>> = match deed.tenants {
        Some(tenants) => tenants.iter().map(|tenant_id| Some(tenant_id.as_str())).collect(),
        None => vec![None],
    };
    let ids: Vec<Uuid> = tenants.iter().map(|_| id::new_id()).collect();
    let Author { actor, origin } = author;
    conn.execute(
        RECORD,
        &[&ids, &tenants, &now, actor, origin, &deed.action.as_str(), &deed.target, &deed.detail],
    )
    .await?;
    Ok(())
}

/// A row of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Row id; ids grow with time.
    pub id: Uuid,
    /// When.
    pub happened_at: Timestamp,
    /// Who.
    pub actor: String,
    /// From where.
    pub origin: String,
    /// What, as [`Action::as_str`] says it.
    pub action: String,
    /// Whose rows; `None` means the whole box.
    pub tenant_id: Option<String>,
    /// To which.
    pub target: Option<String>,
    /// How.
    pub detail: Value,
}

const LIST: &str = "-- audit_list
SELECT id, happened_at, actor, origin, action, tenant_id, target, detail_json FROM audit_log
WHERE ($1::text[] IS NULL OR tenant_id = ANY ($1)) AND ($2::uuid IS NULL OR id < $2)
ORDER BY id DESC LIMIT $3";

/// Rows of these tenants, newest first, behind `before`; `None` means every row, also those of the whole box.
///
/// # Errors
/// When the database fails.
pub async fn list(
    conn: &Conn,
    tenants: Option<&[String]>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Entry>, StoreError> {
    let rows = conn.query(LIST, &[&tenants, &before, &limit.clamp(0, LIST_ROWS_MAX)]).await?;
    let entry = |row: &tokio_postgres::Row| Entry {
        id: row.get(0),
        happened_at: row.get(1),
        actor: row.get(2),
        origin: row.get(3),
        action: row.get(4),
        tenant_id: row.get(5),
        target: row.get(6),
        detail: row.get(7),
    };
    Ok(rows.iter().map(entry).collect())
}
