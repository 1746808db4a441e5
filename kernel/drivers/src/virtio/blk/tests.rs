//! A disk from both sides.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use machine::mem::{Frame, PAGE_SIZE};

use super::*;
use crate::{
    block::{SECTOR_SIZE, SECTORS_PER_PAGE},
    virtio::{
        device_type,
        fake::{Chain, Fake},
    },
};

const SECTORS: usize = 2048;

/// A device that does what it is asked on a vector.
struct Disk {
    data: Mutex<Vec<u8>>,
    flushes: AtomicUsize,
    /// Chains that went through an indirect table.
    indirect: AtomicUsize,
    longest: AtomicUsize,
}

impl Disk {
    fn serve(&self, chain: &Chain) -> u32 {
        let request = chain.readable();
        self.indirect
            .fetch_add(usize::from(chain.indirect), Ordering::Relaxed);
        self.longest
            .fetch_max(chain.buffers.len(), Ordering::Relaxed);
        let kind = u32::from_le_bytes(request[..4].try_into().unwrap());
        let sector = u64::from_le_bytes(request[8..16].try_into().unwrap()) as usize;
        let mut data = self.data.lock().unwrap();
        let at = sector * SECTOR_SIZE;
        let mut answer = Vec::new();
        let mut status = 0;
        match kind {
            0 => answer = data[at..at + chain.room() - 1].to_vec(),
            1 => {
                let bytes = &request[16..];
                data[at..at + bytes.len()].copy_from_slice(bytes);
            }
            4 => {
                self.flushes.fetch_add(1, Ordering::Relaxed);
            }
            8 => {
                answer = b"serial-0042".to_vec();
                answer.resize(20, 0);
            }
            11 | 13 => {
                let at = u64::from_le_bytes(request[16..24].try_into().unwrap()) as usize;
                let count = u32::from_le_bytes(request[24..28].try_into().unwrap()) as usize;
                data[at * SECTOR_SIZE..(at + count) * SECTOR_SIZE].fill(0);
            }
            _ => status = 2,
        }
        answer.push(status);
        chain.fill(&answer)
    }
}

fn config() -> Vec<u8> {
    let mut config = vec![0; 60];
    config[..8].copy_from_slice(&(SECTORS as u64).to_le_bytes());
    config[12..16].copy_from_slice(&126u32.to_le_bytes());
    config[20..24].copy_from_slice(&512u32.to_le_bytes());
    config[34..36].copy_from_slice(&1u16.to_le_bytes());
    config[36..40].copy_from_slice(&64u32.to_le_bytes());
    config[48..52].copy_from_slice(&64u32.to_le_bytes());
    config[56] = 1;
    config
}

const ALL: u64 = feature::SEG_MAX
    | feature::BLK_SIZE
    | feature::FLUSH
    | feature::DISCARD
    | feature::WRITE_ZEROES
    | feature::MQ
    | ring::INDIRECT_DESC
    | ring::EVENT_IDX;

fn disk(features: u64, size: u16) -> (Arc<Fake>, Arc<Disk>) {
    let fake = Fake::new(device_type::BLOCK, features, &[size], &config());
    let disk = Arc::new(Disk {
        data: Mutex::new((0..SECTORS * SECTOR_SIZE).map(|i| (i / 7) as u8).collect()),
        flushes: AtomicUsize::new(0),
        indirect: AtomicUsize::new(0),
        longest: AtomicUsize::new(0),
    });
    (fake, disk)
}

/// Serves every request while it is notified.
fn at_once(fake: &Arc<Fake>, disk: &Arc<Disk>) {
    let disk = disk.clone();
    fake.on_notify(move |fake, queue| {
        while let Some(chain) = fake.next(queue) {
            let len = disk.serve(&chain);
            fake.give_back(queue, chain.head, len);
        }
    });
}

fn frames(count: usize) -> Vec<Frame> {
    (0..count).map(|_| Frame::alloc_zeroed().unwrap()).collect()
}

