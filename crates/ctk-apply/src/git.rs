//! What `${git.…}` means, asked of git itself, and only when a project uses it.

use std::path::Path;
use std::process::Command;

/// `sha`, `short`, `branch`, `tag` or `dirty` of the work tree that `folder` is in.
pub fn git(folder: &Path, name: &str) -> Result<String, String> {
    let arguments: &[&str] = match name {
        "sha" => &["rev-parse", "HEAD"],
        "short" => &["rev-parse", "--short", "HEAD"],
        "branch" => &["rev-parse", "--abbrev-ref", "HEAD"],
        "tag" => &["describe", "--tags", "--exact-match", "HEAD"],
        "dirty" => &["status", "--porcelain"],
        other => return Err(format!("`git.{other}` is not known; there are sha, short, branch, tag and dirty")),
    };
    let output = Command::new("git").current_dir(folder).args(arguments).output();
    let output = output.map_err(|error| format!("cannot run git: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let first = said.lines().next().unwrap_or("it gave no reason");
        return Err(format!("git {}: {first}", arguments.join(" ")));
    }
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(match name {
        "dirty" => (!text.is_empty()).to_string(),
        _ => text,
    })
}
