//! `--tz`: the time zone of a container.

use std::path::Path;

use crate::failure::Failure;

/// Where zones are.
const ZONES: &str = "/usr/share/zoneinfo";
/// Largest file of a zone, in bytes: the largest are four kilobytes.
const ZONE_BYTES: u64 = 1 << 20;

/// What a container's `/etc/localtime` is: that of a zone by its name, or of the host for `local`.
pub fn read(name: &str) -> Result<Vec<u8>, Failure> {
    use std::io::Read;
    let path = match name {
        "local" => Path::new("/etc/localtime").to_owned(),
        name => {
            let good = !name.is_empty()
                && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
                && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '-' | '+' | '.'));
            if !good {
                let hint = Some("it is a name as `Europe/Paris`, or `local`");
                return Err(Failure::sentence(format!("--tz `{name}` is no name of a time zone"), hint));
            }
            Path::new(ZONES).join(name)
        }
    };
    let unknown = |why: String| {
        let near = near(name).map(|near| format!("did you mean `{near}`?"));
        let none = format!("zones are files of {ZONES}; the package tzdata has them");
        let hint = near.unwrap_or(if Path::new(ZONES).exists() { "names are as `Europe/Paris`".into() } else { none });
        Failure::sentence(format!("--tz `{name}`: {why}"), Some(&hint))
    };
    let mut bytes = Vec::new();
    let read = std::fs::File::open(&path).and_then(|file| file.take(ZONE_BYTES).read_to_end(&mut bytes));
    match read {
        // What zones begin with (RFC 9636, section 3.1).
        Ok(_) if bytes.starts_with(b"TZif") => Ok(bytes),
        Ok(_) => Err(unknown(format!("{} is no time zone", path.display()))),
        Err(_) if path.is_dir() => Err(unknown("this is a group of time zones".into())),
        Err(error) => Err(unknown(format!("there is none here: {error}"))),
    }
}

/// One that is called almost so.
fn near(name: &str) -> Option<String> {
    let folder = name.rsplit_once('/').map(|(folder, _)| folder);
    let list = |folder: Option<&str>| -> Vec<String> {
        let path = folder.map_or_else(|| Path::new(ZONES).to_owned(), |folder| Path::new(ZONES).join(folder));
        let names = std::fs::read_dir(path).into_iter().flatten();
        let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.map(|name| folder.map_or(name.clone(), |folder| format!("{folder}/{name}"))).collect()
    };
    let all: Vec<String> =
        list(None).into_iter().chain(folder.map(|folder| list(Some(folder))).unwrap_or_default()).collect();
    ctk_syntax::nearest(name, all.iter().map(String::as_str)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_elsewhere() {
        for bad in ["", "/etc/passwd", "../../etc/passwd", "Europe//Paris", "a b"] {
            let said = read(bad).expect_err(bad).text();
            assert!(said.contains("is no name of a time zone"), "{said}");
        }
        assert!(read("No/Such").is_err());
    }
}
