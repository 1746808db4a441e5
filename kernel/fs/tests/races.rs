//! Many threads on one tree and on one file.

mod common;
#[path = "common/disk.rs"]
mod disk;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use common::World;
use errno::Errno;
use fs::{LookupFlags, OpenFlags, RenameFlags};

/// Runs `work(number)` in `count` threads.
fn parallel(count: usize, work: impl Fn(usize) + Send + Sync) {
    thread::scope(|scope| {
        for number in 0..count {
            let work = &work;
            scope.spawn(move || work(number));
        }
    });
}

/// A name that is replaced by rename all the time is never missing and never mixes two contents.
fn replaced_names_are_never_missing(w: &World) {
    w.put("/config", &[b'a'; 500]).unwrap();
    let stop = AtomicBool::new(false);
    parallel(4, |number| {
        if number < 2 {
            for round in 0..300u32 {
                let temp = format!("/config.{number}");
                let byte = b'a' + (round % 20) as u8;
                w.put(&temp, &[byte; 500]).unwrap();
                w.rename(&temp, "/config").unwrap();
            }
            stop.store(true, Ordering::Release);
        } else {
            while !stop.load(Ordering::Acquire) {
                let text = w.get("/config").unwrap();
                assert_eq!(text.len(), 500);
                assert!(text.iter().all(|byte| *byte == text[0]));
            }
        }
    });
    assert_eq!(w.stat("/config").unwrap().nlink, 1);
    assert_eq!(
        w.names("/")
            .unwrap()
            .iter()
            .filter(|n| n.starts_with("config"))
            .count(),
        1
    );
}

/// Two directories are moved into each other and back by two threads: no loop arises, nothing is
/// lost, and every look-up sees one of the allowed states.
fn directories_do_not_form_loops(w: &World) {
    w.mkdir("/x").unwrap();
    w.mkdir("/y").unwrap();
    parallel(3, |number| {
        for _ in 0..400 {
            let result = match number {
                0 => w.rename("/x", "/y/x").and_then(|()| w.rename("/y/x", "/x")),
                1 => w.rename("/y", "/x/y").and_then(|()| w.rename("/x/y", "/y")),
                _ => w.rename_how("/x", "/y", RenameFlags::EXCHANGE),
            };
            match result {
                Ok(()) | Err(Errno::ENOENT | Errno::EINVAL | Errno::ENOTEMPTY) => {}
                Err(other) => panic!("{other}"),
            }
        }
    });
    // Both are still in the tree, once each.
    let mut found = 0;
    let mut dirs = vec![String::from("/")];
    while let Some(dir) = dirs.pop() {
        for name in w.names(&dir).unwrap() {
            if name == "x" || name == "y" {
                found += 1;
                dirs.push(format!("{dir}{name}/"));
            }
        }
    }
    assert_eq!(found, 2);
}

/// Names made and removed by several threads while others look at them.
fn names_come_and_go(w: &World) {
    w.mkdir("/busy").unwrap();
    parallel(4, |number| {
        for round in 0..150 {
            let name = format!("/busy/{}", (round * 7 + number) % 10);
            match w.open(&name, OpenFlags::CREAT | OpenFlags::EXCL | OpenFlags::RDWR) {
                Ok(file) => {
                    common::write_at(&file, 0, b"mine").unwrap();
                    assert_eq!(common::read_at(&file, 0, 9).unwrap(), b"mine");
                    // Someone else may have removed it already.
                    let _ = w.unlink(&name);
                }
                Err(error) => assert_eq!(error, Errno::EEXIST),
            }
            if let Err(error) = w.resolve(&name, LookupFlags::FOLLOW).map(drop) {
                assert_eq!(error, Errno::ENOENT);
            }
            w.names("/busy").unwrap();
        }
    });
    for name in w.names("/busy").unwrap() {
        if name != "." && name != ".." {
            w.unlink(&format!("/busy/{name}")).unwrap();
        }
    }
    w.rmdir("/busy").unwrap();
}

