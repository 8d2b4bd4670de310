-- All tables of the engine. Times are set from parameters by the engine; the defaults serve rows that operators insert by hand.

-- Readings, partitioned by month of occurred_at; monthly partitions are made ahead, odd times go to the default one.
CREATE TABLE telemetry_raw (
    id uuid NOT NULL,
    tenant_id text NOT NULL,
    farm_id text,
    barn_id text,
    device_id text NOT NULL,
    event_id text NOT NULL,
    metric_type text NOT NULL,
    metric_value double precision NOT NULL CHECK (abs(metric_value) < 'Infinity'::float8),
    unit text,
    occurred_at timestamptz NOT NULL,
    ingested_at timestamptz NOT NULL,
    trace_id text,
    PRIMARY KEY (id, occurred_at),
    -- The time comes before the event id, so that new keys, whose ids are random, land on the same few pages.
    -- It is the index of queries by tenant as well.
    UNIQUE (tenant_id, occurred_at, event_id)
) PARTITION BY RANGE (occurred_at);
CREATE TABLE telemetry_raw_default PARTITION OF telemetry_raw DEFAULT;
CREATE INDEX telemetry_raw_device ON telemetry_raw (tenant_id, device_id, occurred_at DESC);
CREATE INDEX telemetry_raw_ingested ON telemetry_raw USING brin (ingested_at, occurred_at) WITH (pages_per_range = 32);

CREATE TABLE telemetry_agg (
    id uuid PRIMARY KEY,
    tenant_id text NOT NULL,
    device_id text NOT NULL,
    "window" text NOT NULL CHECK ("window" IN ('1m', '1h', '1d')),
    bucket_start_at timestamptz NOT NULL,
    bucket_end_at timestamptz NOT NULL,
    metric_type text NOT NULL,
    avg_value double precision NOT NULL CHECK (abs(avg_value) < 'Infinity'::float8),
    min_value double precision NOT NULL CHECK (abs(min_value) < 'Infinity'::float8),
    max_value double precision NOT NULL CHECK (abs(max_value) < 'Infinity'::float8),
    count int NOT NULL,
    created_at timestamptz NOT NULL,
    UNIQUE (tenant_id, device_id, "window", bucket_start_at, metric_type)
);
CREATE INDEX telemetry_agg_time ON telemetry_agg ("window", bucket_start_at DESC, tenant_id);

-- How far the aggregation has come: one row, whose lock makes it the work of one engine at a time.
CREATE TABLE telemetry_agg_progress (
    id int PRIMARY KEY CHECK (id = 1),
    closed_until timestamptz,
    ingested_until timestamptz
);
INSERT INTO telemetry_agg_progress (id) VALUES (1);

-- Readings stored per tenant, counted in the transactions that store them; a shard per writer keeps writers apart.
CREATE TABLE telemetry_totals (
    tenant_id text NOT NULL,
    shard int NOT NULL,
    readings bigint NOT NULL,
    last_reading_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, shard)
) WITH (fillfactor = 50);

CREATE TABLE weight_sessions (
    id uuid PRIMARY KEY,
    tenant_id text NOT NULL,
    session_id text NOT NULL,
    farm_id text NOT NULL,
    barn_id text NOT NULL,
    device_id text NOT NULL,
    station_id text NOT NULL,
    batch_id text,
    status text NOT NULL DEFAULT 'created' CHECK (status IN ('created', 'finalized', 'cancelled')),
    start_at timestamptz NOT NULL,
    end_at timestamptz,
    initial_weight_kg double precision CHECK (abs(initial_weight_kg) < 'Infinity'::float8),
    final_weight_kg double precision CHECK (abs(final_weight_kg) < 'Infinity'::float8),
    image_count int NOT NULL DEFAULT 0,
    inference_result_id text,
    created_event_id text NOT NULL,
    finalized_event_id text,
    amendment_count int NOT NULL DEFAULT 0,
    trace_id text,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    UNIQUE (tenant_id, session_id),
    CHECK ((status = 'finalized') = (end_at IS NOT NULL AND finalized_event_id IS NOT NULL))
);
CREATE INDEX weight_sessions_device ON weight_sessions (tenant_id, device_id, start_at DESC);
CREATE INDEX weight_sessions_status ON weight_sessions (tenant_id, status, start_at DESC);

