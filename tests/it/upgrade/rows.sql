-- A row in every table, as programs with eight migrations leave them.
INSERT INTO device_allowlist (tenant_id, device_id, farm_id, barn_id) VALUES ('t-001', 'd-001', 'f-001', 'b-001');
INSERT INTO station_allowlist (tenant_id, station_id, farm_id, barn_id) VALUES ('t-001', 'st-01', 'f-001', 'b-001');
INSERT INTO device_credentials (username, tenant_id, device_id, password_hash, created_at, updated_at)
VALUES ('t-001/d-001', 't-001', 'd-001', 'x', now(), now());
INSERT INTO device_last_seen (tenant_id, device_id, last_seen_at, last_topic, updated_at)
VALUES ('t-001', 'd-001', now(), 'iot/telemetry/t-001/f-001/b-001/d-001/temperature', now());
INSERT INTO telemetry_raw (id, tenant_id, farm_id, barn_id, device_id, event_id, metric_type, metric_value, unit, occurred_at, ingested_at)
VALUES (gen_random_uuid(), 't-001', 'f-001', 'b-001', 'd-001', 'e-1', 'temperature', 21.5, 'celsius', now(), now());
INSERT INTO telemetry_agg (id, tenant_id, device_id, "window", bucket_start_at, bucket_end_at, metric_type, avg_value, min_value, max_value, count, created_at)
VALUES (gen_random_uuid(), 't-001', 'd-001', '1m', now(), now(), 'temperature', 1, 1, 1, 1, now());
INSERT INTO telemetry_totals (tenant_id, shard, readings, last_reading_at) VALUES ('t-001', 0, 1, now());
INSERT INTO device_events (id, tenant_id, farm_id, barn_id, device_id, event_id, event_type, occurred_at, ingested_at, payload_json)
VALUES (gen_random_uuid(), 't-001', 'f-001', 'b-001', 'd-001', 'e-2', 'device.online', now(), now(), '{}');
INSERT INTO ingress_dedupe (tenant_id, event_id, first_seen_at, expires_at, topic) VALUES ('t-001', 'e-1', now(), now() + interval '72 hours', 't');
INSERT INTO ingress_rejects (id, reason, topic, size_bytes, sha256, rejected_at) VALUES (gen_random_uuid(), 'BODY_NOT_JSON', 't', 1, 'x', now());
INSERT INTO weight_sessions (id, tenant_id, session_id, farm_id, barn_id, device_id, station_id, start_at, created_event_id, created_at, updated_at)
VALUES (gen_random_uuid(), 't-001', 's-1', 'f-001', 'b-001', 'wv-001', 'st-01', now(), 'e-3', now(), now());
INSERT INTO session_weights (id, tenant_id, session_id, station_id, weight_kg, occurred_at, event_id, is_bound, created_at)
VALUES (gen_random_uuid(), 't-001', 's-1', 'st-01', 2.1, now(), 'e-4', true, now());
INSERT INTO session_media_bindings (id, tenant_id, session_id, media_object_id, occurred_at, event_id, created_at)
VALUES (gen_random_uuid(), 't-001', 's-1', '0190a000-0000-7000-8000-000000000001', now(), 'e-5', now());
INSERT INTO session_parked (tenant_id, event_id, session_id, occurred_at, received_at, expires_at, body_json)
VALUES ('t-001', 'e-6', 's-2', now(), now(), now() + interval '24 hours', '{}');
INSERT INTO dead_letters (id, tenant_id, source, reason, event_type, event_id, body_json, first_seen_at, dead_at)
VALUES (gen_random_uuid(), 't-001', 'session', 'NO_SESSION', 'weighvision.session.finalized', 'e-7', '{}', now(), now());
INSERT INTO media_objects (id, tenant_id, farm_id, barn_id, device_id, session_id, bucket, object_key, mime_type, captured_at, created_at)
VALUES ('0190a000-0000-7000-8000-000000000001', 't-001', 'f-001', 'b-001', 'wv-001', 's-1', 'b', 'k', 'image/jpeg', now(), now());
INSERT INTO media_uploads (media_id, tenant_id, farm_id, barn_id, device_id, bucket, object_key, content_type, status, expires_at, created_at)
VALUES ('0190a000-0000-7000-8000-000000000001', 't-001', 'f-001', 'b-001', 'wv-001', 'b', 'k', 'image/jpeg', 'completed', now(), now());
INSERT INTO inference_jobs (id, tenant_id, farm_id, barn_id, device_id, media_id, object_key, model_version, status, next_attempt_at, created_at, updated_at)
VALUES (gen_random_uuid(), 't-001', 'f-001', 'b-001', 'wv-001', '0190a000-0000-7000-8000-000000000001', 'k', 'm', 'completed', now(), now(), now());
INSERT INTO inference_results (id, tenant_id, farm_id, barn_id, device_id, confidence, model_version, occurred_at, created_at, event_id)
VALUES (gen_random_uuid(), 't-001', 'f-001', 'b-001', 'wv-001', 0.9, 'm', now(), now(), gen_random_uuid());
INSERT INTO sync_outbox (id, tenant_id, farm_id, barn_id, device_id, event_type, order_at, payload_json)
VALUES (gen_random_uuid(), 't-001', 'f-001', 'b-001', 'd-001', 'telemetry.ingested', now(), '{}');
INSERT INTO sync_lane_groups (tenant_id, lane_group, batch_id, claimed_by, lease_expires_at) VALUES ('t-001', 3, gen_random_uuid(), 'edge', now());
INSERT INTO sync_state (tenant_id, updated_at) VALUES ('t-001', now());
INSERT INTO mqtt_sessions (session_id, tenant_id, device_id, client_id, expiry_seconds)
VALUES ('0190a000-0000-7000-8000-000000000002', 't-001', 'd-001', 'c', 3600);
INSERT INTO mqtt_subscriptions (session_id, filter_sha256, filter, qos, no_local, retain_as_published)
VALUES ('0190a000-0000-7000-8000-000000000002', sha256('f'), 'f', 1, false, false);
INSERT INTO mqtt_received (session_id, packet_id) VALUES ('0190a000-0000-7000-8000-000000000002', 1);
INSERT INTO mqtt_queue (session_id, sequence, topic, payload, published_qos, published_retain, properties, qos, retain, subscription_ids, is_received, queued_at)
VALUES ('0190a000-0000-7000-8000-000000000002', 1, 't', 'p', 1, false, '', 1, false, '', false, now());
INSERT INTO mqtt_retained (topic_sha256, topic, payload, qos, properties) VALUES (sha256('t'), 't', 'p', 1, '');
