//! Who we are to a registry: auth files as docker and podman write them, and credential helpers.

mod file;
mod helper;

use crate::{ClientError, ClientOptions, Secret};

pub(crate) use file::AuthFile;
pub(crate) use helper::Helper;

/// Proof of who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// A user and a password (or a personal token in its place).
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A refresh token for the token server, which docker calls an identity token.
    Identity(Secret),
    /// A bearer token that is sent as it is.
    Bearer(Secret),
}

/// The key that docker and podman use for Docker Hub.
pub(crate) const HUB_KEY: &str = "https://index.docker.io/v1/";

/// Looks through options, files and helpers. Blocks: helpers are processes.
/// `helpers` are those that registries.conf names besides the files.
pub(crate) fn find(
    options: &ClientOptions,
    helpers: &[String],
    host: &str,
    repository: &str,
) -> Result<Option<Credentials>, ClientError> {
    if let Some(credentials) = options.credentials.get(host) {
        return Ok(Some(credentials.clone()));
    }
    for path in &options.auth_files {
        let Some(file) = AuthFile::read(path)? else { continue };
        if let Some(helper) = file.helper(host)
            && let Some(credentials) = Helper::new(helper, &options.helper_path).get(&server_name(host))?
        {
            return Ok(Some(credentials));
        }
        if let Some(credentials) = file.credentials(host, repository)? {
            return Ok(Some(credentials));
        }
    }
    // This name stands for the files, which were asked already.
    for helper in helpers.iter().filter(|helper| *helper != "containers-auth.json") {
        if let Some(credentials) = Helper::new(helper, &options.helper_path).get(&server_name(host))? {
            return Ok(Some(credentials));
        }
    }
    Ok(None)
}

/// What helpers call a registry.
pub(crate) fn server_name(host: &str) -> String {
    match is_hub(host) {
        true => HUB_KEY.into(),
        false => host.into(),
    }
}

pub(crate) fn is_hub(host: &str) -> bool {
    matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io")
}
