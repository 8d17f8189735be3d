//! Metadata in a PostgreSQL database, for several servers without a common folder. Rounds of writers take turns by one
//! advisory lock, so every rule holds as it does in one file; readers take no part in that. A server that loses its
//! connection loses the round that it was in, and connects again for the next.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Config, Statement};

use super::postgres_tls::Connector;
use super::sql::{Row, Sql, Value};
use super::tables::Tables;
use crate::{DATABASE_CONNECT_TIMEOUT, DATABASE_READERS_LIMIT, METADATA_BUSY_TIMEOUT, RegistryError};

/// The version of the tables. A database of a later one is refused.
const SCHEMA: i64 = 1;
/// The advisory lock of those who write: `ctk-reg` and the version of what it means.
const LOCK: i64 = 0x63_74_6b_2d_72_65_67_01;

/// Where a database is and how it is entered. Never prints its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Database {
    config: Config,
    authorities: Option<std::path::PathBuf>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({self})")
    }
}

impl fmt::Display for Database {
    /// The URL without anything that is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<String> = self
            .config
            .get_hosts()
            .iter()
            .map(|host| match host {
                tokio_postgres::config::Host::Tcp(name) => name.clone(),
                tokio_postgres::config::Host::Unix(path) => path.display().to_string(),
            })
            .collect();
        let user = self.config.get_user().map(|user| format!("{user}@")).unwrap_or_default();
        let ports: Vec<String> = self.config.get_ports().iter().map(u16::to_string).collect();
        let port = if ports.is_empty() { String::new() } else { format!(":{}", ports.join(",")) };
        write!(f, "postgres://{user}{}{port}/{}", hosts.join(","), self.config.get_dbname().unwrap_or_default())
    }
}

impl Database {
    /// Reads `postgres://USER@HOST:PORT/NAME?sslmode=…`. `password` counts before one in the URL; `authorities` is a
    /// PEM file of those who may sign the server's certificate, besides the system's. With `sslmode=require`, and with
    /// `authorities`, the certificate is verified and nothing is sent without TLS.
    pub fn parse(
        url: &str,
        password: Option<&str>,
        authorities: Option<std::path::PathBuf>,
    ) -> Result<Database, RegistryError> {
        let fail = |reason: String| RegistryError::Database { reason };
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(fail("its URL begins with `postgres://`".into()));
        }
        // The parser's own words may quote what it read.
        let mut config: Config =
            url.parse().map_err(|_| fail("its URL cannot be read; expected postgres://USER@HOST:PORT/NAME".into()))?;
        if config.get_hosts().is_empty() {
            return Err(fail("its URL names no host".into()));
        }
        if let Some(password) = password {
            config.password(password);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(DATABASE_CONNECT_TIMEOUT);
        }
        config.application_name("ctk-registry").keepalives_idle(Duration::from_secs(15));
        if authorities.is_some() {
            config.ssl_mode(SslMode::Require);
        }
        Ok(Database { config, authorities })
    }
}

/// Metadata in a PostgreSQL database.
#[derive(Debug)]
pub struct Postgres;

impl Postgres {
    /// Opens a database; its tables are made where they are missing.
    pub fn open(database: &Database) -> Result<Tables, RegistryError> {
        let connector = Connector::new(database.authorities.as_deref())?;
        let first = Open::connect(&database.config, &connector)?;
        first.begin()?;
        let made = first.make();
        first.batch(if made.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
        made?;
        drop(first);
        let config = database.config.clone();
        let connect = move |_write| Ok(Box::new(Open::connect(&config, &connector)?) as Box<dyn Sql>);
        Tables::new(database.to_string(), Arc::new(connect), DATABASE_READERS_LIMIT)
    }
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    ctk_http::runtime().handle().block_on(work)
}

fn failed(action: &'static str) -> impl Fn(tokio_postgres::Error) -> RegistryError {
    move |cause| {
        let full = cause.code() == Some(&SqlState::DISK_FULL);
        // Its own text is only "db error"; what the server said is its source.
        let said = cause.as_db_error().map(ToString::to_string);
        RegistryError::Metadata { action, full, cause: said.map_or_else(|| cause.into(), Into::into) }
    }
}

struct Open {
    client: Client,
    statements: RefCell<HashMap<&'static str, Statement>>,
    /// Ends the connection when this is dropped.
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Open {
    fn connect(config: &Config, connector: &Connector) -> Result<Open, RegistryError> {
        let (connector, failed) = (connector.clone(), failed("reach the database of"));
        wait(async {
            let (client, connection) = config.connect(connector).await.map_err(&failed)?;
            let driver = tokio::spawn(async move {
                // Whoever uses the client hears of the error, too.
                let _ = connection.await;
            });
            let open = Open { client, statements: RefCell::default(), driver };
            let settings = format!(
                "SET synchronous_commit = on; SET lock_timeout = {0}; SET statement_timeout = {1}; \
                 SET idle_in_transaction_session_timeout = {1}; SET client_min_messages = warning",
                METADATA_BUSY_TIMEOUT.as_millis(),
                METADATA_BUSY_TIMEOUT.as_millis() * 3
            );
            open.client.batch_execute(&settings).await.map_err(&failed)?;
            Ok(open)
        })
    }

    fn make(&self) -> Result<(), RegistryError> {
        self.batch(include_str!("postgres.sql"))?;
        let rows = self.rows("SELECT version FROM registry_version", &[])?;
        let found = rows.into_iter().next().map(|mut row| row.int(0)).transpose()?;
        match found {
            None => self.run("INSERT INTO registry_version (version) VALUES (?1)", &[Value::Int(SCHEMA)]).map(drop),
            Some(found) if found > SCHEMA => Err(RegistryError::Database {
                reason: format!("its tables are of version {found}, this program knows {SCHEMA}"),
            }),
            Some(_) => Ok(()),
        }
    }

    async fn prepared(&self, sql: &'static str) -> Result<Statement, tokio_postgres::Error> {
        if let Some(statement) = self.statements.borrow().get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(&numbered(sql)).await?;
        self.statements.borrow_mut().insert(sql, statement.clone());
        Ok(statement)
    }
}

/// `?1` as PostgreSQL writes it. Our statements hold no other question mark.
fn numbered(sql: &str) -> String {
    sql.replace('?', "$")
}

impl ToSql for Value<'_> {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Value::Null => Ok(IsNull::Yes),
            Value::Int(number) if *kind == Type::INT4 => i32::try_from(*number)?.to_sql(kind, out),
            Value::Int(number) => number.to_sql(&Type::INT8, out),
            Value::Text(text) => text.as_ref().to_sql(kind, out),
            Value::Bytes(bytes) => bytes.as_ref().to_sql(kind, out),
        }
    }

    fn accepts(kind: &Type) -> bool {
        [Type::INT4, Type::INT8, Type::TEXT, Type::VARCHAR, Type::BYTEA].contains(kind)
    }

    to_sql_checked!();
}

