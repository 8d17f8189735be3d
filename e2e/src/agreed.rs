//! What the other builders agreed to, case by case: `test_data/dockerfiles/agreed`.
//!
//! Builders of known versions say the same about the same case every time. So a case whose files, golden, accepted
//! differences and surroundings are those of the last comparison need not be built by them again; that our own build
//! still gives the golden is another test's to see.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ctk_oci::{Algorithm, Digester};

use crate::corpus::{Case, folder};
use crate::differences::Accepted;
use crate::workspace;

/// Of the cases that are known, every how many'th is asked about all the same.
const SAMPLE: usize = 16;
/// Hexadecimal digits of a fingerprint.
const DIGITS: usize = 16;
/// The line of the surroundings.
const GROUND: &str = "(all)";

/// The file: a case and its fingerprint a line.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Agreed(BTreeMap<String, String>);

impl Agreed {
    /// What the file says.
    pub fn read() -> Agreed {
        let text = fs::read_to_string(folder().join("agreed")).unwrap_or_default();
        let pair = |line: &str| line.rsplit_once(' ').map(|(name, found)| (name.to_owned(), found.to_owned()));
        Agreed(text.lines().filter_map(pair).collect())
    }

    /// What would be written if all agree about these cases now; `builders` are the versions of the others.
    pub fn of(cases: &[Case], accepted: &Accepted, builders: &str) -> Agreed {
        let line = |case: &Case| (case.name.clone(), fingerprint(&[&case.folder], &accepted.of_case(&case.name)));
        let mut lines: BTreeMap<String, String> = cases.iter().map(line).collect();
        let ground =
            ["e2e/src/bases.rs", "e2e/test_data/git.sh", "e2e/test_data/www"].map(|path| workspace().join(path));
        lines.insert(GROUND.into(), fingerprint(&ground.each_ref().map(|path| path.as_path()), builders));
        Agreed(lines)
    }

    /// The cases that the others must be asked about, when `now` is so: those that are not as they were, and a sample.
    pub fn open(&self, now: &Agreed, mut cases: Vec<Case>) -> Vec<Case> {
        if self.0.get(GROUND) != now.0.get(GROUND) {
            return cases;
        }
        let mut number = 0;
        cases.retain(|case| {
            number += 1;
            number % SAMPLE == 1 || self.0.get(&case.name) != now.0.get(&case.name)
        });
        cases
    }

    /// Writes the file.
    pub fn write(&self) {
        let text: String = self.0.iter().map(|(name, found)| format!("{name} {found}\n")).collect();
        fs::write(folder().join("agreed"), text).expect("the file `agreed`");
    }
}

/// Of what git holds of these places: names, executable bits, targets of links, bytes.
fn fingerprint(places: &[&Path], words: &str) -> String {
    let mut digester = Algorithm::Sha256.digester();
    digester.update(words.as_bytes());
    places.iter().for_each(|place| add(place, &mut digester));
    digester.finish().hex()[..DIGITS].to_owned()
}

fn add(place: &Path, digester: &mut Digester) {
    let mut part = |what: &str, bytes: &[u8]| {
        digester.update(
            format!("\0{what} {} {}\0", place.file_name().unwrap_or_default().display(), bytes.len()).as_bytes(),
        );
        digester.update(bytes);
    };
    let kind = fs::symlink_metadata(place).unwrap_or_else(|error| panic!("{}: {error}", place.display()));
    if kind.is_symlink() {
        return part("link", fs::read_link(place).expect("a link").as_os_str().as_encoded_bytes());
    }
    if !kind.is_dir() {
        let what = if kind.permissions().mode() & 0o100 == 0 { "file" } else { "program" };
        return part(what, &fs::read(place).expect("a file"));
    }
    part("folder", b"");
    let mut inside: Vec<_> =
        fs::read_dir(place).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    inside.sort();
    inside.iter().for_each(|path| add(path, digester));
    digester.update(b"\0end\0");
}
