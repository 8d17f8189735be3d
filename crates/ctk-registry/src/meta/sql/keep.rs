//! What stays and what goes.

use super::{Row, Sql, blobs, manifests, repository_id, values};
use crate::RegistryError;
use crate::meta::{Cursor, Name, Retention, Seconds, Seen, TagState, Totals, Usage};

pub(crate) fn usage(sql: &dyn Sql, repository: &str) -> Result<Usage, RegistryError> {
    let Some(id) = repository_id(sql, repository)? else { return Ok(Usage::default()) };
    let pair = |query: &'static str| match sql.one(query, values![id])? {
        Some(mut row) => Ok::<_, RegistryError>((row.count(0)?, row.count(1)?)),
        None => Ok((0, 0)),
    };
    let (blobs, blob_bytes) = pair(
        "SELECT count(*), CAST(coalesce(sum(b.size), 0) AS BIGINT) \
         FROM holdings h JOIN blobs b ON b.id = h.blob WHERE h.repository = ?1",
    )?;
    let (manifests, manifest_bytes) =
        pair("SELECT count(*), CAST(coalesce(sum(size), 0) AS BIGINT) FROM manifests WHERE repository = ?1")?;
    let (tags, _) = pair("SELECT count(*), 0 FROM tags WHERE repository = ?1")?;
    Ok(Usage { blobs, manifests, tags, bytes: blob_bytes + manifest_bytes })
}

pub(crate) fn totals(sql: &dyn Sql) -> Result<Totals, RegistryError> {
    let rows = sql.one(
        "SELECT (SELECT count(*) FROM uploads), (SELECT count(*) FROM repositories WHERE listed), \
         (SELECT count(*) FROM blobs), (SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM blobs), \
         (SELECT count(*) FROM manifests), (SELECT count(*) FROM tags), (SELECT count(*) FROM trash)",
        &[],
    )?;
    let Some(mut row) = rows else { return Ok(Totals::default()) };
    Ok(Totals {
        uploads: row.count(0)?,
        repositories: row.count(1)?,
        blobs: row.count(2)?,
        blob_bytes: row.count(3)?,
        manifests: row.count(4)?,
        tags: row.count(5)?,
        trash: row.count(6)?,
    })
}

pub(crate) fn seen(sql: &dyn Sql, seen: &[Seen], now: Seconds) -> Result<(), RegistryError> {
    for one_seen in seen {
        match one_seen {
            Seen::Manifest(repository, Name::Tag(tag)) => sql.run(
                "UPDATE tags SET pulled = ?3 \
                 WHERE repository = (SELECT id FROM repositories WHERE name = ?1) AND name = ?2",
                values![repository, tag, now],
            )?,
            Seen::Manifest(repository, Name::Digest(digest)) => sql.run(
                "UPDATE manifests SET pulled = ?3 \
                 WHERE repository = (SELECT id FROM repositories WHERE name = ?1) AND digest = ?2",
                values![repository, digest, now],
            )?,
            Seen::Blob(repository, digest) => sql.run(
                "UPDATE holdings SET touched = ?3 \
                 WHERE repository = (SELECT id FROM repositories WHERE name = ?1) \
                 AND blob = (SELECT id FROM blobs WHERE digest = ?2) AND touched < ?3",
                values![repository, digest, now],
            )?,
        };
    }
    Ok(())
}

pub(crate) fn sweep(
    sql: &dyn Sql,
    from: Option<Cursor>,
    before: Seconds,
    limit: usize,
    now: Seconds,
) -> Result<(usize, Option<Cursor>), RegistryError> {
    let (repository, blob) = from.unwrap_or((0, 0));
    let rows = sql.rows(
        "SELECT h.repository, h.blob, h.touched < ?3 AND NOT EXISTS \
         (SELECT 1 FROM edges e WHERE e.repository = h.repository AND e.digest = b.digest) \
         FROM holdings h JOIN blobs b ON b.id = h.blob \
         WHERE (h.repository, h.blob) > (?1, ?2) ORDER BY h.repository, h.blob LIMIT ?4",
        values![repository, blob, before, limit],
    )?;
    let (looked, mut removed, mut last) = (rows.len(), 0, None);
    for mut row in rows {
        let (repository, blob, stale) = (row.int(0)?, row.int(1)?, row.int(2)? != 0);
        last = Some((repository, blob));
        if stale {
            blobs::let_go(sql, repository, blob, now)?;
            removed += 1;
        }
    }
    Ok((removed, last.filter(|_| looked >= limit)))
}

pub(crate) fn retain(
    sql: &dyn Sql,
    repository: &str,
    retention: &Retention,
    now: Seconds,
    dry: bool,
) -> Result<Vec<Name>, RegistryError> {
    let Some(id) = repository_id(sql, repository)? else { return Ok(Vec::new()) };
    // A dry run does the same and takes it back.
    if dry {
        sql.batch("SAVEPOINT dry")?;
    }
    let removed = retain_in(sql, id, retention, now);
    if dry {
        sql.batch("ROLLBACK TO dry; RELEASE dry")?;
    }
    removed
}

fn retain_in(sql: &dyn Sql, repository: i64, retention: &Retention, now: Seconds) -> Result<Vec<Name>, RegistryError> {
    let rows = sql.rows(
        "SELECT t.name, t.pushed, CASE WHEN t.pulled > m.pulled THEN t.pulled ELSE m.pulled END \
         FROM tags t JOIN manifests m ON m.id = t.manifest WHERE t.repository = ?1",
        values![repository],
    )?;
    let state = |mut row: Row| Ok(TagState { name: row.text(0)?, pushed: row.count(1)?, pulled: row.count(2)? });
    let tags = rows.into_iter().map(state).collect::<Result<Vec<_>, RegistryError>>()?;
    let mut removed = Vec::new();
    for tag in retention.doomed(tags, now) {
        sql.run("DELETE FROM tags WHERE repository = ?1 AND name = ?2", values![repository, &tag])?;
        removed.push(Name::Tag(tag));
    }
    let Some(life) = retention.untagged_after else { return Ok(removed) };
    // What a manifest refers to keeps it: a signature goes with its image. An index keeps its members. So a round
    // removes the outermost, and the next one what only they kept.
    let query = "SELECT m.id, m.digest FROM manifests m \
                 WHERE m.repository = ?1 AND m.pushed < ?2 AND m.pulled < ?2 \
                 AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.manifest = m.id) \
                 AND NOT EXISTS (SELECT 1 FROM edges e WHERE e.repository = m.repository AND e.digest = m.digest) \
                 AND (m.subject IS NULL OR NOT EXISTS \
                      (SELECT 1 FROM manifests s WHERE s.repository = m.repository AND s.digest = m.subject)) \
                 ORDER BY m.digest";
    loop {
        let found = sql.rows(query, values![repository, now.saturating_sub(life)])?;
        if found.is_empty() {
            return Ok(removed);
        }
        for mut row in found {
            manifests::remove(sql, row.int(0)?)?;
            removed.push(Name::Digest(row.digest(1)?));
        }
    }
}
