//! All tests: the host's, then those that boot the kernel.

use crate::{build, setup};
use anyhow::Result;
use std::time::Instant;
use xshell::{Shell, cmd};

/// Runs the parts whose name contains `filter`.
pub fn run(sh: &Shell, filter: &str) -> Result<()> {
    setup::for_tests(sh)?;
    let part = |name: &str, run: &dyn Fn() -> Result<()>| -> Result<()> {
        if !name.contains(filter) {
            return Ok(());
        }
        let start = Instant::now();
        run()?;
        eprintln!("-- {name}: {:.0} s", start.elapsed().as_secs_f64());
        Ok(())
    };
    part("unit", &|| {
        // Kernel rooms are tested on the host; the kernel itself is tested by booting it, below.
        Ok(cmd!(
            sh,
            "cargo test --quiet --no-fail-fast --workspace --exclude nanos --exclude e2e"
        )
        .quiet()
        .run()?)
    })?;
    part("e2e", &|| {
        let built = build::all(sh)?;
        let _ops = sh.push_env("OPS", &built.ops);
        Ok(
            cmd!(sh, "cargo test --release --no-fail-fast --package e2e")
                .quiet()
                .run()?,
        )
    })
}

/// Formatting, lints and documentation first, since they are quick, then all tests.
pub fn ci(sh: &Shell) -> Result<()> {
    setup::for_tests(sh)?;
    let quick = Instant::now();
    cmd!(sh, "cargo fmt --all --check").quiet().run()?;
    cmd!(
        sh,
        "cargo clippy --quiet --workspace --exclude nanos --all-targets -- -D warnings"
    )
    .quiet()
    .run()?;
    cmd!(
        sh,
        "cargo clippy --quiet --package nanos --target x86_64-unknown-none -- -D warnings"
    )
    .quiet()
    .run()?;
    {
        let _flags = sh.push_env(
            "RUSTDOCFLAGS",
            "-D warnings -A rustdoc::private_intra_doc_links",
        );
        cmd!(
            sh,
            "cargo doc --quiet --workspace --exclude nanos --no-deps --document-private-items"
        )
        .quiet()
        .run()?;
    }
    eprintln!(
        "-- formatting, lints, documentation: {:.0} s",
        quick.elapsed().as_secs_f64()
    );
    run(sh, "")
}