/// Writers of disjoint records, appenders, and readers of one file.
fn one_file_many_writers(w: &World) {
    const RECORD: usize = 700;
    let flags = OpenFlags::RDWR | OpenFlags::CREAT;
    parallel(4, |number| {
        let file = w.open("/shared", flags).unwrap();
        let log = w.open("/log", flags | OpenFlags::APPEND).unwrap();
        let record = [b'0' + number as u8; RECORD];
        for round in 0..100 {
            let at = ((round * 4 + number) * RECORD) as u64;
            assert_eq!(common::write_at(&file, at, &record), Ok(RECORD));
            let line = [b'0' + number as u8; 10];
            assert_eq!(log.write(&mut iobuf::SliceSource::new(&line)), Ok(10));
            assert_eq!(common::read_at(&file, at, RECORD).unwrap(), record);
            if round % 20 == 0 {
                file.file().sync(false).unwrap();
                fs::cache::shrink(50);
            }
        }
    });
    let all = w.get("/shared").unwrap();
    assert_eq!(all.len(), 400 * RECORD);
    for (at, record) in all.chunks(RECORD).enumerate() {
        assert!(record.iter().all(|byte| *byte == b'0' + (at % 4) as u8));
    }
    let log = w.get("/log").unwrap();
    assert_eq!(log.len(), 4000);
    for line in log.chunks(10) {
        assert!(line.iter().all(|byte| *byte == line[0]), "appends mixed");
    }
}

/// Truncation against readers and writers: a reader never sees bytes that nobody wrote.
fn truncation_shows_no_foreign_bytes(w: &World) {
    let flags = OpenFlags::RDWR | OpenFlags::CREAT;
    let file = w.open("/t", flags).unwrap();
    let stop = AtomicBool::new(false);
    parallel(3, |number| match number {
        0 => {
            for round in 0..200u64 {
                file.truncate(round * 97 % 30_000).unwrap();
                common::write_at(&file, round * 1009 % 30_000, &[b'z'; 3000]).unwrap();
            }
            stop.store(true, Ordering::Release);
        }
        1 => {
            while !stop.load(Ordering::Acquire) {
                for byte in common::read_at(&file, 0, 40_000).unwrap() {
                    assert!(byte == 0 || byte == b'z');
                }
            }
        }
        _ => {
            while !stop.load(Ordering::Acquire) {
                file.file().sync(true).unwrap();
            }
        }
    });
}

fn all(w: &World) {
    replaced_names_are_never_missing(w);
    directories_do_not_form_loops(w);
    names_come_and_go(w);
    one_file_many_writers(w);
    truncation_shows_no_foreign_bytes(w);
}

#[test]
fn on_tmpfs() {
    all(&World::new());
}

#[test]
fn on_ext4() {
    let volume = disk::volume(32);
    let w = World::over(disk::mount(&volume));
    all(&w);
    w.ns.unmount_all().unwrap();
    drop(w);
    disk::check(&volume);
}

#[test]
fn reading_while_pages_are_taken_away() {
    let volume = disk::volume(32);
    let w = World::over(disk::mount(&volume));
    let bytes: Arc<Vec<u8>> = Arc::new((0..3_000_000u32).map(|i| (i / 7) as u8).collect());
    w.put("/big", &bytes).unwrap();
    w.ns.sync_all().unwrap();
    parallel(4, |number| {
        for round in 0..30 {
            if number == 0 {
                fs::cache::shrink(300);
                thread::yield_now();
            } else {
                let file = w.open("/big", OpenFlags::empty()).unwrap();
                let at = (round * 99_991 * number) % 2_900_000;
                let got = common::read_at(&file, at as u64, 50_000).unwrap();
                assert!(got == bytes[at..at + 50_000]);
            }
        }
    });
    w.ns.unmount_all().unwrap();
}