#[test]
fn every_combination_of_features_moves_data() {
    for (features, size) in [
        (ALL, 256),
        (ALL & !ring::EVENT_IDX, 128),
        (ALL & !ring::INDIRECT_DESC, 64),
        (feature::SEG_MAX, 8),
        (0, 4),
    ] {
        let (fake, model) = disk(features, size);
        at_once(&fake, &model);
        let device = VirtioBlk::new(fake.clone()).unwrap();
        assert_eq!(device.sector_count(), SECTORS as u64);
        assert_eq!(
            fake.accepted() & features,
            features,
            "{features:#x} accepted"
        );
        let mut bytes = vec![0; 37 * SECTOR_SIZE];
        device.read(5, &mut bytes).unwrap();
        assert_eq!(bytes, model.data.lock().unwrap()[5 * 512..42 * 512]);
        for round in 0..300u64 {
            let at = round * 3 % 1000;
            let byte = round as u8;
            device.write(at, &[byte; SECTOR_SIZE]).unwrap();
            let mut back = [0; SECTOR_SIZE];
            device.read(at, &mut back).unwrap();
            assert_eq!(back, [byte; SECTOR_SIZE]);
        }
        let pages = frames(40);
        device.read_frames(8, &pages).unwrap();
        let mut page = vec![0; PAGE_SIZE];
        for (i, frame) in pages.iter().enumerate() {
            frame.read(0, &mut page);
            let at = (8 + i * SECTORS_PER_PAGE as usize) * SECTOR_SIZE;
            assert_eq!(page, model.data.lock().unwrap()[at..at + PAGE_SIZE]);
            assert_eq!(frame.ref_count(), 1);
        }
        device.write_frames(1000, &pages).unwrap();
        assert_eq!(device.flush(), Ok(()));
        let has_flush = features & feature::FLUSH != 0;
        assert_eq!(
            model.flushes.load(Ordering::Relaxed),
            usize::from(has_flush)
        );
    }
}

#[test]
fn small_requests_stay_out_of_tables() {
    let (fake, model) = disk(ALL, 128);
    at_once(&fake, &model);
    let device = VirtioBlk::new(fake).unwrap();
    device.read_frames(0, &frames(1)).unwrap();
    assert_eq!(model.indirect.load(Ordering::Relaxed), 0);
    // Every second frame, so that no two can be joined.
    let scattered: Vec<Frame> = frames(80).into_iter().step_by(2).collect();
    device.read_frames(0, &scattered).unwrap();
    assert!(model.indirect.load(Ordering::Relaxed) > 0);
    assert!(model.longest.load(Ordering::Relaxed) <= 128);
    assert_eq!(device.serial().as_deref(), Some("serial-0042"));
}

#[test]
fn discard_and_zeroes() {
    let (fake, model) = disk(ALL, 128);
    at_once(&fake, &model);
    let device = VirtioBlk::new(fake).unwrap();
    device.write_zeroes(100, 200, true).unwrap();
    let data = model.data.lock().unwrap().clone();
    assert!(data[100 * 512..300 * 512].iter().all(|&b| b == 0));
    assert_ne!(data[100 * 512 - 1], 0);
    assert_ne!(data[300 * 512], 0);
    assert_eq!(device.discard(2000, 49), Err(IoError::OutOfRange));
    let (fake, _) = disk(ALL & !feature::DISCARD & !feature::WRITE_ZEROES, 128);
    let device = VirtioBlk::new(fake).unwrap();
    assert_eq!(device.discard(0, 1), Err(IoError::Unsupported));
    assert_eq!(device.write_zeroes(0, 1, false), Err(IoError::Unsupported));
}

#[test]
fn what_the_device_refuses() {
    let (fake, _) = disk(ALL | feature::RO, 128);
    fake.on_notify(|fake, queue| {
        while let Some(chain) = fake.next(queue) {
            let room = chain.room();
            let mut answer = vec![0; room];
            answer[room - 1] = 1;
            let len = chain.fill(&answer);
            fake.give_back(queue, chain.head, len);
        }
    });
    let device = VirtioBlk::new(fake).unwrap();
    let mut sector = [0; SECTOR_SIZE];
    assert_eq!(device.write(0, &sector), Err(IoError::ReadOnly));
    assert_eq!(device.read(0, &mut sector), Err(IoError::Device));
    assert_eq!(
        device.read(SECTORS as u64, &mut sector),
        Err(IoError::OutOfRange)
    );
}

