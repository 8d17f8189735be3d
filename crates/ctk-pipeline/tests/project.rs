//! `pipeline` nodes of a project: what they become, and what is wrong with them.

use ctk_pipeline::project::{PipelineDecl, Steps, decode};
use ctk_pipeline::run::job::When;
use ctk_pipeline::run::{Job, SecretSource, TaskWork};
use ctk_plan::{Address, Kind};
use ctk_project::{Inputs, MemoryFiles, no_git};
use ctk_syntax::Sources;

fn read(text: &str) -> Result<PipelineDecl, String> {
    let mut sources = Sources::new();
    let inputs = Inputs { vars: Default::default(), env: &|_| None, git: &no_git, default_name: "shop".to_owned() };
    let files = MemoryFiles::default();
    let (project, diagnostics) = ctk_project::parse(&mut sources, "containers.kdl", text.to_owned(), &files, &inputs);
    if diagnostics.has_errors() {
        return Err(diagnostics.render(&sources, false));
    }
    let resource = project.of_kind(Kind::Pipeline).next().expect("a pipeline");
    let local = |address: &Address| format!("localhost/shop/{}:latest", address.name);
    decode(&project, resource, &local).map_err(|diagnostics| diagnostics.render(&sources, false))
}

#[track_caller]
fn job(text: &str) -> Job {
    match read(text).map(|decl| decl.steps) {
        Ok(Steps::Own(job)) => *job,
        Ok(Steps::CloudBuild { .. }) => panic!("a Cloud Build file"),
        Err(said) => panic!("{said}"),
    }
}

/// Each part stands in what is said.
#[track_caller]
fn wrong(text: &str, parts: &[&str]) {
    let said = read(text).expect_err("a mistake");
    for part in parts {
        assert!(said.contains(part), "`{part}` is not in:\n{said}");
    }
}

#[test]
fn steps_become_tasks() {
    let job = job("image \"tool\" dockerfile=\"Dockerfile\"\n\
        pipeline \"p\" jobs=3 timeout=\"1m\" fail-fast=#false {\n\
            env A=\"all\" B=\"all\"\n\
            step \"one\" image=\"image:tool\" { run \"echo a\"; run \"program\" \"with words\"; env B=\"own\"; workdir \"sub\" }\n\
            step \"two\" image=\"docker://busybox:1\" needs=\"one\" { run \"ls\" \"-l\"; when \"always\"; retry 2 pause=\"3s\" }\n\
            step \"three\" image=\"docker://busybox:1\" { needs \"one\" \"two\"; args \"x\"; secret \"word\" env=\"W\" }\n\
        }\n");
    assert_eq!((job.at_once, job.fail_fast, job.timeout.map(|time| time.as_secs())), (Some(3), false, Some(60)));
    let needs: Vec<&[usize]> = job.tasks.iter().map(|task| task.needs.as_slice()).collect();
    assert_eq!(needs, [&[][..], &[0], &[0, 1]]);
    let one = &job.tasks[0];
    assert_eq!(
        (one.env["A"].as_str(), one.env["B"].as_str(), one.directory.as_str()),
        ("all", "own", "/workspace/sub")
    );
    let TaskWork::Container { image, script: Some(script), .. } = &one.work else { panic!("{:?}", one.work) };
    assert_eq!(
        (image.as_str(), script.as_str()),
        ("localhost/shop/tool:latest", "set -e\necho a\nprogram 'with words'\n")
    );
    let TaskWork::Container { entrypoint: Some(words), script: None, .. } = &job.tasks[1].work else { panic!() };
    assert_eq!(words, &["ls", "-l"]);
    assert_eq!((job.tasks[1].when, job.tasks[1].retry.times, job.tasks[1].retry.pause.as_secs()), (When::Always, 2, 3));
    assert_eq!(job.tasks[2].secret_env["W"], "word");
    assert_eq!(job.secrets["word"], SecretSource::Cloud { name: "word".into() });
}

