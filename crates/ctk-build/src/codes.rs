//! Codes of what can be wrong with an `image` node.

macro_rules! codes {
    ($($name:ident = $code:literal, $meaning:literal;)*) => {
        $(#[doc = $meaning] pub const $name: &str = $code;)*
        /// Every code of this crate with its meaning in one line.
        pub const CODES: &[(&str, &str)] = &[$(($code, $meaning)),*];
    };
}

codes! {
    CONFLICT = "image::conflict", "Settings of an image that exclude each other.";
    EMPTY = "image::empty", "An instruction that says nothing.";
    BAD_NAME = "image::bad-name", "An account that cannot be called so.";
    BAD_MODE = "image::bad-mode", "File permissions that are no octal number.";
    BAD_CONTEXT = "image::bad-context", "A context that is written wrongly, or is of a kind that cannot stand there.";
    BAD_CACHE = "image::bad-cache", "A cache that is written wrongly, or cannot be where it is said to be.";
    BAD_TRIGGER = "image::bad-trigger", "An `onbuild` whose text is no instruction.";
    NOT_SUPPORTED = "image::not-supported", "Something of the language that this version cannot build.";
    NOT_ALLOWED = "image::not-allowed", "A RUN that asks for what nobody allowed.";
    NO_DOCKERFILE = "image::no-dockerfile", "A Dockerfile or context that does not exist.";
}
