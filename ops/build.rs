//! Embeds the kernel: copies the file that `NANOS_KERNEL` names to where `hypervisor/kernel.rs` includes it from. Without the
//! variable the file is empty, and the tool asks for a kernel when it has to run one.

use std::path::PathBuf;
use std::{env, fs};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-env-changed=NANOS_KERNEL");
    println!("cargo::rerun-if-changed=build.rs");
    let target = PathBuf::from(env::var("OUT_DIR")?).join("kernel.img");
    match env::var_os("NANOS_KERNEL").filter(|v| !v.is_empty()) {
        Some(kernel) => {
            println!(
                "cargo::rerun-if-changed={}",
                PathBuf::from(&kernel).display()
            );
            let bytes =
                fs::read(&kernel).map_err(|e| format!("NANOS_KERNEL={}: {e}", kernel.display()))?;
            fs::write(target, bytes)?;
        }
        None => fs::write(target, [])?,
    }
    Ok(())
}
