-- Which engine keeps lasting sessions, one session per client, and last wills that wait.

-- How often lasting sessions passed from one engine to another. The engine that keeps them has an advisory lock; after it
-- lost the connection that held the lock it sees here whether another engine had the sessions meanwhile.
CREATE TABLE mqtt_keeper (
    id    int PRIMARY KEY CHECK (id = 1),
    epoch bigint NOT NULL
);
INSERT INTO mqtt_keeper (id, epoch) VALUES (1, 0);

-- Of several sessions of one client the newest counts: their ids are in the order of time.
DELETE FROM mqtt_sessions AS old USING mqtt_sessions AS new
WHERE old.session_id < new.session_id AND old.client_id = new.client_id
    AND old.tenant_id IS NOT DISTINCT FROM new.tenant_id AND old.device_id IS NOT DISTINCT FROM new.device_id
    AND old.operator IS NOT DISTINCT FROM new.operator;

-- A client id reaches 65,535 bytes, which an index does not hold. Ids and operators are never empty.
CREATE UNIQUE INDEX mqtt_sessions_client ON mqtt_sessions
    (coalesce(tenant_id, ''), coalesce(device_id, ''), coalesce(operator, ''), md5(client_id));

-- Last wills whose clients have gone and may still come back. A will outlives its session, whose end has it published.
CREATE TABLE mqtt_wills (
    will_id        uuid PRIMARY KEY,
    -- Whose it is: a device, or a client without a credential.
    tenant_id      text,
    device_id      text,
    client_id      text NOT NULL,
    topic          text NOT NULL,
    payload        bytea NOT NULL,
    qos            smallint NOT NULL,
    retain         boolean NOT NULL,
    -- Properties of MQTT 5, as they are encoded.
    properties     bytea NOT NULL,
    -- Seconds after its publication in which it is of use.
    expiry_seconds bigint,
    due_at         timestamptz NOT NULL,
    CHECK ((tenant_id IS NULL) = (device_id IS NULL))
);
