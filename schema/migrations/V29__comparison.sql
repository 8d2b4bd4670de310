-- Cameras beside scales, standards of a site's own, models that are tried on stored pictures, and what reaches engines that do
-- not own the alarms.

-- Since when an engine that does not own the alarms has stored something of a barn: whoever owns them reads the rows.
CREATE TABLE alarm_unheard (
    tenant_id text NOT NULL,
    farm_id text NOT NULL,
    barn_id text NOT NULL,
    since timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, farm_id, barn_id)
);

-- A model that is tried on stored pictures, the newest first, before it is used.
CREATE TABLE model_trials (
    id uuid PRIMARY KEY,
    -- Whose pictures; NULL means everybody's.
    tenant_id text,
    -- Where its package lies.
    path text NOT NULL,
    model_version text NOT NULL,
    -- Of its network, and of network and settings.
    model_sha256 text NOT NULL,
    package_sha256 text NOT NULL,
    state text NOT NULL CHECK (state IN ('reading', 'done', 'broken', 'ended')),
    -- Why it is broken.
    fault text,
    pictures_max int NOT NULL CHECK (pictures_max > 0),
    -- Pictures that were looked at.
    pictures int NOT NULL DEFAULT 0,
    -- The last of them: the next one is older.
    captured_at timestamptz,
    media_id uuid,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
-- What it says, beside what the model in use says. None of it is a result of inference.
CREATE TABLE model_trial_pictures (
    trial_id uuid NOT NULL REFERENCES model_trials (id) ON DELETE CASCADE,
    tenant_id text NOT NULL,
    media_id uuid NOT NULL,
    device_id text NOT NULL,
    session_id text,
    captured_at timestamptz NOT NULL,
    candidate_kg double precision CHECK (abs(candidate_kg) < 'Infinity'::float8),
    candidate_birds int,
    -- Why the candidate said nothing.
    failure text,
    -- The version that was in use, when it had looked at the picture.
    present_version text,
    present_kg double precision CHECK (abs(present_kg) < 'Infinity'::float8),
    present_birds int,
    PRIMARY KEY (trial_id, tenant_id, media_id)
);

-- What a camera read of a weighing may come after the session has ended: the day of the weighing is made anew then, too.
-- A trigger waits for the writers of its table, and they wait behind it.
SET LOCAL lock_timeout = '1200ms';

-- Of a standard that was made of a site's own flocks: how many each day is of; 0 lies between its neighbors.
ALTER TABLE standard_rows ADD COLUMN flocks int CHECK (flocks >= 0);

CREATE FUNCTION farmiq_signal_picture() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO flock_signals (kind, tenant_id, farm_id, barn_id, device_id, event_id, batch_id, occurred_at)
    SELECT 'WEIGHING', s.tenant_id, s.farm_id, s.barn_id, s.device_id, s.session_id, s.batch_id, least(s.start_at, s.created_at)
    FROM weight_sessions AS s
    WHERE s.tenant_id = NEW.tenant_id AND s.session_id = NEW.session_id AND s.final_weight_kg IS NOT NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER signal_picture AFTER INSERT OR UPDATE OF session_id ON inference_results
    FOR EACH ROW WHEN (NEW.session_id IS NOT NULL AND NEW.predicted_weight_kg IS NOT NULL) EXECUTE FUNCTION farmiq_signal_picture();
