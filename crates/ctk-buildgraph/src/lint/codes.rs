//! Codes of what a Dockerfile may do and better would not: the rules of `# check=`, by BuildKit's names.

macro_rules! rules {
    ($($constant:ident = $code:literal, $meaning:literal, $name:literal, $experimental:literal;)*) => {
        $(#[doc = $meaning] pub const $constant: &str = $code;)*
        /// Every code of this file with its meaning in one line.
        pub const CODES: &[(&str, &str)] = &[$(($code, $meaning)),*];
        /// Every rule.
        pub const RULES: &[super::Rule] = &[$(super::Rule {
            name: $name,
            meaning: $meaning,
            code: $code,
            experimental: $experimental,
        }),*];
    };
}

rules! {
    STAGE_NAME_CASING = "dockerfile::stage-name-casing", "A stage whose name is not in lower case.", "StageNameCasing", false;
    FROM_AS_CASING = "dockerfile::from-as-casing", "An AS in another case than its FROM.", "FromAsCasing", false;
    NO_EMPTY_CONTINUATION = "dockerfile::no-empty-continuation", "An empty line inside a continued instruction.", "NoEmptyContinuation", false;
    CONSISTENT_INSTRUCTION_CASING = "dockerfile::consistent-instruction-casing", "Keywords in lower and in upper case in one file.", "ConsistentInstructionCasing", false;
    DUPLICATE_STAGE_NAME = "dockerfile::duplicate-stage-name", "Two stages of one name.", "DuplicateStageName", false;
    RESERVED_STAGE_NAME = "dockerfile::reserved-stage-name", "A stage named `scratch` or `context`.", "ReservedStageName", false;
    JSON_ARGS_RECOMMENDED = "dockerfile::json-args-recommended", "A CMD or ENTRYPOINT in shell form, which gets no signals.", "JSONArgsRecommended", false;
    MAINTAINER_DEPRECATED = "dockerfile::maintainer-deprecated", "A MAINTAINER, which Docker gave up for a label.", "MaintainerDeprecated", false;
    UNDEFINED_ARG_IN_FROM = "dockerfile::undefined-arg-in-from", "A FROM with a variable that no ARG before it declares.", "UndefinedArgInFrom", false;
    WORKDIR_RELATIVE_PATH = "dockerfile::workdir-relative-path", "A relative WORKDIR before any absolute one.", "WorkdirRelativePath", false;
    UNDEFINED_VAR = "dockerfile::undefined-var", "A variable that nothing sets.", "UndefinedVar", false;
    MULTIPLE_INSTRUCTIONS_DISALLOWED = "dockerfile::multiple-instructions-disallowed", "An instruction of which a stage has several and only the last one counts.", "MultipleInstructionsDisallowed", false;
    LEGACY_KEY_VALUE_FORMAT = "dockerfile::legacy-key-value-format", "An ENV or LABEL without `=`.", "LegacyKeyValueFormat", false;
    INVALID_BASE_IMAGE_PLATFORM = "dockerfile::invalid-base-image-platform", "A base image for another platform than the stage's.", "InvalidBaseImagePlatform", false;
    REDUNDANT_TARGET_PLATFORM = "dockerfile::redundant-target-platform", "A `FROM --platform=$TARGETPLATFORM`, which is what it is anyway.", "RedundantTargetPlatform", false;
    SECRETS_USED_IN_ARG_OR_ENV = "dockerfile::secrets-used-in-arg-or-env", "A build argument or variable whose name says that it holds a secret.", "SecretsUsedInArgOrEnv", false;
    INVALID_DEFAULT_ARG_IN_FROM = "dockerfile::invalid-default-arg-in-from", "A FROM whose ARGs, left at their defaults, name no image.", "InvalidDefaultArgInFrom", false;
    FROM_PLATFORM_FLAG_CONST_DISALLOWED = "dockerfile::from-platform-flag-const-disallowed", "A `FROM --platform` with a fixed platform.", "FromPlatformFlagConstDisallowed", false;
    COPY_IGNORED_FILE = "dockerfile::copy-ignored-file", "A COPY or ADD of a file that `.dockerignore` keeps out.", "CopyIgnoredFile", false;
    INVALID_DEFINITION_DESCRIPTION = "dockerfile::invalid-definition-description", "A comment above a FROM or ARG that describes something else.", "InvalidDefinitionDescription", true;
    EXPOSE_PROTO_CASING = "dockerfile::expose-proto-casing", "An EXPOSE whose protocol is not in lower case.", "ExposeProtoCasing", false;
    EXPOSE_INVALID_FORMAT = "dockerfile::expose-invalid-format", "An EXPOSE with an address or a port of the host.", "ExposeInvalidFormat", false;
}
