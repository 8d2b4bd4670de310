-- The flock's book: barns, breeders' standards, flocks, what people and devices write down of them, and what follows
-- from it day by day.

CREATE TABLE barns (
    tenant_id text NOT NULL,
    farm_id text NOT NULL,
    barn_id text NOT NULL,
    name text NOT NULL,
    -- A name of the IANA database, which is in the program. Days of birds begin at midnight here.
    time_zone text NOT NULL,
    -- BCP 47, such as th-TH.
    language text NOT NULL,
    units text NOT NULL CHECK (units IN ('METRIC', 'IMPERIAL')),
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, farm_id, barn_id)
);

-- Standards that somebody brought; those of the breeders are in the program.
CREATE TABLE standard_sets (
    id uuid PRIMARY KEY,
    tenant_id text NOT NULL,
    name text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('REFERENCE', 'STANDARD', 'TARGET')),
    genetic_line_code text NOT NULL,
    sex text NOT NULL CHECK (sex IN ('AS_HATCHED', 'MALE', 'FEMALE')),
    source text NOT NULL,
    year int NOT NULL,
    created_at timestamptz NOT NULL,
    UNIQUE (tenant_id, name, sex)
);
CREATE TABLE standard_rows (
    set_id uuid NOT NULL REFERENCES standard_sets (id) ON DELETE CASCADE,
    age_day int NOT NULL,
    body_weight_g double precision NOT NULL CHECK (body_weight_g > 0 AND body_weight_g < 'Infinity'),
    cum_feed_intake_g double precision CHECK (cum_feed_intake_g >= 0 AND cum_feed_intake_g < 'Infinity'),
    PRIMARY KEY (set_id, age_day)
);

CREATE TABLE flocks (
    id uuid NOT NULL,
    tenant_id text NOT NULL,
    farm_id text NOT NULL,
    barn_id text NOT NULL,
    -- The name that weighing sessions and the cloud know the flock by.
    batch_id text NOT NULL,
    genetic_line_code text NOT NULL,
    sex text NOT NULL CHECK (sex IN ('AS_HATCHED', 'MALE', 'FEMALE')),
    placed_on date NOT NULL,
    birds int NOT NULL CHECK (birds > 0),
    area_m2 double precision CHECK (area_m2 > 0 AND area_m2 < 'Infinity'),
    target_weight_g double precision CHECK (target_weight_g > 0 AND target_weight_g < 'Infinity'),
    -- A bundled set or a row of standard_sets.
    standard_set_id uuid,
    -- The last day with birds.
    ended_on date CHECK (ended_on >= placed_on),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, farm_id, barn_id, batch_id)
);
-- One flock at a time.
CREATE UNIQUE INDEX flocks_present ON flocks (tenant_id, farm_id, barn_id) WHERE ended_on IS NULL;

-- Append-only: a correction is a new row that names the one it takes the place of.
CREATE TABLE flock_records (
    id uuid NOT NULL,
    tenant_id text NOT NULL,
    flock_id uuid NOT NULL,
    kind text NOT NULL CHECK (kind IN ('MORTALITY', 'CULL', 'THINNING', 'FEED_DELIVERED', 'FEED_LEFT', 'FEED_RETURNED',
        'FEED_INTAKE', 'WATER_METER', 'HAND_WEIGHING', 'NOTE')),
    day date NOT NULL,
    part text CHECK (part IN ('MORNING', 'EVENING')),
    -- Birds, kilograms of feed, liters on the meter, or kilograms a bird; by the kind.
    value double precision CHECK (value >= 0 AND value < 'Infinity'),
    -- Birds of a hand weighing.
    birds int CHECK (birds > 0),
    cause text,
    note text,
    source text NOT NULL CHECK (source IN ('MANUAL', 'API_IMPORT', 'MQTT_DISPENSED', 'SILO_AUTO')),
    -- What makes a repetition known.
    external_ref text,
    -- The row that this one takes the place of; a row is corrected once, and then its correction is.
    corrects uuid,
    -- A correction that only takes away.
    is_void boolean NOT NULL DEFAULT false,
    author text NOT NULL,
    occurred_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, flock_id) REFERENCES flocks (tenant_id, id),
    UNIQUE (tenant_id, corrects),
    UNIQUE (tenant_id, external_ref)
);
CREATE INDEX flock_records_day ON flock_records (tenant_id, flock_id, day);

-- What a day's own inputs come to. Whatever needs several days is reckoned from these rows when somebody asks.
CREATE TABLE flock_days (
    tenant_id text NOT NULL,
    flock_id uuid NOT NULL,
    day date NOT NULL,
    summary jsonb NOT NULL,
    -- How often it was made.
    revision int NOT NULL,
    rebuilt_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, flock_id, day),
    FOREIGN KEY (tenant_id, flock_id) REFERENCES flocks (tenant_id, id)
);

-- Days that are no longer what they were made from.
CREATE TABLE flock_dirty_days (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id text NOT NULL,
    flock_id uuid NOT NULL,
    day date NOT NULL
);

-- What came in and may be of a flock: a weighing by its session, feed by its device. Rows are taken by whoever keeps the
-- book; a row that is written while another is taken is never lost, since nobody updates them.
CREATE TABLE flock_signals (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('WEIGHING', 'FEED_DISPENSED', 'SILO_WEIGHT')),
    tenant_id text NOT NULL,
    farm_id text NOT NULL,
    barn_id text NOT NULL,
    device_id text NOT NULL,
    event_id text NOT NULL,
    batch_id text,
    -- Kilograms of a dispenser or a silo.
    quantity_kg double precision,
    occurred_at timestamptz NOT NULL,
    trace_id text
);

-- The last weight of each silo.
CREATE TABLE silo_weight_snapshot (
    tenant_id text NOT NULL,
    device_id text NOT NULL,
    weight_kg double precision NOT NULL CHECK (abs(weight_kg) < 'Infinity'),
    occurred_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, device_id)
);

-- A weighing counts for the day on which it was done; of a clock that runs ahead, for that on which it came in.
-- A trigger waits for the writers of its table, and they wait behind it.
SET LOCAL lock_timeout = '1200ms';

CREATE FUNCTION farmiq_signal_weighing() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO flock_signals (kind, tenant_id, farm_id, barn_id, device_id, event_id, batch_id, occurred_at)
    VALUES ('WEIGHING', NEW.tenant_id, NEW.farm_id, NEW.barn_id, NEW.device_id, NEW.session_id, NEW.batch_id,
        least(NEW.start_at, NEW.created_at));
    RETURN NULL;
END $$;
CREATE TRIGGER signal_new_weighing AFTER INSERT ON weight_sessions
    FOR EACH ROW WHEN (NEW.final_weight_kg IS NOT NULL) EXECUTE FUNCTION farmiq_signal_weighing();
CREATE TRIGGER signal_weighing AFTER UPDATE ON weight_sessions
    FOR EACH ROW WHEN (NEW.final_weight_kg IS DISTINCT FROM OLD.final_weight_kg) EXECUTE FUNCTION farmiq_signal_weighing();
