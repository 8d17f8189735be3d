//! The schema of a build as data: every field of every record, its type, and what becomes of it here.
//!
//! From `google/devtools/cloudbuild/v1/cloudbuild.proto` and what `gcloud` adds. A new field is a line.

/// What a field's value is.
#[derive(Clone, Copy, Debug)]
pub enum Type {
    /// Text.
    Text,
    /// `true` or `false`.
    Flag,
    /// A whole number, also in quotes.
    Whole,
    /// Seconds with an `s`: `"1200s"`, `"3.5s"`.
    Duration,
    /// One of these words; those with a `!` are no longer offered.
    Choice(&'static [&'static str]),
    /// Another record.
    Record(&'static Record),
    /// Any names with texts.
    Table,
}

/// What becomes of a field in a local run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is carried out.
    Used,
    /// It is taken, and the plan says this.
    Said(&'static str),
    /// Cloud Build sets it; in a file it means nothing.
    Output,
    /// No file can have it, and this is why.
    Refused(&'static str),
}

/// A field.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// As `gcloud` and the API write it; the same with underscores is taken, too.
    pub name: &'static str,
    /// Of one value.
    pub kind: Type,
    /// Whether there may be several.
    pub list: bool,
    /// Whether substitutions are made in it.
    pub substituted: bool,
    /// What becomes of it.
    pub fate: Fate,
}

/// A record: `steps` has records of one kind, `options` is one.
#[derive(Debug)]
pub struct Record {
    /// How messages call it.
    pub name: &'static str,
    /// Its fields.
    pub fields: &'static [Field],
}

const fn field(name: &'static str, kind: Type) -> Field {
    Field { name, kind, list: false, substituted: false, fate: Fate::Used }
}

impl Field {
    const fn list(mut self) -> Field {
        self.list = true;
        self
    }

    const fn substituted(mut self) -> Field {
        self.substituted = true;
        self
    }

    const fn said(mut self, text: &'static str) -> Field {
        self.fate = Fate::Said(text);
        self
    }

    const fn output(mut self) -> Field {
        self.fate = Fate::Output;
        self
    }

    const fn refused(mut self, text: &'static str) -> Field {
        self.fate = Fate::Refused(text);
        self
    }
}

use Type::{Choice, Duration, Flag, Table, Text, Whole};

const fn record(name: &'static str, of: &'static Record) -> Field {
    field(name, Type::Record(of))
}

/// What a file is.
pub static BUILD: Record = Record {
    name: "the build",
    fields: &[
        record("steps", &STEP).list(),
        field("images", Text).list().substituted(),
        record("artifacts", &ARTIFACTS),
        field("timeout", Duration),
        field("queueTtl", Duration).said("nothing waits in a queue"),
        field("logsBucket", Text).substituted().said("logs stay on this machine"),
        record("options", &OPTIONS),
        field("substitutions", Table),
        field("tags", Text).list().substituted(),
        record("secrets", &SECRET).list(),
        record("availableSecrets", &AVAILABLE_SECRETS),
        field("serviceAccount", Text).substituted().said("steps have the credentials that they are given here"),
        record("gitConfig", &GIT_CONFIG).said("git has the configuration of this machine"),
        record("dependencies", &DEPENDENCY).list(),
        record("source", &SOURCE).refused("the source is the folder that the build is started in"),
        field("name", Text).output(),
        field("id", Text).output(),
        field("projectId", Text).output(),
        field("status", Text).output(),
        field("statusDetail", Text).output(),
        field("createTime", Text).output(),
        field("startTime", Text).output(),
        field("finishTime", Text).output(),
        field("buildTriggerId", Text).output(),
        field("logUrl", Text).output(),
        record("results", &ANYTHING).output(),
        record("sourceProvenance", &ANYTHING).output(),
        record("timing", &ANYTHING).output(),
        record("approval", &ANYTHING).output(),
        record("warnings", &ANYTHING).list().output(),
        record("failureInfo", &ANYTHING).output(),
    ],
};

