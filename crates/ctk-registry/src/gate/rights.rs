//! Rights by roles and patterns: a list of grants. What no grant allows is denied.

use std::str::FromStr;

use super::{Action, Gate, Identity};
use crate::glob::Glob;

/// What somebody may do in repositories that fit a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who.
    pub who: Who,
    /// What.
    pub role: Role,
    /// Where.
    pub repositories: Glob,
}

/// Whom a grant is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Also those who do not say who they are.
    Anyone,
    /// Everybody with a name.
    Users,
    /// This one.
    User(String),
    /// Whose certificate has this common or alternative name.
    Certificate(String),
}

/// What a grant allows. Each holds the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Pull.
    Reader,
    /// Push what is new: a tag that exists stays what it is.
    Creator,
    /// Push anything.
    Writer,
    /// Delete, too.
    Admin,
}

impl Role {
    fn allows(self, action: Action) -> bool {
        let least = match action {
            Action::Pull => Role::Reader,
            Action::Push => Role::Creator,
            Action::Overwrite => Role::Writer,
            Action::Delete => Role::Admin,
        };
        self >= least
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Role, String> {
        match text {
            "reader" => Ok(Role::Reader),
            "creator" => Ok(Role::Creator),
            "writer" => Ok(Role::Writer),
            "admin" => Ok(Role::Admin),
            _ => Err(format!("`{text}` is no role; the roles are reader, creator, writer and admin")),
        }
    }
}

impl FromStr for Who {
    type Err = String;

    fn from_str(text: &str) -> Result<Who, String> {
        match text.split_once(':') {
            Some((_, "")) => Err(format!("`{text}` names nobody")),
            Some(("user", name)) => Ok(Who::User(name.into())),
            Some(("cert", name)) => Ok(Who::Certificate(name.into())),
            None if text == "anyone" => Ok(Who::Anyone),
            None if text == "users" => Ok(Who::Users),
            _ => Err(format!("`{text}` is nobody; expected `anyone`, `users`, `user:NAME` or `cert:NAME`")),
        }
    }
}

impl FromStr for Grant {
    type Err = String;

    /// `WHO=ROLE@PATTERN`, e.g. `user:ci=writer@team/**`.
    fn from_str(text: &str) -> Result<Grant, String> {
        let shape = || format!("`{text}` is no grant; expected WHO=ROLE@PATTERN, e.g. `user:ci=writer@team/**`");
        let (who, rest) = text.rsplit_once('=').ok_or_else(shape)?;
        let (role, repositories) = rest.split_once('@').ok_or_else(shape)?;
        let repositories = repositories.parse::<Glob>().map_err(|error| error.to_string())?;
        Ok(Grant { who: who.parse()?, role: role.parse()?, repositories })
    }
}

/// A list of grants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// In any order: they add up.
    pub grants: Vec<Grant>,
}

impl Rights {
    /// Everything in every repository, to `who`.
    pub fn all_to(who: Who) -> Rights {
        let repositories = "**".parse().expect("a pattern");
        Rights { grants: vec![Grant { who, role: Role::Admin, repositories }] }
    }
}

impl Gate for Rights {
    fn allows(&self, who: &Identity, action: Action, repository: &str) -> bool {
        self.grants.iter().any(|grant| {
            let meant = match &grant.who {
                Who::Anyone => true,
                Who::Users => who.is_known(),
                Who::User(name) => who.name.as_ref() == Some(name),
                Who::Certificate(name) => who.certificate.contains(name),
            };
            meant && grant.role.allows(action) && grant.repositories.matches(repository)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rights: &Rights, who: Option<&str>, repository: &str, expected: &[Action]) {
        let who = Identity { name: who.map(Into::into), ..Identity::default() };
        let found: Vec<Action> = Action::ALL.into_iter().filter(|a| rights.allows(&who, *a, repository)).collect();
        assert_eq!(found, expected, "{who} in {repository}");
    }

    #[test]
    fn grants_add_up_and_nothing_else_is_allowed() {
        let grants = [
            "anyone=reader@public/**",
            "users=reader@**",
            "user:ci=creator@team/*",
            "user:ci=writer@team/dev",
            "user:root=admin@**",
        ];
        let rights = Rights { grants: grants.iter().map(|text| text.parse().unwrap()).collect() };
        use Action::*;
        check(&rights, None, "public/app", &[Pull]);
        check(&rights, None, "team/app", &[]);
        check(&rights, Some("me"), "team/app", &[Pull]);
        check(&rights, Some("ci"), "team/app", &[Pull, Push]);
        check(&rights, Some("ci"), "team/dev", &[Pull, Push, Overwrite]);
        check(&rights, Some("ci"), "team/dev/x", &[Pull]);
        check(&rights, Some("root"), "x", &[Pull, Push, Overwrite, Delete]);
        check(&Rights::default(), Some("root"), "x", &[]);
        // A certificate's name is no user's.
        let certificate: Rights = Rights { grants: vec!["cert:ci=writer@**".parse().unwrap()] };
        check(&certificate, Some("ci"), "x", &[]);
        let holder = Identity { certificate: ["x".to_owned(), "ci".into()].into(), ..Identity::default() };
        assert!(certificate.allows(&holder, Push, "x") && !rights.allows(&holder, Push, "team/app"));
        assert!(rights.allows(&holder, Pull, "team/app"), "it is one of the users");
        // A user whose name is one of the words is a user.
        check(&rights, Some("anyone"), "x", &[Pull]);
        for wrong in [
            "",
            "ci=writer@**",
            "user:=reader@**",
            "cert:=reader@**",
            "x:y=reader@**",
            "user:ci=owner@**",
            "user:ci=writer",
            "user:ci=writer@[x]",
        ] {
            assert!(wrong.parse::<Grant>().is_err(), "{wrong}");
        }
    }
}
