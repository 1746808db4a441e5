//! Whether QEMU can use KVM here. The device file alone proves nothing: the processor must say it can, and the file must open.

use std::fs::{self, OpenOptions};

/// How the guest's code is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accel {
    /// By the processor.
    Kvm,
    /// By emulation, and why.
    Emulation(String),
}

/// Finds out.
pub fn detect() -> Accel {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let opens = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .map(drop);
    decide(&cpuinfo, opens)
}

fn decide(cpuinfo: &str, opens: std::io::Result<()>) -> Accel {
    let flags = cpuinfo
        .lines()
        .find_map(|l| l.strip_prefix("flags")?.split_once(':'))
        .map_or("", |(_, flags)| flags);
    if !flags.split_whitespace().any(|f| f == "vmx" || f == "svm") {
        return Accel::Emulation("the processor reports neither vmx nor svm".into());
    }
    match opens {
        Ok(()) => Accel::Kvm,
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => Accel::Emulation(
            "/dev/kvm may not be opened; being in the group kvm would allow it".into(),
        ),
        Err(e) => Accel::Emulation(format!("/dev/kvm does not open: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Error, ErrorKind};

    #[test]
    fn both_are_needed() {
        let with = "processor\t: 0\nflags\t\t: fpu vmx sse\n";
        let without = "flags\t\t: fpu vmxnot sse\n";
        assert_eq!(decide(with, Ok(())), Accel::Kvm);
        assert!(matches!(decide(without, Ok(())), Accel::Emulation(w) if w.contains("vmx")));
        let denied = Err(Error::from(ErrorKind::PermissionDenied));
        assert!(matches!(decide(with, denied), Accel::Emulation(w) if w.contains("group kvm")));
        assert!(matches!(
            decide("", Err(Error::from(ErrorKind::NotFound))),
            Accel::Emulation(_)
        ));
    }
}
