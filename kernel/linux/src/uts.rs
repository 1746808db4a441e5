//! What the machine is called (`uname(2)`): Linux's name and a release that programs understand, the host's name.
use alloc::string::String;

use machine::sync::SpinLock;

/// The longest of each of these names (`__NEW_UTS_LEN`).
pub const UTS_LEN: usize = 64;

/// The names of `uname(2)`.
#[derive(Clone, Debug)]
pub struct Uts {
    /// `sysname`: programs look for `Linux`.
    pub sysname: String,
    /// `nodename`: the host's name.
    pub nodename: String,
    /// `release`: the version of Linux whose interface this is, and ours.
    pub release: String,
    /// `version`.
    pub version: String,
    /// `domainname`.
    pub domain: String,
}

/// `machine` of `uname(2)`.
pub const MACHINE: &str = "x86_64";

/// The Linux version that this kernel's interface follows.
pub const LINUX_VERSION: &str = "6.1.0";

static NAMES: SpinLock<Option<Uts>> = SpinLock::new(None);

fn defaults() -> Uts {
    Uts {
        sysname: "Linux".into(),
        nodename: "nanos".into(),
        release: alloc::format!("{LINUX_VERSION}-nanos-{}", env!("CARGO_PKG_VERSION")),
        version: "#1 SMP".into(),
        domain: "(none)".into(),
    }
}

/// The names as they are now.
pub fn get() -> Uts {
    NAMES.lock().get_or_insert_with(defaults).clone()
}

/// Changes some of them. Names are cut to [`UTS_LEN`] bytes when they are shown.
pub fn change(change: impl FnOnce(&mut Uts)) {
    change(NAMES.lock().get_or_insert_with(defaults));
}