CREATE TABLE session_weights (
    id uuid PRIMARY KEY,
    tenant_id text NOT NULL,
    session_id text NOT NULL,
    station_id text,
    weight_kg double precision NOT NULL CHECK (abs(weight_kg) < 'Infinity'::float8),
    occurred_at timestamptz NOT NULL,
    event_id text NOT NULL,
    trace_id text,
    is_bound boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL,
    UNIQUE (tenant_id, event_id)
);
CREATE INDEX session_weights_session ON session_weights (tenant_id, session_id, occurred_at);

CREATE TABLE session_media_bindings (
    id uuid PRIMARY KEY,
    tenant_id text NOT NULL,
    session_id text NOT NULL,
    media_object_id text NOT NULL,
    station_id text,
    occurred_at timestamptz NOT NULL,
    event_id text NOT NULL,
    image_role text,
    trace_id text,
    is_bound boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL,
    UNIQUE (tenant_id, event_id),
    UNIQUE (tenant_id, session_id, media_object_id)
);

CREATE TABLE session_parked (
    tenant_id text NOT NULL,
    event_id text NOT NULL,
    session_id text NOT NULL,
    device_id text,
    station_id text,
    occurred_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    trace_id text,
    body_json jsonb NOT NULL,
    PRIMARY KEY (tenant_id, event_id)
);
CREATE INDEX session_parked_session ON session_parked (tenant_id, session_id);
CREATE INDEX session_parked_expiry ON session_parked (expires_at);

CREATE TABLE dead_letters (
    id uuid PRIMARY KEY,
    tenant_id text NOT NULL,
    source text NOT NULL CHECK (source IN ('session', 'media', 'inference')),
    reason text NOT NULL,
    event_type text NOT NULL,
    event_id text,
    session_id text,
    device_id text,
    body_json jsonb NOT NULL,
    attempt_count int NOT NULL DEFAULT 0,
    trace_id text,
    first_seen_at timestamptz NOT NULL,
    dead_at timestamptz NOT NULL,
    redriven_at timestamptz,
    redrive_reason text
);
CREATE UNIQUE INDEX dead_letters_open ON dead_letters (tenant_id, source, event_id) WHERE redriven_at IS NULL;
CREATE INDEX dead_letters_newest ON dead_letters (tenant_id, dead_at DESC);

CREATE TABLE media_objects (
    id uuid NOT NULL,
    tenant_id text NOT NULL,
    farm_id text NOT NULL,
    barn_id text NOT NULL,
    device_id text NOT NULL,
    session_id text,
    bucket text NOT NULL,
    object_key text NOT NULL,
    path text,
    etag text,
    mime_type text NOT NULL,
    size_bytes bigint,
    sha256 text,
    sha256_source text CHECK (sha256_source IN ('computed', 'declared')),
    captured_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, object_key),
    UNIQUE (bucket, object_key)
);
CREATE INDEX media_objects_session ON media_objects (tenant_id, session_id);
CREATE INDEX media_objects_device ON media_objects (tenant_id, device_id, captured_at DESC);
CREATE INDEX media_objects_captured ON media_objects (captured_at);

CREATE TABLE media_uploads (
    media_id uuid NOT NULL,
    tenant_id text NOT NULL,
    farm_id text NOT NULL,
    barn_id text NOT NULL,
    device_id text NOT NULL,
    station_id text,
    session_id text,
    bucket text NOT NULL,
    object_key text NOT NULL,
    content_type text NOT NULL,
    content_length bigint,
    captured_at timestamptz,
    trace_id text,
    status text NOT NULL CHECK (status IN ('presigned', 'uploaded', 'completed', 'expired')),
    path text,
    size_bytes bigint,
    sha256 text,
    expires_at timestamptz NOT NULL,
    uploaded_at timestamptz,
    completed_at timestamptz,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, media_id)
);
CREATE INDEX media_uploads_due ON media_uploads (status, expires_at);

