-- What retention looks rows up by.
CREATE INDEX media_objects_path ON media_objects (path) WHERE path IS NOT NULL;
CREATE INDEX dead_letters_redriven ON dead_letters (redriven_at) WHERE redriven_at IS NOT NULL;
