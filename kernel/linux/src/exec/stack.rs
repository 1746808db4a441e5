//! The program's first stack: strings, auxiliary vector, environment, arguments (x86-64 psABI 3.4.1).
use alloc::vec::Vec;

use errno::{Errno, Result};

/// Types of entries of the auxiliary vector (`getauxval(3)`).
#[expect(missing_docs, reason = "these are the manual's own names")]
pub mod at {
    pub const NULL: u64 = 0;
    pub const PHDR: u64 = 3;
    pub const PHENT: u64 = 4;
    pub const PHNUM: u64 = 5;
    pub const PAGESZ: u64 = 6;
    pub const BASE: u64 = 7;
    pub const FLAGS: u64 = 8;
    pub const ENTRY: u64 = 9;
    pub const UID: u64 = 11;
    pub const EUID: u64 = 12;
    pub const GID: u64 = 13;
    pub const EGID: u64 = 14;
    pub const PLATFORM: u64 = 15;
    pub const HWCAP: u64 = 16;
    pub const CLKTCK: u64 = 17;
    pub const SECURE: u64 = 23;
    pub const RANDOM: u64 = 25;
    pub const HWCAP2: u64 = 26;
    pub const RSEQ_FEATURE_SIZE: u64 = 27;
    pub const RSEQ_ALIGN: u64 = 28;
    pub const EXECFN: u64 = 31;
    pub const SYSINFO_EHDR: u64 = 33;
    pub const MINSIGSTKSZ: u64 = 51;
}

/// The most bytes that arguments and environment may take together (a quarter of the default stack).
pub const ARG_MAX: usize = 2 << 20;

/// What goes on the stack.
pub struct Contents<'a> {
    /// `argv`.
    pub arguments: &'a [Vec<u8>],
    /// `envp`.
    pub environment: &'a [Vec<u8>],
    /// The path of the program, for `AT_EXECFN`.
    pub file_name: &'a [u8],
    /// Sixteen random bytes, for `AT_RANDOM`.
    pub random: [u8; 16],
    /// The other entries of the auxiliary vector, without those that point into the stack.
    pub auxv: &'a [(u64, u64)],
}

/// A stack ready to be copied to the program.
#[derive(Debug)]
pub struct Built {
    /// Where it starts: the first stack pointer, a multiple of 16.
    pub sp: usize,
    /// The bytes from there up to the top.
    pub bytes: Vec<u8>,
    /// The auxiliary vector's bytes.
    pub auxv: Vec<u8>,
    /// The strings of the arguments, from the first byte to behind the last.
    pub args: (usize, usize),
    /// The strings of the environment.
    pub env: (usize, usize),
}