CREATE TABLE inference_jobs (
    id uuid NOT NULL,
    tenant_id text NOT NULL,
    farm_id text NOT NULL,
    barn_id text NOT NULL,
    device_id text NOT NULL,
    media_id uuid NOT NULL,
    object_key text NOT NULL,
    session_id text,
    model_version text NOT NULL,
    status text NOT NULL CHECK (status IN ('pending', 'processing', 'completed', 'failed')),
    attempt_count int NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL,
    claimed_by text,
    lease_expires_at timestamptz,
    last_error text,
    result_id uuid,
    trace_id text,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX inference_jobs_due ON inference_jobs (status, next_attempt_at);

CREATE TABLE inference_results (
    id uuid NOT NULL,
    tenant_id text NOT NULL,
    farm_id text NOT NULL,
    barn_id text NOT NULL,
    device_id text NOT NULL,
    session_id text,
    media_id text,
    predicted_weight_kg double precision CHECK (abs(predicted_weight_kg) < 'Infinity'::float8),
    predicted_size text,
    confidence double precision NOT NULL CHECK (confidence BETWEEN 0 AND 1),
    model_version text NOT NULL,
    occurred_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    metadata jsonb,
    event_id uuid NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, event_id)
);
CREATE INDEX inference_results_session ON inference_results (tenant_id, session_id);
CREATE INDEX inference_results_device ON inference_results (tenant_id, device_id, occurred_at DESC);

-- The outbox holds what the cloud has not acknowledged yet. Its status stands in no index, so that claiming a row
-- rewrites the row alone (a heap-only update; half of each page is left free for it).
CREATE TABLE sync_outbox (
    id uuid NOT NULL,
    tenant_id text NOT NULL,
    farm_id text,
    barn_id text,
    device_id text,
    station_id text,
    session_id text,
    event_type text NOT NULL,
    occurred_at timestamptz DEFAULT now(),
    order_at timestamptz,
    seq bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    trace_id text,
    payload_json jsonb NOT NULL,
    payload_size_bytes int,
    status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'claimed', 'sent', 'acked', 'failed')),
    priority int NOT NULL DEFAULT 0,
    attempt_count int NOT NULL DEFAULT 0,
    reject_count int NOT NULL DEFAULT 0,
    last_attempt_at timestamptz,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    claimed_by text,
    claimed_at timestamptz,
    lease_expires_at timestamptz,
    batch_id uuid,
    last_error_code text,
    last_error_message text,
    failed_at timestamptz,
    dlq_reason text,
    acked_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    -- Lanes are spread over 16 groups. A group has one batch in flight, which keeps each lane in order while
    -- groups travel side by side.
    lane_group smallint NOT NULL GENERATED ALWAYS AS (
        (hashtextextended(coalesce('s/' || session_id, 'd/' || device_id, 't/' || station_id, ''), 0) & 15)::smallint
    ) STORED,
    PRIMARY KEY (tenant_id, id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
        autovacuum_vacuum_cost_delay = 0);
-- The order of sending. Failed rows wait for a person and are not in the way.
CREATE INDEX sync_outbox_order ON sync_outbox (tenant_id, lane_group, coalesce(order_at, occurred_at, created_at), seq)
    WHERE failed_at IS NULL;
-- The few rows that hold their lane back or wait for a person.
CREATE INDEX sync_outbox_held ON sync_outbox (tenant_id, lane_group, failed_at DESC) WHERE reject_count > 0 OR failed_at IS NOT NULL;
CREATE INDEX sync_outbox_created ON sync_outbox (tenant_id, session_id) WHERE event_type = 'weighvision.session.created';
CREATE INDEX sync_outbox_priority ON sync_outbox (tenant_id, priority DESC) WHERE priority <> 0;