/// Many requests with callbacks, more than there are slots, finished in reverse by another thread.
#[test]
fn callbacks_beyond_the_queue() {
    let (fake, model) = disk(ALL, 16);
    let device = VirtioBlk::new(fake.clone()).unwrap();
    let (sender, receiver) = mpsc::channel();
    let count = 200u64;
    let requests = (0..count).map(|i| {
        let sender = sender.clone();
        Request {
            op: Operation::Write,
            sector: i,
            segments: vec![Segment {
                frame: Frame::alloc_zeroed().unwrap(),
                offset: 512,
                len: 512,
            }],
            done: Box::new(move |outcome| sender.send((i, outcome)).unwrap()),
        }
    });
    device.submit_all(&mut requests.into_iter());
    let server = thread::spawn(move || {
        for _ in 0..10_000 {
            let mut chains = Vec::new();
            while let Some(chain) = fake.next(0) {
                chains.push(chain);
            }
            for chain in chains.iter().rev() {
                let len = model.serve(chain);
                fake.give_back(0, chain.head, len);
            }
            thread::sleep(Duration::from_micros(200));
            let data = model.data.lock().unwrap();
            if data[..count as usize * 512].iter().all(|&b| b == 0) {
                return;
            }
        }
        panic!("the requests never came");
    });
    let mut seen = vec![false; count as usize];
    for _ in 0..count {
        let (i, outcome) = receiver.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(outcome, Ok(()));
        assert!(!std::mem::replace(&mut seen[i as usize], true));
    }
    server.join().unwrap();
    assert_eq!(device.counters().requests, count);
}

/// Threads that wait, served by another thread.
#[test]
fn many_threads_wait() {
    let (fake, model) = disk(ALL, 8);
    let device = Arc::new(VirtioBlk::new(fake.clone()).unwrap());
    let stop = Arc::new(AtomicUsize::new(0));
    let server = {
        let (fake, model, stop) = (fake.clone(), model.clone(), stop.clone());
        thread::spawn(move || {
            while stop.load(Ordering::Relaxed) == 0 {
                while let Some(chain) = fake.next(0) {
                    let len = model.serve(&chain);
                    fake.give_back(0, chain.head, len);
                }
                thread::sleep(Duration::from_micros(50));
            }
        })
    };
    let workers: Vec<_> = (0..12u64)
        .map(|worker| {
            let device = device.clone();
            thread::spawn(move || {
                for i in 0..50 {
                    let sector = worker * 100 + i;
                    device.write(sector, &[worker as u8; SECTOR_SIZE]).unwrap();
                    let mut back = [0; SECTOR_SIZE];
                    device.read(sector, &mut back).unwrap();
                    assert_eq!(back, [worker as u8; SECTOR_SIZE]);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    stop.store(1, Ordering::Relaxed);
    server.join().unwrap();
}

#[test]
fn a_device_that_lies_is_taken_out_of_service() {
    for (id, ahead) in [(5u32, 1u16), (0xffff_ffff, 1), (128, 1), (0, 500)] {
        let (fake, _) = disk(ALL, 128);
        fake.on_notify(move |fake, queue| {
            if let Some(chain) = fake.next(queue) {
                // The head that is under way must not be hit by accident.
                let id = if id == 5 {
                    u32::from(chain.head ^ 5)
                } else {
                    id
                };
                fake.with_queue(queue, |q| q.lie(id, q.used.wrapping_add(ahead)));
                fake.interrupt(queue);
            }
        });
        let device = VirtioBlk::new(fake).unwrap();
        let mut sector = [0; SECTOR_SIZE];
        assert_eq!(
            device.read(0, &mut sector),
            Err(IoError::Gone),
            "{id} {ahead}"
        );
        assert_eq!(device.read(0, &mut sector), Err(IoError::Gone));
        let (sender, receiver) = mpsc::channel();
        device.submit(Request {
            op: Operation::Flush,
            sector: 0,
            segments: Vec::new(),
            done: Box::new(move |outcome| sender.send(outcome).unwrap()),
        });
        assert_eq!(
            receiver.recv_timeout(Duration::from_secs(5)).unwrap(),
            Err(IoError::Gone)
        );
    }
}

#[test]
fn configurations_that_make_no_sense() {
    for (at, bytes) in [
        (20usize, &[1u8, 2, 0, 0][..]),
        (20, &[0, 1, 0, 0]),
        (0, &[0xff; 8]),
    ] {
        let (fake, _) = disk(ALL, 128);
        fake.config.lock().unwrap()[at..at + bytes.len()].copy_from_slice(bytes);
        assert_eq!(VirtioBlk::new(fake).err(), Some(SetupError::BadConfig));
    }
    let (fake, _) = disk(ALL, 128);
    fake.config.lock().unwrap().truncate(30);
    assert_eq!(VirtioBlk::new(fake).err(), Some(SetupError::BadConfig));
    let fake = Fake::new(device_type::BLOCK, ALL, &[], &config());
    assert_eq!(VirtioBlk::new(fake).err(), Some(SetupError::NoQueue(0)));
}
