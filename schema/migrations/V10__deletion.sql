-- Who this database is to the store of its images. The store's marker names this id with the number of times it was
-- written, so that a database beside images of another one, a copy and a restored backup are noticed.
CREATE TABLE media_store (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    id uuid NOT NULL,
    -- What the server calls this database, which a copy does not inherit.
    database_key text NOT NULL,
    marks_count bigint NOT NULL,
    marked_at timestamptz
);

-- When the last pass of retention ran by a clock that was believed: what the next one may believe is measured by it.
CREATE TABLE retention_passes (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    last_at timestamptz NOT NULL
);

-- Age counts from when something came in. On tables that are large already these indexes are made beside the work.
DO $migration$
DECLARE
    small_bytes constant bigint := 32 * 1024 * 1024;
BEGIN
    SET LOCAL lock_timeout = '1s';
    IF pg_relation_size('media_objects') < small_bytes THEN
        CREATE INDEX media_objects_created ON media_objects (created_at, tenant_id, id);
    END IF;
    IF pg_relation_size('telemetry_raw_default') < small_bytes THEN
        CREATE INDEX telemetry_raw_default_came_in ON telemetry_raw_default (ingested_at, id);
    END IF;
    IF pg_relation_size('device_events_default') < small_bytes THEN
        CREATE INDEX device_events_default_came_in ON device_events_default (ingested_at, id);
    END IF;
END $migration$;
