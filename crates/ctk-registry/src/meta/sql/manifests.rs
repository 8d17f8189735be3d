//! Manifests, tags, referrers.

use std::collections::BTreeMap;

use ctk_oci::{Descriptor, Digest};

use super::{Row, Sql, inserted, keep, make_repository, repository_id, values};
use crate::RegistryError;
use crate::meta::{ManifestPut, Name, Seconds, Stored, TagChange, TagRule};

pub(crate) fn put(sql: &dyn Sql, put: &ManifestPut) -> Result<(), RegistryError> {
    let repository = make_repository(sql, &put.repository)?;
    for blob in &put.blobs {
        let query = "SELECT b.size FROM blobs b JOIN holdings h ON h.blob = b.id \
                     WHERE b.digest = ?1 AND h.repository = ?2";
        let found = sql.id(query, values![&blob.digest, repository])?;
        check(&put.repository, blob, found, false)?;
    }
    for member in &put.manifests {
        let query = "SELECT size FROM manifests WHERE digest = ?1 AND repository = ?2";
        let found = sql.id(query, values![&member.digest, repository])?;
        check(&put.repository, member, found, put.sparse)?;
    }
    let manifest = insert(sql, repository, put)?;
    for tag in &put.tags {
        let old = named(sql, repository, &Name::Tag(tag.clone()))?;
        let change = TagChange {
            repository: put.repository.clone(),
            tag: tag.clone(),
            old: old.map(|(_, digest)| digest),
            new: Some(put.descriptor.digest.clone()),
        };
        (put.rule)(&change).map_err(|reason| RegistryError::Refused { reason })?;
        sql.run(
            "INSERT INTO tags (repository, name, manifest, pushed) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT (repository, name) DO UPDATE SET manifest = excluded.manifest, pushed = excluded.pushed",
            values![repository, tag, manifest, put.now],
        )?;
    }
    if let Some(limit) = put.quota_bytes {
        let usage = keep::usage(sql, &put.repository)?;
        if usage.bytes > limit {
            return Err(RegistryError::Quota { repository: put.repository.clone(), limit, needed: usage.bytes });
        }
    }
    Ok(())
}

