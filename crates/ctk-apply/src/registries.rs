//! `registry` resources: decoded here, served while an apply runs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ctk_plan::Address;
use ctk_registry::{Access, ServeOptions};
use ctk_syntax::{Diagnostic, Diagnostics, Node, Reader, codes};

/// A decoded `registry` resource.
#[derive(Clone, Debug)]
pub struct RegistryDecl {
    /// Its address.
    pub address: Address,
    /// Where it listens.
    pub listen: SocketAddr,
    /// The absolute folder of its storage.
    pub storage: PathBuf,
    /// The htpasswd file of its users, if it is not open to everybody.
    pub htpasswd: Option<PathBuf>,
}

impl RegistryDecl {
    /// Reads a `registry` node; relative paths start at `directory`. All mistakes at once.
    pub fn decode(
        address: &Address,
        node: &Node,
        directory: &Path,
        diagnostics: &mut Diagnostics,
    ) -> Option<RegistryDecl> {
        let mut reader = Reader::new(node, diagnostics);
        reader.arg_str("a name");
        let listen = reader.prop_str("listen").and_then(|text| {
            let parsed = text.value.parse();
            if parsed.is_err() {
                let message = format!("`{}` is no address to listen on", text.value);
                reader.error(codes::BAD_VALUE, text.span, message, "expected ADDRESS:PORT, e.g. `127.0.0.1:5050`");
            }
            parsed.ok()
        });
        // Every registry is served while an apply runs; said for the reader.
        reader.opt_prop_bool("serve");
        let storage = match reader.required_child("storage") {
            Some(child) => {
                let mut inner = reader.child(child);
                let place = inner.arg_str("a place such as `filesystem:.ctk/registry`");
                inner.finish();
                place.and_then(|place| match place.value.strip_prefix("filesystem:") {
                    Some(path) if !path.is_empty() => Some(directory.join(path)),
                    _ => {
                        let diagnostic =
                            Diagnostic::error(codes::BAD_VALUE, format!("`{}` is no storage", place.value))
                                .at(place.span, "expected `filesystem:FOLDER`");
                        reader.diagnostics().push(diagnostic);
                        None
                    }
                })
            }
            None => None,
        };
        let htpasswd = reader.opt_child("htpasswd").and_then(|child| {
            let mut inner = reader.child(child);
            let path = inner.arg_str("a file of `user:bcrypt-hash` lines");
            inner.finish();
            path.map(|path| directory.join(path.value))
        });
        reader.finish();
        Some(RegistryDecl { address: address.clone(), listen: listen?, storage: storage?, htpasswd })
    }

    /// How it is served.
    pub fn serve_options(&self) -> ServeOptions {
        let mut options = ServeOptions::new(self.listen, &self.storage);
        if let Some(file) = &self.htpasswd {
            options.access = Access::Htpasswd(file.clone());
        }
        options
    }
}
