//! End-to-end tests: the tool and real programs.
#![forbid(unsafe_code)]