/// Lays the stack out so that it ends at `top`.
///
/// # Errors
/// `E2BIG` for too many or too long strings.
pub fn build(top: usize, contents: &Contents<'_>) -> Result<Built> {
    let strings = || contents.arguments.iter().chain(contents.environment);
    let text: usize =
        strings().map(|string| string.len() + 1).sum::<usize>() + contents.file_name.len() + 1;
    let pointers = (strings().count() + 3) * 8;
    if text + pointers > ARG_MAX || strings().any(|string| string.contains(&0)) {
        return Err(Errno::E2BIG);
    }
    // From the top down, as Linux: eight zero bytes, the file name, environment, arguments, platform, random bytes.
    let mut high = Vec::new();
    high.try_reserve(text + 128).map_err(|_| Errno::ENOMEM)?;
    let low = top - 8 - text;
    let mut argv = Vec::new();
    let mut envp = Vec::new();
    let place = |high: &mut Vec<u8>, string: &[u8]| {
        let at = low + high.len();
        high.extend_from_slice(string);
        high.push(0);
        at as u64
    };
    for string in contents.arguments {
        argv.push(place(&mut high, string));
    }
    let args_end = low + high.len();
    for string in contents.environment {
        envp.push(place(&mut high, string));
    }
    let env_end = low + high.len();
    let file_name = place(&mut high, contents.file_name);
    high.resize(text + 8, 0);

    const PLATFORM: &[u8] = b"x86_64\0";
    let platform = low - PLATFORM.len();
    let random = (platform - 16) / 16 * 16;
    let mut auxv = Vec::new();
    let own = [
        (at::RANDOM, random as u64),
        (at::EXECFN, file_name),
        (at::PLATFORM, platform as u64),
        (at::NULL, 0),
    ];
    for (kind, value) in contents.auxv.iter().copied().chain(own) {
        auxv.extend_from_slice(&kind.to_le_bytes());
        auxv.extend_from_slice(&value.to_le_bytes());
    }
    let words = 1 + argv.len() + 1 + envp.len() + 1;
    let sp = (random - auxv.len() - words * 8) / 16 * 16;

    let mut bytes = Vec::new();
    bytes.try_reserve(top - sp).map_err(|_| Errno::ENOMEM)?;
    let mut push = |value: u64| bytes.extend_from_slice(&value.to_le_bytes());
    push(argv.len() as u64);
    argv.into_iter().for_each(&mut push);
    push(0);
    envp.into_iter().for_each(&mut push);
    push(0);
    bytes.extend_from_slice(&auxv);
    bytes.resize(random - sp, 0);
    bytes.extend_from_slice(&contents.random);
    bytes.resize(platform - sp, 0);
    bytes.extend_from_slice(PLATFORM);
    bytes.extend_from_slice(&high);
    Ok(Built {
        sp,
        bytes,
        auxv,
        args: (low, args_end),
        env: (args_end, env_end),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(built: &Built, n: usize) -> u64 {
        u64::from_le_bytes(built.bytes[n * 8..n * 8 + 8].try_into().unwrap())
    }

    fn text(built: &Built, at: u64) -> &[u8] {
        let rest = &built.bytes[at as usize - built.sp..];
        &rest[..rest.iter().position(|byte| *byte == 0).unwrap()]
    }

    #[test]
    fn a_start_up_routine_finds_everything() {
        for extra in 0..40 {
            let arguments = vec![b"/bin/x".to_vec(), vec![b'a'; extra], Vec::new()];
            let environment = vec![b"A=1".to_vec(), b"B=2".to_vec()];
            let top = 0x7fff_0000_0000;
            let built = build(
                top,
                &Contents {
                    arguments: &arguments,
                    environment: &environment,
                    file_name: b"/bin/x",
                    random: *b"0123456789abcdef",
                    auxv: &[(at::PAGESZ, 4096), (at::UID, 0)],
                },
            )
            .unwrap();
            assert_eq!(built.sp % 16, 0);
            assert_eq!(built.sp + built.bytes.len(), top);
            assert_eq!(word(&built, 0), 3);
            assert_eq!(text(&built, word(&built, 1)), b"/bin/x");
            assert_eq!(text(&built, word(&built, 2)).len(), extra);
            assert_eq!(text(&built, word(&built, 3)), b"");
            assert_eq!(word(&built, 4), 0);
            assert_eq!(text(&built, word(&built, 5)), b"A=1");
            assert_eq!(text(&built, word(&built, 6)), b"B=2");
            assert_eq!(word(&built, 7), 0);
            let mut found = std::collections::BTreeMap::new();
            let mut n = 8;
            while word(&built, n) != at::NULL {
                found.insert(word(&built, n), word(&built, n + 1));
                n += 2;
            }
            assert_eq!(found[&at::PAGESZ], 4096);
            assert_eq!(text(&built, found[&at::EXECFN]), b"/bin/x");
            assert_eq!(text(&built, found[&at::PLATFORM]), b"x86_64");
            let random = found[&at::RANDOM] as usize - built.sp;
            assert_eq!(&built.bytes[random..random + 16], b"0123456789abcdef");
            assert_eq!(built.args.0 as u64, word(&built, 1));
            assert_eq!(built.env.0 as u64, word(&built, 5));
            assert_eq!(built.env.1, built.env.0 + 8);
        }
    }

    #[test]
    fn too_much_is_refused() {
        let arguments = vec![vec![b'a'; ARG_MAX]];
        let contents = Contents {
            arguments: &arguments,
            environment: &[],
            file_name: b"x",
            random: [0; 16],
            auxv: &[],
        };
        assert_eq!(
            build(0x7fff_0000_0000, &contents).unwrap_err(),
            Errno::E2BIG
        );
    }
}
