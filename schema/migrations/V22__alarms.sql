-- Alarms: the rules that somebody edited, one row for each rule and place with what it is at now, everything that ever
-- happened to it, who was told and how that went, and the drills.

-- What a house is doing, where a person has said so.
CREATE TABLE house_modes (
    tenant_id text NOT NULL,
    farm_id text NOT NULL,
    barn_id text NOT NULL,
    mode text NOT NULL CHECK (mode IN ('empty', 'pre_heat', 'growing', 'catching')),
    reason text,
    author text NOT NULL,
    since timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, farm_id, barn_id)
);

-- Append-only: an edited rule is a new version. The rules that nobody edited are in the program.
CREATE TABLE alarm_rules (
    tenant_id text NOT NULL,
    farm_id text NOT NULL,
    barn_id text NOT NULL,
    rule_id text NOT NULL,
    version int NOT NULL CHECK (version > 0),
    body jsonb NOT NULL,
    reason text,
    author text NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, farm_id, barn_id, rule_id, version)
);

CREATE TABLE alarms (
    id uuid PRIMARY KEY,
    -- Empty names are the box itself: its disk, its database.
    tenant_id text NOT NULL,
    farm_id text NOT NULL,
    barn_id text NOT NULL,
    rule_id text NOT NULL,
    -- A device, a metric, or empty for the whole house.
    place text NOT NULL,
    class text NOT NULL CHECK (class IN ('low', 'high', 'critical')),
    state text NOT NULL CHECK (state IN ('NORM', 'UNACK', 'ACKED', 'RTNUN', 'SHLVD', 'DSUPR', 'OOSRV')),
    is_active boolean NOT NULL,
    is_unacknowledged boolean NOT NULL,
    is_latching boolean NOT NULL,
    occurrence bigint NOT NULL CHECK (occurrence >= 0),
    rounds bigint NOT NULL CHECK (rounds >= 0),
    -- What raised it, or the newest that kept it.
    value double precision,
    limit_value double precision,
    unit text,
    why text,
    raised_at timestamptz,
    ended_at timestamptz,
    acknowledged_at timestamptz,
    acknowledged_by text,
    turning_since timestamptz,
    looked_until timestamptz,
    shelved_until timestamptz,
    shelved_by text,
    shelf_reason text,
    -- `mode:<mode>` or `alarm:<rule>`.
    suppressed_by text,
    out_of_service_reason text,
    raised_lately timestamptz[] NOT NULL,
    chatters_until timestamptz,
    -- Tellings of this occurrence, those of this round before it was raised or came back, and when that was.
    tellings int NOT NULL CHECK (tellings >= 0),
    round_first int NOT NULL CHECK (round_first >= 0),
    round_began_at timestamptz,
    state_since timestamptz NOT NULL,
    -- Whoever writes names the revision that he read.
    revision bigint NOT NULL,
    updated_at timestamptz NOT NULL,
    UNIQUE (tenant_id, farm_id, barn_id, rule_id, place)
);
CREATE INDEX alarms_now ON alarms (tenant_id, state) WHERE state <> 'NORM';

-- Append-only: every transition, in the transaction that changes its alarm.
CREATE TABLE alarm_events (
    -- Grows with time.
    id uuid PRIMARY KEY,
    alarm_id uuid NOT NULL REFERENCES alarms (id),
    tenant_id text NOT NULL,
    farm_id text NOT NULL,
    barn_id text NOT NULL,
    rule_id text NOT NULL,
    place text NOT NULL,
    class text NOT NULL,
    occurrence bigint NOT NULL,
    kind text NOT NULL CHECK (kind IN ('raised', 'ended', 'acknowledged', 'shelved', 'unshelved', 'suppressed',
        'unsuppressed', 'out_of_service', 'in_service', 'restarted')),
    from_state text NOT NULL,
    to_state text NOT NULL,
    value double precision,
    limit_value double precision,
    why text,
    author text NOT NULL,
    -- The time of the reading, where one did it.
    occurred_at timestamptz,
    happened_at timestamptz NOT NULL
);
CREATE INDEX alarm_events_alarm ON alarm_events (alarm_id, id);
CREATE INDEX alarm_events_place ON alarm_events (tenant_id, id);

-- Who is told. A row is there before anybody is told, so that a number is told once.
CREATE TABLE alarm_tellings (
    alarm_id uuid NOT NULL REFERENCES alarms (id),
    occurrence bigint NOT NULL,
    number int NOT NULL CHECK (number >= 0),
    kind text NOT NULL,
    -- Listed with the others of a flood, and told by no way.
    is_grouped boolean NOT NULL,
    ways text[] NOT NULL,
    begun_at timestamptz NOT NULL,
    PRIMARY KEY (alarm_id, occurrence, number)
);

-- How that went, by way.
CREATE TABLE alarm_telling_results (
    alarm_id uuid NOT NULL,
    occurrence bigint NOT NULL,
    number int NOT NULL,
    way text NOT NULL,
    -- Empty when it was told.
    failure text,
    detail text NOT NULL,
    confirmed_by text,
    latency_ms bigint NOT NULL,
    ended_at timestamptz NOT NULL,
    PRIMARY KEY (alarm_id, occurrence, number, way),
    FOREIGN KEY (alarm_id, occurrence, number) REFERENCES alarm_tellings (alarm_id, occurrence, number)
);

CREATE TABLE alarm_drills (
    id uuid PRIMARY KEY,
    tenant_id text NOT NULL,
    farm_id text NOT NULL,
    barn_id text NOT NULL,
    alarm_id uuid NOT NULL REFERENCES alarms (id),
    occurrence bigint NOT NULL,
    is_scheduled boolean NOT NULL,
    author text NOT NULL,
    started_at timestamptz NOT NULL,
    acknowledged_at timestamptz,
    acknowledged_by text,
    result text NOT NULL CHECK (result IN ('waiting', 'answered', 'unanswered')),
    UNIQUE (alarm_id, occurrence)
);
CREATE INDEX alarm_drills_barn ON alarm_drills (tenant_id, farm_id, barn_id, started_at DESC);