/// One of `steps`.
pub static STEP: Record = Record {
    name: "a step",
    fields: &[
        field("name", Text).substituted(),
        field("args", Text).list().substituted(),
        field("entrypoint", Text).substituted(),
        field("script", Text),
        field("env", Text).list().substituted(),
        field("secretEnv", Text).list(),
        field("dir", Text).substituted(),
        field("id", Text),
        field("waitFor", Text).list(),
        record("volumes", &VOLUME).list(),
        field("timeout", Duration),
        field("allowFailure", Flag),
        field("allowExitCodes", Whole).list(),
        field("automapSubstitutions", Flag),
        field("status", Text).output(),
        field("exitCode", Whole).output(),
        record("timing", &ANYTHING).output(),
        record("pullTiming", &ANYTHING).output(),
    ],
};

static VOLUME: Record = Record { name: "a volume", fields: &[field("name", Text), field("path", Text)] };

static OPTIONS: Record = Record {
    name: "`options`",
    fields: &[
        field(
            "machineType",
            Choice(&[
                "UNSPECIFIED",
                "N1_HIGHCPU_8!",
                "N1_HIGHCPU_32!",
                "E2_HIGHCPU_8",
                "E2_HIGHCPU_32",
                "E2_MEDIUM",
                "E2_STANDARD_2",
            ]),
        )
        .said("this machine is what it is"),
        field("diskSizeGb", Whole).said("this machine's disk is what it is"),
        field("substitutionOption", Choice(&["MUST_MATCH", "ALLOW_LOOSE"])),
        field("dynamicSubstitutions", Flag),
        field("automapSubstitutions", Flag),
        field("logStreamingOption", Choice(&["STREAM_DEFAULT", "STREAM_ON", "STREAM_OFF"]))
            .said("logs are written while steps run"),
        field(
            "logging",
            Choice(&["LOGGING_UNSPECIFIED", "LEGACY", "GCS_ONLY", "STACKDRIVER_ONLY!", "CLOUD_LOGGING_ONLY", "NONE"]),
        )
        .said("logs stay on this machine"),
        field(
            "defaultLogsBucketBehavior",
            Choice(&["DEFAULT_LOGS_BUCKET_BEHAVIOR_UNSPECIFIED", "REGIONAL_USER_OWNED_BUCKET", "LEGACY_BUCKET"]),
        )
        .said("logs stay on this machine"),
        field("enableStructuredLogging", Flag).said("logs stay on this machine"),
        record("pool", &POOL).said("the build runs on this machine, in no private pool"),
        field("workerPool", Text).substituted().said("the build runs on this machine, in no private pool"),
        field("env", Text).list().substituted(),
        field("secretEnv", Text).list(),
        record("volumes", &VOLUME).list(),
        field("requestedVerifyOption", Choice(&["NOT_VERIFIED", "VERIFIED"])).said("no provenance is made"),
        field("sourceProvenanceHash", Choice(&["NONE", "SHA256", "MD5", "GO_MODULE_H1", "SHA512"]))
            .list()
            .said("no provenance is made"),
        record("dockerDaemon", &ANYTHING).said("there is no Docker daemon"),
        record("cluster", &ANYTHING).said("the build runs on this machine, in no cluster"),
        record("anthosCluster", &ANYTHING).said("the build runs on this machine, in no cluster"),
        field("pubsubTopic", Text).said("nothing is published about the build"),
    ],
};

static POOL: Record =
    Record { name: "`pool`", fields: &[field("name", Text).substituted(), record("workerConfig", &ANYTHING)] };

static ARTIFACTS: Record = Record {
    name: "`artifacts`",
    fields: &[
        field("images", Text).list().substituted(),
        record("objects", &OBJECTS),
        record("mavenArtifacts", &MAVEN).list(),
        record("goModules", &GO).list(),
        record("pythonPackages", &PYTHON).list(),
        record("npmPackages", &NPM).list(),
    ],
};

