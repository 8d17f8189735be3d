//! Who changed what, and who was refused: a line of JSON a request, in a file that only grows.
//!
//! No header and no query is written: they hold secrets.

use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Mutex;

use serde::Serialize;

use crate::RegistryError;
use crate::meta::Seconds;

/// One request.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Record {
    /// Seconds since 1970.
    pub time: Seconds,
    /// Where it came from.
    pub address: Option<IpAddr>,
    /// The user, `anonymous`, or empty when nobody proved to be anybody.
    pub who: String,
    /// `pull`, `push`, `delete`; empty when it is none of the protocol.
    pub action: &'static str,
    pub method: String,
    pub path: String,
    pub status: u16,
}

/// The file.
#[derive(Debug)]
pub(crate) struct Audit {
    file: Mutex<File>,
}

impl Audit {
    /// Opens the file for lines at its end; made, for its owner only, if it does not exist.
    pub(crate) fn open(path: &Path) -> Result<Audit, RegistryError> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = File::options().create(true).append(true).mode(0o600).open(path);
        Ok(Audit { file: Mutex::new(file.map_err(RegistryError::storage("open the audit log", path))?) })
    }

    /// Writes what changed something or was refused. A full disk loses lines, no requests.
    pub(crate) fn write(&self, record: &Record) {
        let refused = matches!(record.status, 401 | 403);
        if !refused && matches!(record.action, "pull" | "") {
            return;
        }
        let mut line = serde_json::to_vec(record).expect("plain data serialises");
        line.push(b'\n');
        let _ = self.file.lock().expect("no holder panics").write_all(&line);
    }
}
