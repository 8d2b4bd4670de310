-- Who did what, and what came before its session was sent from.

-- One row for each thing that an operator did, and each tenant it was done to.
CREATE TABLE audit_log (
    id uuid PRIMARY KEY,
    happened_at timestamptz NOT NULL,
    -- Who: operator:<name of the key>, shell:<user id>, or anyone, where no key is needed.
    actor text NOT NULL,
    -- From where: an address, or the name of the machine.
    origin text NOT NULL,
    action text NOT NULL,
    -- NULL when it was done to the whole box.
    tenant_id text,
    -- Which: a device, for example.
    target text,
    detail_json jsonb NOT NULL
);
CREATE INDEX audit_log_tenant ON audit_log (tenant_id, id);
CREATE INDEX audit_log_time ON audit_log (happened_at);

-- Where a child was sent from that came before its session. Empty in rows of programs that do not know these columns.
ALTER TABLE session_weights
    ADD COLUMN device_id text,
    ADD COLUMN farm_id text,
    ADD COLUMN barn_id text;
ALTER TABLE session_media_bindings
    ADD COLUMN device_id text,
    ADD COLUMN farm_id text,
    ADD COLUMN barn_id text;

-- Stations are told of like devices. A station has many devices, so everybody is judged again.
CREATE FUNCTION farmiq_tell_stations() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('farmiq_access', '*');
    RETURN NULL;
END $$;
CREATE TRIGGER tell_change AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON station_allowlist
    FOR EACH STATEMENT EXECUTE FUNCTION farmiq_tell_stations();
