//! What happened to containers: a line each in one file, which everybody adds to (`O_APPEND`: lines of several do not
//! mix). When it is large enough, it becomes `events.1`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::containers::Containers;
use crate::limits::{EVENT_FILE_BYTES, EVENT_LINE_BYTES};
use crate::{Config, Error, time};

const FILE: &str = ".events";
const OLDER: &str = ".events.1";

/// One thing that happened.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Event {
    /// When, in nanoseconds since 1970.
    pub time: u64,
    /// What, in docker's and podman's words: `create`, `start`, `died`, `oom`, `health_status`, …
    pub what: String,
    /// To which container.
    pub id: String,
    /// How it is called.
    pub name: String,
    /// Its image.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Its labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What belongs to it: an exit code, a signal, a health.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub more: BTreeMap<String, String>,
}

impl Event {
    /// For people.
    pub fn line(&self) -> String {
        let more: String = self.more.iter().map(|(name, value)| format!(", {name}={value}")).collect();
        let (time, id) = (time::text(self.time), self.id.get(..12).unwrap_or(&self.id));
        format!("{time} container {} {id} (image={}, name={}{more})", self.what, self.image, self.name)
    }

    /// For templates.
    pub fn row(&self) -> Value {
        json!({
            "Time": time::text(self.time), "TimeNano": self.time, "Type": "container", "Status": self.what,
            "ID": self.id, "Name": self.name, "Image": self.image, "Labels": self.labels, "Attributes": self.more,
        })
    }
}

/// Writes down that something happened to a container. What cannot be written is lost: nobody waits for it.
pub fn tell(root: &Path, config: &Config, what: &str, more: &[(&str, String)]) {
    let event = Event {
        time: time::now(),
        what: what.into(),
        id: config.id.clone(),
        name: config.name.clone(),
        image: config.image.clone(),
        labels: config.labels.clone(),
        more: more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
    };
    let Ok(mut line) = serde_json::to_vec(&event) else { return };
    line.push(b'\n');
    if line.len() > EVENT_LINE_BYTES {
        return;
    }
    let path = root.join(FILE);
    let Ok(mut file) = File::options().append(true).create(true).open(&path) else { return };
    let _ = file.write_all(&line);
    if file.metadata().is_ok_and(|metadata| metadata.len() > EVENT_FILE_BYTES) {
        let _ = fs::rename(&path, root.join(OLDER));
    }
}

/// Reads what happened, from the oldest that is kept.
pub struct Reader {
    root: PathBuf,
    file: Option<File>,
    inode: u64,
    rest: Vec<u8>,
}

impl Reader {
    /// Of these containers.
    pub fn open(containers: &Containers) -> Reader {
        let root = containers.root().to_owned();
        let file = File::open(root.join(OLDER)).or_else(|_| File::open(root.join(FILE))).ok();
        let inode = file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |metadata| metadata.ino());
        Reader { root, file, inode, rest: Vec::new() }
    }

    /// What happened since the last time; nothing if there is nothing.
    pub fn next_ones(&mut self) -> Result<Vec<Event>, Error> {
        let path = self.root.join(FILE);
        let mut events = Vec::new();
        loop {
            if let Some(file) = &mut self.file {
                file.read_to_end(&mut self.rest).map_err(Error::file("read", &path))?;
            }
            while let Some(end) = memchr::memchr(b'\n', &self.rest) {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                // A line that a crash cut off is passed over.
                events.extend(serde_json::from_slice::<Event>(&line));
            }
            let now = fs::metadata(&path).map_or(0, |metadata| metadata.ino());
            if now == self.inode || now == 0 {
                return Ok(events);
            }
            self.file = File::open(&path).ok();
            self.inode = now;
            self.rest.clear();
            if let Some(file) = &mut self.file {
                file.seek(SeekFrom::Start(0)).map_err(Error::file("read", &path))?;
            }
        }
    }
}
