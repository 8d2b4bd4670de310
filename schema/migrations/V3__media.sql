-- Uploads are found by their id alone, which an upload URL names, and by their key.
CREATE INDEX media_uploads_media ON media_uploads (media_id);
CREATE UNIQUE INDEX media_uploads_key ON media_uploads (bucket, object_key);
-- Those that are still open, and when they are looked at again.
ALTER TABLE media_uploads ADD COLUMN next_look_at timestamptz;
CREATE INDEX media_uploads_open ON media_uploads (expires_at) WHERE status IN ('presigned', 'uploaded');
-- The session of an upload.
CREATE INDEX session_media_bindings_media ON session_media_bindings (tenant_id, media_object_id);
