//! One module an area.

mod examples;
