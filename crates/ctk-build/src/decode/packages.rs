//! `packages distro="debian" suite="bookworm" { install "ca-certificates" }`

use ctk_buildgraph::{Instruction, PackagesSpec};
use ctk_syntax::{Node, Reader};

use super::Image;

impl Image<'_> {
    pub(super) fn packages(&mut self, node: &Node) -> Option<Instruction> {
        let mut reader = Reader::new(node, self.diagnostics);
        // Who names a packages stage and what it starts from was read with the stages.
        reader.opt_prop_str("name");
        let distro = reader.prop_str("distro");
        let suite = reader.prop_str("suite");
        let variants = [("minbase", "minbase"), ("essential", "essential"), ("custom", "custom")];
        let variant = reader.opt_prop_one_of("variant", &variants).map_or("minbase", |v| v.value);
        let mut spec = PackagesSpec { variant: variant.to_owned(), scripts: true, ..PackagesSpec::default() };
        for (name, list) in [("install", &mut spec.install), ("components", &mut spec.components)] {
            for child in reader.every(name) {
                let mut inner = reader.child(child);
                list.extend(inner.args_text_some("a name").into_iter().map(|t| t.value));
                inner.finish();
            }
        }
        for (name, text) in [("mirror", &mut spec.mirror), ("keyring", &mut spec.keyring)] {
            if let Some(child) = reader.opt_child(name) {
                let mut inner = reader.child(child);
                // An empty text is a variable that nobody set: the host's own then.
                *text = inner.arg_str("a place").map(|t| t.value).filter(|t| !t.is_empty());
                inner.finish();
            }
        }
        if let Some(child) = reader.opt_child("scripts") {
            let mut inner = reader.child(child);
            spec.scripts =
                inner.arg_one_of("`run` or `none`", &[("run", true), ("none", false)]).is_none_or(|s| s.value);
            inner.finish();
        }
        if let Some(child) = reader.opt_child("recommends") {
            let mut inner = reader.child(child);
            spec.recommends = inner.arg_flag("`recommends`");
            inner.finish();
        }
        reader.finish();
        spec.install.sort();
        spec.install.dedup();
        spec.distro = distro?.value;
        spec.suite = suite?.value;
        Some(Instruction::Packages(spec))
    }
}
