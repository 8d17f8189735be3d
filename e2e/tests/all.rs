//! Every end-to-end case, in one binary so that it links once.

mod cases;
