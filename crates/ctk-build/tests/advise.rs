//! Advice: Dockerfiles with one flaw each, and some without any.

mod common;

use common::{Bench, can_run, chain};
use ctk_build::{Advice, Flaw, ImageDecl};
use ctk_plan::{Address, Kind};

/// What is advised of a Dockerfile in a folder of its own with these files (path, bytes).
fn advice(bench: &Bench, name: &str, files: &[(&str, usize)], dockerfile: &str) -> Vec<Advice> {
    for (path, bytes) in files {
        bench.write(&format!("{name}/{path}"), &path.repeat(bytes / path.len() + 1)[..*bytes]);
    }
    bench.write(&format!("{name}/Dockerfile"), dockerfile);
    let decl = ImageDecl::dockerfile(Address::new(Kind::Image, name), format!("{name}/Dockerfile"), name);
    bench.run(&decl).unwrap_or_else(|error| panic!("{name}: {}", chain(&error)));
    let mut all = bench.with(&decl, ctk_build::advise).unwrap_or_else(|error| panic!("{name}: {}", chain(&error)));
    assert!(all[0].waits.is_empty(), "{all:?}");
    all.remove(0).advice
}

struct Case {
    name: &'static str,
    files: &'static [(&'static str, usize)],
    dockerfile: &'static str,
    /// Flaw, words of message and hint, line, bytes.
    expected: &'static [(Flaw, &'static [&'static str], usize, Option<u64>)],
}

const CASES: &[Case] = &[
    Case {
        name: "nothing",
        files: &[("src/a", 50_000), (".dockerignore", 5)],
        dockerfile: "FROM busybox AS build\nCOPY src /src\nRUN cp /src/a /a && chmod 755 /a\nFROM busybox\n\
                     COPY --from=build /a /a\nRUN mkdir /empty\nCMD [\"/a\"]\n",
        expected: &[],
    },
    Case {
        name: "deleted",
        files: &[("src/a", 50_000), ("src/b", 10)],
        dockerfile: "FROM busybox\nCOPY src /src\nRUN rm -rf /src\n",
        expected: &[(
            Flaw::Deleted,
            &["`src/a` and `src/b` of `COPY src /src`", "removed by `RUN rm -rf /src`"],
            2,
            Some(50_010),
        )],
    },
    Case {
        name: "deleted-of-a-run",
        files: &[],
        dockerfile: "FROM busybox\nRUN head -c 60000 /bin/busybox > /download\nRUN rm /download\n",
        expected: &[(Flaw::Deleted, &["`download`", "make and remove them in one RUN"], 2, Some(60_000))],
    },
    Case {
        name: "changed-owner",
        files: &[("src/a", 50_000)],
        dockerfile: "FROM busybox\nCOPY src /src\nRUN chown -R 1000 /src\n",
        expected: &[(
            Flaw::Duplicate,
            &["`src/a` of `RUN chown", "`COPY src /src` already", "--chown"],
            3,
            Some(50_000),
        )],
    },
    Case {
        name: "twice",
        files: &[("src/a", 50_000)],
        dockerfile: "FROM busybox\nCOPY src /src\nCOPY src/a /other\n",
        expected: &[(Flaw::Duplicate, &["`other` of `COPY src/a /other`", "link to it"], 3, Some(50_000))],
    },
    Case {
        name: "apt-lists",
        files: &[],
        dockerfile: "FROM busybox\nRUN mkdir -p /var/lib/apt/lists && head -c 70000 /bin/busybox > /var/lib/apt/lists/x\n",
        expected: &[(Flaw::PackageCache, &["/var/lib/apt/lists", "rm -rf"], 2, Some(70_000))],
    },
    Case {
        name: "pip",
        files: &[],
        dockerfile: "FROM busybox\nRUN mkdir -p /root/.cache/pip/x && head -c 70000 /bin/busybox > /root/.cache/pip/x/y\n",
        expected: &[(Flaw::PackageCache, &["/root/.cache/pip", "--no-cache-dir"], 2, Some(70_000))],
    },
    Case {
        name: "compiler",
        files: &[("gcc", 90_000)],
        dockerfile: "FROM busybox\nCOPY gcc /usr/bin/gcc\n",
        expected: &[(Flaw::BuildTools, &["`usr/bin/gcc`", "stage of its own"], 2, Some(90_000))],
    },
    Case {
        name: "compiler-in-a-stage",
        files: &[("gcc", 90_000)],
        dockerfile: "FROM busybox AS build\nCOPY gcc /usr/bin/gcc\nRUN echo made > /made\nFROM busybox\nCOPY --from=build /made /made\n",
        expected: &[],
    },
    Case {
        name: "development-packages",
        files: &[],
        dockerfile: "FROM busybox\nRUN mkdir -p /var/lib/dpkg && printf 'Package: libssl-dev\\nStatus: install ok \
                     installed\\nInstalled-Size: 300\\nSection: libdevel\\n\\nPackage: libssl3\\nStatus: install ok \
                     installed\\nInstalled-Size: 100\\nSection: libs\\n' > /var/lib/dpkg/status\n",
        expected: &[(Flaw::BuildTools, &["`libssl-dev`"], 2, Some(300 * 1024))],
    },
    Case {
        name: "repository",
        files: &[("app/.git/objects/pack", 80_000), ("app/main", 10)],
        dockerfile: "FROM busybox\nCOPY app /app\n",
        expected: &[(Flaw::MissingIgnore, &["`app/.git`", ".dockerignore"], 2, Some(80_000))],
    },
    Case {
        name: "modules",
        files: &[("web/node_modules/a/index.js", 80_000), ("web/package.json", 10), ("web/target/kept", 20)],
        dockerfile: "FROM busybox\nCOPY web /web\n",
        expected: &[(Flaw::MissingIgnore, &["`web/node_modules`"], 2, Some(80_000))],
    },
    Case {
        name: "many-caches",
        files: &[
            ("app/a/__pycache__/x", 1_000),
            ("app/b/__pycache__/x", 2_000),
            ("app/b/c/__pycache__/x", 3_000),
            ("app/d/__pycache__/x", 4_000),
        ],
        dockerfile: "FROM busybox\nCOPY app /app\n",
        expected: &[(
            Flaw::MissingIgnore,
            &["`app/a/__pycache__`, `app/b/__pycache__` and 2 more", "write `**/__pycache__` into"],
            2,
            Some(10_000),
        )],
    },
    Case {
        name: "owner-over-layers",
        files: &[("src/a", 50_000), ("b", 7_000)],
        dockerfile: "FROM busybox AS first\nCOPY src/a /other\nFROM first\nCOPY src /src\nCOPY b /src/b\nRUN rm /other; chown -R 7 /src\n",
        expected: &[
            (Flaw::Deleted, &["`other` of `COPY src/a /other` is removed"], 2, Some(50_000)),
            (Flaw::Duplicate, &["`src/a` of `COPY src /src` is in the layer of `COPY src/a /other`"], 4, Some(50_000)),
            (Flaw::Duplicate, &["`src/a` of `RUN rm", "in the layer of `COPY src /src`", "--chown"], 6, Some(50_000)),
            (Flaw::Duplicate, &["`src/b` of `RUN rm", "in the layer of `COPY b /src/b`", "--chown"], 6, Some(7_000)),
        ],
    },
    Case {
        name: "cargo-target",
        files: &[("x/Cargo.toml", 10), ("x/target/debug/x", 80_000), ("x/src/main.rs", 10)],
        dockerfile: "FROM busybox\nCOPY x /x\n",
        expected: &[(Flaw::MissingIgnore, &["`x/target`"], 2, Some(80_000))],
    },
    Case {
        name: "everything",
        files: &[("src/a", 10), ("docs/guide", 30_000), ("README.md", 2_000)],
        dockerfile: "FROM busybox\nCOPY . /app\n",
        expected: &[(Flaw::CopyAll, &["`Dockerfile`, `README.md` and `docs`", "copy `src` instead"], 2, None)],
    },
];

