-- What the cloud has acknowledged, by tenant and hour of the event: how many, and a sum over their ids that does not depend
-- on their order. The cloud makes the same numbers of what it has and sees which hour has a hole.
CREATE TABLE ledger_hours (
    tenant_id text NOT NULL,
    -- The hour (UTC) of the time that the event is sent with.
    hour timestamptz NOT NULL,
    shard int NOT NULL,
    events bigint NOT NULL,
    hash numeric NOT NULL,
    PRIMARY KEY (tenant_id, hour, shard)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0);

-- The part of an event: the first 15 hexadecimal digits of the SHA-256 of its id as a text of lower case, as a number.
CREATE FUNCTION farmiq_event_hash(id uuid) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
    $$ SELECT ('x' || left(encode(sha256(convert_to(id::text, 'UTF8')), 'hex'), 15))::bit(60)::bigint::numeric $$;

-- Enters acknowledged events, of each statement all at once.
CREATE OR REPLACE FUNCTION farmiq_ledger_acked() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
BEGIN
    INSERT INTO public.ledger AS l (tenant_id, day, shard, acked)
    SELECT r.tenant_id, (r.created_at AT TIME ZONE 'UTC')::date, pg_backend_pid(), count(*) FROM new_rows AS r GROUP BY 1, 2
    ON CONFLICT ON CONSTRAINT ledger_pkey DO UPDATE SET acked = l.acked + excluded.acked;
    INSERT INTO public.ledger_hours AS h (tenant_id, hour, shard, events, hash)
    SELECT r.tenant_id, date_trunc('hour', coalesce(r.occurred_at, r.created_at), 'UTC'), pg_backend_pid(), count(*),
        sum(public.farmiq_event_hash(r.id))
    FROM new_rows AS r GROUP BY 1, 2
    ON CONFLICT ON CONSTRAINT ledger_hours_pkey DO UPDATE SET events = h.events + excluded.events,
        hash = h.hash + excluded.hash;
    RETURN NULL;
END $body$;

CREATE OR REPLACE FUNCTION farmiq_ledger_watch(day_table regclass, is_new boolean) RETURNS void LANGUAGE plpgsql AS $body$
BEGIN
    EXECUTE format('CREATE TRIGGER ledger_acked AFTER INSERT ON %s REFERENCING NEW TABLE AS new_rows
        FOR EACH STATEMENT EXECUTE FUNCTION farmiq_ledger_acked()', day_table);
    IF is_new THEN
        EXECUTE format('INSERT INTO ledger AS l (tenant_id, day, shard, acked)
            SELECT r.tenant_id, (r.created_at AT TIME ZONE ''UTC'')::date, pg_backend_pid(), count(*) FROM %s AS r GROUP BY 1, 2
            ON CONFLICT ON CONSTRAINT ledger_pkey DO UPDATE SET acked = l.acked + excluded.acked', day_table);
        EXECUTE format('INSERT INTO ledger_hours AS h (tenant_id, hour, shard, events, hash)
            SELECT r.tenant_id, date_trunc(''hour'', coalesce(r.occurred_at, r.created_at), ''UTC''), pg_backend_pid(),
                count(*), sum(farmiq_event_hash(r.id)) FROM %s AS r GROUP BY 1, 2
            ON CONFLICT ON CONSTRAINT ledger_hours_pkey DO UPDATE SET events = h.events + excluded.events,
                hash = h.hash + excluded.hash', day_table);
    END IF;
END $body$;

-- Hours that were over when the digest began are not told of; the one that had begun is.
ALTER TABLE ledger_checks ADD COLUMN digest_since timestamptz;
UPDATE ledger_checks SET digest_since = now();
