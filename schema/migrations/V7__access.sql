-- Passwords that are replaced with an overlap, hashes that Mosquitto understands, and word of every change of who may
-- come in.

ALTER TABLE device_credentials
    -- Until then both passwords are good, afterwards the next one alone. Without it both stay good.
    ADD COLUMN overlap_ends_at timestamptz,
    -- When the newest password was made.
    ADD COLUMN rotated_at timestamptz,
    -- The newest password as a line of Mosquitto's password file holds it; NULL when the password was not made here.
    ADD COLUMN mosquitto_hash text;

CREATE INDEX device_credentials_overlap ON device_credentials (overlap_ends_at) WHERE overlap_ends_at IS NOT NULL;

-- Tells everybody who listens which devices a statement touched, as `tenant/device`; `*` when these are many, or not to be
-- told apart. Ids hold no slash, and a payload has 8,000 bytes at most.
CREATE FUNCTION farmiq_tell_access() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    devices text[];
BEGIN
    IF TG_OP = 'INSERT' THEN
        SELECT array_agg(DISTINCT tenant_id || '/' || device_id) INTO devices FROM new_rows;
    ELSIF TG_OP = 'DELETE' THEN
        SELECT array_agg(DISTINCT tenant_id || '/' || device_id) INTO devices FROM old_rows;
    ELSIF TG_OP = 'UPDATE' THEN
        SELECT array_agg(DISTINCT tenant_id || '/' || device_id) INTO devices
        FROM (SELECT tenant_id, device_id FROM old_rows UNION SELECT tenant_id, device_id FROM new_rows) AS touched;
    ELSE
        devices := ARRAY['*'];
    END IF;
    IF cardinality(devices) > 50 OR EXISTS (SELECT FROM unnest(devices) AS device WHERE octet_length(device) > 1000) THEN
        devices := ARRAY['*'];
    END IF;
    PERFORM pg_notify('farmiq_access', device) FROM unnest(devices) AS device;
    RETURN NULL;
END $$;

CREATE TRIGGER tell_insert AFTER INSERT ON device_credentials
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION farmiq_tell_access();
CREATE TRIGGER tell_update AFTER UPDATE ON device_credentials
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION farmiq_tell_access();
CREATE TRIGGER tell_delete AFTER DELETE ON device_credentials
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION farmiq_tell_access();
CREATE TRIGGER tell_truncate AFTER TRUNCATE ON device_credentials
    FOR EACH STATEMENT EXECUTE FUNCTION farmiq_tell_access();

CREATE TRIGGER tell_insert AFTER INSERT ON device_allowlist
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION farmiq_tell_access();
CREATE TRIGGER tell_update AFTER UPDATE ON device_allowlist
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION farmiq_tell_access();
CREATE TRIGGER tell_delete AFTER DELETE ON device_allowlist
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION farmiq_tell_access();
CREATE TRIGGER tell_truncate AFTER TRUNCATE ON device_allowlist
    FOR EACH STATEMENT EXECUTE FUNCTION farmiq_tell_access();
