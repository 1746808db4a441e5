//! Disk images: what goes into one (`collect`, `system`, `boot`), how it is held (`tree`) and written (`disk`, `root`), how it
//! is read back (`reader`), and the folder they are kept in (`store`).

pub mod boot;
pub mod collect;
pub mod disk;
pub mod reader;
pub mod root;
pub mod store;
pub mod system;
pub mod tree;
