//! Uploads and blobs.

use ctk_oci::{Algorithm, Digest};
use rusqlite::Connection;

use super::{make_repository, one, repository_id, run};
use crate::RegistryError;
use crate::meta::{Held, Place, Seconds, Upload};

pub(super) fn start_upload(
    connection: &Connection,
    upload: &Upload,
    limit: usize,
    now: Seconds,
) -> Result<(), RegistryError> {
    let open: i64 = one(connection, "SELECT count(*) FROM uploads", [], |row| row.get(0))?.unwrap_or(0);
    if open as usize >= limit {
        return Err(RegistryError::UploadsLimit { limit });
    }
    let sql = "INSERT INTO uploads (place, repository, algorithm, size, state, parts, touched) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let algorithm = upload.algorithm.name();
    let Upload { place, repository, size, state, parts, .. } = upload;
    run(connection, sql, (&place.0, repository, algorithm, *size as i64, state, parts, now as i64))?;
    Ok(())
}

pub(super) fn upload(
    connection: &Connection,
    repository: &str,
    place: &Place,
) -> Result<Option<Upload>, RegistryError> {
    let sql = "SELECT algorithm, size, state, parts FROM uploads WHERE place = ?1 AND repository = ?2";
    let found = one(connection, sql, (&place.0, repository), |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get(2)?, row.get(3)?))
    })?;
    let Some((name, size, state, parts)) = found else { return Ok(None) };
    let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name);
    let algorithm = algorithm.ok_or(RegistryError::MetadataDamaged { what: "an algorithm", text: name })?;
    let (place, repository, size) = (place.clone(), repository.to_owned(), size as u64);
    Ok(Some(Upload { place, repository, algorithm, size, state, parts }))
}

pub(super) fn save_upload(connection: &Connection, upload: &Upload, now: Seconds) -> Result<bool, RegistryError> {
    let sql = "UPDATE uploads SET size = ?3, state = ?4, parts = ?5, touched = ?6 WHERE place = ?1 AND repository = ?2";
    let Upload { place, repository, size, state, parts, .. } = upload;
    Ok(run(connection, sql, (&place.0, repository, *size as i64, state, parts, now as i64))? > 0)
}

pub(super) fn finish_upload(
    connection: &Connection,
    repository: &str,
    place: &Place,
    digest: &Digest,
    size: u64,
    lost: Option<&Place>,
    now: Seconds,
) -> Result<bool, RegistryError> {
    if run(connection, "DELETE FROM uploads WHERE place = ?1 AND repository = ?2", (&place.0, repository))? == 0 {
        return Ok(false);
    }
    let text = digest.to_string();
    let sql = "SELECT id, place FROM blobs WHERE digest = ?1";
    let known = one(connection, sql, [&text], |row| Ok((row.get::<_, i64>(0)?, Place(row.get(1)?))))?;
    let blob = match known {
        Some((id, old)) if lost == Some(&old) => {
            run(connection, "UPDATE blobs SET place = ?2, size = ?3 WHERE id = ?1", (id, &place.0, size as i64))?;
            discard(connection, &old, "", now)?;
            id
        }
        Some((id, _)) => {
            discard(connection, place, "", now)?;
            id
        }
        None => {
            let sql = "INSERT INTO blobs (digest, size, place) VALUES (?1, ?2, ?3)";
            run(connection, sql, (&text, size as i64, &place.0))?;
            connection.last_insert_rowid()
        }
    };
    hold(connection, repository, blob, now)?;
    Ok(true)
}

fn hold(connection: &Connection, repository: &str, blob: i64, now: Seconds) -> Result<(), RegistryError> {
    let repository = make_repository(connection, repository)?;
    let sql = "INSERT INTO holdings (repository, blob, touched) VALUES (?1, ?2, ?3) \
               ON CONFLICT DO UPDATE SET touched = max(touched, excluded.touched)";
    run(connection, sql, (repository, blob, now as i64))?;
    Ok(())
}

