-- What the MQTT door keeps across restarts: sessions that outlive their connections, and retained messages.

CREATE TABLE mqtt_sessions (
    session_id      uuid PRIMARY KEY,
    -- Whose it is: a device, an operator, or nobody with a credential.
    tenant_id       text,
    device_id       text,
    operator        text,
    client_id       text NOT NULL,
    expiry_seconds  bigint NOT NULL,
    -- When its connection ended; null while it lasted.
    left_at         timestamptz,
    CHECK ((tenant_id IS NULL) = (device_id IS NULL)),
    CHECK (tenant_id IS NULL OR operator IS NULL)
);

CREATE TABLE mqtt_subscriptions (
    session_id          uuid NOT NULL REFERENCES mqtt_sessions ON DELETE CASCADE,
    -- Filters reach 65,535 bytes, which an index does not hold.
    filter_sha256       bytea NOT NULL,
    filter              text NOT NULL,
    qos                 smallint NOT NULL,
    no_local            boolean NOT NULL,
    retain_as_published boolean NOT NULL,
    subscription_id     bigint,
    PRIMARY KEY (session_id, filter_sha256)
);

-- Packet ids of messages at quality 2 that were taken in and that their publisher has not released.
CREATE TABLE mqtt_received (
    session_id  uuid NOT NULL REFERENCES mqtt_sessions ON DELETE CASCADE,
    packet_id   integer NOT NULL,
    PRIMARY KEY (session_id, packet_id)
);

-- Messages at quality 1 and 2 that wait for their subscriber.
CREATE TABLE mqtt_queue (
    session_id       uuid NOT NULL REFERENCES mqtt_sessions ON DELETE CASCADE,
    -- Its place; the packet id follows from it.
    sequence         bigint NOT NULL,
    topic            text NOT NULL,
    payload          bytea NOT NULL,
    published_qos    smallint NOT NULL,
    published_retain boolean NOT NULL,
    -- Properties of MQTT 5, as they are encoded.
    properties       bytea NOT NULL,
    expires_at       timestamptz,
    qos              smallint NOT NULL,
    retain           boolean NOT NULL,
    -- Numbers of subscriptions, with commas between them.
    subscription_ids text NOT NULL,
    -- The subscriber has it, and is only to be told to release its id.
    is_received      boolean NOT NULL,
    queued_at        timestamptz NOT NULL,
    PRIMARY KEY (session_id, sequence)
);

CREATE TABLE mqtt_retained (
    -- See filter_sha256.
    topic_sha256  bytea PRIMARY KEY,
    topic         text NOT NULL,
    payload       bytea NOT NULL,
    qos           smallint NOT NULL,
    properties    bytea NOT NULL,
    expires_at    timestamptz
);
