//! `config.json`: its keys and types. The same schema serves `package.manifest` and `~/.opsrc`. Reading files is in
//! `load`, the strict reader in `strict`, what of it this tool cannot do in `support`.
//!
//! Every key is optional here; what an absent one means is decided where it is used.

pub mod load;
mod strict;
pub mod support;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use load::parse;

/// The top level.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub struct Config {
    pub args: Option<Vec<String>>,
    pub disable_args_copy: Option<bool>,
    pub base_volume_sz: Option<String>,
    pub boot: Option<String>,
    pub uefi_boot: Option<String>,
    pub kernel: Option<String>,
    pub uefi: Option<bool>,
    pub build_dir: Option<String>,
    pub cloud_config: Option<CloudConfig>,
    pub run_config: Option<RunConfig>,
    pub target_config: Option<BTreeMap<String, String>>,
    pub debugflags: Option<Vec<String>>,
    pub dirs: Option<Vec<String>>,
    pub files: Option<Vec<String>>,
    pub map_dirs: Option<BTreeMap<String, String>>,
    pub env: Option<BTreeMap<String, String>>,
    pub mounts: Option<BTreeMap<String, String>>,
    pub name_servers: Option<Vec<String>>,
    pub klibs: Option<Vec<String>>,
    pub klib_dir: Option<String>,
    pub manifest_passthrough: Option<Map<String, Value>>,
    pub no_trace: Option<Vec<String>>,
    pub nanos_version: Option<String>,
    pub nightly_build: Option<bool>,
    pub force: Option<bool>,
    pub program: Option<String>,
    pub program_path: Option<String>,
    pub reboot_on_exit: Option<bool>,
    pub local_files_parent_directory: Option<String>,
    pub target_root: Option<String>,
    #[serde(rename = "TFSv4")]
    pub tfsv4: Option<bool>,
    pub version: Option<String>,
    pub language: Option<String>,
    pub description: Option<String>,
    pub volumes_dir: Option<String>,
    #[serde(rename = "PackageBaseURL")]
    pub package_base_url: Option<String>,
    #[serde(rename = "PackageManifestURL")]
    pub package_manifest_url: Option<String>,
    #[serde(rename = "home")]
    pub home: Option<String>,
}

/// `RunConfig`: how the program is run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub struct RunConfig {
    pub accel: Option<bool>,
    pub memory: Option<String>,
    #[serde(rename = "CPUs")]
    pub cpus: Option<u32>,
    #[serde(rename = "GPUs")]
    pub gpus: Option<u32>,
    #[serde(rename = "GPUType")]
    pub gpu_type: Option<String>,
    pub vga: Option<bool>,
    pub ports: Option<Vec<String>>,
    #[serde(rename = "UDPPorts")]
    pub udp_ports: Option<Vec<String>>,
    pub bridged: Option<bool>,
    pub bridge_name: Option<String>,
    #[serde(rename = "BridgeIPAddress")]
    pub bridge_ip_address: Option<String>,
    pub tap_name: Option<String>,
    #[serde(rename = "IPAddress")]
    pub ip_address: Option<String>,
    #[serde(rename = "IPv6Address")]
    pub ipv6_address: Option<String>,
    pub net_mask: Option<String>,
    pub gateway: Option<String>,
    pub nics: Option<Vec<Nic>>,
    #[serde(rename = "CanIPForward")]
    pub can_ip_forward: Option<bool>,
    pub mounts: Option<Vec<String>>,
    pub attach_volume_on_instance_create: Option<bool>,
    pub volume_size_in_gb: Option<u64>,
    pub image_name: Option<String>,
    pub instance_name: Option<String>,
    pub instance_group: Option<String>,
    pub kernel: Option<String>,
    #[serde(rename = "QMP")]
    pub qmp: Option<bool>,
    pub mgmt: Option<String>,
    pub background: Option<bool>,
    pub background_detach: Option<bool>,
    pub at_exit: Option<String>,
    pub debug: Option<bool>,
    pub gdb_port: Option<u16>,
    pub verbose: Option<bool>,
    pub show_debug: Option<bool>,
    pub show_errors: Option<bool>,
    pub show_warnings: Option<bool>,
    #[serde(rename = "JSON")]
    pub json: Option<bool>,
    pub threads_per_core: Option<u32>,
    /// Ours: `microvm` or `q35`.
    pub machine: Option<String>,
}

