//! The kernel's random numbers: one generator for keys, addresses, `getrandom(2)` and `/dev/urandom`.
//!
//! ChaCha20 with fast key erasure: each request first draws the next key, so that what was given out before cannot be
//! computed from what is in memory now. The first key comes from the processor and the clock; devices add to it.

use machine::sync::SpinLock;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The key of the next request, once there has been one.
static KEY: SpinLock<Option<[u8; 32]>> = SpinLock::new(None);

/// Fills `bytes` with random ones. Never blocks.
pub fn fill(bytes: &mut [u8]) {
    one_off().fill_bytes(bytes);
}

/// A random number.
pub fn word() -> u64 {
    one_off().next_u64()
}

/// Mixes `bytes` in, from a device or the program. What an adversary adds does no harm.
pub fn add(bytes: &[u8]) {
    let mut slot = KEY.lock();
    let mut key = slot.take().unwrap_or_else(first_key);
    for part in bytes.chunks(32) {
        key.iter_mut()
            .zip(part)
            .for_each(|(key, byte)| *key ^= byte);
        ChaCha20Rng::from_seed(key).fill_bytes(&mut key);
    }
    *slot = Some(key);
}

/// A generator for one request, and a new key for the next.
fn one_off() -> ChaCha20Rng {
    let mut slot = KEY.lock();
    let mut generator = ChaCha20Rng::from_seed(slot.take().unwrap_or_else(first_key));
    let mut key = [0; 32];
    generator.fill_bytes(&mut key);
    *slot = Some(key);
    generator
}

fn first_key() -> [u8; 32] {
    let mut key = [0; 32];
    for part in key.chunks_exact_mut(8) {
        let seed = machine::random::rdseed()
            .or_else(machine::random::rdrand)
            .unwrap_or(0);
        let word = seed ^ machine::random::jitter().rotate_left(32) ^ machine::time::now_ns();
        part.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha20Rng::from_seed(key).fill_bytes(&mut key);
    key
}

#[cfg(test)]
mod tests {
    use super::{add, fill, word};

    #[test]
    fn no_two_answers_are_alike() {
        let (mut first, mut second) = ([0; 100], [0; 100]);
        fill(&mut first);
        add(b"more");
        fill(&mut second);
        assert!(first != second && word() != word());
        assert!(first.iter().any(|byte| *byte != 0));
    }
}