-- A group of lanes with a batch in flight: who sends it, and until when nobody else may.
CREATE TABLE sync_lane_groups (
    tenant_id text NOT NULL,
    lane_group smallint NOT NULL,
    batch_id uuid NOT NULL,
    claimed_by text NOT NULL,
    lease_expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, lane_group)
) WITH (fillfactor = 50);

CREATE TABLE sync_state (
    tenant_id text PRIMARY KEY,
    last_acked_event_id uuid,
    last_acked_at timestamptz,
    last_success_at timestamptz,
    last_error_at timestamptz,
    last_error_code text,
    last_error_message text,
    last_sent_batch_id uuid,
    consecutive_failures int NOT NULL DEFAULT 0,
    paused_until timestamptz,
    updated_at timestamptz NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE device_allowlist (
    tenant_id text NOT NULL,
    device_id text NOT NULL,
    farm_id text,
    barn_id text,
    station_id text,
    enabled boolean NOT NULL DEFAULT true,
    provision_state text NOT NULL DEFAULT 'approved' CHECK (provision_state IN ('approved', 'pending')),
    notes text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, device_id)
);
CREATE INDEX device_allowlist_place ON device_allowlist (tenant_id, farm_id, barn_id);

CREATE TABLE station_allowlist (
    tenant_id text NOT NULL,
    station_id text NOT NULL,
    farm_id text,
    barn_id text,
    enabled boolean NOT NULL DEFAULT true,
    provision_state text NOT NULL DEFAULT 'approved' CHECK (provision_state IN ('approved', 'pending')),
    notes text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, station_id)
);
CREATE INDEX station_allowlist_place ON station_allowlist (tenant_id, farm_id, barn_id);

CREATE TABLE ingress_dedupe (
    tenant_id text NOT NULL,
    event_id text NOT NULL,
    first_seen_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    topic text NOT NULL,
    hash text,
    PRIMARY KEY (tenant_id, event_id)
) WITH (autovacuum_vacuum_scale_factor = 0.05);
-- Rows are written in the order in which they expire, so a block range index finds the expired ones.
CREATE INDEX ingress_dedupe_expiry ON ingress_dedupe USING brin (expires_at) WITH (pages_per_range = 32);

CREATE TABLE ingress_rejects (
    id uuid PRIMARY KEY,
    reason text NOT NULL,
    topic text NOT NULL,
    detail text,
    tenant_id text,
    device_id text,
    event_id text,
    size_bytes int NOT NULL,
    sha256 text NOT NULL,
    rejected_at timestamptz NOT NULL
);
CREATE INDEX ingress_rejects_time ON ingress_rejects (rejected_at);
CREATE INDEX ingress_rejects_reason ON ingress_rejects (reason, rejected_at);

CREATE TABLE device_last_seen (
    tenant_id text NOT NULL,
    device_id text NOT NULL,
    last_seen_at timestamptz NOT NULL,
    last_topic text NOT NULL,
    last_payload_hash text,
    state text CHECK (state IN ('online', 'offline', 'error')),
    state_changed_at timestamptz,
    firmware_version text,
    message text,
    health_json jsonb,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, device_id)
) WITH (fillfactor = 50);

CREATE TABLE device_credentials (
    username text PRIMARY KEY,
    tenant_id text NOT NULL,
    device_id text NOT NULL,
    password_hash text NOT NULL,
    password_hash_next text,
    enabled boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    UNIQUE (tenant_id, device_id)
);

-- Generic events of devices, partitioned like the readings.
CREATE TABLE device_events (
    id uuid NOT NULL,
    tenant_id text NOT NULL,
    farm_id text NOT NULL,
    barn_id text NOT NULL,
    device_id text NOT NULL,
    event_id text NOT NULL,
    event_type text NOT NULL,
    occurred_at timestamptz NOT NULL,
    ingested_at timestamptz NOT NULL,
    trace_id text,
    payload_json jsonb,
    PRIMARY KEY (id, occurred_at)
) PARTITION BY RANGE (occurred_at);
CREATE TABLE device_events_default PARTITION OF device_events DEFAULT;
CREATE INDEX device_events_device ON device_events (tenant_id, device_id, occurred_at DESC);
