-- What a message at quality 2 was that holds its packet id, so that another one under the same id is not taken for it.

-- The first eight bytes of the SHA-256 of its topic and body; null where a program stored it that did not know this column.
ALTER TABLE mqtt_received ADD COLUMN fingerprint bigint;
