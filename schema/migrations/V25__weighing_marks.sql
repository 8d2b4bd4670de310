-- What people say of weighings: that they are excluded from the statistics, that they are taken in again, that somebody
-- has looked at them.

-- Append-only: an exclusion is ended by a row that names it.
CREATE TABLE session_marks (
    -- Grows with time.
    id uuid NOT NULL,
    tenant_id text NOT NULL,
    session_id text NOT NULL,
    -- One weight of the session; empty means the whole session.
    weight_id uuid,
    kind text NOT NULL CHECK (kind IN ('excluded', 'included', 'reviewed')),
    -- The exclusion that ends with this row; each ends once.
    ends uuid,
    reason text,
    author text NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, ends),
    CHECK ((kind = 'included') = (ends IS NOT NULL)),
    CHECK (kind <> 'excluded' OR reason IS NOT NULL),
    CHECK (kind <> 'reviewed' OR weight_id IS NULL)
);
CREATE INDEX session_marks_session ON session_marks (tenant_id, session_id, id);