#[test]
fn one_flaw_each() {
    if !can_run() {
        return;
    }
    let bench = Bench::new();
    let mut wrong = Vec::new();
    for case in CASES {
        let seen = advice(&bench, case.name, case.files, case.dockerfile);
        let alike = seen.len() == case.expected.len()
            && seen.iter().zip(case.expected).all(|(seen, (flaw, words, line, bytes))| {
                let text = format!("{}\n{}", seen.message, seen.hint);
                let place = format!("{}/Dockerfile:{line}:1", case.name);
                seen.rule == *flaw
                    && words.iter().all(|word| text.contains(word))
                    && seen.place.as_deref() == Some(&place)
                    && (bytes.is_none() || seen.bytes == *bytes)
            });
        if !alike {
            wrong.push(format!("{}: {seen:#?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_takes_long_stands_before_what_changes() {
    if !can_run() {
        return;
    }
    let bench = Bench::new();
    let files = [("app/package.json", 10), ("app/index.js", 20), ("bin/npm", 5)];
    let late = "FROM busybox\nRUN echo 'sleep 0.3; echo ran > /modules' > /bin/npm && chmod 755 /bin/npm\nCOPY app /app\nRUN cd /app && npm ci\n";
    advice(&bench, "order", &files, late);
    let changed = [("app/index.js", 30)];
    let seen = advice(&bench, "order", &changed, late);
    assert_eq!(seen.len(), 1, "{seen:#?}");
    assert_eq!(seen[0].rule, Flaw::Order);
    assert_eq!(seen[0].place.as_deref(), Some("order/Dockerfile:4:1"));
    assert!(seen[0].seconds.unwrap() >= 0.3, "{seen:#?}");
    assert!(seen[0].message.contains("it ran in 2 of the last 2 builds"), "{seen:#?}");
    // Only what is there is named.
    assert!(seen[0].hint.contains("copy `package.json` first"), "{seen:#?}");
    let seen = advice(&bench, "order", &[("app/package-lock.json", 40)], late);
    assert!(seen[0].hint.contains("`package.json` and `package-lock.json` first"), "{seen:#?}");
    let early =
        late.replace("COPY app /app\n", "COPY app/package.json /app/\n").replace("npm ci", "npm ci\nCOPY app /app");
    let seen = advice(&bench, "order", &[], &early);
    assert!(seen.iter().all(|advice| advice.rule != Flaw::Order), "{seen:#?}");
}

#[test]
fn the_dearest_comes_first() {
    if !can_run() {
        return;
    }
    let bench = Bench::new();
    let files = [("small", 20_000), ("large", 200_000)];
    let text = "FROM busybox\nCOPY small /small\nRUN rm /small\nCOPY large /large\nRUN rm /large\n";
    let seen = advice(&bench, "sorted", &files, text);
    let bytes: Vec<Option<u64>> = seen.iter().map(|advice| advice.bytes).collect();
    assert_eq!(bytes, [Some(200_000), Some(20_000)]);
}
