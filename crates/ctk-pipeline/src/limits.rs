//! The ends of what a file may hold. Where the published limits and those of older tools differ, the larger one stands
//! here: what Cloud Build takes is never refused.

use std::time::Duration;

/// Bytes of a file; a larger one is a mistake, not a pipeline.
pub const FILE_BYTES: usize = 4 << 20;

/// Values of a file after its aliases are followed: an alias of an alias of an alias would double them without end.
pub const NODES: usize = 500_000;

/// Levels of lists and mappings in a file, which is read recursively; the schema has 5.
pub const DEPTH_LEVELS: usize = 64;

/// Steps of a build, as published; older tools take 100. Here there may be more, with a warning: [`STEPS_HERE`].
pub const STEPS: usize = 300;

/// Steps that are read: each costs some kilobytes of a plan.
pub const STEPS_HERE: usize = 20_000;

/// Characters of a step's image.
pub const STEP_NAME_CHARACTERS: usize = 1_000;

/// Arguments of a step.
pub const ARGUMENTS: usize = 100;

/// Characters of an argument, as published; older tools take 4,000.
pub const ARGUMENT_CHARACTERS: usize = 10_000;

/// Variables of a step.
pub const ENVIRONMENT: usize = 100;

/// Characters of a variable, its name included, as published; older tools take 1,000.
pub const ENVIRONMENT_CHARACTERS: usize = 65_536;

/// Characters of a step's directory.
pub const DIRECTORY_CHARACTERS: usize = 1_000;

/// Images of a build.
pub const IMAGES: usize = 100;

/// Characters of an image's name.
pub const IMAGE_CHARACTERS: usize = 1_000;

/// Substitutions that a file defines, as published; older tools take 100.
pub const SUBSTITUTIONS: usize = 200;

/// Characters of a substitution's name.
pub const SUBSTITUTION_KEY_CHARACTERS: usize = 100;

/// Characters of a substitution's value.
pub const SUBSTITUTION_VALUE_CHARACTERS: usize = 4_000;

/// Secret variables of a build.
pub const SECRETS: usize = 100;

/// Bytes of an encrypted secret.
pub const SECRET_BYTES: usize = 64 << 10;

/// Paths of an artifact.
pub const ARTIFACT_PATHS: usize = 100;

/// Tags of a build.
pub const TAGS: usize = 64;

/// Characters of a tag, as of an image's tag.
pub const TAG_CHARACTERS: usize = 128;

/// The longest that a build may take.
pub const TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a build takes at most if it says nothing.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60 * 60);

/// Gigabytes of a worker's disk.
pub const DISK_GIGABYTES: i64 = 4_000;

/// Levels of `${_A:-${_B:-…}}`, and of values that name others; both recurse.
pub const EXPANSION_LEVELS: usize = 32;

/// Bytes that one expansion may give.
pub const EXPANSION_BYTES: usize = 1 << 20;

/// Characters of a pattern times characters of the value that it is matched with.
pub const PATTERN_STEPS: usize = 4 << 20;
