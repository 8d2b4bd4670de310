-- The SHA-256 that a device declares of its image: with the binding that announces it, and with the stored image, whose
-- own may be another.
ALTER TABLE session_media_bindings ADD COLUMN sha256 text;
ALTER TABLE media_objects ADD COLUMN declared_sha256 text;
