-- Running counts of what pages and gauges ask for all the time, so that an answer costs the same in every month.
--
-- Triggers keep them in the transaction of each change, whoever makes it. Every server process counts in rows of its own
-- (`shard` is its process id), so that nobody waits for anybody; shard 0 takes over what processes that are gone counted.
CREATE TABLE tallies (
    -- The table that is counted, and which of its rows: those of a status for example.
    counted text NOT NULL,
    kind text NOT NULL,
    tenant_id text NOT NULL,
    shard int NOT NULL,
    rows bigint NOT NULL,
    bytes bigint NOT NULL DEFAULT 0,
    -- The newest time among all rows that were ever counted.
    last_at timestamptz,
    PRIMARY KEY (counted, kind, tenant_id, shard)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0);

-- When a table was last counted row by row and its tallies put right; NULL while that has not been done at all.
CREATE TABLE tally_checks (
    counted text PRIMARY KEY,
    checked_at timestamptz
);

-- What is counted of a row `r`: as which kind (NULL: not at all), with how many bytes, as of which time.
CREATE VIEW tally_rules (counted, kind, bytes, last_at) AS VALUES
    ('dead_letters', $$CASE WHEN r.redriven_at IS NULL THEN r.source END$$, '0', 'NULL::timestamptz'),
    ('inference_jobs', $$CASE WHEN r.status IN ('pending', 'processing') THEN 'open' END$$, '0', 'NULL::timestamptz'),
    ('inference_results', $$'all'::text$$, '0', 'r.occurred_at'),
    ('media_objects', $$'all'::text$$, 'coalesce(r.size_bytes, 0)', 'r.created_at'),
    ('session_media_bindings', $$CASE WHEN NOT r.is_bound THEN 'unbound' END$$, '0', 'NULL::timestamptz'),
    ('session_parked', $$'all'::text$$, '0', 'NULL::timestamptz'),
    ('session_weights', $$CASE WHEN NOT r.is_bound THEN 'unbound' END$$, '0', 'NULL::timestamptz'),
    ('telemetry_agg', $$'all'::text$$, '0', 'NULL::timestamptz'),
    -- `held`: failed, and with it the lane of its session. Acknowledged rows are history.
    ('sync_outbox', $$CASE WHEN r.status = 'failed' AND r.event_type = 'weighvision.session.created' THEN 'held'
        WHEN r.status <> 'acked' THEN r.status END$$, '0', 'NULL::timestamptz');

-- Counts a table row by row, as of the moment of the statement that asks; of these tenants, or of all.
CREATE FUNCTION farmiq_count(what text, tenants text[])
    RETURNS TABLE (kind text, tenant_id text, rows bigint, bytes bigint, last_at timestamptz) LANGUAGE plpgsql STABLE AS $body$
BEGIN
    RETURN QUERY EXECUTE (
        SELECT format('SELECT %1$s, r.tenant_id, count(*), sum(%2$s)::bigint, max(%3$s) FROM ONLY %4$I AS r
            WHERE ($1 IS NULL OR r.tenant_id = ANY ($1)) GROUP BY 1, 2 HAVING (%1$s) IS NOT NULL',
            rule.kind, rule.bytes, rule.last_at, rule.counted)
        FROM tally_rules AS rule WHERE rule.counted = what) USING tenants;
END $body$;

-- Counts a table row by row, puts its tallies right, and says by how many rows they were off. Counts and tallies are of one
-- snapshot, so what is off stays off by the same number whatever happens meanwhile.
CREATE FUNCTION farmiq_check_tally(what text, now timestamptz) RETURNS bigint LANGUAGE plpgsql AS $body$
DECLARE
    drift bigint;
BEGIN
    WITH counted AS (
        SELECT c.kind, c.tenant_id, c.rows, c.bytes, c.last_at FROM farmiq_count(what, NULL) AS c
        UNION ALL
        SELECT t.kind, t.tenant_id, -t.rows, -t.bytes, NULL FROM tallies AS t WHERE t.counted = what
    ), differences AS (
        SELECT c.kind, c.tenant_id, sum(c.rows)::bigint AS rows, sum(c.bytes)::bigint AS bytes, max(c.last_at) AS last_at
        FROM counted AS c GROUP BY c.kind, c.tenant_id
    ), mended AS (
        INSERT INTO tallies AS t (counted, kind, tenant_id, shard, rows, bytes, last_at)
        SELECT what, d.kind, d.tenant_id, 0, d.rows, d.bytes, d.last_at FROM differences AS d
        WHERE d.rows <> 0 OR d.bytes <> 0
        ON CONFLICT ON CONSTRAINT tallies_pkey DO UPDATE SET rows = t.rows + excluded.rows,
            bytes = t.bytes + excluded.bytes, last_at = greatest(t.last_at, excluded.last_at)
    )
    SELECT coalesce(sum(abs(d.rows)), 0) INTO drift FROM differences AS d;
    INSERT INTO tally_checks AS c (counted, checked_at) VALUES (what, now)
    ON CONFLICT ON CONSTRAINT tally_checks_pkey DO UPDATE SET checked_at = excluded.checked_at;
    RETURN drift;
