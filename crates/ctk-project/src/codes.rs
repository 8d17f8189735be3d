//! The codes of this crate's diagnostics. Each has a page `docs/errors/<area>/<name>.md`. Those of the cursor
//! (`project::unknown-node` and so on) are `ctk_syntax::codes`.

macro_rules! codes {
    ($($name:ident = $code:literal, $meaning:literal;)*) => {
        $(#[doc = $meaning] pub const $name: &str = $code;)*
        /// Every code of this crate with its meaning in one line.
        pub const CODES: &[(&str, &str)] = &[$(($code, $meaning)),*];
    };
}

codes! {
    UNREADABLE_INCLUDE = "project::unreadable-include", "A file that `include` names cannot be read.";
    EMPTY_INCLUDE = "project::empty-include", "An `include` matches no file.";
    TOO_MANY = "project::too-many", "The project has more files or resources than are allowed.";
    BAD_NAME = "project::bad-name", "A name holds characters that names may not hold.";
    DUPLICATE_ADDRESS = "project::duplicate-address", "Two resources have the same address.";
    DUPLICATE_STAGE = "project::duplicate-stage", "Two stages of an image have the same name.";
    DUPLICATE_NAME = "project::duplicate-name", "A variable, template, group or parameter is declared twice.";
    UNKNOWN_VARIABLE = "project::unknown-variable", "A variable is set on the command line and declared nowhere.";
    MISSING_VARIABLE = "project::missing-variable", "A variable or a built-in name has no value.";
    BAD_VARIABLE = "project::bad-variable", "The value of a variable is not one that its declaration allows.";
    BAD_PATTERN = "project::bad-pattern", "A regular expression cannot be read.";
    BAD_PLATFORM = "project::bad-platform", "A text is no platform.";
    BAD_REFERENCE = "project::bad-reference", "A text is neither something of this project nor an image reference.";
    UNKNOWN_TEMPLATE = "project::unknown-template", "`use` names a template that does not exist.";
    UNKNOWN_RESOURCE = "project::unknown-resource", "A name or address means nothing of this project.";
    UNKNOWN_STAGE = "project::unknown-stage", "A stage that does not exist, or stands further down.";
    AMBIGUOUS_NAME = "project::ambiguous-name", "A name means both a stage of this image and an image of the project.";
    OUTSIDE_STAGE = "project::outside-stage", "An instruction stands beside the stages of an image instead of in one.";
    SELF_REFERENCE = "project::self-reference", "A resource needs itself.";
    CYCLE = "project::cycle", "Resources need each other in a circle.";
    ENDLESS = "project::endless", "Templates or `extends` lead back to themselves.";
}
