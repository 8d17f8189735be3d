//! Codes of what can be wrong with a Dockerfile.

macro_rules! codes {
    ($($name:ident = $code:literal, $meaning:literal;)*) => {
        $(#[doc = $meaning] pub const $name: &str = $code;)*
        /// Every code of this crate with its meaning in one line.
        pub const CODES: &[(&str, &str)] = &[$(($code, $meaning)),*];
    };
}

codes! {
    TOO_LARGE = "dockerfile::too-large", "A Dockerfile beyond a limit.";
    NOT_TEXT = "dockerfile::not-text", "Bytes in a Dockerfile that are no text: not UTF-8, or NUL.";
    NO_FROM = "dockerfile::no-from", "A Dockerfile without FROM.";
    BEFORE_FROM = "dockerfile::before-from", "An instruction before the first FROM.";
    UNKNOWN_INSTRUCTION = "dockerfile::unknown-instruction", "A line that begins with no instruction.";
    UNKNOWN_FLAG = "dockerfile::unknown-flag", "A flag that the instruction does not have.";
    BAD_FLAG = "dockerfile::bad-flag", "A flag with a value that it cannot have.";
    REPEATED_FLAG = "dockerfile::repeated-flag", "A flag given twice.";
    MISSING_ARGUMENT = "dockerfile::missing-argument", "An instruction without what it needs.";
    UNEXPECTED_ARGUMENT = "dockerfile::unexpected-argument", "An instruction with more than it takes.";
    BAD_ARGUMENT = "dockerfile::bad-argument", "An argument that cannot be read.";
    BAD_HEREDOC = "dockerfile::bad-heredoc", "A here-document that never ends, or stands where none may.";
    BAD_DIRECTIVE = "dockerfile::bad-directive", "A parser directive that cannot be used.";
    BAD_MOUNT = "dockerfile::bad-mount", "A RUN --mount that cannot be read.";
    BAD_JSON = "dockerfile::bad-json", "A JSON array of something else than strings, or brackets that are no JSON.";
}
