-- Which tenants have ever had a device of an id. A certificate that leaves its tenant out stands for a device only as long
-- as one tenant alone has ever had its id: otherwise a device would change hands with a row that is deleted and another
-- one that is added.
CREATE TABLE device_tenants (
    device_id text NOT NULL,
    tenant_id text NOT NULL,
    PRIMARY KEY (device_id, tenant_id)
);

CREATE FUNCTION farmiq_remember_tenant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO device_tenants (device_id, tenant_id) VALUES (NEW.device_id, NEW.tenant_id) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER remember_tenant AFTER INSERT OR UPDATE OF tenant_id, device_id ON device_allowlist
    FOR EACH ROW EXECUTE FUNCTION farmiq_remember_tenant();

INSERT INTO device_tenants (device_id, tenant_id)
SELECT device_id, tenant_id FROM device_allowlist
ON CONFLICT DO NOTHING;
