//! `/proc/self/fd` and `/proc/self/fdinfo`.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;

use errno::{Errno, Result};
use fs::pseudo::{Dir, Dynamic, Node};
use fs::{File, FileSystem, FileType, Inode, Metadata, OpenFile, OpenFlags, Path, StatFs};
use machine::sync::Once;

use crate::files::eventfd::EventFd;
use crate::files::handles::{EpollFile, EventFile, PipeEnd};
use crate::files::inotify::InotifyFile;
use crate::files::signalfd::SignalFile;
use crate::files::timerfd::TimerFile;
use crate::process::Process;
use crate::syscalls::names::descriptor_text;

type Make = fn(&'static Process, i32) -> Node;

/// Children by descriptor number.
struct ByNumber {
    process: &'static Process,
    make: Make,
    kind: FileType,
}

impl Dynamic for ByNumber {
    fn lookup(&self, name: &[u8]) -> Option<Node> {
        let fd: i32 = core::str::from_utf8(name).ok()?.parse().ok()?;
        // `+1` and `01` are no names.
        if format!("{fd}").as_bytes() != name {
            return None;
        }
        self.process.files.get(fd).ok()?;
        Some((self.make)(self.process, fd))
    }

    fn next(&self, cookie: u64) -> Option<(u64, Vec<u8>, FileType)> {
        // The cookie is the number after the child's own.
        let (fd, _) = self
            .process
            .files
            .all()
            .into_iter()
            .find(|(fd, _)| *fd as u64 >= cookie)?;
        Some((fd as u64 + 1, format!("{fd}").into_bytes(), self.kind))
    }
}

/// `/proc/self/fd`.
pub fn links(process: &'static Process) -> Arc<Dir> {
    let by_number = ByNumber {
        process,
        make: link,
        kind: FileType::Symlink,
    };
    Dir::dynamic(0o500, Box::new(by_number))
}

/// `/proc/self/fdinfo`.
pub fn infos(process: &'static Process) -> Arc<Dir> {
    let by_number = ByNumber {
        process,
        make: |process, fd| Node::text(move || Ok(info(process.files.get(fd)?.as_ref()))),
        kind: FileType::Regular,
    };
    Dir::dynamic(0o555, Box::new(by_number))
}

fn link(process: &'static Process, fd: i32) -> Node {
    let get = move || process.files.get(fd).map_err(|_| Errno::ENOENT);
    Node::jump(
        move || Ok(descriptor_text(process, get()?.as_ref())),
        move || {
            let file = get()?;
            match file.path() {
                Some(path) => Ok(path.clone()),
                None => {
                    let text = descriptor_text(process, &file);
                    let inode = Arc::new(Nameless { file });
                    Ok(Path::anonymous(inode, &text))
                }
            }
        },
    )
}

/// The inode of a file without a name, so that a link can lead to it.
struct Nameless {
    file: Arc<OpenFile>,
}

/// The file system that such inodes say they are in.
struct Nowhere {
    me: Weak<Nowhere>,
}

static NOWHERE: Once<Arc<Nowhere>> = Once::new();

impl FileSystem for Nowhere {
    fn name(&self) -> &'static str {
        "anon_inodefs"
    }

    fn root(&self) -> Arc<dyn Inode> {
        Arc::new(NowhereRoot(self.me.clone()))
    }

    fn statfs(&self) -> Result<StatFs> {
        Ok(StatFs {
            magic: 0x0904_1934,
            block_size: 4096,
            name_max: 255,
            ..StatFs::default()
        })
    }
}

fn nowhere() -> Arc<dyn FileSystem> {
    NOWHERE
        .call_once(|| Arc::new_cyclic(|me| Nowhere { me: me.clone() }))
        .clone()
}

/// The root of a file system that nobody mounts.
struct NowhereRoot(Weak<Nowhere>);

impl Inode for NowhereRoot {
    fn file_system(&self) -> Arc<dyn FileSystem> {
        match self.0.upgrade() {
            Some(fs) => fs,
            None => nowhere(),
        }
    }

    fn file_type(&self) -> FileType {
        FileType::Directory
    }

    fn metadata(&self) -> Result<Metadata> {
        Err(Errno::EIO)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Inode for Nameless {
    fn file_system(&self) -> Arc<dyn FileSystem> {
        nowhere()
    }

    fn file_type(&self) -> FileType {
        self.file
            .metadata()
            .map_or(FileType::Regular, |meta| meta.file_type)
    }

    fn metadata(&self) -> Result<Metadata> {
        self.file.metadata()
    }

    fn open(&self, flags: OpenFlags) -> Result<Option<Arc<dyn File>>> {
        match self.file.file().as_any().downcast_ref::<PipeEnd>() {
            Some(end) => Ok(Some(Arc::new(
                end.reopen(flags.can_read(), flags.can_write()),
            ))),
            // Sockets and anonymous inodes cannot be opened a second time.
            None => Err(Errno::ENXIO),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn info(file: &OpenFile) -> Vec<u8> {
    let meta = file.metadata().ok();
    let mut text = format!(
        "pos:\t{}\nflags:\t0{:o}\nmnt_id:\t{}\nino:\t{}\n",
        if file.file().seekable() {
            file.offset()
        } else {
            0
        },
        file.flags().bits(),
        file.path().map_or(15, |path| path.mount().id()),
        meta.map_or(0, |meta| meta.ino),
    );
    let any = file.file().as_any();
    if let Some(event) = any.downcast_ref::<EventFile>() {
        text += &eventfd(&event.event);
    } else if let Some(epoll) = any.downcast_ref::<EpollFile>() {
        for (fd, interest) in epoll.epoll.all() {
            text += &format!(
                "tfd: {fd:8} events: {:8x} data: {:16x}  pos:0 ino:0 sdev:0\n",
                interest.events, interest.data
            );
        }
    } else if let Some(timer) = any.downcast_ref::<TimerFile>() {
        text += &timerfd(timer);
    } else if let Some(signals) = any.downcast_ref::<SignalFile>() {
        text += &format!("sigmask:\t{:016x}\n", signals.mask().0);
    } else if let Some(inotify) = any.downcast_ref::<InotifyFile>() {
        for (id, inode, mask) in inotify.all() {
            if let Ok(meta) = inode.metadata() {
                text += &format!(
                    "inotify wd:{id:x} ino:{:x} sdev:{:x} mask:{mask:x} ignored_mask:0\n",
                    meta.ino,
                    meta.dev.to_u64()
                );
            }
        }
    }
    text.into_bytes()
}

fn eventfd(event: &EventFd) -> String {
    format!(
        "eventfd-count: {:16x}\neventfd-semaphore: {}\n",
        event.count(),
        i32::from(event.is_semaphore())
    )
}

fn timerfd(timer: &TimerFile) -> String {
    let (ticks, flags) = timer.ticks_and_flags();
    let setting = timer.get();
    let pair = |ns: u64| format!("({}, {})", ns / 1_000_000_000, ns % 1_000_000_000);
    format!(
        "clockid: {}\nticks: {ticks}\nsettime flags: 0{flags:o}\nit_value: {}\nit_interval: {}\n",
        timer.clock_id,
        pair(setting.value_ns),
        pair(setting.interval_ns),
    )
}
