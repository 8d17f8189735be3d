//! The planner, as a table of worlds.

use std::collections::BTreeMap;

use ctk_oci::{Descriptor, Digest, media_type};
use ctk_plan::{Action, Address, Input, Last, Observed, Plan, PlanOptions, Produced, Unit, plan};

const TARGET: &str = "127.0.0.1:5050/app:latest";

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn unit(name: &str, needs: &[&str], inputs: &[(Input, &str)]) -> Unit {
    let inputs = inputs.iter().map(|(input, digest)| (input.clone(), (*digest).to_owned())).collect();
    let needs = needs.iter().map(|n| address(n)).collect();
    Unit { address: address(name), needs, inputs, targets: Vec::new() }
}

fn project(file: &str) -> Vec<Unit> {
    let source = (Input::File("src/main.rs".into()), file);
    let base = (Input::Base("debian:12".into()), "sha256:aa");
    let mut push = unit("push:app", &["image:app", "test:app"], &[(Input::Declaration, "p")]);
    push.targets = vec![TARGET.into()];
    vec![
        unit("image:app", &[], &[(Input::Declaration, "d"), source, base]),
        unit("test:app", &["image:app"], &[(Input::Declaration, "t")]),
        push,
    ]
}

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

/// The world after everything of `plan` ran.
fn applied(units: &[Unit], plan: &Plan) -> Observed {
    let mut seen = Observed::default();
    let fingerprints: BTreeMap<_, _> = plan.units.iter().map(|u| (u.address.clone(), u.fingerprint.clone())).collect();
    for unit in units {
        let fingerprint = fingerprints[&unit.address].clone();
        let published: BTreeMap<_, _> = unit.targets.iter().map(|t| (t.clone(), digest("image"))).collect();
        let is_image = unit.address.kind == ctk_plan::Kind::Image;
        let image = is_image.then(|| Descriptor::new(media_type::MANIFEST, digest("image"), 5));
        let needs = unit.needs.iter().map(|n| (n.clone(), fingerprints[n].clone())).collect();
        seen.targets.extend(published.clone());
        let last =
            Last { fingerprint: fingerprint.clone(), inputs: unit.inputs.clone(), needs, published: published.clone() };
        seen.last.insert(unit.address.clone(), last);
        seen.results.insert(fingerprint, Produced { image, published });
    }
    seen
}

fn marks(plan: &Plan) -> String {
    plan.units.iter().map(|unit| unit.mark()).collect()
}

#[test]
fn everything_is_new_at_first_and_nothing_changes_afterwards() {
    let units = project("1");
    let first = plan(&units, &Observed::default(), &PlanOptions::default());
    assert_eq!(marks(&first), "+++");
    let second = plan(&units, &applied(&units, &first), &PlanOptions::default());
    assert!(!second.has_changes(), "{second}");
    assert_eq!(second.to_string().lines().next(), Some("  = image:app  unchanged"));
}

#[test]
fn a_changed_file_is_named_and_travels_down() {
    let units = project("1");
    let seen = applied(&units, &plan(&units, &Observed::default(), &PlanOptions::default()));
    let after = plan(&project("2"), &seen, &PlanOptions::default());
    assert_eq!(marks(&after), "~~~");
    let text = after.to_string();
    assert!(text.contains("src/main.rs changed (1 → 2)"), "{text}");
    assert!(text.contains("test:app   test    image:app changes"), "{text}");
}

#[test]
fn a_moved_tag_is_drift() {
    let units = project("1");
    let mut seen = applied(&units, &plan(&units, &Observed::default(), &PlanOptions::default()));
    seen.targets.insert(TARGET.into(), digest("foreign"));
    let after = plan(&units, &seen, &PlanOptions::default());
    assert_eq!(marks(&after), "==!");
    assert!(after.to_string().contains("moved outside this project"), "{after}");
    seen.targets.remove(TARGET);
    assert_eq!(marks(&plan(&units, &seen, &PlanOptions::default())), "==!");
}

#[test]
fn a_lost_image_is_made_again_without_testing_it_again() {
    let units = project("1");
    let first = plan(&units, &Observed::default(), &PlanOptions::default());
    let mut seen = applied(&units, &first);
    seen.results.remove(&first.units[0].fingerprint);
    let after = plan(&units, &seen, &PlanOptions::default());
    assert_eq!(marks(&after), "~==", "{after}");
    assert!(after.to_string().contains("no longer in the store"), "{after}");
}

#[test]
fn only_what_is_asked_for_and_below_is_planned() {
    let options = PlanOptions { only: [address("test:app")].into(), ..PlanOptions::default() };
    let partial = plan(&project("1"), &Observed::default(), &options);
    assert_eq!(partial.units.iter().map(|u| u.address.to_string()).collect::<Vec<_>>(), ["image:app", "test:app"]);
}

#[test]
fn forcing_runs_what_is_unchanged() {
    let units = project("1");
    let seen = applied(&units, &plan(&units, &Observed::default(), &PlanOptions::default()));
    let options = PlanOptions { force: [address("test:app")].into(), ..PlanOptions::default() };
    let after = plan(&units, &seen, &options);
    assert_eq!(after.units.iter().map(|u| u.action).collect::<Vec<_>>(), [Action::Keep, Action::Run, Action::Keep]);
}

#[test]
fn an_unreachable_target_is_a_reason_not_a_crash() {
    let units = project("1");
    let mut seen = applied(&units, &plan(&units, &Observed::default(), &PlanOptions::default()));
    seen.unreachable.insert(TARGET.into(), "connection refused".into());
    let after = plan(&units, &seen, &PlanOptions::default());
    assert_eq!(marks(&after), "==~");
    assert!(after.to_string().contains("connection refused"), "{after}");
}

#[test]
fn a_change_shows_what_differs() {
    let check = |from: &str, to: &str, expected: &str| {
        let input = ctk_plan::Input::File("a".into());
        let change = ctk_plan::InputChange { input, from: Some(from.into()), to: Some(to.into()) };
        assert_eq!(change.to_string(), expected);
    };
    let (one, two) = ("1".repeat(32), "2".repeat(32));
    check(&format!("644:{one}"), &format!("644:{two}"), "a changed (11111111… → 22222222…)");
    check(&format!("644:{one}"), &format!("755:{two}"), "a changed (11111111… → 22222222…)");
    check(&format!("644:{one}"), &format!("755:{one}"), "a changed its mode (644 → 755)");
    check(&one, &two, "a changed (11111111… → 22222222…)");
    check("l x", "l y", "a changed (l x → l y)");
    check("linux/amd64", "linux/arm64 linux/amd64", "a changed (linux/amd64 → linux/arm64 linux/amd64)");
}
