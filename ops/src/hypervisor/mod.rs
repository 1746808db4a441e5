//! Running an image: the QEMU command line (`qemu`), what accelerates it (`accel`), forwarded ports (`ports`), the kernel it
//! boots (`kernel`), tap devices (`tap`), the running machine (`run`), its control socket (`qmp`), the terminal (`terminal`), how it ended (`exit`).

pub mod accel;
pub mod exit;
pub mod kernel;
pub mod ports;
pub mod qemu;
pub mod qmp;
pub mod run;
pub mod tap;
pub mod terminal;
