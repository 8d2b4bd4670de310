-- The one row that is written to see whether the database takes writes.

CREATE TABLE database_probe (
    id         int PRIMARY KEY CHECK (id = 1),
    written_at timestamptz NOT NULL
) WITH (fillfactor = 50);
