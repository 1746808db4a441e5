//! Tables as QEMU makes them, and as nobody should.

use super::{aml::*, *};
use crate::fuzz::Random;

/// Memory from address 0 on.
struct Memory(Vec<u8>);

impl PhysicalMemory for Memory {
    fn read(&self, address: u64, bytes: &mut [u8]) -> bool {
        let range = usize::try_from(address)
            .ok()
            .and_then(|at| Some(at..at.checked_add(bytes.len())?))
            .and_then(|range| self.0.get(range));
        match range {
            Some(source) => {
                bytes.copy_from_slice(source);
                true
            }
            None => false,
        }
    }
}

fn seal(bytes: &mut [u8], at: usize) {
    bytes[at] = 0;
    bytes[at] = bytes.iter().fold(0u8, |sum, b| sum.wrapping_sub(*b));
}

fn table(signature: &[u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut t = vec![0; HEADER_LEN];
    t[..4].copy_from_slice(signature);
    t[4..8].copy_from_slice(&((HEADER_LEN + body.len()) as u32).to_le_bytes());
    t[8] = revision;
    t.extend_from_slice(body);
    seal(&mut t, 9);
    t
}

fn generic(space: u8, address: u64) -> [u8; 12] {
    let mut g = [0; 12];
    g[0] = space;
    g[1] = 8;
    g[4..].copy_from_slice(&address.to_le_bytes());
    g
}

const DSDT_AT: u64 = 0x2000;

/// As on a hardware-reduced machine.
fn reduced_fadt() -> Vec<u8> {
    let mut body = vec![0; 268 - HEADER_LEN];
    let mut put = |at: usize, bytes: &[u8]| {
        body[at - HEADER_LEN..][..bytes.len()].copy_from_slice(bytes);
    };
    put(112, &(1u32 << 20 | 1 << 10).to_le_bytes());
    put(116, &generic(0, 0xfea0_0202));
    put(128, &[0x42]);
    put(140, &DSDT_AT.to_le_bytes());
    put(244, &generic(0, 0xfea0_0200));
    table(b"FACP", 5, &body)
}

/// As on q35.
fn fixed_fadt() -> Vec<u8> {
    let mut body = vec![0; 244 - HEADER_LEN];
    let mut put = |at: usize, bytes: &[u8]| {
        body[at - HEADER_LEN..][..bytes.len()].copy_from_slice(bytes);
    };
    put(40, &(DSDT_AT as u32).to_le_bytes());
    put(46, &9u16.to_le_bytes());
    put(48, &0xb2u32.to_le_bytes());
    put(52, &[2]);
    put(56, &0x600u32.to_le_bytes());
    put(64, &0x604u32.to_le_bytes());
    put(88, &[4, 2]);
    put(112, &(1u32 << 10).to_le_bytes());
    put(116, &generic(1, 0xcf9));
    put(128, &[0xf]);
    put(148, &generic(1, 0x600));
    put(172, &generic(1, 0x604));
    table(b"FACP", 3, &body)
}

fn package(op: &[u8], body: &[u8]) -> Vec<u8> {
    let mut out = op.to_vec();
    // Two bytes of length, which count themselves.
    let length = body.len() + 2;
    out.push(0x40 | (length & 0xf) as u8);
    out.push((length >> 4) as u8);
    out.extend_from_slice(body);
    out
}

fn device(name: &[u8; 4], hid: &[u8; 8], rest: &[u8]) -> Vec<u8> {
    let mut body = name.to_vec();
    body.extend_from_slice(b"\x08_HID\x0d");
    body.extend_from_slice(hid);
    body.push(0);
    body.extend_from_slice(rest);
    package(&[0x5b, 0x82], &body)
}

fn resources(items: &[u8]) -> Vec<u8> {
    let mut data = items.to_vec();
    data.extend_from_slice(&[0x79, 0]);
    let mut body = vec![0x0a, data.len() as u8];
    body.extend_from_slice(&data);
    let mut out = b"\x08_CRS".to_vec();
    out.extend_from_slice(&package(&[0x11], &body));
    out
}

fn interrupt_item(gsi: u32, flags: u8) -> Vec<u8> {
    let mut item = vec![0x89, 6, 0, flags, 1];
    item.extend_from_slice(&gsi.to_le_bytes());
    item
}

fn dsdt() -> Vec<u8> {
    let mut ged = resources(&interrupt_item(9, 3));
    ged.extend_from_slice(b"\x5b\x80EREG\x00\x0c\x00\x00\xa0\xfe\x0a\x04");
    let mut aml = device(b"GED_", b"ACPI0013", &ged);
    for index in [22u32, 23] {
        let mut items = vec![0x86, 9, 0, 1];
        items.extend_from_slice(&(0xfeb0_0000 + index * 512).to_le_bytes());
        items.extend_from_slice(&512u32.to_le_bytes());
        items.extend_from_slice(&interrupt_item(24 + index, 1));
        aml.extend_from_slice(&device(b"VR22", b"LNRO0005", &resources(&items)));
    }
    aml.extend_from_slice(b"\x08_S5_");
    aml.extend_from_slice(&package(&[0x12], &[4, 0x0a, 5, 0, 0, 0]));
    table(b"DSDT", 2, &aml)
}

/// A memory with root pointer at 0x100, directory at 0x200, FADT at 0x1000, DSDT at 0x2000, MCFG at 0x3000.
fn machine(wide: bool, fadt: &[u8], dsdt: &[u8]) -> Memory {
    let mut memory = Memory(vec![0; 0x4000]);
    let mut put = |at: usize, bytes: &[u8]| memory.0[at..at + bytes.len()].copy_from_slice(bytes);
    let mut root = b"RSD PTR \0QEMU  \0".to_vec();
    let mcfg = {
        let mut body = vec![0; 8];
        body.extend_from_slice(&0xb000_0000u64.to_le_bytes());
        body.extend_from_slice(&[0, 0, 0, 255, 0, 0, 0, 0]);
        table(b"MCFG", 1, &body)
    };
    let pointers = [0x1000u64, 0x3000];
    let directory = if wide {
        root[15] = 2;
        root.resize(36, 0);
        root[20] = 36;
        root[24] = 0;
        root[25] = 2;
        let body: Vec<u8> = pointers.iter().flat_map(|p| p.to_le_bytes()).collect();
        table(b"XSDT", 1, &body)
    } else {
        root.resize(20, 0);
        root[17] = 2;
        let body: Vec<u8> = pointers
            .iter()
            .flat_map(|p| (*p as u32).to_le_bytes())
            .collect();
        table(b"RSDT", 1, &body)
    };
    seal(&mut root[..20], 8);
    if wide {
        seal(&mut root, 32);
    }
    put(0x100, &root);
    put(0x200, &directory);
    put(0x1000, fadt);
    put(DSDT_AT as usize, dsdt);
    put(0x3000, &mcfg);
    memory
}

#[test]
fn a_hardware_reduced_machine() {
    let memory = machine(true, &reduced_fadt(), &dsdt());
    let tables = Tables::new(&memory, 0x100).unwrap();
    assert_eq!(
        tables.signatures().collect::<Vec<_>>(),
        [*b"FACP", *b"MCFG"]
    );
    let fadt = tables.fadt().unwrap();
    assert!(fadt.hardware_reduced);
    assert_eq!(fadt.pm1a_event, None);
    let (reset, value) = fadt.reset.unwrap();
    assert_eq!(
        (reset.space, reset.address, value),
        (Space::Memory, 0xfea0_0202, 0x42)
    );
    assert_eq!(fadt.sleep_control.unwrap().address, 0xfea0_0200);
    let dsdt = super::dsdt(&memory, &fadt).unwrap();
    assert_eq!(soft_off(&dsdt), Some((5, 0)));
    assert_eq!(
        event_device(&dsdt),
        Some(EventDevice {
            register: 0xfea0_0000,
            interrupt: Interrupt {
                gsi: 9,
                edge: true,
                active_low: false
            }
        })
    );
    let found = virtio_devices(&dsdt);
    assert_eq!(found.len(), 2);
    assert_eq!(
        found[1],
        VirtioMmio {
            base: 0xfeb0_2e00,
            size: 512,
            interrupt: Interrupt {
                gsi: 47,
                edge: false,
                active_low: false
            }
        }
    );
}

#[test]
fn a_machine_with_fixed_hardware() {
    let memory = machine(false, &fixed_fadt(), &dsdt());
    let tables = Tables::new(&memory, 0x100).unwrap();
    let fadt = tables.fadt().unwrap();
    assert!(!fadt.hardware_reduced);
    assert!(fadt.fixed_power_button);
    assert_eq!(fadt.sci, 9);
    assert_eq!(fadt.enable, Some((0xb2, 2)));
    assert_eq!(
        fadt.pm1a_event,
        Some(GenericAddress {
            space: Space::Port,
            address: 0x600
        })
    );
    assert_eq!(fadt.pm1b_control, None);
    assert_eq!(fadt.dsdt, DSDT_AT);
    let ecam = mcfg::parse(&tables.get(*b"MCFG").unwrap());
    assert_eq!(ecam.len(), 1);
    assert_eq!((ecam[0].base, ecam[0].last_bus), (0xb000_0000, 255));
    assert_eq!(tables.get(*b"HPET"), Err(AcpiError::Missing(*b"HPET")));
}

#[test]
fn damage_is_noticed() {
    let good = machine(true, &reduced_fadt(), &dsdt());
    assert!(Tables::new(&good, 0x180).is_err());
    assert_eq!(
        Tables::new(&good, u64::MAX - 3).err(),
        Some(AcpiError::Unreadable(u64::MAX - 3))
    );
    let mut memory = Memory(good.0.clone());
    memory.0[0x1000 + 60] ^= 1;
    let tables = Tables::new(&memory, 0x100).unwrap();
    assert_eq!(tables.fadt(), Err(AcpiError::Checksum(*b"FACP")));
    memory.0[0x1000 + 7] = 0xff;
    assert_eq!(tables_fadt(&memory), Err(AcpiError::Malformed(*b"FACP")));
    assert!(
        AcpiError::Malformed([0, 1, 2, 3])
            .to_string()
            .contains("????")
    );
}

fn tables_fadt(memory: &Memory) -> Result<Fadt, AcpiError> {
    Tables::new(memory, 0x100)?.fadt()
}

/// Damaged tables, resealed so that the damage gets past the checksums, are errors or nonsense values, never a panic.
#[test]
fn hostile_tables_do_not_panic() {
    for seed in 0..4000 {
        let mut random = Random::new(seed);
        let mut fadt = if seed % 2 == 0 {
            reduced_fadt()
        } else {
            fixed_fadt()
        };
        let mut body = dsdt();
        random.damage(&mut body);
        random.damage(&mut fadt);
        for table in [&mut fadt, &mut body] {
            if table.len() > 9 {
                seal(table, 9);
            }
        }
        let mut memory = machine(seed % 3 == 0, &fadt, &body);
        if seed % 5 == 0 {
            let mut directory = memory.0[0x100..0x240].to_vec();
            random.damage(&mut directory);
            memory.0[0x100..0x100 + directory.len()].copy_from_slice(&directory);
        }
        if let Ok(tables) = Tables::new(&memory, 0x100) {
            if let Ok(fadt) = tables.fadt() {
                let _ = super::dsdt(&memory, &fadt);
            }
            if let Ok(table) = tables.get(*b"MCFG") {
                mcfg::parse(&table);
            }
        }
        let _ = Fadt::parse(&fadt);
        mcfg::parse(&fadt);
        for bytes in [&body, &fadt] {
            soft_off(bytes);
            event_device(bytes);
            virtio_devices(bytes);
        }
    }
}