END $body$;

-- A trigger waits for the writers of its table, and they wait behind it: a second and a bit, after which an automatic
-- vacuum has made way. Where that is not enough, the migration fails and is tried again as a whole.
SET LOCAL lock_timeout = '1200ms';

DO $migration$
DECLARE
    rule record;
    grouped constant text := 'SELECT %1$s AS kind, r.tenant_id, %5$scount(*) AS rows, %5$ssum(%2$s) AS bytes, %3$s AS last_at
        FROM %4$s AS r GROUP BY 1, 2';
    put constant text := 'INSERT INTO public.tallies AS t (counted, kind, tenant_id, shard, rows, bytes, last_at)
        SELECT %1$L, r.kind, r.tenant_id, pg_backend_pid(), %2$s FROM (%3$s) AS r WHERE r.kind IS NOT NULL %4$s
        ON CONFLICT ON CONSTRAINT tallies_pkey DO UPDATE SET rows = t.rows + excluded.rows,
            bytes = t.bytes + excluded.bytes, last_at = greatest(t.last_at, excluded.last_at)';
    added text;
    gone text;
BEGIN
    FOR rule IN SELECT * FROM tally_rules LOOP
        added := format(grouped, rule.kind, rule.bytes, format('max(%s)', rule.last_at), 'new_rows', '');
        gone := format(grouped, rule.kind, rule.bytes, 'NULL::timestamptz', 'old_rows', '-');
        -- As its owner, so that whoever may write a table need not be allowed to write its tallies.
        EXECUTE format($function$
            CREATE FUNCTION farmiq_tally_%1$s() RETURNS trigger LANGUAGE plpgsql
            SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
            BEGIN
                IF TG_OP = 'INSERT' THEN
                    %2$s;
                ELSIF TG_OP = 'UPDATE' THEN
                    %3$s;
                ELSIF TG_OP = 'DELETE' THEN
                    %4$s;
                ELSE
                    DELETE FROM public.tallies WHERE counted = %1$L;
                END IF;
                RETURN NULL;
            END $body$;
            CREATE TRIGGER tally_insert AFTER INSERT ON %1$I REFERENCING NEW TABLE AS new_rows
                FOR EACH STATEMENT EXECUTE FUNCTION farmiq_tally_%1$s();
            CREATE TRIGGER tally_update AFTER UPDATE ON %1$I REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
                FOR EACH STATEMENT EXECUTE FUNCTION farmiq_tally_%1$s();
            CREATE TRIGGER tally_delete AFTER DELETE ON %1$I REFERENCING OLD TABLE AS old_rows
                FOR EACH STATEMENT EXECUTE FUNCTION farmiq_tally_%1$s();
            CREATE TRIGGER tally_truncate AFTER TRUNCATE ON %1$I
                FOR EACH STATEMENT EXECUTE FUNCTION farmiq_tally_%1$s();
            $function$, rule.counted,
            format(put, rule.counted, 'r.rows, r.bytes, r.last_at', added, ''),
            format(put, rule.counted, 'sum(r.rows), sum(r.bytes), max(r.last_at)', added || ' UNION ALL ' || gone,
                'GROUP BY r.kind, r.tenant_id HAVING sum(r.rows) <> 0 OR sum(r.bytes) <> 0'),
            format(put, rule.counted, 'r.rows, r.bytes, r.last_at', gone, ''));
        -- Nobody writes while the triggers are made. A large table is counted later, beside the work.
        IF pg_table_size(rule.counted::regclass) < 32 * 1024 * 1024 THEN
            PERFORM farmiq_check_tally(rule.counted, now());
        ELSE
            INSERT INTO tally_checks (counted) VALUES (rule.counted);
        END IF;
    END LOOP;
END $migration$;

-- Events and dead letters that a person set aside: what they were, and why they were not wanted any more.
CREATE TABLE discarded_events (
    tenant_id text NOT NULL,
    -- 'outbox', or the source of the dead letter.
    source text NOT NULL CHECK (source IN ('outbox', 'session', 'media', 'inference')),
    id uuid NOT NULL,
    event_type text NOT NULL,
    device_id text,
    session_id text,
    trace_id text,
    occurred_at timestamptz,
    -- Why it had been given up, and since when.
    failure text,
    failed_at timestamptz,
    body_json jsonb NOT NULL,
    reason text NOT NULL,
    discarded_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, source, id)
);
CREATE INDEX discarded_events_time ON discarded_events (discarded_at);

-- Those who ask to be let in, of which there may be only so many.
CREATE INDEX device_allowlist_pending ON device_allowlist (tenant_id) WHERE provision_state = 'pending';
CREATE INDEX station_allowlist_pending ON station_allowlist (tenant_id) WHERE provision_state = 'pending';
