//! `docker-credential-<name>`: one word as argument, the question on standard input, the answer on standard output.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::{CREDENTIALS_LIMIT_BYTES, ClientError, Credentials, HELPER_TIMEOUT, Secret};

/// A user of this name says that the secret is an identity token (docker-credential-helpers).
const TOKEN_USER: &str = "<token>";

/// One helper.
pub(crate) struct Helper<'a> {
    program: String,
    path: &'a [PathBuf],
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(rename = "ServerURL", default)]
    server_url: String,
    username: String,
    secret: String,
}

impl<'a> Helper<'a> {
    pub(crate) fn new(name: &str, path: &'a [PathBuf]) -> Helper<'a> {
        Helper { program: format!("docker-credential-{name}"), path }
    }

    /// What the helper keeps for a server; `None` when it says that it has nothing.
    pub(crate) fn get(&self, server: &str) -> Result<Option<Credentials>, ClientError> {
        let output = match self.run("get", server, server.as_bytes())? {
            Ok(output) => output,
            // The phrase is fixed in docker-credential-helpers, `NewErrCredentialsNotFound`.
            Err(said) if said.contains("credentials not found") => return Ok(None),
            Err(said) => return Err(self.failed("get", server, said)),
        };
        let entry: Entry = serde_json::from_slice(&output)
            .map_err(|_| self.failed("get", server, "its answer is not the JSON it should be".into()))?;
        let secret = Secret::new(entry.secret);
        if entry.username.is_empty() && secret.expose().is_empty() {
            return Ok(None);
        }
        Ok(Some(match entry.username.as_str() {
            TOKEN_USER => Credentials::Identity(secret),
            user => Credentials::Basic { user: user.into(), password: secret },
        }))
    }

    /// Keeps credentials for a server.
    pub(crate) fn store(&self, server: &str, credentials: &Credentials) -> Result<(), ClientError> {
        let (username, secret) = match credentials {
            Credentials::Basic { user, password } => (user.as_str(), password),
            Credentials::Identity(token) | Credentials::Bearer(token) => (TOKEN_USER, token),
        };
        let entry = Entry { server_url: server.into(), username: username.into(), secret: secret.expose().into() };
        let input = serde_json::to_vec(&entry).expect("plain data serialises");
        self.run("store", server, &input)?.map(drop).map_err(|said| self.failed("store", server, said))
    }

    /// Forgets a server; nothing to forget is fine.
    pub(crate) fn erase(&self, server: &str) -> Result<(), ClientError> {
        match self.run("erase", server, server.as_bytes())? {
            Ok(_) => Ok(()),
            Err(said) if said.contains("credentials not found") => Ok(()),
            Err(said) => Err(self.failed("erase", server, said)),
        }
    }

    fn failed(&self, action: &'static str, host: &str, reason: String) -> ClientError {
        ClientError::Helper { helper: self.program.clone(), action, host: host.into(), reason }
    }

    /// The output, or what it said when it failed.
    fn run(&self, action: &'static str, host: &str, input: &[u8]) -> Result<Result<Vec<u8>, String>, ClientError> {
        let failed = |reason: String| self.failed(action, host, reason);
        let program = self.path.iter().map(|dir| dir.join(&self.program)).find(|file| file.is_file());
        let program = program.ok_or_else(|| failed("it is not in PATH".into()))?;
        let mut command = Command::new(&program);
        command.arg(action).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let mut stdin = child.stdin.take().expect("piped");
        let stdout = read(child.stdout.take().expect("piped"));
        let stderr = read(child.stderr.take().expect("piped"));
        // A helper that does not read its input is no failure yet.
        let _ = stdin.write_all(input);
        drop(stdin);
        let deadline = Instant::now() + HELPER_TIMEOUT;
        let status = loop {
            match child.try_wait().map_err(|error| failed(error.to_string()))? {
                Some(status) => break status,
                None if Instant::now() >= deadline => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(failed(format!("no answer within {} seconds", HELPER_TIMEOUT.as_secs())));
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let output = stdout.join().unwrap_or_default();
        if status.success() {
            return Ok(Ok(output));
        }
        // Helpers report on standard output, what they call on the other; only a first line, which is the message.
        let complaint = stderr.join().unwrap_or_default();
        let first = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().next().unwrap_or_default().trim().to_owned();
        let said = [first(&output), first(&complaint)].into_iter().find(|line| !line.is_empty());
        Ok(Err(said.unwrap_or_else(|| status.to_string())))
    }
}

/// Reads what the helper writes, beside waiting for it.
fn read(pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error still counts.
        let _ = pipe.take(CREDENTIALS_LIMIT_BYTES).read_to_end(&mut bytes);
        bytes
    })
}
