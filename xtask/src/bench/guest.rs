//! The yardstick: a Linux guest whose only process is the measured program.
//!
//! It is the distribution's cloud kernel with an initramfs of our own: a static busybox loads the virtio
//! modules, mounts the same disk image that nanos boots, configures the network and becomes the program.

use crate::build;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use xshell::{Shell, cmd};

/// The virtio modules of the cloud kernel, in the order in which they load.
const MODULES: &[&str] = &[
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_pci_legacy_dev.ko",
    "drivers/virtio/virtio_pci_modern_dev.ko",
    "drivers/virtio/virtio_pci.ko",
    "drivers/block/virtio_blk.ko",
    "net/core/failover.ko",
    "drivers/net/net_failover.ko",
    "drivers/net/virtio_net.ko",
];

/// A Linux kernel and the folder its initramfs is put together in.
#[derive(Debug)]
pub struct Guest {
    folder: PathBuf,
    /// The compressed kernel.
    pub kernel: PathBuf,
    modules: PathBuf,
    /// Its release, such as `6.1.0-56-cloud-amd64`.
    pub release: String,
}

impl Guest {
    /// Fetches the distribution's cloud kernel through APT, once, and unpacks it without installing it.
    pub fn fetch(sh: &Shell) -> Result<Guest> {
        let folder = build::target_dir().join("bench/linux");
        sh.create_dir(&folder)?;
        let depends = cmd!(sh, "apt-cache depends linux-image-cloud-amd64")
            .quiet()
            .read()?;
        let package = depends
            .lines()
            .find_map(|line| line.trim().strip_prefix("Depends: "))
            .context("APT knows no linux-image-cloud-amd64: run apt-get update")?
            .to_owned();
        let release = package.trim_start_matches("linux-image-").to_owned();
        let tree = folder.join(&release);
        if !tree
            .join("boot")
            .join(format!("vmlinuz-{release}"))
            .exists()
        {
            let _in = sh.push_dir(&folder);
            cmd!(sh, "apt-get -o APT::Sandbox::User=root download {package}")
                .quiet()
                .ignore_stdout()
                .run()?;
            let archive = sh
                .read_dir(&folder)?
                .into_iter()
                .find(|path| {
                    path.extension().is_some_and(|e| e == "deb")
                        && path.to_string_lossy().contains(package.as_str())
                })
                .with_context(|| format!("apt-get downloaded no {package}"))?;
            cmd!(sh, "dpkg-deb -x {archive} {tree}").quiet().run()?;
        }
        let kernel = tree.join("boot").join(format!("vmlinuz-{release}"));
        let modules = tree.join("lib/modules").join(&release).join("kernel");
        if !kernel.exists() || !modules.exists() {
            bail!(
                "{package} holds no kernel where one is expected: {}",
                kernel.display()
            );
        }
        Ok(Guest {
            folder,
            kernel,
            modules,
            release,
        })
    }

