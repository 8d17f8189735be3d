//! Manifests, tags, referrers.

use std::collections::BTreeMap;

use ctk_oci::{Descriptor, Digest};
use rusqlite::Connection;

use super::{TagRule, all, digest, keep, make_repository, one, repository_id, run};
use crate::RegistryError;
use crate::meta::{ManifestPut, Name, Seconds, Stored, TagChange};

pub(super) fn put(connection: &Connection, put: &ManifestPut) -> Result<(), RegistryError> {
    let repository = make_repository(connection, &put.repository)?;
    for blob in &put.blobs {
        let sql = "SELECT b.size FROM blobs b JOIN holdings h ON h.blob = b.id \
                   WHERE b.digest = ?1 AND h.repository = ?2";
        let found = one(connection, sql, (blob.digest.to_string(), repository), |row| row.get::<_, i64>(0))?;
        check(&put.repository, blob, found, false)?;
    }
    for member in &put.manifests {
        let sql = "SELECT size FROM manifests WHERE digest = ?1 AND repository = ?2";
        let found = one(connection, sql, (member.digest.to_string(), repository), |row| row.get::<_, i64>(0))?;
        check(&put.repository, member, found, put.sparse)?;
    }
    let manifest = insert(connection, repository, put)?;
    for tag in &put.tags {
        let old = named(connection, repository, &Name::Tag(tag.clone()))?;
        let change = TagChange {
            repository: put.repository.clone(),
            tag: tag.clone(),
            old: old.map(|(_, digest)| digest),
            new: Some(put.descriptor.digest.clone()),
        };
        (put.rule)(&change).map_err(|reason| RegistryError::Refused { reason })?;
        let sql = "INSERT INTO tags (repository, name, manifest, pushed) VALUES (?1, ?2, ?3, ?4) \
                   ON CONFLICT DO UPDATE SET manifest = excluded.manifest, pushed = excluded.pushed";
        run(connection, sql, (repository, tag, manifest, put.now as i64))?;
    }
    if let Some(limit) = put.quota_bytes {
        let usage = keep::usage(connection, &put.repository)?;
        if usage.bytes > limit {
            return Err(RegistryError::Quota { repository: put.repository.clone(), limit, needed: usage.bytes });
        }
    }
    Ok(())
}

fn insert(connection: &Connection, repository: i64, put: &ManifestPut) -> Result<i64, RegistryError> {
    let text = put.descriptor.digest.to_string();
    let sql = "SELECT id FROM manifests WHERE repository = ?1 AND digest = ?2";
    if let Some(id) = one(connection, sql, (repository, &text), |row| row.get::<_, i64>(0))? {
        // The same bytes may come as another type: the last one counts.
        let sql = "UPDATE manifests SET media_type = ?2, pushed = ?3 WHERE id = ?1";
        run(connection, sql, (id, &put.descriptor.media_type, put.now as i64))?;
        return Ok(id);
    }
    let sql = "INSERT INTO manifests \
               (repository, digest, media_type, size, subject, artifact_type, annotations, pushed, bytes) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let annotations = serde_json::to_string(&put.annotations).expect("texts serialise");
    run(
        connection,
        sql,
        (
            repository,
            &text,
            &put.descriptor.media_type,
            put.bytes.len() as i64,
            put.subject.as_ref().map(Digest::to_string),
            &put.artifact_type,
            annotations,
            put.now as i64,
            &put.bytes,
        ),
    )?;
    let id = connection.last_insert_rowid();
    for named in put.blobs.iter().chain(&put.manifests) {
        let sql = "INSERT OR IGNORE INTO edges (repository, digest, manifest) VALUES (?1, ?2, ?3)";
        run(connection, sql, (repository, named.digest.to_string(), id))?;
    }
    run(connection, "UPDATE repositories SET listed = 1 WHERE id = ?1 AND NOT listed", [repository])?;
    Ok(id)
}

fn check(repository: &str, named: &Descriptor, found: Option<i64>, may_miss: bool) -> Result<(), RegistryError> {
    let digest = &named.digest;
    match found {
        Some(size) if size as u64 == named.size => Ok(()),
        Some(size) => Err(RegistryError::Manifest {
            reason: format!("it says that {digest} has {} bytes, but it has {size}", named.size),
            unknown: None,
        }),
        None if may_miss => Ok(()),
        None => Err(RegistryError::Manifest {
            reason: format!("`{repository}` does not hold {digest}, which it names"),
            unknown: Some(digest.clone()),
        }),
    }
}