#[test]
fn a_matrix_is_a_step_for_each_combination() {
    let job = job("pipeline \"p\" {\n\
            step \"a\" image=\"docker://x\" { matrix { os \"d\" \"a\"; size \"1\" \"2\" }; run \"${matrix.os} ${matrix.size}\" }\n\
            step \"named-${matrix.n}\" image=\"docker://x\" { matrix { n \"1\" \"2\" }; run \"x\" }\n\
            step \"b\" image=\"docker://x\" needs=\"a\" { run \"x\" }\n\
            step \"c\" image=\"docker://x\" needs=\"a[os=d,size=2]\" \"named-1\" { run \"x\" }\n\
        }\n");
    let names: Vec<&str> = job.tasks.iter().filter_map(|task| task.id.as_deref()).collect();
    assert_eq!(
        names,
        ["a[os=d,size=1]", "a[os=d,size=2]", "a[os=a,size=1]", "a[os=a,size=2]", "named-1", "named-2", "b", "c"]
    );
    assert_eq!((job.tasks[6].needs.as_slice(), job.tasks[7].needs.as_slice()), (&[0, 1, 2, 3][..], &[1, 4][..]));
    assert!(job.tasks[1].line().ends_with("d 2"), "{}", job.tasks[1].line());
}

#[test]
fn conditions_are_decided_before() {
    let whens = |what: &str| {
        let text = format!("pipeline \"p\" {{ step \"a\" image=\"docker://x\" {{ if {what}; run \"x\" }} }}\n");
        job(&text).tasks[0].when
    };
    for (what, expected) in [
        ("\"a\" is=\"a\"", When::Success),
        ("\"a\" is=\"b\"", When::Never),
        ("\"a\" not=\"b\"", When::Success),
        ("\"\"", When::Never),
        ("\"false\"", When::Never),
        ("\"yes\"", When::Success),
    ] {
        assert_eq!(whens(what), expected, "{what}");
    }
}

#[test]
fn mistakes_have_places() {
    wrong("pipeline \"p\"\n", &["the pipeline has no steps", "cloudbuild=FILE"]);
    let one = |step: &str| format!("pipeline \"p\" {{\n    {step}\n}}\n");
    wrong(&one("step \"a\""), &["step `a` does nothing", "containers.kdl:2:10"]);
    wrong(&one("step \"a\" image=\"docker://x\" git=\"y\" into=\"z\""), &["step `a` is several things"]);
    wrong(&one("step \"a\" git=\"y\""), &["step `a` fetches to nowhere", "add `into=`"]);
    wrong(&one("step \"a\" image=\"docker://x\" into=\"z\" { run \"x\" }"), &["`into` is for steps that fetch"]);
    wrong(&one("step \"a\" image=\"docker://x\" { rum \"x\" }"), &["did you mean `run`?"]);
    wrong(&one("step \"a\" image=\"docker://x\" { when \"sometimes\"; run \"x\" }"), &["sometimes"]);
    wrong(&one("step \"a\" image=\"docker://x\" needs=\"a\" { run \"x\" }"), &["no step `a`"]);
    let two = |needs: &str| {
        one(&format!(
            "step \"a\" image=\"docker://x\" needs=\"b\" {{ run \"x\" }}\n    step \"b\" image=\"docker://x\" {needs} {{ run \"x\" }}"
        ))
    };
    wrong(&two("needs=\"a\""), &["needs itself, by way of others"]);
    wrong(&two("").replace("step \"b\"", "step \"bb\""), &["no step `b`", "did you mean `bb`?"]);
    wrong(&two("").replace("step \"b\"", "step \"a\""), &["step `a` is declared twice"]);
    wrong(&one("secret \"x\" from=\"nowhere\"; step \"a\" image=\"docker://x\" { run \"x\" }"), &["expected env:NAME"]);
    wrong(
        &one("step \"a\" image=\"docker://x\" { run \"x\"; service \"s\" image=\"docker://y\" { health tcp=1 } }"),
        &["expected `exec=`"],
    );
}
