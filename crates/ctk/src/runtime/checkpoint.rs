//! `checkpoint` and `restore`: their options as values.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use ctk_bundle::checkpoint::{self, CgroupMode, Checkpoint, Images, Restore};
use ctk_bundle::criu::Criu;

use super::Failure;
use super::arguments::Arguments;
use super::log::Log;
use super::verbs;

/// Writes a container down.
pub fn checkpoint(arguments: &Arguments, log: &Log) -> Result<u8, Failure> {
    let path = |name: &str| arguments.value(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let options = Checkpoint {
        parent: path("parent-path"),
        leave_running: arguments.is_on("leave-running"),
        pre_dump: arguments.is_on("pre-dump"),
        page_server: arguments.value("page-server").filter(|text| !text.is_empty()).map(page_server).transpose()?,
        tcp_skip_in_flight: arguments.is_on("tcp-skip-in-flight"),
        link_remap: arguments.is_on("link-remap"),
    };
    let images = images(arguments)?;
    let complaints = checkpoint::checkpoint(&verbs::root(arguments), verbs::only_id(arguments)?, &images, &options)?;
    complaints.iter().for_each(|error| log.warning(&error.line()));
    Ok(0)
}

/// Makes a container of what was written.
pub fn restore(arguments: &Arguments, log: &Log, view: Option<OwnedFd>) -> Result<u8, Failure> {
    let images = images(arguments)?;
    let word = |name: &str| arguments.value(name).filter(|word| !word.is_empty()).map(String::from);
    let wanted = Restore { lsm_profile: word("lsm-profile"), lsm_mount_context: word("lsm-mount-context") };
    let mut options = verbs::options(arguments, false)?;
    let ours = verbs::own_terminal(arguments, &mut options)?;
    let state_root = options.root.clone();
    verbs::stay(arguments, log, (ours, view), state_root, || checkpoint::restore(options, &images, &wanted))
}

fn images(arguments: &Arguments) -> Result<Images, Failure> {
    if arguments.is_on("lazy-pages") || arguments.value("status-fd").is_some() {
        return Err("--lazy-pages is not supported: memory is written down whole".to_owned().into());
    }
    let path = |name: &str| arguments.value(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let cgroups = match arguments.value("manage-cgroups-mode").filter(|mode| !mode.is_empty()) {
        None => CgroupMode::default(),
        Some(mode) => CgroupMode::named(mode)
            .ok_or_else(|| format!("--manage-cgroups-mode `{mode}` is none of soft, full, strict, ignore"))?,
    };
    if let Some(other) = arguments.values("empty-ns").find(|name| *name != "network") {
        return Err(format!("--empty-ns `{other}` is not `network`").into());
    }
    Ok(Images {
        directory: path("image-path").unwrap_or_else(|| "checkpoint".into()),
        work: path("work-path"),
        tcp_established: arguments.is_on("tcp-established"),
        external_unix_sockets: arguments.is_on("ext-unix-sk"),
        shell_job: arguments.is_on("shell-job"),
        file_locks: arguments.is_on("file-locks"),
        auto_dedup: arguments.is_on("auto-dedup"),
        empty_network: arguments.value("empty-ns").is_some(),
        cgroups,
        criu: criu(arguments),
    })
}

fn criu(arguments: &Arguments) -> Criu {
    let name = arguments.value("criu").filter(|name| !name.is_empty()).unwrap_or("criu");
    let all = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = match name.contains('/') {
        true => vec![name.into()],
        false => std::env::split_paths(&all).map(|folder| folder.join(name)).collect(),
    };
    let entry = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
    };
    Criu {
        candidates: places.into_iter().filter_map(|path| CString::new(path.into_os_string().into_vec()).ok()).collect(),
        environment: std::env::vars_os().filter_map(entry).collect(),
    }
}

fn page_server(text: &str) -> Result<(String, u16), Failure> {
    let wrong = || Failure::from(format!("--page-server `{text}` is not ADDRESS:PORT"));
    let (address, port) = text.rsplit_once(':').filter(|(address, _)| !address.is_empty()).ok_or_else(wrong)?;
    Ok((address.trim_matches(['[', ']']).to_owned(), port.parse().map_err(|_| wrong())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_servers_have_a_port() {
        assert_eq!(page_server("10.0.0.1:77").ok(), Some(("10.0.0.1".into(), 77)));
        assert_eq!(page_server("[::1]:77").ok(), Some(("::1".into(), 77)));
        assert!(page_server("10.0.0.1").is_err() && page_server(":7").is_err() && page_server("a:b").is_err());
    }
}
