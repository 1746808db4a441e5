//! What a configuration may ask for and this tool does not do: each is one clear error, so that nothing is taken and
//! then ignored.

use anyhow::{Result, bail};

use super::{Config, RunConfig};
use crate::NANOS_VERSION;
use crate::output::note;

/// Kernel modules of the existing kernel whose work is part of this one: naming them is harmless.
const BUILT_IN_KLIBS: &[&str] = &["shmem", "tmpfs", "strace", "test", "special_files"];

/// Manifest keys that guard something: a kernel that passed over them would be less safe than asked for.
const GUARDS: &[&str] = &["firewall", "sandbox"];

/// Fails on the first key that asks for something this tool does not do.
pub fn check(config: &Config) -> Result<()> {
    if let Some(platform) = config
        .cloud_config
        .as_ref()
        .and_then(|c| c.platform.as_deref())
    {
        provider(platform)?;
    }
    for (key, set, why) in [
        (
            "Boot",
            config.boot.is_some(),
            "the kernel is started directly",
        ),
        (
            "UefiBoot",
            config.uefi_boot.is_some(),
            "images have no UEFI partition",
        ),
        (
            "Uefi",
            config.uefi == Some(true),
            "images have no UEFI partition",
        ),
        (
            "KlibDir",
            config.klib_dir.is_some(),
            "the kernel has no loadable modules",
        ),
        ("TFSv4", config.tfsv4 == Some(true), "images are ext4"),
        ("NightlyBuild", config.nightly_build == Some(true), NIGHTLY),
        ("PackageBaseURL", config.package_base_url.is_some(), NO_HUB),
        (
            "PackageManifestURL",
            config.package_manifest_url.is_some(),
            NO_HUB,
        ),
        (
            "Mounts",
            config.mounts.as_ref().is_some_and(|m| !m.is_empty()),
            VOLUMES,
        ),
        ("VolumesDir", config.volumes_dir.is_some(), VOLUMES),
    ] {
        if set {
            bail!("{key} is not supported: {why}");
        }
    }
    if config.build_dir.is_some() {
        note("BuildDir has no effect: an image is built where it stays");
    }
    if let Some(version) = &config.nanos_version {
        nanos_version(version)?;
    }
    for name in config.klibs.iter().flatten() {
        if !BUILT_IN_KLIBS.contains(&name.as_str()) {
            bail!("Klibs: `{name}` is not supported: the kernel has no such part");
        }
    }
    for key in config.manifest_passthrough.iter().flat_map(|m| m.keys()) {
        if GUARDS.contains(&key.as_str()) {
            bail!("ManifestPassthrough: `{key}` is not supported by the kernel");
        }
    }
    run(&config.run())
}

const NIGHTLY: &str = "this tool carries its own kernel";
const NO_HUB: &str = "packages come from the distribution, there is no hub";
const VOLUMES: &str = "volumes are not there yet";

fn run(run: &RunConfig) -> Result<()> {
    for (key, set, why) in [
        (
            "GPUs",
            run.gpus.is_some_and(|n| n > 0),
            "there is no device passthrough",
        ),
        (
            "GPUType",
            run.gpu_type.is_some(),
            "there is no device passthrough",
        ),
        (
            "Bridged",
            run.bridged == Some(true) && run.tap_name.is_none(),
            BRIDGE,
        ),
        ("BridgeName", run.bridge_name.is_some(), BRIDGE),
        ("BridgeIPAddress", run.bridge_ip_address.is_some(), BRIDGE),
        (
            "Mounts",
            run.mounts.as_ref().is_some_and(|m| !m.is_empty()),
            VOLUMES,
        ),
        (
            "Background",
            run.background == Some(true),
            "`run` stays in the foreground",
        ),
        (
            "BackgroundDetach",
            run.background_detach == Some(true),
            "`run` stays in the foreground",
        ),
    ] {
        if set {
            bail!("RunConfig.{key} is not supported: {why}");
        }
    }
    Ok(())
}

const BRIDGE: &str =
    "making a bridge needs root; make a tap device and name it with --tapname (RunConfig.TapName)";

/// Accepts the one provider there is.
pub fn provider(name: &str) -> Result<()> {
    if name == "onprem" || name.is_empty() {
        return Ok(());
    }
    bail!("target cloud `{name}` is not supported: only onprem, this machine, is")
}

/// Accepts the architecture there is.
pub fn arch(name: &str) -> Result<()> {
    match name {
        "" | "amd64" => Ok(()),
        "arm64" => bail!("--arch arm64 is not supported yet: only amd64 is"),
        other => bail!("--arch {other}: the architecture must be amd64 or arm64"),
    }
}

/// Accepts the kernel version that this tool carries.
pub fn nanos_version(version: &str) -> Result<()> {
    if version.is_empty() || version == NANOS_VERSION {
        return Ok(());
    }
    bail!("Nanos version {version} is not supported: this tool carries {NANOS_VERSION}")
}

/// Fails for `--nightly`.
pub fn nightly() -> Result<()> {
    bail!("--nightly is not supported: {NIGHTLY}")
}

/// Fails for `--mounts`.
pub fn mounts() -> Result<()> {
    bail!("--mounts is not supported: {VOLUMES}")
}
