//! Assertions against real containers of a busybox image.

mod support;

use ctk_check::{AssertionOutcome, CheckError};
use support::{Bench, able, web};

const PAGE: (&str, u32, (u32, u32), &str) = ("srv/www/index.html", 0o644, (33, 33), "Hello from a test\n");

#[test]
fn everything_holds_of_a_good_image() {
    if !able() {
        return;
    }
    let bench = Bench::new();
    let status = "Package: libc6\nStatus: install ok installed\nVersion: 2.36\n";
    let image = bench.image(&[PAGE, ("var/lib/dpkg/status", 0o644, (0, 0), status)], web());
    let report = bench.run(
        r##"test "t" image="x" {
    start
    http "http://image:8080/" status=200 body="Hello from a test" within="10s" { header "content-type" contains="html" }
    http "http://image:8080/none" status=404
    command "prints" "echo" "a" "b" { stdout equals="a b\n"; stderr equals="" }
    command "exit code" "sh" "-c" "echo oops >&2; exit 3" { exit 3; stderr matches=#"^oops\n$"# }
    command "input" "cat" { stdin "from outside"; stdout equals="from outside" }
    command "environment" "env" { env GREETING="hi there"; stdout contains="GREETING=hi there\n" }
    command "image's user" "id" "-u" { stdout equals="33\n" }
    command "other user" "id" "-u" { user "0"; stdout equals="0\n" }
    command "place" "pwd" { stdout equals="/srv/www\n" }
    command "other place" "pwd" { workdir "/tmp"; stdout equals="/tmp\n" }
    command "reaches the image" "wget" "-qO-" "http://image:8080/" { stdout contains="Hello" }
    command "writes" "touch" "/tmp/left"
    absent "/tmp/left" "/usr/bin/gcc"
    file "/srv/www/index.html" mode="0644" owner="www-data:www-data" type="file" size=18 contains="Hello"
    file "/bin/sh" type="symlink" target="busybox"
    file "/tmp" type="directory" mode="1777" owner="0:0"
    config { user "www-data"; exposes 8080; workdir "/srv/www"; env PATH="/bin"; cmd "-p" 8080 "-h" "/srv/www" }
    size min="100KiB" max="4MiB"
    packages { present "libc6"; absent "curl" }
}"##,
        &image,
    );
    assert!(report.passed(), "{}", report.failures());
    assert_eq!(report.assertions.len(), 20);
    assert!(report.output.is_empty());
}

#[test]
fn a_failing_test_says_what_was_expected_and_seen() {
    if !able() {
        return;
    }
    let bench = Bench::new();
    let image = bench.image(&[PAGE], web());
    let report = bench.run(
        r##"test "t" image="x" {
    start
    http "http://image:8080/" status=204 body="Goodbye" within="300ms"
    http "http://image:9/" within="300ms"
    command "version" "sh" "-c" "echo 2.0; echo why >&2; exit 7" { stdout matches=#"^1\."# }
    command "missing" "no-such-program"
    command "slow" "sleep" "30" { timeout "200ms" }
    file "/srv/www/index.html" mode="0755" owner="0:0" type="directory" equals="x"
    file "/nope"
    absent "/bin/sh"
    config { user "root"; entrypoint "/bin/httpd" }
    size max="1KiB"
    packages { present "libc6" }
    command "still runs" "true"
}"##,
        &image,
    );
    assert_eq!(report.counts(), (2, 11, 0), "{}", report.failures());
    let told = report.failures();
    for expected in [
        "http http://image:8080/: failed\n    status, expected: 204\n    status, seen: 200\n",
        "to contain \"Goodbye\"\n    body, seen: \"Hello from a test\\n\"\n",
        "answer, expected: one\n    answer, seen: failed to connect to image:9",
        "end, expected: exit code 0\n    end, seen: exit code 7; stderr: \"why\\n\"\n",
        "stdout, expected: to match `^1\\.`\n    stdout, seen: \"2.0\\n\"\n",
        "start, expected: `no-such-program` to run\n",
        "end, seen: killed after 200ms\n",
        "mode, expected: 0755\n    mode, seen: 0644\n",
        "owner, expected: 0:0\n    owner, seen: 33:33\n",
        "type, expected: directory\n    type, seen: file\n",
        "`/nope`, expected: something there\n",
        "`/bin/sh`, expected: nothing there\n    `/bin/sh`, seen: a symlink\n",
        "user, expected: \"root\"\n    user, seen: \"www-data\"\n",
        "size, expected: at most 1.0 KiB (1024 bytes)\n",
        "package libc6, expected: installed\n",
        "the last output of `image`:\n",
    ] {
        assert!(told.contains(expected), "no `{expected}` in:\n{told}");
    }
    let xml = ctk_check::junit("x", std::slice::from_ref(&report));
    assert!(xml.contains("failures=\"11\""), "{xml}");
}

#[test]
fn without_start_nothing_has_a_network() {
    if !able() {
        return;
    }
    let bench = Bench::new();
    let image = bench.image(&[PAGE], web());
    let report = bench.run(
        r#"test "t" image="x" {
    command "no interface but loopback" "ls" "/sys/class/net" { stdout equals="lo\n" }
    command "nobody answers" "wget" "-qO-" "http://image:8080/" { exit 1 }
}"#,
        &image,
    );
    assert!(report.passed(), "{}", report.failures());
}

#[test]
fn cancelling_ends_a_test_at_once() {
    if !able() {
        return;
    }
    let bench = Bench::new();
    let image = bench.image(&[PAGE], web());
    let cancel = bench.cancel.clone();
    let later = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(700));
        cancel.cancel();
    });
    let began = std::time::Instant::now();
    let result = bench.run_with("test \"t\" image=\"x\" {\n command \"slow\" \"sleep\" \"30\"\n}", &image, &image);
    assert!(matches!(result, Err(CheckError::Cancelled)), "{result:?}");
    assert!(began.elapsed().as_secs() < 5);
    later.join().unwrap();
}

#[test]
fn a_dead_image_is_told_at_once() {
    if !able() {
        return;
    }
    let bench = Bench::new();
    let image = bench.image(&[PAGE], web());
    let began = std::time::Instant::now();
    let report = bench.run(
        r#"test "t" image="x" {
    start { entrypoint "sh"; command "-c" "echo cannot read the config; exit 9" }
    http "http://image:8080/" within="30s"
}"#,
        &image,
    );
    assert!(began.elapsed().as_secs() < 10);
    let told = report.failures();
    assert!(told.contains("`image`, seen: exit code 9"), "{told}");
    assert!(told.contains("    cannot read the config\n"), "{told}");
    assert!(report.assertions.iter().all(|a| a.outcome != AssertionOutcome::Passed), "{told}");
}
