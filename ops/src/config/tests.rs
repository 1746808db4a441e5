//! Tests of the strict reading and the merging.

use std::path::Path;

use super::*;

fn read(text: &str) -> anyhow::Result<Config> {
    parse(text.as_bytes(), Path::new("c.json"))
}

fn message(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

#[test]
fn keys_match_whatever_their_case() {
    let c = read(r#"{"args":["a"],"RUNCONFIG":{"cpus":4,"ipv6address":"::1","Qmp":true},"env":{"Abc":"1"},"tfsV4":false}"#).unwrap();
    assert_eq!(c.args(), ["a"]);
    assert_eq!(c.run().cpus, Some(4));
    assert_eq!(c.run().ipv6_address.as_deref(), Some("::1"));
    assert_eq!(c.env.unwrap()["Abc"], "1");
    assert_eq!(c.tfsv4, Some(false));
}

#[test]
fn errors_have_line_column_and_key() {
    assert_eq!(
        message("{\n  \"Agrs\": []\n}"),
        "c.json:2:3: key `Agrs`: unknown key, did you mean `Args`?"
    );
    assert_eq!(
        message("{\"RunConfig\": {\n    \"CPUs\": \"four\"}}"),
        "c.json:2:5: key `RunConfig.CPUs`: invalid type: string \"four\", expected u32"
    );
    assert_eq!(
        message("{\"Args\": [\"a\",\n 3]}"),
        "c.json:2:2: key `Args[1]`: invalid type: integer `3`, expected a string"
    );
    assert!(message("{\"Args\": [1,]}").starts_with("c.json:1:"));
    assert!(message("{\"RunConfig\": {\"Zzzzzzzzzz\": 1}}").ends_with("unknown key"));
    assert!(message("[]").starts_with("c.json:1:1: invalid type"));
    assert!(message("").starts_with("c.json:1:1:"));
}

#[test]
fn every_key_of_the_existing_tool_is_known() {
    let text = r#"{"Args":[],"DisableArgsCopy":true,"BaseVolumeSz":"","Boot":"","UefiBoot":"","Kernel":"","Uefi":true,"BuildDir":"",
    "CloudConfig":{"Platform":"","ProjectID":"","Zone":"","BucketName":"","BucketNamespace":"","ImageName":"","ImageType":"","Flavor":"",
      "DomainName":"","StaticIP":"","EnableIPv6":true,"VPC":"","Subnet":"","SecurityGroup":"","InstanceProfile":"","KMS":"","DedicatedHostID":"",
      "ConfidentialVM":true,"Spot":true,"SkipImportVerify":true,"UserData":"",
      "Tags":[{"key":"","value":"","attribute":{"image_label":true,"instance_label":true,"instance_network":true,"instance_metadata":true}}],
      "RootVolume":{"name":"","iops":1,"size":1,"throughput":1,"typeof":""}},
    "RunConfig":{"Accel":true,"Memory":"","CPUs":1,"GPUs":1,"GPUType":"","Vga":true,"Ports":[],"UDPPorts":[],"Bridged":true,"BridgeName":"",
      "BridgeIPAddress":"","TapName":"","IPAddress":"","IPv6Address":"","NetMask":"","Gateway":"",
      "Nics":[{"IPAddress":"","IPv6Address":"","NetMask":"","Gateway":"","BridgeName":""}],"CanIPForward":true,"Mounts":[],
      "AttachVolumeOnInstanceCreate":true,"VolumeSizeInGb":1,"ImageName":"","InstanceName":"","InstanceGroup":"","Kernel":"","QMP":true,"Mgmt":"",
      "Background":true,"BackgroundDetach":true,"AtExit":"","Debug":true,"GdbPort":1,"Verbose":true,"ShowDebug":true,"ShowErrors":true,
      "ShowWarnings":true,"JSON":true,"ThreadsPerCore":1},
    "TargetConfig":{"a":"b"},"Debugflags":[],"Dirs":[],"Files":[],"MapDirs":{},"Env":{},"Mounts":{},"NameServers":[],"Klibs":[],"KlibDir":"",
    "ManifestPassthrough":{"a":1,"b":[true]},"NoTrace":[],"NanosVersion":"","NightlyBuild":true,"Force":true,"Program":"","ProgramPath":"",
    "RebootOnExit":true,"LocalFilesParentDirectory":"","TargetRoot":"","TFSv4":true,"Version":"","Language":"","Description":"","VolumesDir":"",
    "PackageBaseURL":"","PackageManifestURL":"","home":""}"#;
    let c = read(text).unwrap();
    assert_eq!(given(&c), serde_json::from_str::<Value>(text).unwrap());
}

#[test]
fn layers_merge_like_json() {
    let base =
        read(r#"{"Args":["x","y"],"Env":{"A":"1","B":"2"},"RunConfig":{"CPUs":1,"Memory":"1g"}}"#)
            .unwrap();
    let over = read(r#"{"Args":["z"],"Env":{"B":"3"},"RunConfig":{"Memory":"2g"}}"#).unwrap();
    let both = base.overlaid_with(&over);
    assert_eq!(both.args(), ["z"]);
    assert_eq!(both.env.as_ref().unwrap()["A"], "1");
    assert_eq!(both.env.as_ref().unwrap()["B"], "3");
    assert_eq!(both.run().cpus, Some(1));
    assert_eq!(both.run().memory.as_deref(), Some("2g"));
}

#[test]
fn what_is_not_supported_is_said() {
    for (text, wanted) in [
        (
            r#"{"CloudConfig":{"Platform":"gcp"}}"#,
            "target cloud `gcp`",
        ),
        (r#"{"Uefi":true}"#, "Uefi is not supported"),
        (r#"{"Klibs":["tls"]}"#, "`tls`"),
        (r#"{"ManifestPassthrough":{"firewall":{}}}"#, "`firewall`"),
        (r#"{"NanosVersion":"0.1.2"}"#, "Nanos version 0.1.2"),
        (r#"{"Mounts":{"a":"/b"}}"#, "Mounts is not supported"),
        (r#"{"RunConfig":{"Bridged":true}}"#, "RunConfig.Bridged"),
        (r#"{"RunConfig":{"GPUs":1}}"#, "RunConfig.GPUs"),
    ] {
        let error = support::check(&read(text).unwrap())
            .unwrap_err()
            .to_string();
        assert!(error.contains(wanted), "{text}: {error}");
    }
    support::check(
        &read(r#"{"Klibs":["tmpfs"],"CloudConfig":{"Platform":"onprem","Zone":"x"},"Uefi":false}"#)
            .unwrap(),
    )
    .unwrap();
}
