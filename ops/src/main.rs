//! `ops`: packages and runs a program as a nanos unikernel.
#![forbid(unsafe_code)]
fn main() {}