/// The id and digest of what a name leads to.
fn named(connection: &Connection, repository: i64, name: &Name) -> Result<Option<(i64, Digest)>, RegistryError> {
    let (sql, value) = match name {
        Name::Digest(digest) => {
            ("SELECT id, digest FROM manifests WHERE repository = ?1 AND digest = ?2", digest.to_string())
        }
        Name::Tag(tag) => (
            "SELECT m.id, m.digest FROM tags t JOIN manifests m ON m.id = t.manifest \
             WHERE t.repository = ?1 AND t.name = ?2",
            tag.clone(),
        ),
    };
    let found = one(connection, sql, (repository, value), |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?;
    found.map(|(id, text)| Ok((id, digest(&text)?))).transpose()
}

macro_rules! by_name {
    ($columns:literal, $name:expr) => {
        match $name {
            Name::Digest(digest) => (
                concat!(
                    "SELECT ",
                    $columns,
                    " FROM manifests m WHERE m.repository = (SELECT id FROM repositories WHERE name = ?1) \
                     AND m.digest = ?2"
                ),
                digest.to_string(),
            ),
            Name::Tag(tag) => (
                concat!(
                    "SELECT ",
                    $columns,
                    " FROM tags t JOIN manifests m ON m.id = t.manifest \
                     WHERE t.repository = (SELECT id FROM repositories WHERE name = ?1) AND t.name = ?2"
                ),
                tag.clone(),
            ),
        }
    };
}

pub(super) fn get(connection: &Connection, repository: &str, name: &Name) -> Result<Option<Stored>, RegistryError> {
    let (sql, value) = by_name!("m.digest, m.media_type, m.bytes", name);
    let found = one(connection, sql, (repository, value), |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, Vec<u8>>(2)?))
    })?;
    let stored = |(text, kind, bytes): (String, String, Vec<u8>)| {
        Ok(Stored { descriptor: Descriptor::new(kind, digest(&text)?, bytes.len() as u64), bytes })
    };
    found.map(stored).transpose()
}

pub(super) fn descriptor(
    connection: &Connection,
    repository: &str,
    name: &Name,
) -> Result<Option<Descriptor>, RegistryError> {
    let (sql, value) = by_name!("m.digest, m.media_type, m.size", name);
    let found = one(connection, sql, (repository, value), |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?))
    })?;
    found.map(|(text, kind, size)| Ok(Descriptor::new(kind, digest(&text)?, size as u64))).transpose()
}

pub(super) fn delete(
    connection: &Connection,
    repository: &str,
    name: &Name,
    rule: &TagRule,
    _now: Seconds,
) -> Result<bool, RegistryError> {
    let Some(id) = repository_id(connection, repository)? else { return Ok(false) };
    let Some((manifest, digest)) = named(connection, id, name)? else { return Ok(false) };
    let tags: Vec<String> = match name {
        Name::Tag(tag) => vec![tag.clone()],
        Name::Digest(_) => {
            all(connection, "SELECT name FROM tags WHERE manifest = ?1 ORDER BY name", [manifest], |row| row.get(0))?
        }
    };
    for tag in tags {
        let change = TagChange { repository: repository.into(), tag, old: Some(digest.clone()), new: None };
        rule(&change).map_err(|reason| RegistryError::Refused { reason })?;
        run(connection, "DELETE FROM tags WHERE repository = ?1 AND name = ?2", (id, &change.tag))?;
    }
    if matches!(name, Name::Digest(_)) {
        remove(connection, manifest)?;
    }
    Ok(true)
}

/// Removes a manifest that no tag names any more.
pub(super) fn remove(connection: &Connection, manifest: i64) -> Result<(), RegistryError> {
    run(connection, "DELETE FROM edges WHERE manifest = ?1", [manifest])?;
    run(connection, "DELETE FROM manifests WHERE id = ?1", [manifest])?;
    Ok(())
}

pub(super) fn tags(
    connection: &Connection,
    repository: &str,
    after: &str,
    limit: usize,
) -> Result<Option<Vec<String>>, RegistryError> {
    let sql = "SELECT id FROM repositories WHERE name = ?1 AND listed";
    let Some(id) = one(connection, sql, [repository], |row| row.get::<_, i64>(0))? else { return Ok(None) };
    let sql = "SELECT name FROM tags WHERE repository = ?1 AND name > ?2 ORDER BY name LIMIT ?3";
    all(connection, sql, (id, after, limit as i64), |row| row.get(0)).map(Some)
}

pub(super) fn referrers(
    connection: &Connection,
    repository: &str,
    subject: &Digest,
    artifact_type: Option<&str>,
    after: &str,
    limit: usize,
) -> Result<Vec<Descriptor>, RegistryError> {
    let sql = "SELECT digest, media_type, size, artifact_type, annotations FROM manifests \
               WHERE repository = (SELECT id FROM repositories WHERE name = ?1) AND subject = ?2 AND digest > ?3 \
               AND (?4 IS NULL OR artifact_type = ?4) ORDER BY digest LIMIT ?5";
    let values = (repository, subject.to_string(), after, artifact_type, limit as i64);
    let rows = all(connection, sql, values, |row| {
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, i64>(2)?,
            row.get::<_, Option<String>>(3)?,
            row.get::<_, String>(4)?,
        ))
    })?;
    let descriptor = |(text, kind, size, artifact_type, annotations): (String, String, i64, Option<String>, String)| {
        let annotations: BTreeMap<String, String> = serde_json::from_str(&annotations)
            .map_err(|_| RegistryError::MetadataDamaged { what: "annotations", text: text.clone() })?;
        let descriptor = Descriptor::new(kind, digest(&text)?, size as u64);
        Ok(Descriptor { artifact_type, annotations, ..descriptor })
    };
    rows.into_iter().map(descriptor).collect()
}
