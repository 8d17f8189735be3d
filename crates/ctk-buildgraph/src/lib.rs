//! The waist of the builder.
