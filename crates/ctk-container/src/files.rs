//! Files that a container gets of its own: `/etc/hosts`, `/etc/resolv.conf`, `/etc/hostname`.

use std::net::IpAddr;
use std::path::Path;

use ctk_oci::Mount;

use crate::Error;

/// The lines that every `/etc/hosts` has.
pub const LOCALHOST: &str =
    "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// Lines of `/etc/hosts`.
pub(crate) fn host_lines(hosts: &[(String, IpAddr)]) -> String {
    hosts.iter().map(|(name, address)| format!("{address}\t{name}\n")).collect()
}

/// Writes a file into the container's directory and gives the mount that shows it.
pub(crate) fn place(directory: &Path, destination: &str, text: &[u8]) -> Result<Mount, Error> {
    let name = destination.rsplit('/').next().unwrap_or(destination);
    let path = directory.join(name);
    let failed = |source| Error::WriteFile { path: path.clone(), source };
    std::fs::write(&path, text).map_err(failed)?;
    // Whatever our umask is, every user of the container reads these.
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&path, readable).map_err(failed)?;
    Ok(Mount::new("bind", &path.to_string_lossy(), destination, &["nosuid", "nodev", "noexec"]))
}
