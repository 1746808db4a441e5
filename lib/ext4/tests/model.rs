//! Random operations on a volume and on a model of it, judged by the model, by remounting and by e2fsck.

mod common;

use common::model::{self, Mix, Model};
use common::*;
use ext4::{Ext4, MemDevice, MkfsOptions, mkfs};

fn run_model(
    seed: u64,
    size: usize,
    block_size: u32,
    journal_blocks: u32,
    steps: u32,
    mix: Mix,
) -> u32 {
    let device = MemDevice::from_vec(vec![model::POISON; size]);
    let made = MkfsOptions {
        block_size,
        journal_blocks,
        zeroed: false,
        ..options(size as u64)
    };
    mkfs(&device, &made).expect("mkfs");
    let mut fs = Ext4::mount(device, rw()).expect("mount");
    let mut model = Model::new();
    let mut rng = Rng(seed);
    for step in 0..steps {
        model.step(&mut rng, &mut fs, &mix);
        match rng.below(200) {
            0 => fs.sync().expect("sync"),
            1 => fs.write_back().expect("write_back"),
            2 => {
                model.release_open(&mut fs);
                fs.unmount().expect("unmount");
                if step % 3 == 0 {
                    fsck_bytes(&dump(fs.device()));
                }
                let bytes = dump(fs.device());
                fs = Ext4::mount(MemDevice::from_vec(bytes), rw()).expect("remount");
            }
            _ => {}
        }
    }
    model.check(&mut fs);
    model.release_open(&mut fs);
    fs.unmount().expect("unmount");
    fsck_bytes(&dump(fs.device()));
    let mut fs = Ext4::mount(
        MemDevice::from_vec(dump(fs.device())),
        ext4::MountOptions::read_only(),
    )
    .expect("remount");
    model.check(&mut fs);
    model.no_space
}

#[test]
fn roomy_volume() {
    for seed in 0..4 {
        run_model(
            seed,
            48 << 20,
            4096,
            1024,
            3000,
            Mix {
                max_write: 60_000,
                rename_dirs: true,
                max_items: 600,
            },
        );
    }
}

#[test]
fn tight_volume_runs_full() {
    let mut full = 0;
    for seed in 10..14 {
        full += run_model(
            seed,
            8 << 20,
            4096,
            1024,
            2500,
            Mix {
                max_write: 300_000,
                rename_dirs: true,
                max_items: 150,
            },
        );
    }
    assert!(full > 20, "the volume was never full");
}

#[test]
fn small_blocks() {
    for seed in 20..23 {
        run_model(
            seed,
            24 << 20,
            1024,
            1024,
            2000,
            Mix {
                max_write: 40_000,
                rename_dirs: true,
                max_items: 400,
            },
        );
    }
    run_model(
        24,
        24 << 20,
        2048,
        1024,
        2000,
        Mix {
            max_write: 40_000,
            rename_dirs: true,
            max_items: 400,
        },
    );
}

#[test]
fn without_a_journal() {
    run_model(
        30,
        24 << 20,
        4096,
        0,
        3000,
        Mix {
            max_write: 60_000,
            rename_dirs: true,
            max_items: 400,
        },
    );
}
