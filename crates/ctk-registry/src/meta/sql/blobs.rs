//! Uploads and blobs.

use ctk_oci::{Algorithm, Digest};

use super::{Sql, inserted, make_repository, repository_id, values};
use crate::RegistryError;
use crate::meta::{Held, Place, Seconds, Upload};

pub(crate) fn start_upload(sql: &dyn Sql, upload: &Upload, limit: usize, now: Seconds) -> Result<(), RegistryError> {
    let open = sql.id("SELECT count(*) FROM uploads", &[])?.unwrap_or(0);
    if open as usize >= limit {
        return Err(RegistryError::UploadsLimit { limit });
    }
    let Upload { place, repository, size, state, parts, .. } = upload;
    sql.run(
        "INSERT INTO uploads (place, repository, algorithm, size, state, parts, touched) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        values![&place.0, repository, upload.algorithm.name(), *size, &state[..], parts, now],
    )?;
    Ok(())
}

pub(crate) fn upload(sql: &dyn Sql, repository: &str, place: &Place) -> Result<Option<Upload>, RegistryError> {
    let query = "SELECT algorithm, size, state, parts FROM uploads WHERE place = ?1 AND repository = ?2";
    let Some(mut row) = sql.one(query, values![&place.0, repository])? else { return Ok(None) };
    let name = row.text(0)?;
    let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name);
    Ok(Some(Upload {
        place: place.clone(),
        repository: repository.to_owned(),
        algorithm: algorithm.ok_or(RegistryError::MetadataDamaged { what: "an algorithm", text: name })?,
        size: row.count(1)?,
        state: row.bytes(2)?,
        parts: row.text(3)?,
    }))
}

pub(crate) fn save_upload(sql: &dyn Sql, upload: &Upload, now: Seconds) -> Result<bool, RegistryError> {
    let Upload { place, repository, size, state, parts, .. } = upload;
    let changed = sql.run(
        "UPDATE uploads SET size = ?3, state = ?4, parts = ?5, touched = ?6 WHERE place = ?1 AND repository = ?2",
        values![&place.0, repository, *size, &state[..], parts, now],
    )?;
    Ok(changed > 0)
}

pub(crate) fn finish_upload(
    sql: &dyn Sql,
    repository: &str,
    place: &Place,
    digest: &Digest,
    size: u64,
    lost: Option<&Place>,
    now: Seconds,
) -> Result<bool, RegistryError> {
    let gone = "DELETE FROM uploads WHERE place = ?1 AND repository = ?2";
    if sql.run(gone, values![&place.0, repository])? == 0 {
        return Ok(false);
    }
    let known = match sql.one("SELECT id, place FROM blobs WHERE digest = ?1", values![digest])? {
        Some(mut row) => Some((row.int(0)?, Place(row.text(1)?))),
        None => None,
    };
    let blob = match known {
        Some((id, old)) if lost == Some(&old) => {
            sql.run("UPDATE blobs SET place = ?2, size = ?3 WHERE id = ?1", values![id, &place.0, size])?;
            discard(sql, &old, "", now)?;
            id
        }
        Some((id, _)) => {
            discard(sql, place, "", now)?;
            id
        }
        None => {
            let insert = "INSERT INTO blobs (digest, size, place) VALUES (?1, ?2, ?3) RETURNING id";
            inserted(sql.id(insert, values![digest, size, &place.0])?)?
        }
    };
    hold(sql, repository, blob, now)?;
    Ok(true)
}

fn hold(sql: &dyn Sql, repository: &str, blob: i64, now: Seconds) -> Result<(), RegistryError> {
    let repository = make_repository(sql, repository)?;
    sql.run(
        "INSERT INTO holdings (repository, blob, touched) VALUES (?1, ?2, ?3) \
         ON CONFLICT (repository, blob) DO UPDATE SET touched = excluded.touched \
         WHERE holdings.touched < excluded.touched",
        values![repository, blob, now],
    )?;
    Ok(())
}

