//! The rules of the metadata as SQL, once for every database: how they are asked is [`Sql`], what they are is in the
//! files beside. Statements are written in what SQLite and PostgreSQL share: values are `?1`, conflicts name their
//! columns, sums are cast, texts are compared by their bytes.

pub(super) mod blobs;
pub(super) mod keep;
pub(super) mod manifests;
#[cfg(test)]
mod model;

use std::borrow::Cow;

use ctk_oci::Digest;

use crate::RegistryError;

/// A value on its way to or from a database.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Int(i64),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Value::Int(number)
    }
}

impl From<u64> for Value<'_> {
    /// Beyond what a database counts to there is nothing: sizes and seconds end long before.
    fn from(number: u64) -> Self {
        Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Value<'_> {
    fn from(number: usize) -> Self {
        Value::from(number as u64)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::Text(Cow::Borrowed(text))
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Value::Text(Cow::Borrowed(text))
    }
}

impl From<&Digest> for Value<'_> {
    fn from(digest: &Digest) -> Self {
        Value::Text(Cow::Owned(digest.to_string()))
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Value::Bytes(Cow::Borrowed(bytes))
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// The values of a statement.
macro_rules! values {
    ($($value:expr),* $(,)?) => { &[$(crate::meta::sql::Value::from($value)),*] };
}
pub(crate) use values;

/// One row. A column is taken once.
#[derive(Debug)]
pub(crate) struct Row(pub Vec<Value<'static>>);

impl Row {
    fn take(&mut self, column: usize) -> Value<'static> {
        self.0.get_mut(column).map_or(Value::Null, |value| std::mem::replace(value, Value::Null))
    }

    pub(crate) fn int(&mut self, column: usize) -> Result<i64, RegistryError> {
        match self.take(column) {
            Value::Int(number) => Ok(number),
            other => Err(damaged("a number", &other)),
        }
    }

    /// A size or a time.
    pub(crate) fn count(&mut self, column: usize) -> Result<u64, RegistryError> {
        self.int(column).map(|number| number.max(0) as u64)
    }

    pub(crate) fn text(&mut self, column: usize) -> Result<String, RegistryError> {
        match self.take(column) {
            Value::Text(text) => Ok(text.into_owned()),
            other => Err(damaged("a text", &other)),
        }
    }

    pub(crate) fn optional_text(&mut self, column: usize) -> Result<Option<String>, RegistryError> {
        match self.take(column) {
            Value::Null => Ok(None),
            Value::Text(text) => Ok(Some(text.into_owned())),
            other => Err(damaged("a text", &other)),
        }
    }

    pub(crate) fn bytes(&mut self, column: usize) -> Result<Vec<u8>, RegistryError> {
        match self.take(column) {
            Value::Bytes(bytes) => Ok(bytes.into_owned()),
            other => Err(damaged("bytes", &other)),
        }
    }

    pub(crate) fn digest(&mut self, column: usize) -> Result<Digest, RegistryError> {
        let text = self.text(column)?;
        text.parse().map_err(|_| RegistryError::MetadataDamaged { what: "a digest", text })
    }
}

fn damaged(what: &'static str, found: &Value<'_>) -> RegistryError {
    let text = match found {
        Value::Null => "nothing".into(),
        Value::Int(number) => number.to_string(),
        Value::Text(text) => text.chars().take(80).collect(),
        Value::Bytes(bytes) => format!("{} bytes", bytes.len()),
    };
    RegistryError::MetadataDamaged { what, text }
}

/// A connection to a database. Used by one thread at a time.
pub(crate) trait Sql: Send {
    /// Runs a statement; gives the number of rows that it changed.
    fn run(&self, sql: &'static str, values: &[Value<'_>]) -> Result<usize, RegistryError>;
    /// Every row of a query.
    fn rows(&self, sql: &'static str, values: &[Value<'_>]) -> Result<Vec<Row>, RegistryError>;
    /// Runs statements that have no values.
    fn batch(&self, sql: &str) -> Result<(), RegistryError>;
    /// Begins a transaction that writes: nobody else's does until it ends.
    fn begin(&self) -> Result<(), RegistryError>;
    /// Whether it is of no more use: the server is gone.
    fn is_broken(&self) -> bool;
}

impl dyn Sql + '_ {
    /// The first row of a query.
    pub(crate) fn one(&self, sql: &'static str, values: &[Value<'_>]) -> Result<Option<Row>, RegistryError> {
        Ok(self.rows(sql, values)?.into_iter().next())
    }

    /// The id that a query or an `INSERT … RETURNING` gives.
    pub(crate) fn id(&self, sql: &'static str, values: &[Value<'_>]) -> Result<Option<i64>, RegistryError> {
        self.one(sql, values)?.map(|mut row| row.int(0)).transpose()
    }
}

pub(crate) fn repository_id(sql: &dyn Sql, name: &str) -> Result<Option<i64>, RegistryError> {
    sql.id("SELECT id FROM repositories WHERE name = ?1", values![name])
}

pub(crate) fn make_repository(sql: &dyn Sql, name: &str) -> Result<i64, RegistryError> {
    if let Some(id) = repository_id(sql, name)? {
        return Ok(id);
    }
    inserted(sql.id("INSERT INTO repositories (name) VALUES (?1) RETURNING id", values![name])?)
}

/// The id of a row that was just made.
fn inserted(id: Option<i64>) -> Result<i64, RegistryError> {
    id.ok_or(RegistryError::MetadataDamaged { what: "the id of a new row", text: "nothing".into() })
}
