//! What becomes of a message that is refused for good: it is counted, recorded, and acknowledged after the commit.

use broker::{Delivery, Verdict};
use schema::store::reject::Refusal;
use schema::wire::reject::Reject;
use sha2::{Digest, Sha256};

use crate::ingress::stats::IngressStats;
use crate::telemetry::TelemetryWriters;

/// Counts a refusal, has it recorded, and acknowledges the message then.
pub(crate) fn refuse(
    stats: &IngressStats,
    writers: &TelemetryWriters,
    delivery: Delivery,
    reject: Reject,
    event_id: Option<String>,
) {
    stats.refused(reject);
    tracing::debug!(reason = reject.reason.code(), field = reject.field, topic = %delivery.topic, "message refused");
    let topic = delivery.parsed.as_ref();
    let size_bytes = match delivery.verdict {
        Verdict::TooLarge { size_bytes } => size_bytes,
        Verdict::Admitted | Verdict::AclDenied => delivery.payload.len(),
    };
    let refusal = Refusal {
        reject,
        topic: delivery.topic.to_string(),
        tenant_id: topic.map(|topic| topic.place().tenant_id.to_string()),
        device_id: topic.and_then(|topic| topic.device_id().map(|device_id| device_id.to_string())),
        event_id,
        size_bytes: i32::try_from(size_bytes).unwrap_or(i32::MAX),
        sha256: hex::encode(Sha256::digest(&delivery.payload)),
        rejected_at: delivery.arrived_at,
    };
    writers.refuse(refusal, delivery);
}
