-- Children that wait for their session are few among many.
CREATE INDEX session_weights_unbound ON session_weights (tenant_id, session_id) WHERE NOT is_bound;
CREATE INDEX session_media_bindings_unbound ON session_media_bindings (tenant_id, session_id) WHERE NOT is_bound;
-- Open sessions by the time of their last change.
CREATE INDEX weight_sessions_open ON weight_sessions (updated_at) WHERE status = 'created';
