//! Repositories, and the servers that come with git.

use std::fs;
use std::io::{self, BufRead, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::{eventually, free_port, run, workspace};

/// `git daemon`; it ends with this value.
pub struct Daemon {
    process: Child,
    /// `127.0.0.1:PORT`.
    pub host: String,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Makes the repositories of `test_data/git.sh` in `folder`, and serves them.
pub fn repositories(folder: &Path) -> Daemon {
    fs::create_dir_all(folder).expect("a folder");
    let mut command = Command::new("sh");
    command.arg("-eu").arg(workspace().join("e2e/test_data/git.sh")).current_dir(folder).stdin(Stdio::null());
    run(command).ok();
    let port = free_port();
    // `git daemon` is another process than the daemon.
    let mut command = Command::new("git");
    command.arg("--exec-path");
    let programs = run(command).ok();
    let mut command = Command::new(Path::new(programs.trim()).join("git-daemon"));
    command.args(["--export-all", "--reuseaddr", "--listen=127.0.0.1", &format!("--port={port}")]);
    command.arg(format!("--base-path={}", folder.display())).stdin(Stdio::null()).stderr(Stdio::null());
    let host = format!("127.0.0.1:{port}");
    let daemon = Daemon { process: command.spawn().expect("git"), host };
    eventually(Duration::from_secs(10), "git answers", || std::net::TcpStream::connect(&daemon.host).is_ok());
    daemon
}

/// Runs git in `folder`, with the machine's settings left aside; what it printed, without the last line's end.
pub fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "a").env(format!("GIT_{who}_EMAIL"), "a@example.test");
        command.env(format!("GIT_{who}_DATE"), "2020-01-01T00:00:00Z");
    }
    run(command).ok().trim_end().to_owned()
}

/// An answer of `git http-backend` (RFC 3875): status, header lines and body.
pub(crate) fn http_backend(
    folder: &Path,
    head: &[String],
    client: &mut impl BufRead,
) -> io::Result<(String, String, Vec<u8>)> {
    let field = |wanted: &str| {
        let fields = head.iter().filter_map(|line| line.split_once(':'));
        fields.filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim()).next()
    };
    let mut body = Vec::new();
    if let Some(length) = field("content-length").and_then(|length| length.parse().ok()) {
        client.take(length).read_to_end(&mut body)?;
    } else if field("transfer-encoding") == Some("chunked") {
        loop {
            let mut line = String::new();
            client.read_line(&mut line)?;
            let size = u64::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            client.take(size).read_to_end(&mut body)?;
            client.take(2).read_to_end(&mut Vec::new())?;
            if size == 0 {
                break;
            }
        }
    }
    let mut words = head[0].split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut command = Command::new("git");
    command.arg("http-backend").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.env("GIT_PROJECT_ROOT", folder).env("GIT_HTTP_EXPORT_ALL", "1").env("REQUEST_METHOD", method);
    command.env("PATH_INFO", path).env("QUERY_STRING", query).env("CONTENT_LENGTH", body.len().to_string());
    for (name, variable) in [
        ("content-type", "CONTENT_TYPE"),
        ("content-encoding", "HTTP_CONTENT_ENCODING"),
        ("git-protocol", "GIT_PROTOCOL"),
    ] {
        command.envs(field(name).map(|value| (variable, value)));
    }
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().expect("it is piped");
    let feeding = std::thread::spawn(move || stdin.write_all(&body));
    let answer = child.wait_with_output()?.stdout;
    let _ = feeding.join();
    let split = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(|| io::Error::other("no head"))?;
    let lines = String::from_utf8_lossy(&answer[..split]).into_owned();
    let status = lines.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK").to_owned();
    let kept: String =
        lines.lines().filter(|line| !line.starts_with("Status: ")).map(|line| format!("{line}\r\n")).collect();
    Ok((status, kept, answer[split + 4..].to_vec()))
}