fn insert(sql: &dyn Sql, repository: i64, put: &ManifestPut) -> Result<i64, RegistryError> {
    let digest = &put.descriptor.digest;
    let query = "SELECT id FROM manifests WHERE repository = ?1 AND digest = ?2";
    if let Some(id) = sql.id(query, values![repository, digest])? {
        // The same bytes may come as another type: the last one counts.
        let change = "UPDATE manifests SET media_type = ?2, pushed = ?3 WHERE id = ?1";
        sql.run(change, values![id, &put.descriptor.media_type, put.now])?;
        return Ok(id);
    }
    let annotations = serde_json::to_string(&put.annotations).expect("texts serialise");
    let id = sql.id(
        "INSERT INTO manifests \
         (repository, digest, media_type, size, subject, artifact_type, annotations, pushed, bytes) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) RETURNING id",
        values![
            repository,
            digest,
            &put.descriptor.media_type,
            put.bytes.len(),
            put.subject.as_ref(),
            put.artifact_type.as_ref(),
            &annotations,
            put.now,
            &put.bytes[..],
        ],
    )?;
    let id = inserted(id)?;
    for named in put.blobs.iter().chain(&put.manifests) {
        let insert = "INSERT INTO edges (repository, digest, manifest) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
        sql.run(insert, values![repository, &named.digest, id])?;
    }
    sql.run("UPDATE repositories SET listed = TRUE WHERE id = ?1 AND NOT listed", values![repository])?;
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
fn named(sql: &dyn Sql, repository: i64, name: &Name) -> Result<Option<(i64, Digest)>, RegistryError> {
    let (query, value) = match name {
        Name::Digest(digest) => {
            ("SELECT id, digest FROM manifests WHERE repository = ?1 AND digest = ?2", digest.to_string())
        }
        Name::Tag(tag) => (
            "SELECT m.id, m.digest FROM tags t JOIN manifests m ON m.id = t.manifest \
             WHERE t.repository = ?1 AND t.name = ?2",
            tag.clone(),
        ),
    };
    sql.one(query, values![repository, &value])?.map(|mut row| Ok((row.int(0)?, row.digest(1)?))).transpose()
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

pub(crate) fn get(sql: &dyn Sql, repository: &str, name: &Name) -> Result<Option<Stored>, RegistryError> {
    let (query, value) = by_name!("m.digest, m.media_type, m.bytes", name);
    let stored = |mut row: Row| {
        let bytes = row.bytes(2)?;
        Ok(Stored { descriptor: Descriptor::new(row.text(1)?, row.digest(0)?, bytes.len() as u64), bytes })
    };
    sql.one(query, values![repository, &value])?.map(stored).transpose()
}

pub(crate) fn descriptor(sql: &dyn Sql, repository: &str, name: &Name) -> Result<Option<Descriptor>, RegistryError> {
    let (query, value) = by_name!("m.digest, m.media_type, m.size", name);
    let descriptor = |mut row: Row| Ok(Descriptor::new(row.text(1)?, row.digest(0)?, row.count(2)?));
    sql.one(query, values![repository, &value])?.map(descriptor).transpose()
}

pub(crate) fn delete(
    sql: &dyn Sql,
    repository: &str,
    name: &Name,
    rule: &TagRule,
    _now: Seconds,
) -> Result<bool, RegistryError> {
    let Some(id) = repository_id(sql, repository)? else { return Ok(false) };
    let Some((manifest, digest)) = named(sql, id, name)? else { return Ok(false) };
    let tags: Vec<String> = match name {
        Name::Tag(tag) => vec![tag.clone()],
        Name::Digest(_) => {
            let rows = sql.rows("SELECT name FROM tags WHERE manifest = ?1 ORDER BY name", values![manifest])?;
            rows.into_iter().map(|mut row| row.text(0)).collect::<Result<_, _>>()?
        }
    };
    for tag in tags {
        let change = TagChange { repository: repository.into(), tag, old: Some(digest.clone()), new: None };
        rule(&change).map_err(|reason| RegistryError::Refused { reason })?;
        sql.run("DELETE FROM tags WHERE repository = ?1 AND name = ?2", values![id, &change.tag])?;
    }
    if matches!(name, Name::Digest(_)) {
        remove(sql, manifest)?;
    }
    Ok(true)
}

/// Removes a manifest that no tag names any more.
pub(crate) fn remove(sql: &dyn Sql, manifest: i64) -> Result<(), RegistryError> {
    sql.run("DELETE FROM edges WHERE manifest = ?1", values![manifest])?;
    sql.run("DELETE FROM manifests WHERE id = ?1", values![manifest])?;
    Ok(())
}

pub(crate) fn tags(
    sql: &dyn Sql,
    repository: &str,
    after: &str,
    limit: usize,
) -> Result<Option<Vec<String>>, RegistryError> {
    let query = "SELECT id FROM repositories WHERE name = ?1 AND listed";
    let Some(id) = sql.id(query, values![repository])? else { return Ok(None) };
    let query = "SELECT name FROM tags WHERE repository = ?1 AND name > ?2 ORDER BY name LIMIT ?3";
    sql.rows(query, values![id, after, limit])?
        .into_iter()
        .map(|mut row| row.text(0))
        .collect::<Result<_, _>>()
        .map(Some)
}

pub(crate) fn referrers(
    sql: &dyn Sql,
    repository: &str,
    subject: &Digest,
    artifact_type: Option<&str>,
    after: &str,
    limit: usize,
) -> Result<Vec<Descriptor>, RegistryError> {
    let rows = sql.rows(
        "SELECT digest, media_type, size, artifact_type, annotations FROM manifests \
         WHERE repository = (SELECT id FROM repositories WHERE name = ?1) AND subject = ?2 AND digest > ?3 \
         AND (CAST(?4 AS TEXT) IS NULL OR artifact_type = CAST(?4 AS TEXT)) ORDER BY digest LIMIT ?5",
        values![repository, subject, after, artifact_type, limit],
    )?;
    let descriptor = |mut row: Row| {
        let text = row.text(4)?;
        let annotations: BTreeMap<String, String> = serde_json::from_str(&text)
            .map_err(|_| RegistryError::MetadataDamaged { what: "annotations", text: text.clone() })?;
        let descriptor = Descriptor::new(row.text(1)?, row.digest(0)?, row.count(2)?);
        Ok(Descriptor { artifact_type: row.optional_text(3)?, annotations, ..descriptor })
    };
    rows.into_iter().map(descriptor).collect()
}
