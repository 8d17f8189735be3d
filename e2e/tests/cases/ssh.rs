//! Repositories over ssh: a real server, real agents and keys.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use ctk_e2e::git::{self, git};
use ctk_e2e::sshd::{Agent, Sshd};
use ctk_e2e::{Output, World, contains, has, has_programs, is_root, run};

struct Site {
    world: World,
    work: PathBuf,
    sshd: Sshd,
    agent: Agent,
}

fn site() -> Option<Site> {
    let there = has("an ssh server", Path::new("/usr/sbin/sshd").exists());
    if !is_root() || !there || !has_programs(&["git", "ssh", "ssh-agent", "ssh-add", "ssh-keygen"]) {
        return None;
    }
    let world = World::new();
    let work = world.path("work");
    // Only the repositories are of use: nobody asks the daemon.
    drop(git::repositories(&work.join("git")));
    let sshd = Sshd::start(&work.join("sshd"));
    let agent = Agent::start(&work.join("agent"), &[sshd.key()]);
    Some(Site { world, work, sshd, agent })
}

impl Site {
    /// `@SSH@` with a port, `@SCP@` without a scheme: both before the path of a repository.
    fn text(&self, text: &str) -> String {
        let folder = self.work.join("git");
        let text =
            text.replace("@SSH@", &format!("ssh://root@{}:{}{}", self.sshd.host, self.sshd.port, folder.display()));
        text.replace("@SCP@", &format!("root@{}:{}", self.sshd.host, folder.display()))
    }

    fn run(&self, words: &str, agent: bool) -> Output {
        let words = self.text(words);
        let mut command = self.world.command(&words.split(' ').collect::<Vec<_>>());
        command.env_remove("SSH_AUTH_SOCK").stdin(Stdio::null());
        if agent {
            command.env("SSH_AUTH_SOCK", &self.agent.socket);
        }
        run(command)
    }

    /// Builds into the folder `out` and gives a file of it.
    fn built(&self, words: &str, agent: bool, path: &str) -> String {
        self.run(&format!("build -o type=local,dest=out,mode=delete {words}"), agent).ok();
        self.world.read(&format!("out/{path}"))
    }
}

#[test]
fn repositories_by_agent_and_by_key() {
    let Some(site) = site() else { return };
    let key = site.sshd.key().display().to_string();
    for place in ["@SSH@/whole.git", "@SCP@/whole.git"] {
        // A folder of its own each, so that nothing is known from before.
        assert_eq!(site.built(&format!("--ssh default {place}"), true, "all/file"), "two\n");
        assert_eq!(site.built(&format!("--ssh default={key} {place}#v1"), false, "all/file"), "one\n");
        let socket = site.agent.socket.display();
        assert_eq!(site.built(&format!("--ssh default={socket} {place}?branch=side"), false, "all/side"), "side\n");
        assert_eq!(site.built(&format!("{place}#main:sub"), true, "sub/deep/leaf"), "leaf\n");
    }
    let text = site.text("FROM scratch\nADD @SSH@/whole.git#v1 /a\nADD --keep-git-dir=true @SCP@/whole.git#side /b\n");
    site.world.write("ctx/Dockerfile", text);
    assert_eq!(site.built("--ssh default ctx", true, "b/side"), "side\n");
    assert_eq!(site.world.read("out/a/file"), "one\n");
    assert!(site.world.read("out/b/.git/config").contains("root@127."));
    site.world.write("named/Dockerfile", "FROM scratch\nCOPY --from=other . /other\n");
    assert_eq!(site.built("--build-context other=@SCP@/whole.git --ssh default named", true, "other/file"), "two\n");
    // What is there is not fetched; what a ref means is still asked.
    let again = site.run("build --progress=plain --ssh default @SSH@/whole.git", true);
    assert!(again.err.contains("resolve") && !again.err.contains("check out"), "{}", again.err);
    again.ok();
}

#[test]
fn without_a_key_it_says_what_to_do() {
    let Some(mut site) = site() else { return };
    let said = site.run("build @SSH@/whole.git", false).fails(1);
    contains(&said, &["needs an ssh agent or a key", "--ssh default=FILE"]);
    site.world.write("ctx/Dockerfile", site.text("FROM scratch\nADD @SCP@/whole.git /a\n"));
    contains(&site.run("build ctx", false).fails(1), &["needs an ssh agent or a key", "ctx/Dockerfile:2"]);
    // An agent and a key that the server does not know.
    let empty = Agent::start(&site.work.join("empty"), &[]);
    let said = site.run(&format!("build --ssh default={} @SSH@/whole.git", empty.socket.display()), true).fails(1);
    contains(&said, &["Permission denied (publickey)"]);
    let other = site.work.join("sshd/host");
    let said = site.run(&format!("build --ssh default={} @SSH@/whole.git", other.display()), true).fails(1);
    contains(&said, &["Permission denied (publickey)"]);
    // What is not on the server.
    contains(
        &site.run("build --ssh default @SSH@/none.git", true).fails(1),
        &["none.git", "does not appear to be a git repository"],
    );
    contains(&site.run("build --ssh default @SSH@/whole.git#sied", true).fails(1), &["did you mean `side`?"]);
    // Another server at the same place.
    site.sshd.change_host_key();
    let said = site.run("build --ssh default @SSH@/whole.git", true).fails(1);
    contains(&said, &["its host shows another key than before", "ssh-keygen -R"]);
    fs::remove_file(site.world.store().join("git/known_hosts")).unwrap();
    site.run("build --ssh default @SSH@/whole.git", true).ok();
}

#[test]
fn a_project_names_its_key() {
    let Some(site) = site() else { return };
    let key = site.sshd.key().display().to_string();
    let text = r#"project "p"
image "a" dockerfile="Dockerfile" context="@SSH@/whole.git#main" { ssh file="KEY"; }
image "b" { ssh file="KEY"; stage "final" from="scratch" { add "@SCP@/whole.git#side" to="/b/"; }; }
"#;
    site.world.write("containers.kdl", site.text(text).replace("KEY", &key));
    site.run("apply", false).ok();
    contains(&site.world.read("containers.lock"), &["git ssh://root@127.", "git root@127."]);
    let again = site.run("apply", false);
    contains(&(again.err.clone() + &again.out), &["nothing to do"]);
    // A commit that comes later is found by `update` only.
    let repository = site.work.join("git/whole");
    git(&repository, &["commit", "-q", "--allow-empty", "-m", "three"]);
    git(&repository, &["push", "-q", "../whole.git", "main"]);
    contains(&site.run("apply", false).out, &["nothing to do"]);
    contains(&site.run("update image:a", false).ok(), &["git ssh://root@127."]);
}
