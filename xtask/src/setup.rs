//! Installs what a chore needs and the machine lacks: Debian packages and the kernel's Rust target.

use anyhow::{Context, Result, bail};
use std::path::Path;
use xshell::{Shell, cmd};

/// A file that must exist and the Debian package that brings it.
struct Need {
    file: &'static str,
    package: &'static str,
}

/// What building and running needs.
const RUN: &[Need] = &[Need {
    file: "/usr/bin/qemu-system-x86_64",
    package: "qemu-system-x86",
}];

/// What the tests need besides.
const TESTS: &[Need] = &[
    Need {
        file: "/usr/bin/gcc",
        package: "gcc",
    },
    Need {
        file: "/usr/lib/x86_64-linux-gnu/libc.a",
        package: "libc6-dev",
    },
    Need {
        file: "/sbin/e2fsck",
        package: "e2fsprogs",
    },
    Need {
        file: "/usr/bin/go",
        package: "golang-go",
    },
    Need {
        file: "/usr/bin/make",
        package: "make",
    },
    Need {
        file: "/sbin/ip",
        package: "iproute2",
    },
    Need {
        file: "/usr/bin/ping",
        package: "iputils-ping",
    },
    Need {
        file: "/usr/bin/tcpdump",
        package: "tcpdump",
    },
    Need {
        file: "/usr/bin/python3",
        package: "python3",
    },
    Need {
        file: "/usr/bin/promtool",
        package: "prometheus",
    },
    Need {
        file: "/usr/bin/openssl",
        package: "openssl",
    },
    Need {
        file: "/usr/bin/curl",
        package: "curl",
    },
    Need {
        file: "/usr/bin/gdb",
        package: "gdb",
    },
    Need {
        file: "/usr/bin/tshark",
        package: "tshark",
    },
    Need {
        file: "/usr/bin/chromium",
        package: "chromium",
    },
    Need {
        file: "/usr/bin/chromedriver",
        package: "chromium-driver",
    },
    Need {
        file: "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
        package: "fonts-dejavu-core",
    },
];

/// What the benchmarks need besides.
const BENCH: &[Need] = &[
    Need {
        file: "/usr/bin/wrk",
        package: "wrk",
    },
    Need {
        file: "/bin/busybox",
        package: "busybox-static",
    },
    Need {
        file: "/usr/bin/iperf3",
        package: "iperf3",
    },
    Need {
        file: "/usr/bin/cpio",
        package: "cpio",
    },
];

/// Installs QEMU and the Rust target.
pub fn for_running(sh: &Shell) -> Result<()> {
    rust_target(sh)?;
    install(sh, RUN)
}

/// Installs what [`for_running`] does and what the tests need.
pub fn for_tests(sh: &Shell) -> Result<()> {
    for_running(sh)?;
    install(sh, TESTS)
}

/// Installs what [`for_running`] does and what the benchmarks need.
pub fn for_bench(sh: &Shell) -> Result<()> {
    for_running(sh)?;
    install(sh, TESTS)?;
    install(sh, BENCH)
}

fn rust_target(sh: &Shell) -> Result<()> {
    let sysroot = cmd!(sh, "rustc --print sysroot").quiet().read()?;
    if Path::new(&sysroot)
        .join("lib/rustlib/x86_64-unknown-none")
        .exists()
    {
        return Ok(());
    }
    eprintln!("installing the Rust target x86_64-unknown-none");
    cmd!(sh, "rustup target add x86_64-unknown-none")
        .quiet()
        .run()
        .context(
            "the kernel needs the Rust target x86_64-unknown-none, and rustup could not add it",
        )
}

fn install(sh: &Shell, needs: &[Need]) -> Result<()> {
    let missing: Vec<&str> = needs
        .iter()
        .filter(|need| !Path::new(need.file).exists())
        .map(|need| need.package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("installing {}", missing.join(" "));
    let sudo: &[&str] = if cmd!(sh, "id -u").quiet().read()? == "0" {
        &[]
    } else {
        &["sudo"]
    };
    let _environment = sh.push_env("DEBIAN_FRONTEND", "noninteractive");
    let attempt = |arguments: &[&str]| -> Result<()> {
        let words: Vec<&str> = sudo
            .iter()
            .chain(&["apt-get"])
            .chain(arguments)
            .copied()
            .collect();
        let (program, rest) = (words[0], &words[1..]);
        Ok(cmd!(sh, "{program} {rest...}")
            .quiet()
            .ignore_stdout()
            .run()?)
    };
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(&missing);
    // The lists may be absent or old: an update comes first, and its failure only matters if the install fails.
    let updated = attempt(&["update"]);
    if let Err(error) = attempt(&arguments) {
        updated?;
        bail!(
            "{error}; install them by hand: apt-get install --no-install-recommends {}",
            missing.join(" ")
        );
    }
    Ok(())
}
