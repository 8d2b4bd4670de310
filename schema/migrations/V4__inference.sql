-- Images of one session, for the jobs of sessions that are open; and what waits, which is little of what there is.
CREATE INDEX inference_jobs_session ON inference_jobs (tenant_id, session_id) WHERE status = 'pending' AND session_id IS NOT NULL;
CREATE INDEX inference_jobs_open ON inference_jobs (created_at) WHERE status IN ('pending', 'processing');
