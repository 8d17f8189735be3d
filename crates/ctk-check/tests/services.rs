//! Services: other containers on the test's private network.

mod support;

use ctk_check::{AssertionOutcome, CheckError, ServiceImage};
use ctk_client::{Client, ClientOptions, PushOptions, RegistryFetch};
use ctk_oci::Reference;
use ctk_plan::Event;
use support::{Bench, NoFetch, able, web};

const PAGE: (&str, u32, (u32, u32), &str) = ("srv/www/index.html", 0o644, (33, 33), "from the image\n");
const OTHER: (&str, u32, (u32, u32), &str) = ("srv/www/index.html", 0o644, (33, 33), "from the service\n");

#[test]
fn services_are_reached_by_name_once_they_are_ready() {
    if !able() {
        return;
    }
    let bench = Bench::new();
    let image = bench.image(&[PAGE], web());
    let service = bench.image(&[OTHER], web());
    let report = bench
        .run_with(
            r#"test "t" image="x" {
    service "by-http" image="y" { health http=":8080/" within="10s" }
    service "by-exec" image="y" {
        env A="b"
        command "-p" "9090" "-h" "/srv/www"
        health exec="wget -qO- http://127.0.0.1:9090/" within="10s"
    }
    service "by-tcp" image="y" { health tcp=8080 within="10s" }
    start { health http="http://by-exec:9090/" }
    http "http://image:8080/" body="from the image" within="10s"
    http "http://by-http:8080/" body="from the service"
    http "http://by-exec:9090/" body="from the service"
    command "by name" "wget" "-qO-" "http://by-tcp:8080/" { stdout equals="from the service\n" }
}"#,
            &image,
            &service,
        )
        .unwrap();
    assert!(report.passed(), "{}", report.failures());
    let names: Vec<&str> = report.assertions.iter().map(|a| a.name.as_str()).collect();
    assert_eq!(names[..4], ["service by-http", "service by-exec", "service by-tcp", "start"]);
}

#[test]
fn what_needs_a_service_that_does_not_come_up_is_skipped() {
    if !able() {
        return;
    }
    let bench = Bench::new();
    let image = bench.image(&[PAGE], web());
    let report = bench.run(
        r#"test "t" image="x" {
    service "db" image="y" { entrypoint "sh" "-c" "echo waiting; sleep 60"; health tcp=5432 within="400ms" }
    start
    http "http://image:8080/" within="10s"
    http "http://db:5432/"
    file "/bin/busybox" type="file"
}"#,
        &image,
    );
    assert_eq!(report.counts(), (1, 1, 3), "{}", report.failures());
    let told = report.failures();
    assert!(told.contains("service db: failed\n    health, expected: healthy within 400ms\n"), "{told}");
    assert!(told.contains("start: skipped, because service `db` is not up\n"), "{told}");
    assert!(told.contains("the last output of `db`:\n    waiting\n"), "{told}");
    assert!(matches!(report.assertions.last().unwrap().outcome, AssertionOutcome::Passed));
}

#[test]
fn every_step_that_begins_ends() {
    if !able() {
        return;
    }
    let bench = Bench::new();
    let image = bench.image(&[PAGE], web());
    let report = bench.run(
        "test \"t\" image=\"x\" {\n start\n http \"http://image:8080/\" within=\"10s\"\n command \"c\" \"true\"\n}",
        &image,
    );
    assert!(report.passed(), "{}", report.failures());
    let events = bench.events.0.lock().unwrap();
    let started = events.iter().filter(|e| matches!(e, Event::StepStarted { .. })).count();
    let done =
        events.iter().filter(|e| matches!(e, Event::StepFinished { outcome: ctk_plan::Outcome::Done, .. })).count();
    assert_eq!((started, done), (4, 4));
    assert!(events.iter().any(|e| matches!(e, Event::StepLog { .. })));
    // Nothing of it is left in the state directory.
    let left: Vec<_> = std::fs::read_dir(bench.home.path().join("run")).unwrap().collect();
    assert!(left.len() <= 1, "{left:?}");
}

#[test]
fn a_services_image_is_fetched() {
    if !able() {
        return;
    }
    let (upstream, bench) = (Bench::new(), Bench::new());
    let folder = upstream.home.path().join("registry");
    let server = ctk_registry::serve(ctk_registry::ServeOptions::new("127.0.0.1:0".parse().unwrap(), folder)).unwrap();
    let service = upstream.image(&[OTHER], web());
    let client = Client::new(ClientOptions::default());
    let name: Reference = format!("{}/web:1", server.host()).parse().unwrap();
    client.push(&name, &service, &upstream.store, &PushOptions::default(), None, &upstream.cancel).unwrap();
    let pinned = ServiceImage::Pinned(name.with_digest(service.digest.clone()));
    let image = bench.image(&[PAGE], web());
    let text = r#"test "t" image="x" {
    service "web" image="y" { health tcp=8080 }
    http "http://web:8080/" body="from the service"
}"#;
    let error = bench.run_fetching(text, &image, &pinned, &NoFetch).unwrap_err();
    assert_eq!(error.to_string(), "failed to fetch the image of service `web`");
    assert!(matches!(error, CheckError::Fetch { .. }));
    let report = bench.run_fetching(text, &image, &pinned, &RegistryFetch::new(client)).unwrap();
    assert!(report.passed(), "{}", report.failures());
    server.shutdown(std::time::Duration::from_secs(1));
}
