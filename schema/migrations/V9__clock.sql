-- What is known of the time, across restarts and power cuts: one row.
CREATE TABLE engine_clock (
    id int PRIMARY KEY CHECK (id = 1),
    -- The newest time that is known to be right.
    known_at timestamptz,
    -- When the clock leapt ahead last, by the time after the leap.
    leapt_at timestamptz
) WITH (fillfactor = 50);
INSERT INTO engine_clock (id) VALUES (1);
