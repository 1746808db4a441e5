//! What is mounted at the start: the root from the disk, and the kernel's own file systems over it.

use alloc::sync::Arc;
use alloc::vec::Vec;

use drivers::block::BlockDevice;
use errno::Errno;
use fs::tmpfs::{Options, TmpFs};
use fs::{
    Credentials, DeviceId, FileSystem, LookupFlags, MountFlags, Namespace, OpenFlags, Path, Start,
};
use iobuf::SliceSink;
use manifest::Manifest;

use crate::StartError;

/// Mounts everything. A place that the image lacks is left out. With `vsock`, `/dev` has a node for it.
pub fn mount(
    root: Arc<dyn BlockDevice>,
    manifest: &Manifest,
    vsock: bool,
) -> Result<Arc<Namespace>, StartError> {
    let root = fs::ext4::Ext4Fs::mount(
        root,
        b"/dev/vda2",
        DeviceId::new(254, 2),
        manifest.readonly_rootfs,
    )
    .map_err(StartError::Root)?;
    let flags = if manifest.readonly_rootfs {
        MountFlags::RDONLY
    } else {
        MountFlags::empty()
    };
    let namespace = Namespace::new(root, flags | MountFlags::RELATIME).map_err(StartError::Root)?;
    let kernels =
        MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RELATIME;
    let dev = fs::devfs::new().map_err(|error| StartError::Mount("/dev", error))?;
    if vsock {
        let (major, minor) = linux::socket::vsock::DEVICE;
        fs::devfs::add(&dev, "vsock", DeviceId::new(major, minor), 0o666)
            .map_err(|error| StartError::Mount("/dev", error))?;
    }
    let mut mounts: Vec<(&'static str, Arc<dyn FileSystem>, MountFlags)> = alloc::vec![
        ("/dev", dev, MountFlags::NOSUID),
        (
            "/dev/shm",
            TmpFs::new(&Options::default()),
            MountFlags::NOSUID | MountFlags::NODEV
        ),
        ("/proc", console_proc(), kernels),
        ("/sys", fs::sysfs::new(), kernels),
    ];
    if is_empty(&namespace, "/tmp") {
        mounts.push((
            "/tmp",
            TmpFs::new(&Options::default()),
            MountFlags::NOSUID | MountFlags::NODEV,
        ));
    }
    for (place, file_system, flags) in mounts {
        match find(&namespace, place) {
            Ok(point) => {
                namespace
                    .mount(file_system, &point, flags)
                    .map_err(|error| StartError::Mount(place, error))?;
            }
            Err(error) => log::info!("{place} is not mounted: {error}"),
        }
    }
    Ok(namespace)
}

/// The /proc of this machine; `linux` adds what it shows of the program.
fn console_proc() -> Arc<dyn FileSystem> {
    crate::console::PROC.call_once(fs::procfs::new).clone()
}

fn find(namespace: &Namespace, path: &str) -> Result<Path, Errno> {
    let root = namespace.root();
    let start = Start {
        root,
        dir: root,
        creds: &Credentials::ROOT,
    };
    namespace.resolve(
        &start,
        path.as_bytes(),
        LookupFlags::FOLLOW | LookupFlags::DIRECTORY,
    )
}

/// The bytes of a file of `most` at most.
///
/// # Errors
/// Those of open(2) and read(2); `EFBIG` where there are more.
pub fn read(namespace: &Namespace, path: &str, most: usize) -> Result<Vec<u8>, Errno> {
    let root = namespace.root();
    let start = Start {
        root,
        dir: root,
        creds: &Credentials::ROOT,
    };
    let path = path.as_bytes();
    let file = namespace.open(&start, path, OpenFlags::CLOEXEC, 0, LookupFlags::FOLLOW)?;
    let mut bytes = Vec::new();
    let mut part = alloc::vec![0; 4096];
    loop {
        match file.read(&mut SliceSink::new(&mut part))? {
            0 => return Ok(bytes),
            count => bytes.extend_from_slice(&part[..count]),
        }
        if bytes.len() > most {
            return Err(Errno::EFBIG);
        }
    }
}

/// Whether the image has nothing in a directory: a program that was packed from /tmp must not vanish below a mount.
fn is_empty(namespace: &Namespace, path: &str) -> bool {
    let Ok(path) = find(namespace, path) else {
        return false;
    };
    let mut empty = true;
    let listed = path.inode().readdir(0, &mut |_| {
        empty = false;
        false
    });
    listed.is_ok() && empty
}
