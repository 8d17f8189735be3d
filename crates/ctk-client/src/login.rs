//! Login: try the credentials, then keep them where docker and podman find them too. Logout: forget them.

use std::path::PathBuf;

use ctk_plan::Cancel;
use reqwest::Method;

use crate::call::Call;
use crate::credentials::{AuthFile, Helper, server_name};
use crate::host::Repository;
use crate::{Client, ClientError, Credentials, block};

/// Where credentials are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginPlace {
    /// In this file, readable by its owner.
    File(PathBuf),
    /// By `docker-credential-<name>`.
    Helper(String),
}

impl Client {
    /// Tries `credentials` on a registry and keeps them if it accepts: by the helper that the first auth file names
    /// for the host, else in that file. Nothing is kept when they are refused.
    pub fn login(&self, host: &str, credentials: &Credentials, cancel: &Cancel) -> Result<LoginPlace, ClientError> {
        let host = bare(host);
        self.verify(host, credentials, cancel)?;
        let path = self.options().auth_files.first().ok_or(ClientError::NoAuthFile)?;
        let mut file = AuthFile::read(path)?.unwrap_or_else(|| AuthFile::new(path));
        if let Some(name) = file.helper(host) {
            Helper::new(name, &self.options().helper_path).store(&server_name(host), credentials)?;
            return Ok(LoginPlace::Helper(name.into()));
        }
        file.set(host, Some(credentials));
        file.write()?;
        Ok(LoginPlace::File(path.clone()))
    }

    /// Forgets a registry in every auth file and in the helpers they name; gives the places that were asked to.
    pub fn logout(&self, host: &str) -> Result<Vec<LoginPlace>, ClientError> {
        let host = bare(host);
        let mut places = Vec::new();
        for path in &self.options().auth_files {
            let Some(mut file) = AuthFile::read(path)? else { continue };
            if let Some(name) = file.helper(host) {
                Helper::new(name, &self.options().helper_path).erase(&server_name(host))?;
                places.push(LoginPlace::Helper(name.into()));
            }
            if file.set(host, None) {
                file.write()?;
                places.push(LoginPlace::File(path.clone()));
            }
        }
        Ok(places)
    }

    /// Asks the registry whether it accepts the credentials.
    fn verify(&self, host: &str, credentials: &Credentials, cancel: &Cancel) -> Result<(), ClientError> {
        // A client of its own: it knows no other credentials and keeps no tokens.
        let mut options = self.options().clone();
        options.auth_files.clear();
        options.credentials = [(host.to_owned(), credentials.clone())].into();
        let client = Client::new(options);
        block(cancel, async {
            let host = client.host(host, false).await?;
            let reference = host.name.clone();
            let repository = Repository { name: String::new(), reference, host, namespace: None };
            let sent = client.send(&repository, Call::new(Method::GET, "/v2/", &[])).await?;
            match sent.status() {
                200 => Ok(()),
                _ => Err(client.complain(&repository, &Method::GET, sent).await),
            }
        })
    }
}

/// `host[:port]` of what users paste.
fn bare(host: &str) -> &str {
    let host = host.strip_prefix("https://").or_else(|| host.strip_prefix("http://")).unwrap_or(host);
    let host = host.trim_end_matches('/');
    host.strip_suffix("/v1").or_else(|| host.strip_suffix("/v2")).unwrap_or(host)
}
