-- Where devices are, what was wrong with what they measured, and what the air of each barn was on each day.

CREATE TABLE device_places (
    tenant_id text NOT NULL,
    device_id text NOT NULL,
    -- A metric of the device, which goes before the place of the whole device: that has an empty one.
    metric_type text NOT NULL,
    role text NOT NULL CHECK (role IN ('inside', 'outside', 'water', 'scale', 'light', 'air')),
    zone text,
    height_cm double precision CHECK (height_cm >= 0 AND height_cm < 'Infinity'),
    -- What it counts in the means of its house; 0: nothing.
    weight double precision NOT NULL CHECK (weight >= 0 AND weight < 'Infinity'),
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, device_id, metric_type)
);

-- A stretch of time in which one test found something. Sound sensors have no row. None is longer than a day: what lasts is
-- several, end to end, so that those of a time are found by when they began.
CREATE TABLE sensor_faults (
    tenant_id text NOT NULL,
    device_id text NOT NULL,
    metric_type text NOT NULL,
    test text NOT NULL CHECK (test IN ('range', 'spike', 'rate', 'stuck', 'gap', 'neighbors', 'clock')),
    level text NOT NULL CHECK (level IN ('suspect', 'fail', 'missing')),
    -- By the time of the readings.
    from_at timestamptz NOT NULL,
    until_at timestamptz NOT NULL,
    -- How many are flagged.
    readings bigint NOT NULL CHECK (readings >= 0),
    -- The last of them.
    value double precision CHECK (abs(value) < 'Infinity'::float8),
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, device_id, metric_type, from_at, test)
);
CREATE INDEX sensor_faults_updated ON sensor_faults USING brin (updated_at);

CREATE TABLE barn_days (
    tenant_id text NOT NULL,
    farm_id text NOT NULL,
    barn_id text NOT NULL,
    -- In the barn's time zone.
    day date NOT NULL,
    -- The zone that it was reckoned in.
    time_zone text NOT NULL,
    summary jsonb NOT NULL,
    rebuilt_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, farm_id, barn_id, day)
);