fn discard(sql: &dyn Sql, place: &Place, parts: &str, now: Seconds) -> Result<(), RegistryError> {
    sql.run("INSERT INTO trash (place, parts, since) VALUES (?1, ?2, ?3)", values![&place.0, parts, now])?;
    Ok(())
}

pub(crate) fn cancel_upload(
    sql: &dyn Sql,
    repository: &str,
    place: &Place,
    now: Seconds,
) -> Result<bool, RegistryError> {
    let Some(upload) = upload(sql, repository, place)? else { return Ok(false) };
    sql.run("DELETE FROM uploads WHERE place = ?1", values![&place.0])?;
    discard(sql, place, &upload.parts, now)?;
    Ok(true)
}

pub(crate) fn expire_uploads(sql: &dyn Sql, before: Seconds, now: Seconds) -> Result<usize, RegistryError> {
    sql.run(
        "INSERT INTO trash (place, parts, since) \
         SELECT place, parts, CAST(?2 AS BIGINT) FROM uploads WHERE touched < ?1",
        values![before, now],
    )?;
    sql.run("DELETE FROM uploads WHERE touched < ?1", values![before])
}

pub(crate) fn blob(sql: &dyn Sql, repository: &str, digest: &Digest) -> Result<Option<Held>, RegistryError> {
    let found = sql.one(
        "SELECT b.place, b.size FROM blobs b JOIN holdings h ON h.blob = b.id \
         WHERE b.digest = ?2 AND h.repository = (SELECT id FROM repositories WHERE name = ?1)",
        values![repository, digest],
    )?;
    found.map(|mut row| Ok(Held { place: Place(row.text(0)?), size: row.count(1)? })).transpose()
}

pub(crate) fn holders(sql: &dyn Sql, digest: &Digest, limit: usize) -> Result<Vec<String>, RegistryError> {
    let rows = sql.rows(
        "SELECT r.name FROM blobs b JOIN holdings h ON h.blob = b.id JOIN repositories r ON r.id = h.repository \
         WHERE b.digest = ?1 ORDER BY r.name LIMIT ?2",
        values![digest, limit],
    )?;
    rows.into_iter().map(|mut row| row.text(0)).collect()
}

pub(crate) fn mount(
    sql: &dyn Sql,
    repository: &str,
    from: &str,
    digest: &Digest,
    now: Seconds,
) -> Result<bool, RegistryError> {
    let Some((_, blob)) = holding(sql, from, digest)? else { return Ok(false) };
    hold(sql, repository, blob, now)?;
    Ok(true)
}

/// The ids of a repository and a blob that it holds.
fn holding(sql: &dyn Sql, repository: &str, digest: &Digest) -> Result<Option<(i64, i64)>, RegistryError> {
    let Some(repository) = repository_id(sql, repository)? else { return Ok(None) };
    let query = "SELECT b.id FROM blobs b JOIN holdings h ON h.blob = b.id WHERE b.digest = ?1 AND h.repository = ?2";
    let blob = sql.id(query, values![digest, repository])?;
    Ok(blob.map(|blob| (repository, blob)))
}

pub(crate) fn delete_blob(
    sql: &dyn Sql,
    repository: &str,
    digest: &Digest,
    now: Seconds,
) -> Result<bool, RegistryError> {
    let Some((repository, blob)) = holding(sql, repository, digest)? else { return Ok(false) };
    let_go(sql, repository, blob, now)?;
    Ok(true)
}

/// Takes a blob from a repository; the last to hold it throws its bytes away.
pub(crate) fn let_go(sql: &dyn Sql, repository: i64, blob: i64, now: Seconds) -> Result<(), RegistryError> {
    sql.run("DELETE FROM holdings WHERE repository = ?1 AND blob = ?2", values![repository, blob])?;
    if sql.one("SELECT 1 FROM holdings WHERE blob = ?1 LIMIT 1", values![blob])?.is_none() {
        sql.run(
            "INSERT INTO trash (place, parts, since) SELECT place, '', CAST(?2 AS BIGINT) FROM blobs WHERE id = ?1",
            values![blob, now],
        )?;
        sql.run("DELETE FROM blobs WHERE id = ?1", values![blob])?;
    }
    Ok(())
}
