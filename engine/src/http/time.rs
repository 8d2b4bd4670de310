//! Times as answers show them.

use schema::clock::Timestamp;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

/// A time in the one form of the wire: UTC, three fraction digits, `Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2026-02-12T09:32:15.052Z")]
pub(super) struct Time(pub Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        schema::wire::time::serialize(&self.0, serializer)
    }
}

impl From<Timestamp> for Time {
    fn from(time: Timestamp) -> Self {
        Self(time)
    }
}
