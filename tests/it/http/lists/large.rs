//! How long the lists take over sixty days of a barn. It prints; run it with `--run-ignored only --no-capture`.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use serde_json::Value;

use super::ONE;
use crate::http::{Face, config};

/// Calls of each list; the slowest of them counts.
const CALLS: usize = 5;
const ANSWER_MAX: Duration = Duration::from_millis(100);

/// Two thousand weighings a day, each with an image and a result, a reading of forty devices every six minutes, 10,000
/// refusals, and 20,000 rows that were given up.
const BARN: &str = "
    INSERT INTO weight_sessions (id, tenant_id, farm_id, barn_id, device_id, session_id, station_id, batch_id, status, start_at,
        end_at, final_weight_kg, image_count, created_event_id, finalized_event_id, created_at, updated_at)
    SELECT gen_random_uuid(), 't-001', 'f-001', 'b-001', 'wv-001', 's-' || i, 'st-01', CASE WHEN i % 2 = 0 THEN 'batch' END, 'finalized',
        now() - i * interval '43 s', now(), 2, 1, 'e', 'f', now() - i * interval '43 s', now() - i * interval '43 s'
    FROM generate_series(1, 120000) AS i;
    INSERT INTO session_media_bindings (id, tenant_id, session_id, media_object_id, occurred_at, event_id, is_bound, created_at)
    SELECT gen_random_uuid(), 't-001', 's-' || i, 'm-' || i, now(), 'm-' || i, true, now() FROM generate_series(1, 120000) AS i;
    INSERT INTO inference_results (id, tenant_id, farm_id, barn_id, device_id, session_id, predicted_weight_kg, confidence,
        model_version, occurred_at, created_at, event_id)
    SELECT gen_random_uuid(), 't-001', 'f-001', 'b-001', 'wv-001', 's-' || i, CASE WHEN i % 1000 = 0 THEN 3 ELSE 2 END, 0.9, 'v',
        now() - i * interval '43 s', now(), gen_random_uuid() FROM generate_series(1, 120000) AS i;
    INSERT INTO session_marks (id, tenant_id, session_id, kind, author, created_at)
    SELECT gen_random_uuid(), 't-001', 's-' || i, 'reviewed', 'operator:#2', now() FROM generate_series(1, 100000) AS i;
    INSERT INTO telemetry_raw (id, tenant_id, farm_id, barn_id, device_id, event_id, metric_type, metric_value, occurred_at, ingested_at)
    SELECT gen_random_uuid(), 't-001', 'f-001', 'b-001', 'd-' || i % 40, 'e-' || i, 'm', 1, now() - i * interval '9 s', now() - i * interval '9 s'
    FROM generate_series(1, 576000) AS i;
    INSERT INTO device_allowlist (tenant_id, device_id, farm_id, barn_id) SELECT 't-001', 'd-' || i, 'f-001', 'b-001' FROM generate_series(0, 39) AS i;
    INSERT INTO ingress_rejects (id, reason, topic, tenant_id, device_id, size_bytes, sha256, rejected_at)
    SELECT gen_random_uuid(), 'TS_INVALID', 'x', 't-001', 'd-' || i % 40, 1, '', now() - i * interval '1 s' FROM generate_series(1, 10000) AS i;
    INSERT INTO sync_outbox (id, tenant_id, farm_id, barn_id, device_id, event_type, payload_json, status, reject_count, failed_at, dlq_reason)
    SELECT gen_random_uuid(), 't-001', 'f', 'b', 'd-' || i % 40, 'telemetry.ingested', '{}', 'failed', 1, now() - i / 100 * interval '1 s', 'r'
    FROM generate_series(1, 20000) AS i;";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "large: `make test-large`"]
async fn each_list_answers_within_a_tenth_of_a_second_over_sixty_days_of_a_barn() {
    let face = Face::of(config()).await;
    face.db.execute(BARN).await;
    face.db.execute("VACUUM ANALYZE").await;
    let mut slow = Vec::new();
    for path in [
        "/api/v1/weighvision/sessions?limit=100",
        "/api/v1/weighvision/sessions?barn_id=b-001&limit=100",
        "/api/v1/weighvision/sessions?batch_id=batch&limit=100",
        "/api/v1/weighvision/sessions?status=created",
        "/api/v1/weighvision/sessions?flag=disagree&limit=20",
        "/api/v1/weighvision/sessions?reviewed=false&limit=20",
        "/api/v1/inference/results?limit=100",
        "/api/v1/inference/results?max_confidence=0.5&limit=20",
        "/api/v1/telemetry/readings?tenant_id=t-001&limit=100",
        "/api/v1/telemetry/readings?tenant_id=t-001&device_id=d-1&limit=100",
        "/api/v1/ingress/rejects?limit=100",
        "/api/v1/ingress/rejects?device_id=d-1&limit=100",
        "/api/v1/devices",
        "/api/v1/stations",
        "/api/v1/sync/dlq?limit=100",
        "/api/v1/sync/dlq?device_id=d-1&limit=100",
    ] {
        let first = slowest(&face, path).await;
        let separator = if path.contains('?') { '&' } else { '?' };
        // The second page costs what the first does: it begins in the index, and not at the beginning of the list.
        let deep = match first.1 {
            Some(next) => Some(slowest(&face, &format!("{path}{separator}after={next}")).await.0),
            None => None,
        };
        eprintln!(
            "{:>9.1?}  {:>9}  {path}",
            first.0,
            deep.map_or("-".to_owned(), |deep| format!("{deep:.1?}"))
        );
        if first.0.max(deep.unwrap_or_default()) > ANSWER_MAX {
            slow.push(path);
        }
    }
    assert!(slow.is_empty(), "slower than {ANSWER_MAX:?}: {slow:?}");
    face.end().await;
}

/// The slowest of a few calls, and where the list goes on.
async fn slowest(face: &Face, path: &str) -> (Duration, Option<String>) {
    let (mut slowest, mut next) = (Duration::ZERO, None);
    for _ in 0..CALLS {
        let begun = Instant::now();
        let (status, body) = face.get(path, &[ONE]).await;
        slowest = slowest.max(begun.elapsed());
        assert_eq!(status, StatusCode::OK, "{path} {body}");
        next = body.get("next").and_then(Value::as_str).map(str::to_owned);
    }
    (slowest, next)
}
