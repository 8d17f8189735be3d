CREATE TABLE IF NOT EXISTS registry_version (version BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS repositories (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL UNIQUE,
    -- Whether it ever held a manifest: only then it is in the catalogue and has a list of tags.
    listed BOOLEAN NOT NULL DEFAULT FALSE
);
CREATE INDEX IF NOT EXISTS repositories_listed ON repositories (name) WHERE listed;
CREATE TABLE IF NOT EXISTS blobs (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest TEXT COLLATE "C" NOT NULL UNIQUE,
    size BIGINT NOT NULL,
    place TEXT COLLATE "C" NOT NULL UNIQUE
);
CREATE TABLE IF NOT EXISTS holdings (
    repository BIGINT NOT NULL,
    blob BIGINT NOT NULL,
    -- When it was pushed, mounted or last asked for.
    touched BIGINT NOT NULL,
    PRIMARY KEY (repository, blob)
);
CREATE INDEX IF NOT EXISTS holdings_blob ON holdings (blob);
CREATE TABLE IF NOT EXISTS manifests (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    repository BIGINT NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    media_type TEXT NOT NULL,
    size BIGINT NOT NULL,
    subject TEXT COLLATE "C",
    artifact_type TEXT COLLATE "C",
    annotations TEXT NOT NULL,
    pushed BIGINT NOT NULL,
    pulled BIGINT NOT NULL DEFAULT 0,
    bytes BYTEA NOT NULL,
    UNIQUE (repository, digest)
);
CREATE INDEX IF NOT EXISTS manifests_subject ON manifests (repository, subject, digest) WHERE subject IS NOT NULL;
-- What a manifest names: blobs and members.
CREATE TABLE IF NOT EXISTS edges (
    repository BIGINT NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    manifest BIGINT NOT NULL,
    PRIMARY KEY (repository, digest, manifest)
);
CREATE INDEX IF NOT EXISTS edges_manifest ON edges (manifest);
CREATE TABLE IF NOT EXISTS tags (
    repository BIGINT NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    manifest BIGINT NOT NULL,
    pushed BIGINT NOT NULL,
    pulled BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (repository, name)
);
CREATE INDEX IF NOT EXISTS tags_manifest ON tags (manifest);
CREATE TABLE IF NOT EXISTS uploads (
    place TEXT COLLATE "C" PRIMARY KEY,
    repository TEXT COLLATE "C" NOT NULL,
    algorithm TEXT NOT NULL,
    size BIGINT NOT NULL,
    state BYTEA NOT NULL,
    parts TEXT NOT NULL,
    touched BIGINT NOT NULL
);
CREATE INDEX IF NOT EXISTS uploads_touched ON uploads (touched);
CREATE TABLE IF NOT EXISTS trash (
    place TEXT COLLATE "C" PRIMARY KEY,
    parts TEXT NOT NULL,
    since BIGINT NOT NULL
);
CREATE INDEX IF NOT EXISTS trash_since ON trash (since);
