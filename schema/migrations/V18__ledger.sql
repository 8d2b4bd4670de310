-- The conservation ledger: what came in and what became of it, by tenant and day, so that a lost event is seen as a number.
--
--   received = stored + duplicate + refused + removed         by the day on which it was settled
--   queued + resent = acked + waiting + failed + discarded + written_off     by the day on which the event was queued
--
-- The first line is written by the engine in the transaction that settles a message. The second is counted by triggers,
-- whichever program changes the rows; what an older program takes in beside this one is missing on both sides of the first.
-- Days are those of UTC. Every server process counts in rows of its own (`shard` is its process id), so that nobody waits
-- for anybody; shard 0 takes over what processes that are gone counted.
CREATE TABLE ledger (
    -- Empty for what was refused and belongs to no tenant that is known here.
    tenant_id text NOT NULL,
    day date NOT NULL,
    shard int NOT NULL,
    received bigint NOT NULL DEFAULT 0,
    stored bigint NOT NULL DEFAULT 0,
    duplicate bigint NOT NULL DEFAULT 0,
    refused bigint NOT NULL DEFAULT 0,
    -- An empty retained status: it takes something back and leaves nothing.
    removed bigint NOT NULL DEFAULT 0,
    queued bigint NOT NULL DEFAULT 0,
    -- Put back after it had been acknowledged.
    resent bigint NOT NULL DEFAULT 0,
    acked bigint NOT NULL DEFAULT 0,
    waiting bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    discarded bigint NOT NULL DEFAULT 0,
    -- Closed by a person after a loss was explained.
    written_off bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, day, shard)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0);

-- When the rows that waited before the ledger were entered, and when it was last compared with the outbox.
CREATE TABLE ledger_checks (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    opened_at timestamptz,
    checked_at timestamptz
);
INSERT INTO ledger_checks DEFAULT VALUES;

-- As its owner, so that whoever may write the outbox need not be allowed to write the ledger.
CREATE FUNCTION farmiq_ledger_outbox() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO public.ledger AS l (tenant_id, day, shard, queued, resent, acked, waiting, failed)
        SELECT r.tenant_id, (r.created_at AT TIME ZONE 'UTC')::date, pg_backend_pid(),
            count(*) FILTER (WHERE r.acked_at IS NULL), count(*) FILTER (WHERE r.acked_at IS NOT NULL),
            count(*) FILTER (WHERE r.status = 'acked'), count(*) FILTER (WHERE r.status IN ('pending', 'claimed', 'sent')),
            count(*) FILTER (WHERE r.status = 'failed')
        FROM new_rows AS r GROUP BY 1, 2
        ON CONFLICT ON CONSTRAINT ledger_pkey DO UPDATE SET queued = l.queued + excluded.queued,
            resent = l.resent + excluded.resent, acked = l.acked + excluded.acked,
            waiting = l.waiting + excluded.waiting, failed = l.failed + excluded.failed;
    ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO public.ledger AS l (tenant_id, day, shard, acked, waiting, failed)
        SELECT r.tenant_id, (r.created_at AT TIME ZONE 'UTC')::date, pg_backend_pid(),
            coalesce(sum(r.step) FILTER (WHERE r.status = 'acked'), 0),
            coalesce(sum(r.step) FILTER (WHERE r.status IN ('pending', 'claimed', 'sent')), 0),
            coalesce(sum(r.step) FILTER (WHERE r.status = 'failed'), 0)
        FROM (
            SELECT n.tenant_id, n.created_at, n.status, 1 AS step FROM new_rows AS n
            UNION ALL SELECT o.tenant_id, o.created_at, o.status, -1 FROM old_rows AS o
        ) AS r
        GROUP BY 1, 2
        HAVING sum(r.step) FILTER (WHERE r.status IN ('pending', 'claimed', 'sent')) <> 0
            OR sum(r.step) FILTER (WHERE r.status = 'failed') <> 0 OR sum(r.step) FILTER (WHERE r.status = 'acked') <> 0
        ON CONFLICT ON CONSTRAINT ledger_pkey DO UPDATE SET acked = l.acked + excluded.acked,
            waiting = l.waiting + excluded.waiting, failed = l.failed + excluded.failed;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO public.ledger AS l (tenant_id, day, shard, waiting, failed)
        SELECT r.tenant_id, (r.created_at AT TIME ZONE 'UTC')::date, pg_backend_pid(),
            -count(*) FILTER (WHERE r.status IN ('pending', 'claimed', 'sent')), -count(*) FILTER (WHERE r.status = 'failed')
        FROM old_rows AS r WHERE r.status <> 'acked' GROUP BY 1, 2
        ON CONFLICT ON CONSTRAINT ledger_pkey DO UPDATE SET waiting = l.waiting + excluded.waiting,
            failed = l.failed + excluded.failed;
        -- What was discarded stands in its table by the end of the statement that took it out of the outbox.
        IF EXISTS (SELECT FROM old_rows AS r WHERE r.status = 'failed') THEN
            INSERT INTO public.ledger AS l (tenant_id, day, shard, discarded)
            SELECT r.tenant_id, (r.created_at AT TIME ZONE 'UTC')::date, pg_backend_pid(), count(*)
            FROM old_rows AS r
            WHERE r.status = 'failed' AND EXISTS (
                SELECT FROM public.discarded_events AS d
                WHERE d.tenant_id = r.tenant_id AND d.source = 'outbox' AND d.id = r.id)
            GROUP BY 1, 2
            ON CONFLICT ON CONSTRAINT ledger_pkey DO UPDATE SET discarded = l.discarded + excluded.discarded;
        END IF;
    ELSE
        -- What waited is gone, which shows as a difference.
        INSERT INTO public.ledger AS l (tenant_id, day, shard, waiting, failed)
        SELECT s.tenant_id, s.day, pg_backend_pid(), -sum(s.waiting), -sum(s.failed) FROM public.ledger AS s GROUP BY 1, 2
        ON CONFLICT ON CONSTRAINT ledger_pkey DO UPDATE SET waiting = l.waiting + excluded.waiting,
            failed = l.failed + excluded.failed;
    END IF;
    RETURN NULL;