    /// An initramfs that mounts the second partition of the first disk and becomes `program` in it, with
    /// the address that QEMU's user network gives out.
    pub fn initramfs_for_disk(
        &self,
        sh: &Shell,
        program: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<PathBuf> {
        let tree = self.empty_tree(sh, "disk")?;
        let load = self.put_modules(sh, &tree)?;
        let environment: String = environment
            .iter()
            .map(|(key, value)| format!("export {key}='{value}'\n"))
            .collect();
        let program: Vec<String> = program.iter().map(|word| format!("'{word}'")).collect();
        sh.write_file(
            tree.join("init"),
            format!(
                "#!/bin/busybox sh\nalias insmod='/bin/busybox insmod'\nB=/bin/busybox\n{load}\
                 $B mkdir -p /dev /root\n$B mount -t devtmpfs dev /dev\n\
                 until $B mount -t ext4 /dev/vda2 /root; do $B usleep 10000; done\n\
                 $B mount -t proc proc /root/proc\n$B mount -t sysfs sys /root/sys\n$B mount -t devtmpfs dev /root/dev\n\
                 $B ip link set lo up\n$B ip addr add 10.0.2.15/24 dev eth0\n$B ip link set eth0 up\n\
                 $B ip route add default via 10.0.2.2\n{environment}\
                 cd /root\nexec $B chroot /root {}\n",
                program.join(" ")
            ),
        )?;
        cmd!(sh, "chmod 755 {tree}/init {tree}/bin/busybox")
            .quiet()
            .run()?;
        self.pack(sh, &tree, "disk.cpio")
    }

    /// An initramfs that gives the first network card `address` and becomes `program`, whose libraries come along.
    pub fn initramfs_for_network(
        &self,
        sh: &Shell,
        program: &Path,
        arguments: &[&str],
        address: &str,
        name: &str,
    ) -> Result<PathBuf> {
        let tree = self.empty_tree(sh, name)?;
        let load = self.put_modules(sh, &tree)?;
        sh.copy_file(program, tree.join("program"))?;
        // `ldd` fails on a static program, which needs no library.
        let libraries = cmd!(sh, "ldd {program}")
            .quiet()
            .ignore_status()
            .ignore_stderr()
            .read()?;
        for library in libraries
            .split_whitespace()
            .filter(|word| word.starts_with('/'))
        {
            let to = tree.join(library.trim_start_matches('/'));
            sh.create_dir(to.parent().context("a library lies in a folder")?)?;
            sh.copy_file(library, to)?;
        }
        sh.write_file(
            tree.join("init"),
            format!(
                "#!/bin/busybox sh\nalias insmod='/bin/busybox insmod'\nB=/bin/busybox\n{load}\
                 $B mkdir -p /dev /proc /sys /tmp\n$B mount -t devtmpfs dev /dev\n\
                 $B mount -t proc proc /proc\n$B mount -t sysfs sys /sys\n$B ip link set lo up\n\
                 $B ip addr add {address} dev eth0\n$B ip link set eth0 up\nexec /program {}\n",
                arguments.join(" ")
            ),
        )?;
        cmd!(
            sh,
            "chmod 755 {tree}/init {tree}/bin/busybox {tree}/program"
        )
        .quiet()
        .run()?;
        self.pack(sh, &tree, &format!("{name}.cpio"))
    }

    /// Puts busybox and the modules into `tree`; returns the commands that load them.
    fn put_modules(&self, sh: &Shell, tree: &Path) -> Result<String> {
        sh.copy_file("/bin/busybox", tree.join("bin/busybox"))?;
        let mut load = String::new();
        for module in MODULES {
            let name = Path::new(module)
                .file_name()
                .context("a module has a name")?;
            sh.copy_file(self.modules.join(module), tree.join(name))?;
            load += &format!("insmod /{}\n", name.display());
        }
        Ok(load)
    }

    /// An initramfs whose init is `program` itself.
    pub fn initramfs_of(&self, sh: &Shell, program: &Path) -> Result<PathBuf> {
        let tree = self.empty_tree(sh, "program")?;
        sh.copy_file(program, tree.join("init"))?;
        cmd!(sh, "chmod 755 {tree}/init").quiet().run()?;
        self.pack(sh, &tree, "program.cpio")
    }

    fn empty_tree(&self, sh: &Shell, name: &str) -> Result<PathBuf> {
        let tree = self.folder.join(name);
        sh.remove_path(&tree)?;
        sh.create_dir(tree.join("bin"))?;
        Ok(tree)
    }

    fn pack(&self, sh: &Shell, tree: &Path, name: &str) -> Result<PathBuf> {
        let archive = self.folder.join(name);
        let _in = sh.push_dir(tree);
        let list = cmd!(sh, "find .").quiet().read()?;
        let bytes = cmd!(sh, "cpio --quiet -o -H newc -R 0:0")
            .quiet()
            .stdin(list)
            .output()?
            .stdout;
        sh.write_file(&archive, bytes)?;
        Ok(archive)
    }
}
