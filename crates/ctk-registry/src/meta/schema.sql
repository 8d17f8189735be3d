CREATE TABLE IF NOT EXISTS repositories (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    -- Whether it ever held a manifest: only then it is in the catalogue and has a list of tags.
    listed INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS repositories_listed ON repositories (name) WHERE listed;
CREATE TABLE IF NOT EXISTS blobs (
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    place TEXT NOT NULL UNIQUE
);
CREATE TABLE IF NOT EXISTS holdings (
    repository INTEGER NOT NULL,
    blob INTEGER NOT NULL,
    -- When it was pushed, mounted or last asked for.
    touched INTEGER NOT NULL,
    PRIMARY KEY (repository, blob)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS holdings_blob ON holdings (blob);
CREATE TABLE IF NOT EXISTS manifests (
    id INTEGER PRIMARY KEY,
    repository INTEGER NOT NULL,
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    size INTEGER NOT NULL,
    subject TEXT,
    artifact_type TEXT,
    annotations TEXT NOT NULL,
    pushed INTEGER NOT NULL,
    pulled INTEGER NOT NULL DEFAULT 0,
    bytes BLOB NOT NULL,
    UNIQUE (repository, digest)
);
CREATE INDEX IF NOT EXISTS manifests_subject ON manifests (repository, subject, digest) WHERE subject IS NOT NULL;
-- What a manifest names: blobs and members.
CREATE TABLE IF NOT EXISTS edges (
    repository INTEGER NOT NULL,
    digest TEXT NOT NULL,
    manifest INTEGER NOT NULL,
    PRIMARY KEY (repository, digest, manifest)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS edges_manifest ON edges (manifest);
CREATE TABLE IF NOT EXISTS tags (
    repository INTEGER NOT NULL,
    name TEXT NOT NULL,
    manifest INTEGER NOT NULL,
    pushed INTEGER NOT NULL,
    pulled INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (repository, name)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tags_manifest ON tags (manifest);
CREATE TABLE IF NOT EXISTS uploads (
    place TEXT PRIMARY KEY,
    repository TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    size INTEGER NOT NULL,
    state BLOB NOT NULL,
    parts TEXT NOT NULL,
    touched INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS uploads_touched ON uploads (touched);
CREATE TABLE IF NOT EXISTS trash (
    place TEXT PRIMARY KEY,
    parts TEXT NOT NULL,
    since INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS trash_since ON trash (since);
