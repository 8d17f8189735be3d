//! Metadata in one SQLite file beside the blobs. Readers never wait for writers (write-ahead log). Several processes
//! may use one file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::types::{ToSqlOutput, Value as Stored, ValueRef};
use rusqlite::{Connection, OpenFlags, ToSql};

use super::sql::{Row, Sql, Value};
use super::tables::Tables;
use crate::{METADATA_BUSY_TIMEOUT, METADATA_READERS_LIMIT, RegistryError};

/// The version of the tables, in the file's `user_version`. A file of a later one is refused.
const SCHEMA: i64 = 1;

/// Metadata in a file.
#[derive(Debug)]
pub struct Sqlite;

impl Sqlite {
    /// Opens the file `path`, made if it does not exist; its directory must. Nothing is scanned.
    pub fn open(path: impl Into<PathBuf>) -> Result<Tables, RegistryError> {
        let path = path.into();
        let connection = connect(&path, true).map_err(failed("open"))?;
        let version = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed("open"))?;
        if version > SCHEMA {
            return Err(RegistryError::MetadataVersion { path, found: version, known: SCHEMA });
        }
        if version < SCHEMA {
            let make =
                format!("BEGIN IMMEDIATE; {} PRAGMA user_version = {SCHEMA}; COMMIT;", include_str!("schema.sql"));
            connection.execute_batch(&make).map_err(failed("open"))?;
        }
        drop(connection);
        let name = path.display().to_string();
        let open = move |write: bool| {
            let connection = connect(&path, write).map_err(failed("open"))?;
            Ok(Box::new(Open(connection)) as Box<dyn Sql>)
        };
        Tables::new(name, Arc::new(open), METADATA_READERS_LIMIT)
    }
}

fn connect(path: &Path, write: bool) -> Result<Connection, rusqlite::Error> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if write {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(METADATA_BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    if write {
        connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 2000;")?;
    } else {
        connection.execute_batch("PRAGMA query_only = 1;")?;
    }
    Ok(connection)
}

fn failed(action: &'static str) -> impl Fn(rusqlite::Error) -> RegistryError {
    move |cause| {
        let full = cause.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull);
        RegistryError::Metadata { action, full, cause: cause.into() }
    }
}

struct Open(Connection);

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Value::Null => ToSqlOutput::Owned(Stored::Null),
            Value::Int(number) => ToSqlOutput::Owned(Stored::Integer(*number)),
            Value::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Value::Bytes(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
        })
    }
}

fn read(row: &rusqlite::Row<'_>, columns: usize) -> rusqlite::Result<Row> {
    let value = |column| {
        Ok(match row.get::<_, Stored>(column)? {
            Stored::Null => Value::Null,
            Stored::Integer(number) => Value::Int(number),
            Stored::Real(number) => Value::Int(number as i64),
            Stored::Text(text) => Value::Text(text.into()),
            Stored::Blob(bytes) => Value::Bytes(bytes.into()),
        })
    };
    (0..columns).map(value).collect::<rusqlite::Result<_>>().map(Row)
}

impl Sql for Open {
    fn run(&self, sql: &'static str, values: &[Value<'_>]) -> Result<usize, RegistryError> {
        let run = self.0.prepare_cached(sql);
        let run = run.and_then(|mut statement| statement.execute(rusqlite::params_from_iter(values)));
        run.map_err(failed("read or write"))
    }

    fn rows(&self, sql: &'static str, values: &[Value<'_>]) -> Result<Vec<Row>, RegistryError> {
        let rows = |mut statement: rusqlite::CachedStatement<'_>| {
            let columns = statement.column_count();
            statement.query_map(rusqlite::params_from_iter(values), |row| read(row, columns))?.collect()
        };
        self.0.prepare_cached(sql).and_then(rows).map_err(failed("read or write"))
    }

    fn batch(&self, sql: &str) -> Result<(), RegistryError> {
        self.0.execute_batch(sql).map_err(failed("write"))
    }

    fn begin(&self) -> Result<(), RegistryError> {
        self.batch("BEGIN IMMEDIATE")
    }

    fn is_broken(&self) -> bool {
        false
    }
}

/// An empty database in memory.
#[cfg(test)]
pub(super) fn in_memory() -> Box<dyn Sql> {
    let connection = Connection::open_in_memory().expect("memory");
    connection.execute_batch(include_str!("schema.sql")).expect("tables");
    Box::new(Open(connection))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_the_exam() {
        let folder = tempfile::tempdir().unwrap();
        let mut number = 0;
        super::super::conformance::run(&mut || {
            number += 1;
            let path = folder.path().join(format!("{number}.db"));
            (Box::new(Sqlite::open(&path).unwrap()), Box::new(Sqlite::open(&path).unwrap()))
        });
    }

    #[test]
    fn a_file_of_a_later_version_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
        let error = Sqlite::open(&path).unwrap_err();
        assert!(matches!(error, RegistryError::MetadataVersion { found: 99, .. }), "{error}");
        std::fs::write(&path, "this is no database, this is a text of some length").unwrap();
        assert!(Sqlite::open(&path).is_err());
    }
}
