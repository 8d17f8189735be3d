//! The `git` program: what it is given, how it is watched, what becomes of its words.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ctk_buildgraph::{GitSource, without_password};
use ctk_plan::{Cancel, Step};
use rustix::process::{Pid, Signal, kill_process_group};

use super::Given;
use crate::limits::{GIT_OUTPUT_BYTES, GIT_SECONDS, SSH_CONNECT_SECONDS};
use crate::{BuildError, SshSource};

/// What a command may reach.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Access {
    /// Its own directory.
    Nothing,
    /// Another repository of this machine.
    Disk,
    /// The repository's server.
    Network,
}

/// What the store keeps of hosts that `ssh` met.
const KNOWN_HOSTS: &str = "known_hosts";

/// What of the machine's environment git sees, as it is there.
const PASSED: [&str; 14] = [
    "PATH",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "CURL_CA_BUNDLE",
];

/// Settings that a checkout must not depend on the machine for.
const SETTINGS: [(&str, &str); 12] = [
    ("safe.directory", "*"),
    ("init.defaultBranch", "main"),
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.autocrlf", "false"),
    ("core.attributesFile", "/dev/null"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("credential.helper", ""),
    ("advice.detachedHead", "false"),
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", "60"),
];

/// `git` for one repository.
pub(super) struct Git<'a> {
    pub given: &'a Given<'a>,
    pub cancel: &'a Cancel,
    pub url: String,
    /// Setting and value of an HTTP header.
    header: Option<(String, String)>,
    /// Texts that nobody may see.
    secrets: Vec<String>,
    step: Option<&'a Step>,
}

