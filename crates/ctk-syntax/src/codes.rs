//! The codes of this crate's diagnostics. Each has a page `docs/errors/<area>/<name>.md`.

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $meaning:literal;)*) => {
        $(#[doc = $meaning] pub const $name: &str = $code;)*
        /// Every code of this crate with its meaning in one line.
        pub const CODES: &[(&str, &str)] = &[$(($code, $meaning)),*];
    };
}

codes! {
    KDL = "syntax::kdl", "The text breaks the grammar of KDL 2.";
    KDL1 = "syntax::kdl1", "The text is spelled as in KDL 1.";
    TOO_LARGE = "syntax::too-large", "The file is larger than a project file may be.";
    TOO_DEEP = "syntax::too-deep", "Blocks are nested deeper than they may be.";
    TYPE_ANNOTATION = "syntax::type-annotation", "A KDL type annotation, which means nothing here.";
    BAD_EXPANSION = "syntax::bad-expansion", "A `${…}` that cannot be read.";
    UNDEFINED_NAME = "syntax::undefined-name", "A `${…}` names something that does not exist.";
    REQUIRED_NAME = "syntax::required-name", "A `${name:?message}` whose name has no value.";
    UNKNOWN_NODE = "project::unknown-node", "A node that is not known at this place.";
    UNKNOWN_PROPERTY = "project::unknown-property", "A property that this node does not have.";
    DUPLICATE_PROPERTY = "project::duplicate-property", "A property given twice on one node.";
    DUPLICATE_NODE = "project::duplicate-node", "A node given twice where one is allowed.";
    MISSING_ARGUMENT = "project::missing-argument", "A node lacks an argument.";
    UNEXPECTED_ARGUMENT = "project::unexpected-argument", "A node has more arguments than it takes.";
    MISSING_PROPERTY = "project::missing-property", "A node lacks a property that it must have.";
    MISSING_NODE = "project::missing-node", "A block lacks a node that it must have.";
    UNEXPECTED_BLOCK = "project::unexpected-block", "A node has a `{ }` block and takes none.";
    WRONG_TYPE = "project::wrong-type", "A value of another type than expected.";
    BAD_VALUE = "project::bad-value", "A value that is not one of those allowed, or cannot be read.";
    OUT_OF_RANGE = "project::out-of-range", "A number outside its range.";
}