END $body$;

-- A row that moves into the table of a day was acknowledged, by whichever program.
CREATE FUNCTION farmiq_ledger_acked() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
BEGIN
    INSERT INTO public.ledger AS l (tenant_id, day, shard, acked)
    SELECT r.tenant_id, (r.created_at AT TIME ZONE 'UTC')::date, pg_backend_pid(), count(*) FROM new_rows AS r GROUP BY 1, 2
    ON CONFLICT ON CONSTRAINT ledger_pkey DO UPDATE SET acked = l.acked + excluded.acked;
    RETURN NULL;
END $body$;

-- Has the rows of a day's table counted. A program that does not know the ledger may have made the table and moved rows into
-- it: `is_new` enters those as well.
CREATE FUNCTION farmiq_ledger_watch(day_table regclass, is_new boolean) RETURNS void LANGUAGE plpgsql AS $body$
BEGIN
    EXECUTE format('CREATE TRIGGER ledger_acked AFTER INSERT ON %s REFERENCING NEW TABLE AS new_rows
        FOR EACH STATEMENT EXECUTE FUNCTION farmiq_ledger_acked()', day_table);
    IF is_new THEN
        EXECUTE format('INSERT INTO ledger AS l (tenant_id, day, shard, acked)
            SELECT r.tenant_id, (r.created_at AT TIME ZONE ''UTC'')::date, pg_backend_pid(), count(*) FROM %s AS r GROUP BY 1, 2
            ON CONFLICT ON CONSTRAINT ledger_pkey DO UPDATE SET acked = l.acked + excluded.acked', day_table);
    END IF;
END $body$;

-- Compares what waits and what failed with the rows themselves, enters what they are, and says by how many rows they were
-- off. The first time that is the opening: those rows are queued. Later it is a loss (or a gain), and shows as a difference.
-- Rows and ledger are of one snapshot, so what is off stays off by the same number whatever happens meanwhile.
CREATE FUNCTION farmiq_check_ledger(now timestamptz) RETURNS bigint LANGUAGE plpgsql AS $body$
DECLARE
    is_opening boolean;
    drift bigint;
BEGIN
    SELECT c.opened_at IS NULL INTO is_opening FROM ledger_checks AS c FOR UPDATE;
    WITH differences AS (
        SELECT c.tenant_id, c.day, sum(c.waiting)::bigint AS waiting, sum(c.failed)::bigint AS failed
        FROM (
            SELECT o.tenant_id, (o.created_at AT TIME ZONE 'UTC')::date AS day,
                count(*) FILTER (WHERE o.status IN ('pending', 'claimed', 'sent')) AS waiting,
                count(*) FILTER (WHERE o.status = 'failed') AS failed
            FROM ONLY sync_outbox AS o GROUP BY 1, 2
            UNION ALL SELECT l.tenant_id, l.day, -l.waiting, -l.failed FROM ledger AS l
        ) AS c
        GROUP BY 1, 2 HAVING sum(c.waiting) <> 0 OR sum(c.failed) <> 0
    ), entered AS (
        INSERT INTO ledger AS l (tenant_id, day, shard, queued, waiting, failed)
        SELECT d.tenant_id, d.day, 0, CASE WHEN is_opening THEN d.waiting + d.failed ELSE 0 END, d.waiting, d.failed
        FROM differences AS d
        ON CONFLICT ON CONSTRAINT ledger_pkey DO UPDATE SET queued = l.queued + excluded.queued,
            waiting = l.waiting + excluded.waiting, failed = l.failed + excluded.failed
    )
    SELECT CASE WHEN is_opening THEN 0 ELSE coalesce(sum(abs(d.waiting) + abs(d.failed)), 0) END INTO drift
    FROM differences AS d;
    UPDATE ledger_checks AS c SET opened_at = coalesce(c.opened_at, now), checked_at = now;
    RETURN drift;
END $body$;

-- A trigger waits for the writers of its table, and they wait behind it: a second and a bit, as for the running counts.
SET LOCAL lock_timeout = '1200ms';
CREATE TRIGGER ledger_insert AFTER INSERT ON sync_outbox REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION farmiq_ledger_outbox();
CREATE TRIGGER ledger_update AFTER UPDATE ON sync_outbox REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION farmiq_ledger_outbox();
CREATE TRIGGER ledger_delete AFTER DELETE ON sync_outbox REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION farmiq_ledger_outbox();
CREATE TRIGGER ledger_truncate AFTER TRUNCATE ON sync_outbox
    FOR EACH STATEMENT EXECUTE FUNCTION farmiq_ledger_outbox();

DO $migration$
DECLARE
    day_table regclass;
BEGIN
    FOR day_table IN SELECT i.inhrelid::regclass FROM pg_inherits AS i WHERE i.inhparent = 'sync_outbox'::regclass LOOP
        PERFORM farmiq_ledger_watch(day_table, false);
    END LOOP;
    -- A large outbox is entered later, beside the work: until then its rows are missing on both sides.
    IF pg_table_size('sync_outbox') < 32 * 1024 * 1024 THEN
        PERFORM farmiq_check_ledger(now());
    END IF;
END $migration$;