/// `RunConfig.Nics`: a further network interface.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub struct Nic {
    #[serde(rename = "IPAddress")]
    pub ip_address: Option<String>,
    #[serde(rename = "IPv6Address")]
    pub ipv6_address: Option<String>,
    pub net_mask: Option<String>,
    pub gateway: Option<String>,
    pub bridge_name: Option<String>,
}

/// `CloudConfig`: read, so that a shared file is understood; its platform can only be this machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub struct CloudConfig {
    pub platform: Option<String>,
    #[serde(rename = "ProjectID")]
    pub project_id: Option<String>,
    pub zone: Option<String>,
    pub bucket_name: Option<String>,
    pub bucket_namespace: Option<String>,
    pub image_name: Option<String>,
    pub image_type: Option<String>,
    pub flavor: Option<String>,
    pub domain_name: Option<String>,
    #[serde(rename = "StaticIP")]
    pub static_ip: Option<String>,
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: Option<bool>,
    #[serde(rename = "VPC")]
    pub vpc: Option<String>,
    pub subnet: Option<String>,
    pub security_group: Option<String>,
    pub instance_profile: Option<String>,
    #[serde(rename = "KMS")]
    pub kms: Option<String>,
    #[serde(rename = "DedicatedHostID")]
    pub dedicated_host_id: Option<String>,
    #[serde(rename = "ConfidentialVM")]
    pub confidential_vm: Option<bool>,
    pub spot: Option<bool>,
    pub skip_import_verify: Option<bool>,
    pub user_data: Option<String>,
    pub tags: Option<Vec<Tag>>,
    pub root_volume: Option<RootVolume>,
}

/// `CloudConfig.Tags`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tag {
    pub key: Option<String>,
    pub value: Option<String>,
    pub attribute: Option<TagAttribute>,
}

/// Where a tag applies.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TagAttribute {
    pub image_label: Option<bool>,
    pub instance_label: Option<bool>,
    pub instance_network: Option<bool>,
    pub instance_metadata: Option<bool>,
}

/// `CloudConfig.RootVolume`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RootVolume {
    pub name: Option<String>,
    pub iops: Option<u64>,
    pub size: Option<u64>,
    pub throughput: Option<u64>,
    #[serde(rename = "typeof")]
    pub typeof_: Option<String>,
}

impl Config {
    /// The run settings, made when there are none yet.
    pub fn run_mut(&mut self) -> &mut RunConfig {
        self.run_config.get_or_insert_default()
    }

    /// A copy of the run settings, empty when there are none.
    pub fn run(&self) -> RunConfig {
        self.run_config.clone().unwrap_or_default()
    }

    /// The arguments, none when there is no such key.
    pub fn args(&self) -> &[String] {
        self.args.as_deref().unwrap_or_default()
    }

    /// Lays `over` on this: its keys win, objects merge key by key, lists are replaced.
    #[must_use]
    pub fn overlaid_with(&self, over: &Config) -> Config {
        let mut base = given(self);
        manifest::json::merge_patch(&mut base, given(over));
        // Both halves came from this very type, so the union reads back.
        serde_json::from_value(base).unwrap_or_else(|_| over.clone())
    }
}

/// The keys that are given, as JSON.
pub fn given(config: &Config) -> Value {
    let mut value = serde_json::to_value(config).unwrap_or_default();
    strip_nulls(&mut value);
    value
}

fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
