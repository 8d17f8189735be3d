//! Tests of images and containers.