impl<'a> Git<'a> {
    pub fn new(source: &GitSource, given: &'a Given<'a>, cancel: &'a Cancel) -> Git<'a> {
        let mut git = Git::silent(source, given, cancel);
        git.authorise(&["GIT_AUTH_HEADER", "GIT_AUTH_TOKEN"]);
        git
    }

    /// With the secrets of its host only.
    fn silent(source: &GitSource, given: &'a Given<'a>, cancel: &'a Cancel) -> Git<'a> {
        let secrets = password(&source.url).into_iter().collect();
        let mut git = Git { given, cancel, url: source.url.clone(), header: None, secrets, step: None };
        git.authorise(&[]);
        git
    }

    /// For a folder of this machine.
    pub fn local(folder: &str, given: &'a Given<'a>) -> Git<'a> {
        let cancel = given.world.cancel;
        Git { given, cancel, url: folder.to_owned(), header: None, secrets: Vec::new(), step: None }
    }

    /// The same, telling `step` what git says.
    pub fn telling(self, step: &'a Step) -> Git<'a> {
        Git { step: Some(step), ..self }
    }

    /// The same for a repository that this one names. A secret that is for no host is shown to the named repository
    /// alone, except on GitHub, whose tokens are for all of it.
    pub fn for_submodule(&self, source: &GitSource) -> Git<'a> {
        let mut git = Git { step: self.step, ..Git::silent(source, self.given, self.cancel) };
        let shared = self.header.clone().filter(|(key, _)| source.url.starts_with(scope_of(key)));
        git.header = git.header.or(shared);
        git.secrets.extend(self.secrets.iter().cloned());
        git
    }

    /// Finds the secret for its host or, among `more`, for any.
    fn authorise(&mut self, more: &[&str]) {
        let Some((scheme, rest)) = self.url.split_once("://") else { return };
        if self.header.is_some() || !["http", "https"].contains(&scheme) {
            return;
        }
        let authority = rest.split('/').next().unwrap_or_default();
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let found = self.given.secret_of_host(host, "GIT_AUTH_HEADER", "GIT_AUTH_TOKEN", more);
        let Some((secret, token)) = found else { return };
        let value = match token {
            true => format!("basic {}", STANDARD.encode(format!("x-access-token:{secret}"))),
            false => secret.clone(),
        };
        self.secrets.extend([secret, value.clone()]);
        let scope = ["https://github.com/", "https://www.github.com/"].into_iter().find(|s| self.url.starts_with(s));
        let scope = scope.unwrap_or(&self.url);
        self.header = Some((format!("http.{scope}.extraHeader"), format!("Authorization: {value}")));
    }

    /// An error about this repository.
    pub fn failed(&self, action: &'static str, reason: impl Into<String>) -> BuildError {
        BuildError::Git { action, url: without_password(&self.url), reason: self.hidden(&reason.into()) }
    }

    fn hidden(&self, text: &str) -> String {
        self.secrets
            .iter()
            .filter(|s| !s.is_empty())
            .fold(text.to_owned(), |text, secret| text.replace(secret, "xxxxx"))
    }

    /// Runs a command that asks the server and needs no repository.
    pub fn remote(&self, args: &[&str]) -> Result<String, BuildError> {
        self.run(Path::new(""), Access::Network, &[], args)
    }

    /// Runs a command on the repository `directory` and gives what it printed.
    pub fn run(
        &self,
        directory: &Path,
        access: Access,
        environment: &[(&str, &Path)],
        args: &[&str],
    ) -> Result<String, BuildError> {
        let (success, out, error) = self.finish(directory, access, environment, args)?;
        if success {
            return Ok(out);
        }
        let action = if access == Access::Network { "fetch" } else { "check out" };
        if error.contains("HOST IDENTIFICATION HAS CHANGED") {
            let hosts = self.known_hosts();
            let reason = format!(
                "its host shows another key than before. If that is right, forget the old one: `ssh-keygen -R HOST -f \
                 {}`, and what ~/.ssh/known_hosts says",
                hosts.display()
            );
            return Err(self.failed(action, reason));
        }
        Err(self.failed(action, reason(&error)))
    }

    /// What a question to the repository `directory` gives; none if git says no.
    pub fn ask(&self, directory: &Path, args: &[&str]) -> Result<Option<String>, BuildError> {
        let (success, out, _) = self.finish(directory, Access::Nothing, &[], args)?;
        Ok(success.then(|| out.trim_end_matches('\n').to_owned()))
    }

    fn finish(
        &self,
        directory: &Path,
        access: Access,
        environment: &[(&str, &Path)],
        args: &[&str],
    ) -> Result<(bool, String, String), BuildError> {
        let ssh = match access == Access::Network && is_ssh(&self.url) {
            true => Some(self.given.ssh().ok_or_else(|| BuildError::GitAgent { url: self.url.clone() })?),
            false => None,
        };
        let mut command = Command::new("git");
        command.args(args).env_clear().envs(environment.iter().copied());
        if !directory.as_os_str().is_empty() {
            command.env("GIT_DIR", directory);
        }
        command.envs(self.environment(access));
        if let Some(ssh) = ssh {
            command.envs(self.ssh(&ssh)?);
        }
        command.current_dir("/").process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => BuildError::GitMissing { url: without_password(&self.url) },
            _ => BuildError::read("run", "git")(error),
        })?;
        let group = Pid::from_child(&child);
        let (out, error) = (reader(child.stdout.take()), reader(child.stderr.take()));
        let began = Instant::now();
        let status = loop {
            match child.try_wait().map_err(BuildError::read("wait for", "git"))? {
                Some(status) => break Ok(status),
                None if self.cancel.is_cancelled() => break Err(BuildError::Cancelled),
                None if began.elapsed() > Duration::from_secs(GIT_SECONDS) => {
                    break Err(self.failed("fetch", format!("git took longer than {GIT_SECONDS} s")));
                }
                None => sleep(if began.elapsed() < Duration::from_millis(50) {
                    Duration::from_millis(1)
                } else {
                    Duration::from_millis(20)
                }),
            }
        };
        if status.is_err() {
            let _ = kill_process_group(group, Signal::KILL);
            let _ = child.wait();
        }
        let (out, error) = (out.join().unwrap_or_default(), error.join().unwrap_or_default());
        let status = status?;
        if out.len() as u64 > GIT_OUTPUT_BYTES {
            return Err(self.failed("read", format!("git prints more than {GIT_OUTPUT_BYTES} bytes")));
        }
        let error = String::from_utf8_lossy(&error).into_owned();
        if let Some(step) = self.step.filter(|_| access == Access::Network) {
            for line in error.lines().filter(|line| !line.trim().is_empty()) {
                step.log(ctk_plan::Stream::Err, self.hidden(line));
            }
        }
        Ok((status.success(), String::from_utf8_lossy(&out).into_owned(), error))
    }

    fn known_hosts(&self) -> PathBuf {
        self.given.world.store.root().join("git").join(KNOWN_HOSTS)
    }

    /// How git calls `ssh`. A host that is seen for the first time is believed, and remembered. Of the user's keys only
    /// those count that were given.
    fn ssh(&self, source: &SshSource) -> Result<Vec<(&'static str, OsString)>, BuildError> {
        let hosts = self.known_hosts();
        let folder = hosts.parent().expect("it is in a folder");
        std::fs::create_dir_all(folder).map_err(BuildError::read("create", folder))?;
        // Not `~`, which ssh takes from the account: root's, in the user namespace of an ordinary user.
        let home = self.given.world.environment.get("HOME").filter(|home| !home.is_empty()).map_or("~", |home| home);
        let own = if home == "~" { "~/.ssh/known_hosts".to_owned() } else { format!("\"{home}/.ssh/known_hosts\"") };
        let hosts = quoted(&format!("UserKnownHostsFile=\"{}\" {own}", hosts.display()));
        let mut line = format!(
            "ssh -F /dev/null -o BatchMode=yes -o ConnectTimeout={SSH_CONNECT_SECONDS} -o \
             StrictHostKeyChecking=accept-new -o {hosts}"
        );
        let mut set = Vec::new();
        match source {
            SshSource::Agent(socket) => {
                line += " -o IdentityFile=none";
                set.push(("SSH_AUTH_SOCK", socket.into()));
            }
            SshSource::Keys(keys) => {
                line += " -o IdentitiesOnly=yes -o IdentityAgent=none";
                keys.iter().for_each(|key| line += &format!(" -i {}", quoted(&key.display().to_string())));
            }
        }
        set.extend([("GIT_SSH_COMMAND", line.into()), ("GIT_SSH_VARIANT", "ssh".into())]);
        Ok(set)
    }

    fn environment(&self, access: Access) -> Vec<(String, OsString)> {
        let mut all: Vec<(String, OsString)> = Vec::new();
        let mut set = |name: &str, value: &str| all.push((name.to_owned(), value.into()));
        for name in PASSED {
            if let Some(value) = self.given.world.environment.get(name) {
                set(name, value);
            }
        }
        set("HOME", "/dev/null");
        set("LC_ALL", "C");
        set("GIT_CONFIG_NOSYSTEM", "1");
        set("GIT_CONFIG_GLOBAL", "/dev/null");
        set("GIT_TERMINAL_PROMPT", "0");
        set("GIT_NO_REPLACE_OBJECTS", "1");
        set("GIT_PROTOCOL_FROM_USER", "0");
        let protocols = match access {
            Access::Nothing => "none",
            Access::Disk => "file",
            Access::Network => "http:https:git:ssh",
        };
        set("GIT_ALLOW_PROTOCOL", protocols);
        let header = self.header.as_ref().filter(|_| access == Access::Network);
        let settings = SETTINGS.iter().copied().chain(header.map(|(key, value)| (key.as_str(), value.as_str())));
        let mut count = 0;
        for (key, value) in settings {
            set(&format!("GIT_CONFIG_KEY_{count}"), key);
            set(&format!("GIT_CONFIG_VALUE_{count}"), value);
            count += 1;
        }
        set("GIT_CONFIG_COUNT", &count.to_string());
        all
    }
}

