//! The outbox: what the cloud has not acknowledged yet, how batches of it are claimed and settled, and what operators
//! ask about it.
//!
//! `sync_outbox` itself holds only unacknowledged rows; acknowledged ones move to a table per day that inherits from it.
//! Every statement here therefore says `ONLY`. Rows are spread over 16 groups of lanes by a hash of their lane, and a
//! group has at most one batch in flight over all engines (`sync_lane_groups`): this keeps each lane in order while
//! groups travel side by side.

pub mod choose;
pub mod claim;
pub mod lease;
pub mod low_water;
pub mod measure;
pub mod put;
pub mod queries;
pub mod resend;
pub mod settle;
pub mod slot;

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[
    put::PUT,
    claim::CANDIDATES,
    claim::PRIORITY_LANES,
    claim::READ_ROWS,
    claim::UNLOCKED_ROWS,
    claim::TAKE_OVER_ROWS,
    claim::DUE_TENANTS,
    lease::TAKE_GROUPS,
    lease::DROP_GROUPS,
    lease::RELEASE_MINE,
    lease::HOLD_GROUPS,
    lease::RELEASE_GROUPS,
    lease::RENEW_GROUPS,
    lease::RENEW_ROWS,
    lease::MARK_SENT,
    low_water::ADD_MARKS,
    low_water::LOCK_MARKS,
    low_water::ADVANCE,
    slot::TAKE_SLOT,
    settle::ACK_BY_PLACE,
    settle::ACK_BY_KEY,
    settle::RETURN_ROWS,
    settle::REJECT_ROWS,
    queries::OLDEST_PENDING,
    queries::LIST_PENDING,
    queries::LIST_FAILED,
    queries::IN_FLIGHT,
    queries::LIST_IN_FLIGHT_AT,
    queries::LIST_IN_FLIGHT,
    queries::ACKED_TABLES,
    queries::DEAD,
    queries::DEAD_COUNT,
    queries::WAITING_BY_TYPE,
    queries::REDRIVE,
    queries::UNCLAIM_AT,
    queries::UNCLAIM,
    queries::UNCLAIM_GROUPS,
    queries::TENANTS,
    resend::COUNT,
    resend::READINGS,
    resend::RESEND,
];

/// Groups of lanes per tenant; the same number is in the generated column `lane_group`.
pub const LANE_GROUPS: i16 = 16;

/// The groups that partition `partition` of `partitions` works on.
#[must_use]
pub fn groups_of(partition: usize, partitions: usize) -> Vec<i16> {
    (0..LANE_GROUPS)
        .filter(|group| usize::from(group.unsigned_abs()) % partitions.max(1) == partition)
        .collect()
}

/// The lane of a row as SQL; the generated column hashes the same expression.
macro_rules! lane {
    () => {
        "coalesce('s/' || o.session_id, 'd/' || o.device_id, 't/' || o.station_id, '')"
    };
}
/// The order inside a lane as SQL; the index `sync_outbox_order` has the same expression.
macro_rules! in_order {
    () => {
        "coalesce(o.order_at, o.occurred_at, o.created_at), o.seq"
    };
}
pub(crate) use {in_order, lane};
