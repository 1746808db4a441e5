//! Configuration spaces in memory: a small machine, and hostile ones.

use std::collections::BTreeMap;

use machine::sync::SpinLock;

use super::{access::read8, *};
use crate::fuzz::Random;

#[derive(Default)]
struct Fake {
    words: SpinLock<BTreeMap<(Address, u16), u32>>,
}

fn at(bus: u8, device: u8, function: u8) -> Address {
    Address {
        bus,
        device,
        function,
    }
}

impl Fake {
    fn put(&self, address: Address, words: &[(u16, u32)]) {
        self.words.lock().extend(
            words
                .iter()
                .map(|&(offset, word)| ((address, offset), word)),
        );
    }
}

impl ConfigSpace for Fake {
    fn read32(&self, address: Address, at: u16) -> u32 {
        let words = self.words.lock();
        let present = words.contains_key(&(address, 0));
        let missing = if present { 0 } else { u32::MAX };
        words.get(&(address, at)).copied().unwrap_or(missing)
    }

    fn write32(&self, address: Address, at: u16, value: u32) {
        self.words.lock().insert((address, at), value);
    }
}

fn machine() -> Fake {
    let fake = Fake::default();
    fake.put(at(0, 0, 0), &[(0, 0x29c0_8086), (8, 0x0600_0000)]);
    fake.put(
        at(0, 2, 0),
        &[
            (0, 0x000c_1b36),
            (8, 0x0604_0000),
            (0xc, 0x0081_0000),
            (0x18, 0x0003_0100),
        ],
    );
    fake.put(
        at(0, 2, 3),
        &[(0, 0x1234_1b36), (8, 0x0200_0000), (0xc, 0x0080_0000)],
    );
    fake.put(
        at(1, 0, 0),
        &[
            (0, 0x1041_1af4),
            (4, 0x0010_0000),
            (8, 0x0200_0000),
            (0x10, 0xc001),
            (0x14, 0xfebd_1000),
            (0x20, 0xfe00_000c),
            (0x24, 0x10),
            (0x34, 0x98),
            (0x3c, 0x010b),
            (0x98, 0x0003_8411),
            (0x9c, 0x0000_0001),
            (0x84, 0x0110_0009),
        ],
    );
    fake
}

#[test]
fn functions_behind_bridges_are_found() {
    let config = machine();
    let found = enumerate(&config);
    let addresses: Vec<String> = found.iter().map(|f| f.address.to_string()).collect();
    assert_eq!(addresses, ["00:00.0", "00:02.0", "00:02.3", "01:00.0"]);
    let nic = found[3];
    assert_eq!(
        (nic.vendor, nic.device, nic.class),
        (0x1af4, 0x1041, 0x0200)
    );
    assert_eq!(nic.memory_bar(&config, 0), None);
    assert_eq!(nic.memory_bar(&config, 1).unwrap().address, 0xfebd_1000);
    assert_eq!(nic.memory_bar(&config, 4).unwrap().address, 0x10_fe00_0000);
    assert_eq!(nic.memory_bar(&config, 6), None);
    let caps = nic.capabilities(&config);
    assert_eq!(caps.iter().map(|c| c.id).collect::<Vec<_>>(), [0x11, 0x09]);
    let table = msix::Location::parse(&config, &nic, caps[0]).unwrap();
    assert_eq!((table.entries, table.bar, table.offset), (4, 1, 0));
    assert_eq!(read8(&config, nic.address, 0x3d), 1);
    assert_eq!(intx_gsi(&config, &nic), Some(11));
    nic.enable(&config, false);
    assert_eq!(config.read32(nic.address, 4) & 0x406, 0x406);
}

#[test]
fn q35_pins_turn_with_the_slot() {
    let config = machine();
    config.put(at(0, 3, 0), &[(0, 0x1042_1af4), (0x3c, 0x010a)]);
    let function = enumerate(&config)
        .into_iter()
        .find(|f| f.address == at(0, 3, 0))
        .unwrap();
    assert_eq!(intx_gsi(&config, &function), Some(23));
}

#[test]
fn circles_of_bridges_and_capabilities_end() {
    let config = machine();
    // A bridge on bus 1 that claims to lead to itself, and one that leads back to bus 0.
    for (device, numbers) in [(4, 0x0001_0101), (5, 0x0001_0001), (6, 0x00ff_0201)] {
        config.put(
            at(1, device, 0),
            &[
                (0, 0x000c_1b36),
                (8, 0x0604_0000),
                (0xc, 0x0001_0000),
                (0x18, numbers),
            ],
        );
    }
    config.put(at(1, 0, 0), &[(0x84, 0x0110_9809)]);
    let found = enumerate(&config);
    assert_eq!(found.len(), 7);
    assert_eq!(found[3].capabilities(&config).len(), 48);
}

#[test]
fn hostile_configuration_space_does_not_panic() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let config = machine();
        {
            let mut words = config.words.lock();
            for _ in 0..random.below(20) {
                let bus = random.below(4) as u8;
                let address = at(bus, random.below(32) as u8, random.below(8) as u8);
                words.insert((address, 0), 0x1041_1af4);
                words.insert((address, 4 * random.below(40) as u16), random.next() as u32);
            }
        }
        for function in enumerate(&config) {
            for index in 0..8 {
                function.memory_bar(&config, index);
            }
            for capability in function.capabilities(&config) {
                msix::Location::parse(&config, &function, capability);
                crate::virtio::pci::parse_capability(&config, &function, capability);
            }
            intx_gsi(&config, &function);
        }
    }
}
