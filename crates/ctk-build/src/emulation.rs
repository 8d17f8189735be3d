//! Which processors' programs this machine can run: its own, and what the kernel hands to an emulator.

use std::path::Path;

use ctk_oci::Platform;

/// Where the kernel lists its handlers of foreign programs (`Documentation/admin-guide/binfmt-misc.rst`).
const HANDLERS: &str = "/proc/sys/fs/binfmt_misc";

/// Whether commands of `platform` can run here; the error says what is missing. `has_file` is asked whether the tree
/// they run in has an emulator of its own.
pub(crate) fn can_run(platform: &Platform, has_file: impl Fn(&str) -> bool) -> Result<(), String> {
    can_run_with(platform, &Platform::host(), Path::new(HANDLERS), has_file)
}

fn can_run_with(
    platform: &Platform,
    host: &Platform,
    handlers: &Path,
    has_file: impl Fn(&str) -> bool,
) -> Result<(), String> {
    if platform.os != host.os {
        return Err(format!("it has no kernel of {}", platform.os));
    }
    // A newer variant than the host's may still do: only the program knows what it uses.
    if platform.architecture == host.architecture || is_subset(&platform.architecture, &host.architecture) {
        return Ok(());
    }
    let Some(machine) = machine(&platform.architecture) else {
        return Err(format!("`{}` is no architecture that can be emulated", platform.architecture));
    };
    let advice = "install an emulator that the kernel knows (Debian: qemu-user-static and binfmt-support)";
    let entries = std::fs::read_dir(handlers).ok().filter(|_| handlers.join("status").exists());
    let Some(entries) = entries else {
        return Err(format!("binfmt_misc is not mounted; {advice}"));
    };
    let mut fault = format!("the kernel has no binfmt_misc handler for it; {advice}");
    for entry in entries.flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let Some(handler) = Handler::parse(&text).filter(|handler| handler.takes(machine)) else { continue };
        if !handler.enabled {
            fault = format!("the handler {} is switched off", entry.path().display());
        } else if !handler.fixed && !has_file(handler.interpreter) {
            let name = entry.file_name();
            fault = format!(
                "the handler {} lacks the flag F, so containers do not find the emulator {}; register it with F, or copy the emulator into the image",
                name.to_string_lossy(),
                handler.interpreter
            );
        } else {
            return Ok(());
        }
    }
    Err(fault)
}

/// Whether every `host` processor runs programs of `architecture` by itself.
fn is_subset(architecture: &str, host: &str) -> bool {
    matches!((architecture, host), ("386", "amd64"))
}

/// `e_machine` and whether its bytes are in big-endian order, by Go's name of an architecture.
fn machine(architecture: &str) -> Option<(u16, bool)> {
    Some(match architecture {
        "386" => (3, false),
        "mips64" => (8, true),
        "mips64le" | "mipsle" => (8, false),
        "ppc64le" => (21, false),
        "s390x" => (22, true),
        "arm" => (40, false),
        "amd64" => (62, false),
        "arm64" => (183, false),
        "riscv64" => (243, false),
        "loong64" => (258, false),
        _ => return None,
    })
}

/// One file of binfmt_misc.
struct Handler<'t> {
    enabled: bool,
    /// Whether the emulator was opened when it was registered (flag F).
    fixed: bool,
    interpreter: &'t str,
    magic: Vec<u8>,
}

impl<'t> Handler<'t> {
    fn parse(text: &'t str) -> Option<Handler<'t>> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let hexadecimal = field("magic ")?;
        let byte = |at: usize| u8::from_str_radix(hexadecimal.get(at..at + 2)?, 16).ok();
        Some(Handler {
            enabled: text.starts_with("enabled"),
            fixed: field("flags:").is_some_and(|flags| flags.contains('F')),
            interpreter: field("interpreter ").unwrap_or_default(),
            magic: (0..hexadecimal.len()).step_by(2).map(byte).collect::<Option<_>>()?,
        })
    }

    /// Whether it is for ELF programs of this machine.
    fn takes(&self, (machine, big_endian): (u16, bool)) -> bool {
        let wanted = if big_endian { machine.to_be_bytes() } else { machine.to_le_bytes() };
        self.magic.starts_with(b"\x7fELF") && self.magic.get(18..20) == Some(&wanted[..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers_decide() {
        let folder = tempfile::tempdir().unwrap();
        let arm64 = |state: &str, flags: &str| {
            format!(
                "{state}\ninterpreter /usr/bin/qemu-aarch64-static\nflags: {flags}\noffset 0\n\
                 magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n"
            )
        };
        let host = Platform::new("linux", "amd64");
        let check = |platform: &str, expected: &str| {
            let found = can_run_with(&platform.parse().unwrap(), &host, folder.path(), |path| path == "/copied");
            match found {
                Ok(()) => assert_eq!(expected, "yes", "{platform}"),
                Err(reason) => assert!(reason.contains(expected), "{platform}: {reason}"),
            }
        };
        std::fs::write(folder.path().join("status"), "enabled\n").unwrap();
        check("linux/amd64", "yes");
        check("linux/amd64/v3", "yes");
        check("linux/386", "yes");
        check("windows/amd64", "no kernel of windows");
        check("linux/arm64", "no binfmt_misc handler");
        check("linux/vax", "no architecture that can be emulated");
        for (text, expected) in [
            (arm64("enabled", "OCF"), "yes"),
            (arm64("enabled", "OC"), "lacks the flag F"),
            (arm64("enabled", "OC").replace("/usr/bin/qemu-aarch64-static", "/copied"), "yes"),
            (arm64("disabled", "OCF"), "switched off"),
        ] {
            std::fs::write(folder.path().join("qemu-aarch64"), text).unwrap();
            check("linux/arm64", expected);
            check("linux/riscv64", "no binfmt_misc handler");
        }
        let gone = can_run_with(&"linux/arm64".parse().unwrap(), &host, &folder.path().join("none"), |_| false);
        assert!(gone.unwrap_err().contains("not mounted"));
    }
}