fn read(row: &tokio_postgres::Row) -> Result<Row, tokio_postgres::Error> {
    let value = |column: usize| {
        let kind = row.columns()[column].type_();
        Ok(if *kind == Type::INT8 {
            row.try_get::<_, Option<i64>>(column)?.map_or(Value::Null, Value::Int)
        } else if *kind == Type::INT4 {
            row.try_get::<_, Option<i32>>(column)?.map_or(Value::Null, |number| Value::Int(number.into()))
        } else if *kind == Type::BOOL {
            row.try_get::<_, Option<bool>>(column)?.map_or(Value::Null, |known| Value::Int(known.into()))
        } else if *kind == Type::BYTEA {
            row.try_get::<_, Option<Vec<u8>>>(column)?.map_or(Value::Null, |bytes| Value::Bytes(bytes.into()))
        } else {
            row.try_get::<_, Option<String>>(column)?.map_or(Value::Null, |text| Value::Text(text.into()))
        })
    };
    (0..row.len()).map(value).collect::<Result<_, _>>().map(Row)
}

impl Sql for Open {
    fn run(&self, sql: &'static str, values: &[Value<'_>]) -> Result<usize, RegistryError> {
        let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as _).collect();
        let run = wait(async { self.client.execute(&self.prepared(sql).await?, &values).await });
        run.map(|changed| changed as usize).map_err(failed("read or write"))
    }

    fn rows(&self, sql: &'static str, values: &[Value<'_>]) -> Result<Vec<Row>, RegistryError> {
        let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as _).collect();
        let rows = wait(async { self.client.query(&self.prepared(sql).await?, &values).await });
        rows.and_then(|rows| rows.iter().map(read).collect()).map_err(failed("read or write"))
    }

    fn batch(&self, sql: &str) -> Result<(), RegistryError> {
        wait(self.client.batch_execute(sql)).map_err(failed("write"))
    }

    fn begin(&self) -> Result<(), RegistryError> {
        let begun = self.batch(&format!("BEGIN; SELECT pg_advisory_xact_lock({LOCK})"));
        if begun.is_err() {
            let _ = self.batch("ROLLBACK");
        }
        begun
    }

    fn is_broken(&self) -> bool {
        self.client.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::testing::{PASSWORD, Server};

    fn database(server: &Server, name: &str) -> Database {
        Database::parse(&server.url(name), Some(PASSWORD), None).unwrap()
    }

    #[test]
    fn passwords_are_never_printed() {
        let url = "postgres://me:hidden1@db.example:5433/registry?sslmode=require";
        let database = Database::parse(url, Some("hidden2"), None).unwrap();
        assert_eq!(database.to_string(), "postgres://me@db.example:5433/registry");
        assert!(!format!("{database:?}").contains("hidden"));
        for wrong in ["mysql://me:hidden@x/y", "postgres://me:hidden@x:port/y", "postgres://"] {
            let error = Database::parse(wrong, None, None).unwrap_err().to_string();
            assert!(!error.contains("hidden"), "{error}");
        }
    }

    #[test]
    fn passes_the_exam() {
        let Some(server) = Server::start() else { return };
        let mut number = 0;
        super::super::conformance::run(&mut || {
            number += 1;
            let database = database(&server, &format!("exam{number}"));
            (Box::new(Postgres::open(&database).unwrap()), Box::new(Postgres::open(&database).unwrap()))
        });
    }

    #[test]
    fn a_server_that_was_started_again_is_used_again() {
        use crate::meta::Meta;
        let Some(server) = Server::start() else { return };
        let database = database(&server, "again");
        let meta = Postgres::open(&database).unwrap();
        assert_eq!(meta.repositories("", 1).unwrap(), Vec::<String>::new());
        server.drop_connections();
        assert_eq!(meta.repositories("", 1).unwrap(), Vec::<String>::new());
        server.drop_connections();
        assert_eq!(meta.expire_uploads(0, 0).unwrap(), 0);
        server.run("again", "UPDATE registry_version SET version = 99");
        let error = Postgres::open(&database).unwrap_err().to_string();
        assert!(error.contains("version 99"), "{error}");
    }
}
