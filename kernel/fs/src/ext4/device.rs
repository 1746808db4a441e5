//! The disk as `lib/ext4` wants it, for metadata: blocks read through a few clusters kept in memory,
//! since inodes and directories that are needed together lie together and a request costs more than
//! its bytes. File data takes another way ([`super::data`]) and says so with [`Disk::forget`].

use alloc::{sync::Arc, vec, vec::Vec};
use core::sync::atomic::{AtomicU64, Ordering};

use drivers::block::{BlockDevice, SECTOR_SIZE};
use libext4::IoError;
use machine::sync::SpinLock;

/// Bytes in a cluster.
const CLUSTER: u64 = 64 * 1024;
/// Clusters kept.
const KEPT: usize = 8;

struct Cluster {
    start: u64,
    bytes: Vec<u8>,
}

/// A disk or partition.
pub struct Disk {
    device: Arc<dyn BlockDevice>,
    clusters: SpinLock<Vec<Arc<Cluster>>>,
    /// Counts writes, so that a cluster read while one was under way is not kept.
    writes: AtomicU64,
}

impl Disk {
    pub fn new(device: Arc<dyn BlockDevice>) -> Disk {
        Disk {
            device,
            clusters: SpinLock::new(Vec::new()),
            writes: AtomicU64::new(0),
        }
    }

    /// The device.
    pub fn device(&self) -> &Arc<dyn BlockDevice> {
        &self.device
    }

    /// The bytes of a range on disk change past this layer: before and after each such write.
    pub fn forget(&self, offset: u64, len: u64) {
        let mut clusters = self.clusters.lock();
        self.writes.fetch_add(1, Ordering::AcqRel);
        clusters.retain(|cluster| {
            let end = cluster.start + cluster.bytes.len() as u64;
            end <= offset || cluster.start >= offset.saturating_add(len)
        });
    }

    fn size(&self) -> u64 {
        self.device.sector_count() * SECTOR_SIZE as u64
    }

    fn cluster(&self, start: u64) -> Result<Arc<Cluster>, IoError> {
        {
            let mut clusters = self.clusters.lock();
            if let Some(at) = clusters.iter().position(|cluster| cluster.start == start) {
                // Most recently used last.
                let cluster = clusters.remove(at);
                clusters.push(cluster.clone());
                return Ok(cluster);
            }
        }
        let before = self.writes.load(Ordering::Acquire);
        let len = CLUSTER.min(self.size().saturating_sub(start)) as usize;
        let mut bytes = vec![0; len];
        self.device
            .read(start / SECTOR_SIZE as u64, &mut bytes)
            .map_err(|_| IoError)?;
        let cluster = Arc::new(Cluster { start, bytes });
        let mut clusters = self.clusters.lock();
        if self.writes.load(Ordering::Acquire) == before {
            if clusters.len() >= KEPT {
                clusters.remove(0);
            }
            clusters.push(cluster.clone());
        }
        Ok(cluster)
    }
}

impl libext4::BlockDevice for Disk {
    fn size_bytes(&self) -> u64 {
        self.size()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        let start = offset / CLUSTER * CLUSTER;
        let within = (offset - start) as usize;
        if within + buf.len() > CLUSTER as usize {
            return self
                .device
                .read(offset / SECTOR_SIZE as u64, buf)
                .map_err(|_| IoError);
        }
        let cluster = self.cluster(start)?;
        let part = cluster
            .bytes
            .get(within..within + buf.len())
            .ok_or(IoError)?;
        buf.copy_from_slice(part);
        Ok(())
    }

    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.forget(offset, buf.len() as u64);
        let result = self.device.write(offset / SECTOR_SIZE as u64, buf);
        self.forget(offset, buf.len() as u64);
        result.map_err(|_| IoError)
    }

    fn flush(&self) -> Result<(), IoError> {
        self.device.flush().map_err(|_| IoError)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<(), IoError> {
        self.forget(offset, len);
        let sector = SECTOR_SIZE as u64;
        match self.device.discard(offset / sector, len / sector) {
            // A hint: a device that cannot take it loses nothing.
            Ok(()) | Err(drivers::IoError::Unsupported) => Ok(()),
            Err(_) => Err(IoError),
        }
    }
}
