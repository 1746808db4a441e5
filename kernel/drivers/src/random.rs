//! The kernel's random numbers: one generator for keys, addresses, `getrandom(2)` and `/dev/urandom`.
//!
//! ChaCha20 with fast key erasure: of each 256 bytes that are generated, the first are the next key, and what is given
//! out is wiped, so that it cannot be computed from what is in memory afterwards. The first key comes from the processor
//! and the clock; devices add to it.

use machine::sync::SpinLock;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

const KEY_LEN: usize = 32;
/// What is given out of one go: with the key, the 256 bytes that the cipher makes at a time.
const POOL_LEN: usize = 256 - KEY_LEN;

/// The generator.
struct Generator {
    /// The key of the next go.
    key: [u8; KEY_LEN],
    /// Bytes to be given out.
    pool: [u8; POOL_LEN],
    /// How many at the end of the pool are unused; the others are wiped.
    left: usize,
}

static GENERATOR: SpinLock<Option<Generator>> = SpinLock::new(None);

impl Generator {
    fn new() -> Generator {
        Generator {
            key: first_key(),
            pool: [0; POOL_LEN],
            left: 0,
        }
    }

    fn refill(&mut self) {
        let mut cipher = ChaCha20Rng::from_seed(self.key);
        cipher.fill_bytes(&mut self.key);
        cipher.fill_bytes(&mut self.pool);
        self.left = POOL_LEN;
    }

    fn take(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            if self.left == 0 {
                self.refill();
            }
            let count = bytes.len().min(self.left);
            let (now, rest) = bytes.split_at_mut(count);
            let source = &mut self.pool[POOL_LEN - self.left..][..count];
            now.copy_from_slice(source);
            source.fill(0);
            self.left -= count;
            bytes = rest;
        }
    }

    fn mix(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(KEY_LEN) {
            self.key
                .iter_mut()
                .zip(part)
                .for_each(|(key, byte)| *key ^= byte);
            let mut cipher = ChaCha20Rng::from_seed(self.key);
            cipher.fill_bytes(&mut self.key);
        }
        // What was generated before owes nothing to `bytes`.
        self.pool.fill(0);
        self.left = 0;
    }
}

fn with<T>(work: impl FnOnce(&mut Generator) -> T) -> T {
    let mut generator = GENERATOR.lock();
    work(generator.get_or_insert_with(Generator::new))
}

/// Fills `bytes` with random ones. Never blocks.
pub fn fill(bytes: &mut [u8]) {
    if bytes.len() <= POOL_LEN {
        return with(|generator| generator.take(bytes));
    }
    // Many bytes come from a generator of their own, outside the lock.
    let mut seed = [0; KEY_LEN];
    with(|generator| generator.take(&mut seed));
    ChaCha20Rng::from_seed(seed).fill_bytes(bytes);
}

/// A random number.
pub fn word() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Mixes `bytes` in, from a device or the program. What an adversary adds does no harm.
pub fn add(bytes: &[u8]) {
    with(|generator| generator.mix(bytes));
}

fn first_key() -> [u8; KEY_LEN] {
    let mut key = [0; KEY_LEN];
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
    use super::{Generator, POOL_LEN, add, fill, word};

    #[test]
    fn what_was_given_out_is_wiped() {
        let mut generator = Generator::new();
        let mut seen = Vec::new();
        for len in [1, 8, 100, 224, 225, 1000, 3] {
            let mut bytes = vec![0; len];
            generator.take(&mut bytes);
            let used = POOL_LEN - generator.left;
            assert!(used > 0 && generator.pool[..used].iter().all(|&b| b == 0));
            seen.extend(bytes);
        }
        // No eight bytes occur twice.
        let mut words: Vec<&[u8]> = seen.windows(8).collect();
        words.sort_unstable();
        assert!(words.windows(2).all(|pair| pair[0] != pair[1]));
        let key = generator.key;
        generator.mix(b"noise");
        assert!(generator.left == 0 && generator.key != key);
    }

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