static OBJECTS: Record = Record {
    name: "`objects`",
    fields: &[
        field("location", Text).substituted(),
        field("paths", Text).list().substituted(),
        record("timing", &ANYTHING).output(),
    ],
};

static MAVEN: Record = Record {
    name: "a Maven artifact",
    fields: &[
        field("repository", Text).substituted(),
        field("path", Text).substituted(),
        field("artifactId", Text).substituted(),
        field("groupId", Text).substituted(),
        field("version", Text).substituted(),
        field("deployFolder", Text).substituted(),
    ],
};

static GO: Record = Record {
    name: "a Go module",
    fields: &[
        field("repositoryName", Text).substituted(),
        field("repositoryLocation", Text).substituted(),
        field("repositoryProjectId", Text).substituted(),
        field("sourcePath", Text).substituted(),
        field("modulePath", Text).substituted(),
        field("moduleVersion", Text).substituted(),
    ],
};

static PYTHON: Record = Record {
    name: "a Python package",
    fields: &[field("repository", Text).substituted(), field("paths", Text).list().substituted()],
};

static NPM: Record = Record {
    name: "an npm package",
    fields: &[field("repository", Text).substituted(), field("packagePath", Text).substituted()],
};

static SECRET: Record =
    Record { name: "a secret", fields: &[field("kmsKeyName", Text).substituted(), field("secretEnv", Table)] };

static AVAILABLE_SECRETS: Record = Record {
    name: "`availableSecrets`",
    fields: &[record("secretManager", &SECRET_MANAGER).list(), record("inline", &INLINE).list()],
};

static SECRET_MANAGER: Record = Record {
    name: "a secret of Secret Manager",
    fields: &[field("versionName", Text).substituted(), field("env", Text)],
};

static INLINE: Record =
    Record { name: "an inline secret", fields: &[field("kmsKeyName", Text).substituted(), field("envMap", Table)] };

static GIT_CONFIG: Record = Record { name: "`gitConfig`", fields: &[record("http", &GIT_HTTP)] };

static GIT_HTTP: Record =
    Record { name: "`http`", fields: &[field("proxySecretVersionName", Text), record("proxySslCaInfo", &ANYTHING)] };

static DEPENDENCY: Record =
    Record { name: "a dependency", fields: &[field("empty", Flag), record("gitSource", &GIT_DEPENDENCY)] };

static GIT_DEPENDENCY: Record = Record {
    name: "`gitSource`",
    fields: &[
        record("repository", &GIT_REPOSITORY),
        field("revision", Text).substituted(),
        field("recurseSubmodules", Flag),
        field("depth", Whole),
        field("destPath", Text).substituted(),
        field("fetchTags", Flag),
    ],
};

static GIT_REPOSITORY: Record = Record {
    name: "`repository`",
    fields: &[field("url", Text).substituted(), field("developerConnect", Text).substituted()],
};

static SOURCE: Record = Record {
    name: "`source`",
    fields: &[
        record("storageSource", &ANYTHING),
        record("storageSourceManifest", &ANYTHING),
        record("repoSource", &ANYTHING),
        record("gitSource", &ANYTHING),
        record("connectedRepository", &ANYTHING),
        record("developerConnectConfig", &ANYTHING),
    ],
};

/// A record that is not looked into: nothing of it is used.
pub static ANYTHING: Record = Record { name: "", fields: &[] };

/// Every record with fields, the build first.
pub fn records() -> Vec<&'static Record> {
    let mut found: Vec<&'static Record> = vec![&BUILD];
    let mut at = 0;
    while at < found.len() {
        for field in found[at].fields {
            if let Type::Record(inner) = field.kind
                && !inner.fields.is_empty()
                && !found.iter().any(|known| std::ptr::eq(*known, inner))
            {
                found.push(inner);
            }
        }
        at += 1;
    }
    found
}
