//! Codes of what can be wrong with a recipe's meaning.

macro_rules! codes {
    ($($name:ident = $code:literal, $meaning:literal;)*) => {
        $(#[doc = $meaning] pub const $name: &str = $code;)*
        /// Every code of this crate with its meaning in one line.
        pub const CODES: &[(&str, &str)] = &[$(($code, $meaning)),*];
    };
}

codes! {
    BAD_WORD = "build::bad-word", "A word whose quotes, escapes or variables cannot be read.";
    BAD_REFERENCE = "build::bad-reference", "A base or source image whose name is malformed.";
    BAD_PLATFORM = "build::bad-platform", "A platform that is not `os/architecture[/variant]`.";
    BAD_EPOCH = "build::bad-epoch", "A `SOURCE_DATE_EPOCH` that is no number of seconds.";
    BAD_ARGUMENT = "build::bad-argument", "A build argument for the builder itself, with a value that it cannot have.";
    BAD_PORT = "build::bad-port", "A port that EXPOSE cannot take.";
    BAD_SIGNAL = "build::bad-signal", "A signal that STOPSIGNAL cannot take.";
    BAD_VOLUME = "build::bad-volume", "A volume whose path is empty.";
    UNUSED_ARGUMENT = "build::unused-argument", "A build argument that nothing declares.";
    BAD_TRIGGER = "build::bad-trigger", "An ONBUILD instruction of a base image that cannot be read.";
    BAD_SOURCE = "build::bad-source", "A source that this COPY or ADD cannot take.";
    BAD_MOUNT = "build::bad-mount", "A RUN --mount whose values make no sense once variables are replaced.";
    BAD_MODE = "build::bad-mode", "Permissions that `--chmod` cannot take.";
    BAD_PATTERN = "build::bad-pattern", "A pattern of files that is malformed.";
    UNKNOWN_STAGE = "build::unknown-stage", "A stage that does not exist.";
    UNKNOWN_CONTEXT = "build::unknown-context", "A named context that the image does not have.";
    STAGE_CYCLE = "build::stage-cycle", "Stages that need each other in a circle.";
    EMPTY_FROM = "build::empty-from", "A base whose name is empty after expansion.";
    PACKAGES_ON_BASE = "build::packages-on-base", "`packages` in a stage that begins with something else than nothing.";
    NO_STAGES = "build::no-stages", "A recipe without any stage.";
}
