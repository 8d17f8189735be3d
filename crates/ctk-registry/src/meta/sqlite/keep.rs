//! What stays and what goes.

use rusqlite::Connection;

use super::{all, blobs, digest, manifests, one, repository_id, run};
use crate::RegistryError;
use crate::meta::{Cursor, Name, Retention, Seconds, Seen, TagState, Usage};

pub(super) fn usage(connection: &Connection, repository: &str) -> Result<Usage, RegistryError> {
    let Some(id) = repository_id(connection, repository)? else { return Ok(Usage::default()) };
    let pair = |sql: &str| {
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64));
        Ok::<_, RegistryError>(one(connection, sql, [id], read)?.unwrap_or_default())
    };
    let (blobs, blob_bytes) = pair(
        "SELECT count(*), coalesce(sum(b.size), 0) FROM holdings h JOIN blobs b ON b.id = h.blob WHERE h.repository = ?1",
    )?;
    let (manifests, manifest_bytes) =
        pair("SELECT count(*), coalesce(sum(size), 0) FROM manifests WHERE repository = ?1")?;
    let (tags, _) = pair("SELECT count(*), 0 FROM tags WHERE repository = ?1")?;
    Ok(Usage { blobs, manifests, tags, bytes: blob_bytes + manifest_bytes })
}

pub(super) fn seen(connection: &Connection, seen: &[Seen], now: Seconds) -> Result<(), RegistryError> {
    let now = now as i64;
    for one_seen in seen {
        match one_seen {
            Seen::Manifest(repository, Name::Tag(tag)) => {
                let sql = "UPDATE tags SET pulled = ?3 \
                           WHERE repository = (SELECT id FROM repositories WHERE name = ?1) AND name = ?2";
                run(connection, sql, (repository, tag, now))?;
            }
            Seen::Manifest(repository, Name::Digest(digest)) => {
                let sql = "UPDATE manifests SET pulled = ?3 \
                           WHERE repository = (SELECT id FROM repositories WHERE name = ?1) AND digest = ?2";
                run(connection, sql, (repository, digest.to_string(), now))?;
            }
            Seen::Blob(repository, digest) => {
                let sql = "UPDATE holdings SET touched = max(touched, ?3) \
                           WHERE repository = (SELECT id FROM repositories WHERE name = ?1) \
                           AND blob = (SELECT id FROM blobs WHERE digest = ?2)";
                run(connection, sql, (repository, digest.to_string(), now))?;
            }
        }
    }
    Ok(())
}

pub(super) fn sweep(
    connection: &Connection,
    from: Option<Cursor>,
    before: Seconds,
    limit: usize,
    now: Seconds,
) -> Result<(usize, Option<Cursor>), RegistryError> {
    let (repository, blob) = from.unwrap_or((0, 0));
    let sql = "SELECT h.repository, h.blob, h.touched < ?3 AND NOT EXISTS \
               (SELECT 1 FROM edges e WHERE e.repository = h.repository AND e.digest = b.digest) \
               FROM holdings h JOIN blobs b ON b.id = h.blob \
               WHERE (h.repository, h.blob) > (?1, ?2) ORDER BY h.repository, h.blob LIMIT ?4";
    let looked = all(connection, sql, (repository, blob, before as i64, limit as i64), |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, bool>(2)?))
    })?;
    let mut removed = 0;
    for (repository, blob, _) in looked.iter().filter(|(.., stale)| *stale) {
        blobs::let_go(connection, *repository, *blob, now)?;
        removed += 1;
    }
    let last = looked.last().map(|(repository, blob, _)| (*repository, *blob));
    Ok((removed, last.filter(|_| looked.len() >= limit)))
}

pub(super) fn retain(
    connection: &Connection,
    repository: &str,
    retention: &Retention,
    now: Seconds,
    dry: bool,
) -> Result<Vec<Name>, RegistryError> {
    let Some(id) = repository_id(connection, repository)? else { return Ok(Vec::new()) };
    // A dry run does the same and takes it back.
    if dry {
        connection.execute_batch("SAVEPOINT dry").map_err(super::failed)?;
    }
    let removed = retain_in(connection, id, retention, now);
    if dry {
        connection.execute_batch("ROLLBACK TO dry; RELEASE dry").map_err(super::failed)?;
    }
    removed
}

fn retain_in(
    connection: &Connection,
    repository: i64,
    retention: &Retention,
    now: Seconds,
) -> Result<Vec<Name>, RegistryError> {
    let sql = "SELECT t.name, t.pushed, max(t.pulled, m.pulled) FROM tags t JOIN manifests m ON m.id = t.manifest \
               WHERE t.repository = ?1";
    let tags = all(connection, sql, [repository], |row| {
        Ok(TagState { name: row.get(0)?, pushed: row.get::<_, i64>(1)? as u64, pulled: row.get::<_, i64>(2)? as u64 })
    })?;
    let mut removed = Vec::new();
    for tag in retention.doomed(tags, now) {
        run(connection, "DELETE FROM tags WHERE repository = ?1 AND name = ?2", (repository, &tag))?;
        removed.push(Name::Tag(tag));
    }
    let Some(life) = retention.untagged_after else { return Ok(removed) };
    // What a manifest refers to keeps it: a signature goes with its image. An index keeps its members. So a round
    // removes the outermost, and the next one what only they kept.
    let sql = "SELECT m.id, m.digest FROM manifests m WHERE m.repository = ?1 AND max(m.pushed, m.pulled) < ?2 \
               AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.manifest = m.id) \
               AND NOT EXISTS (SELECT 1 FROM edges e WHERE e.repository = m.repository AND e.digest = m.digest) \
               AND (m.subject IS NULL OR NOT EXISTS \
                    (SELECT 1 FROM manifests s WHERE s.repository = m.repository AND s.digest = m.subject)) \
               ORDER BY m.digest";
    loop {
        let before = now.saturating_sub(life) as i64;
        let found =
            all(connection, sql, (repository, before), |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?;
        if found.is_empty() {
            return Ok(removed);
        }
        for (manifest, text) in found {
            manifests::remove(connection, manifest)?;
            removed.push(Name::Digest(digest(&text)?));
        }
    }
}
