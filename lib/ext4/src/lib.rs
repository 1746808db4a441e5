//! The `ext4` library.
#![no_std]
#![forbid(unsafe_code)]