fn discard(connection: &Connection, place: &Place, parts: &str, now: Seconds) -> Result<(), RegistryError> {
    let sql = "INSERT INTO trash (place, parts, since) VALUES (?1, ?2, ?3)";
    run(connection, sql, (&place.0, parts, now as i64))?;
    Ok(())
}

pub(super) fn cancel_upload(
    connection: &Connection,
    repository: &str,
    place: &Place,
    now: Seconds,
) -> Result<bool, RegistryError> {
    let Some(upload) = upload(connection, repository, place)? else { return Ok(false) };
    run(connection, "DELETE FROM uploads WHERE place = ?1", [&place.0])?;
    discard(connection, place, &upload.parts, now)?;
    Ok(true)
}

pub(super) fn expire_uploads(connection: &Connection, before: Seconds, now: Seconds) -> Result<usize, RegistryError> {
    let sql = "INSERT INTO trash (place, parts, since) SELECT place, parts, ?2 FROM uploads WHERE touched < ?1";
    run(connection, sql, (before as i64, now as i64))?;
    run(connection, "DELETE FROM uploads WHERE touched < ?1", [before as i64])
}

pub(super) fn blob(connection: &Connection, repository: &str, digest: &Digest) -> Result<Option<Held>, RegistryError> {
    let sql = "SELECT b.place, b.size FROM blobs b JOIN holdings h ON h.blob = b.id \
               WHERE b.digest = ?2 AND h.repository = (SELECT id FROM repositories WHERE name = ?1)";
    one(connection, sql, (repository, digest.to_string()), |row| {
        Ok(Held { place: Place(row.get(0)?), size: row.get::<_, i64>(1)? as u64 })
    })
}

pub(super) fn holders(connection: &Connection, digest: &Digest, limit: usize) -> Result<Vec<String>, RegistryError> {
    let sql = "SELECT r.name FROM blobs b JOIN holdings h ON h.blob = b.id JOIN repositories r ON r.id = h.repository \
               WHERE b.digest = ?1 ORDER BY r.name LIMIT ?2";
    super::all(connection, sql, (digest.to_string(), limit as i64), |row| row.get(0))
}

pub(super) fn mount(
    connection: &Connection,
    repository: &str,
    from: &str,
    digest: &Digest,
    now: Seconds,
) -> Result<bool, RegistryError> {
    let Some((_, blob)) = holding(connection, from, digest)? else { return Ok(false) };
    hold(connection, repository, blob, now)?;
    Ok(true)
}

/// The ids of a repository and a blob that it holds.
fn holding(connection: &Connection, repository: &str, digest: &Digest) -> Result<Option<(i64, i64)>, RegistryError> {
    let Some(repository) = repository_id(connection, repository)? else { return Ok(None) };
    let sql = "SELECT b.id FROM blobs b JOIN holdings h ON h.blob = b.id WHERE b.digest = ?1 AND h.repository = ?2";
    let blob = one(connection, sql, (digest.to_string(), repository), |row| row.get(0))?;
    Ok(blob.map(|blob| (repository, blob)))
}

pub(super) fn delete_blob(
    connection: &Connection,
    repository: &str,
    digest: &Digest,
    now: Seconds,
) -> Result<bool, RegistryError> {
    let Some((repository, blob)) = holding(connection, repository, digest)? else { return Ok(false) };
    let_go(connection, repository, blob, now)?;
    Ok(true)
}

/// Takes a blob from a repository; the last to hold it throws its bytes away.
pub(super) fn let_go(connection: &Connection, repository: i64, blob: i64, now: Seconds) -> Result<(), RegistryError> {
    run(connection, "DELETE FROM holdings WHERE repository = ?1 AND blob = ?2", (repository, blob))?;
    let held = one(connection, "SELECT 1 FROM holdings WHERE blob = ?1 LIMIT 1", [blob], |_| Ok(()))?;
    if held.is_none() {
        let sql = "INSERT INTO trash (place, parts, since) SELECT place, '', ?2 FROM blobs WHERE id = ?1";
        run(connection, sql, (blob, now as i64))?;
        run(connection, "DELETE FROM blobs WHERE id = ?1", [blob])?;
    }
    Ok(())
}
