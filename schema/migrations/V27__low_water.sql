-- Where a look at the outbox may begin: a low-water mark for each lane group.
--
-- Rows that were settled leave dead entries at the head of the order of sending. While somebody holds an old snapshot (a dump,
-- a forgotten session) no vacuum removes them, and a look that begins at the head reads them all. So it begins at the mark:
-- no row that waits lies below it.
--
-- A row may be queued below any mark, since devices give the times. Whoever writes below `safe_at` or `next_at` leaves a note,
-- in the same transaction, and a look begins at the lowest note when that is lower. A writer that began before `next_at` was
-- there leaves none, so `next_at` becomes `safe_at` only when all who were writing then are done: `barrier` is the first
-- transaction that knew of it.
CREATE TABLE sync_lane_marks (
    tenant_id text NOT NULL,
    lane_group smallint NOT NULL,
    -- No row waits below, in the order of sending, but for those that have a note.
    low_at timestamptz NOT NULL DEFAULT '-infinity',
    -- Whoever writes below leaves a note.
    safe_at timestamptz NOT NULL DEFAULT '-infinity',
    -- What that becomes next.
    next_at timestamptz,
    barrier xid8,
    PRIMARY KEY (tenant_id, lane_group)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Rows that were queued below a mark, or moved there: at least one note for each statement and lane group.
CREATE TABLE sync_lane_late (
    tenant_id text NOT NULL,
    lane_group smallint NOT NULL,
    -- The lowest of them.
    at timestamptz NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX sync_lane_late_lowest ON sync_lane_late (tenant_id, lane_group, at);

-- As its owner, so that whoever may write the outbox need not be allowed to leave notes.
CREATE FUNCTION farmiq_lane_late() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
BEGIN
    INSERT INTO public.sync_lane_late (tenant_id, lane_group, at)
    SELECT n.tenant_id, n.lane_group, n.at
    FROM (
        SELECT r.tenant_id, r.lane_group, min(coalesce(r.order_at, r.occurred_at, r.created_at)) AS at
        FROM new_rows AS r WHERE r.failed_at IS NULL GROUP BY r.tenant_id, r.lane_group
    ) AS n
    JOIN public.sync_lane_marks AS m ON m.tenant_id = n.tenant_id AND m.lane_group = n.lane_group
    WHERE n.at < greatest(m.safe_at, m.next_at);
    RETURN NULL;
END $body$;

-- A trigger waits for the writers of its table, and they wait behind it: a second and a bit, as for the running counts.
SET LOCAL lock_timeout = '1200ms';
CREATE TRIGGER lane_late_insert AFTER INSERT ON sync_outbox REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION farmiq_lane_late();
CREATE TRIGGER lane_late_update AFTER UPDATE ON sync_outbox REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION farmiq_lane_late();

-- A row is written once and deleted: the pages need no room for other versions of it. Statistics help no statement here, and a
-- vacuum of a large backlog reads its indexes as a whole, so it waits for a share of the rows.
ALTER TABLE sync_outbox SET (fillfactor = 100, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_threshold = 100000);
