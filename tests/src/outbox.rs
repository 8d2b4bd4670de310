//! What a sender asks of the outbox.

use chrono::Duration;
use schema::clock::Timestamp;
use schema::id;
use schema::store::outbox::claim::ClaimRequest;

use crate::device::TENANT;

/// How long a claim of [`request`] keeps its lane groups.
pub const LEASE: Duration = Duration::seconds(300);

/// A claim of a batch that has room for everything.
#[must_use]
pub fn request<'a>(holder: &'a str, groups: &'a [i16], at: Timestamp) -> ClaimRequest<'a> {
    ClaimRequest {
        tenant_id: TENANT,
        groups,
        window_rows: 500,
        batch_id: id::new_id(),
        edge_id: "barn-7",
        holder,
        now: at,
        lease: LEASE,
        wait_max: LEASE,
        events_max: 500,
        bytes_max: 1_000_000,
    }
}
