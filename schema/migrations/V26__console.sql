-- Who looks at the console: logins of browsers, and codes that let somebody in once.

CREATE TABLE console_sessions (
    -- SHA-256 of what the browser shows.
    token_hash bytea PRIMARY KEY,
    -- A person who was invited, or the name of an operator key.
    name text NOT NULL,
    -- Of a person; that of a key is in the configuration.
    role text NOT NULL CHECK (role IN ('viewer', 'farmer', 'engineer', 'admin')),
    -- '*' means all.
    tenants text[] NOT NULL,
    -- SHA-256 of what is kept of the key that opened it: with the key it ends. NULL for a person who was invited.
    key_mark bytea,
    created_at timestamptz NOT NULL,
    seen_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL
);
CREATE INDEX console_sessions_name ON console_sessions (name, created_at);
CREATE INDEX console_sessions_ends ON console_sessions (ends_at);

-- Each is good for one login.
CREATE TABLE console_invites (
    -- SHA-256 of the code.
    code_hash bytea PRIMARY KEY,
    name text NOT NULL,
    role text NOT NULL CHECK (role IN ('viewer', 'farmer', 'engineer', 'admin')),
    tenants text[] NOT NULL,
    created_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL
);
