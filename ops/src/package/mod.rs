//! Packages: their names, the store of those on this machine, the recipes that make them from the distribution's packages.

pub mod apt;
pub mod bytecode;
pub mod deb;
pub mod name;
pub mod recipe;
pub mod store;
pub mod unpack;