/// Whether `ssh` brings it: `ssh://…` or `host:path`.
fn is_ssh(url: &str) -> bool {
    match url.split_once("://") {
        Some((scheme, _)) => scheme == "ssh",
        None => url.split_once(':').is_some_and(|(host, _)| !host.contains('/')),
    }
}

/// `text` as one word of a shell's line.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// `https://host/` of `http.https://host/.extraHeader`.
fn scope_of(key: &str) -> &str {
    key.trim_start_matches("http.").trim_end_matches(".extraHeader")
}

/// User and password of a URL.
fn password(url: &str) -> Option<String> {
    let authority = url.split_once("://")?.1.split('/').next()?;
    let user = authority.rsplit_once('@')?.0;
    user.split_once(':').map(|(_, password)| password.to_owned())
}

/// Reads to the end, and keeps as much as may be looked at.
fn reader(from: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        if let Some(mut from) = from {
            let _ = from.by_ref().take(GIT_OUTPUT_BYTES + 1).read_to_end(&mut kept);
            let _ = std::io::copy(&mut from, &mut std::io::sink());
        }
        kept
    })
}

/// What git says when `ssh` gave up.
const NOT_READ: &str = "Could not read from remote repository.";

/// The line of git's words that says why.
fn reason(words: &str) -> String {
    let lines = || words.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut said: Vec<String> = Vec::new();
    let mut before = "";
    for line in lines() {
        let own = line.strip_prefix("fatal: ").or_else(|| line.strip_prefix("error: "));
        match (own, said.last_mut()) {
            // `ssh` said why.
            (Some(NOT_READ), _) if !before.is_empty() => said.push(before.to_owned()),
            (Some(own), _) => said.push(own.to_owned()),
            // A sentence that goes on.
            (None, Some(last)) if last.ends_with(':') => *last += &format!(" {line}"),
            (None, _) if line.starts_with("Warning: ") => continue,
            (None, _) => {}
        }
        before = line;
    }
    match said.is_empty() {
        false => said.join("; "),
        true => lines().next_back().unwrap_or("git says nothing").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_git_failed() {
        assert_eq!(reason("hint: x\nfatal: repository 'r' not found\n"), "repository 'r' not found");
        assert_eq!(reason("error: a\nfatal: b\n"), "a; b");
        assert_eq!(reason("Permission denied\n"), "Permission denied");
        let ssh = "Warning: Permanently added 'h'.\ngit@h: Permission denied (publickey).\nfatal: Could not read from remote repository.\n\nPlease make sure\n";
        assert_eq!(reason(ssh), "git@h: Permission denied (publickey).");
        let daemon = "fatal: unable to connect to h:\nh[0: ::1]: errno=Connection refused\n\n";
        assert_eq!(reason(daemon), "unable to connect to h: h[0: ::1]: errno=Connection refused");
    }

    #[test]
    fn what_ssh_brings() {
        for url in ["ssh://git@h/r", "git@h:r.git", "h.example:r.git"] {
            assert!(is_ssh(url), "{url}");
        }
        for url in ["https://h/r.git", "http://h/r.git", "git://h/r", "/srv/r.git", "/srv/a:b"] {
            assert!(!is_ssh(url), "{url}");
        }
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
