//! The notes of an ELF core file of x86-64, as Linux writes them (`fs/binfmt_elf.c`, `include/uapi/linux/elfcore.h`).
use alloc::vec::Vec;

use machine::task::UserState;

const NT_PRSTATUS: u32 = 1;
const NT_FPREGSET: u32 = 2;
const NT_PRPSINFO: u32 = 3;
const NT_AUXV: u32 = 6;
const NT_FILE: u32 = 0x4649_4c45;
const NT_X86_XSTATE: u32 = 0x202;

/// Where in an XSAVE area debuggers look for the XCR0 mask (`xstate_bv` of the bytes that software may use).
const XCR0_AT: usize = 464;
/// Bytes of the legacy part of an XSAVE area.
const FXSAVE_LEN: usize = 512;

/// What the notes of one thread say.
pub(super) struct ThreadNote<'a> {
    pub tid: i32,
    pub state: &'a UserState,
    /// The number of the system call it is in.
    pub syscall: Option<u64>,
    /// The signal that it died of, or 0.
    pub signal: i32,
    /// Blocked and pending signals.
    pub held: u64,
    pub pending: u64,
    /// Time in the program and in the kernel.
    pub times_ns: (u64, u64),
}

/// What the notes say of the process.
pub(super) struct ProcessNote<'a> {
    pub pid: i32,
    pub parent: i32,
    pub name: &'a [u8],
    pub arguments: &'a [Vec<u8>],
    pub auxv: &'a [u8],
}

/// A mapped file: its first and last address, the page of the file at the first, its name.
pub(super) struct FileNote {
    pub start: usize,
    pub end: usize,
    pub page: u64,
    pub name: Vec<u8>,
}

/// Appends a note, its parts padded to four bytes.
fn note(out: &mut Vec<u8>, owner: &str, kind: u32, content: &[u8]) {
    out.extend_from_slice(&(owner.len() as u32 + 1).to_le_bytes());
    out.extend_from_slice(&(content.len() as u32).to_le_bytes());
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(owner.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(content);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    while !out.len().is_multiple_of(4) {
        out.push(0);
    }
}

fn words(out: &mut Vec<u8>, words: &[u64]) {
    for word in words {
        out.extend_from_slice(&word.to_le_bytes());
    }
}

/// `struct elf_prstatus`.
fn prstatus(thread: &ThreadNote<'_>, process: &ProcessNote<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(336);
    // si_signo, si_code, si_errno; pr_cursig and its padding.
    for number in [thread.signal, 0, 0, thread.signal] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    words(&mut out, &[thread.pending, thread.held]);
    for id in [thread.tid, process.parent, process.pid, process.pid] {
        out.extend_from_slice(&id.to_le_bytes());
    }
    for ns in [thread.times_ns.0, thread.times_ns.1, 0, 0] {
        words(&mut out, &[ns / 1_000_000_000, ns % 1_000_000_000 / 1000]);
    }
    let r = &thread.state.regs;
    // While a call goes on, Linux has -ENOSYS in rax.
    let (rax, orig_rax) = match thread.syscall {
        Some(number) => (-38i64 as u64, number),
        None => (r.rax, u64::MAX),
    };
    let (fs, gs) = (thread.state.fs_base as u64, thread.state.gs_base as u64);
    words(
        &mut out,
        &[
            r.r15,
            r.r14,
            r.r13,
            r.r12,
            r.rbp,
            r.rbx,
            r.r11,
            r.r10,
            r.r9,
            r.r8,
            rax,
            r.rcx,
            r.rdx,
            r.rsi,
            r.rdi,
            orig_rax,
            r.rip,
            0x33,
            thread.state.rflags,
            r.rsp,
            0x2b,
            fs,
            gs,
            0,
            0,
            0,
            0,
        ],
    );
    words(&mut out, &[1]);
    out
}

/// `struct elf_prpsinfo`.
fn prpsinfo(process: &ProcessNote<'_>) -> Vec<u8> {
    let mut out = alloc::vec![0, b'R', 0, 0, 0, 0, 0, 0];
    words(&mut out, &[0]);
    out.extend_from_slice(&[0; 8]);
    for id in [process.pid, process.parent, process.pid, process.pid] {
        out.extend_from_slice(&id.to_le_bytes());
    }
    let mut field = |bytes: &[u8], len: usize| {
        let kept = &bytes[..bytes.len().min(len - 1)];
        out.extend_from_slice(kept);
        out.resize(out.len() + len - kept.len(), 0);
    };
    field(process.name, 16);
    field(&process.arguments.join(&b' '), 80);
    out
}

fn file_table(files: &[FileNote]) -> Vec<u8> {
    let mut out = Vec::new();
    words(&mut out, &[files.len() as u64, 4096]);
    for file in files {
        words(&mut out, &[file.start as u64, file.end as u64, file.page]);
    }
    for file in files {
        out.extend_from_slice(&file.name);
        out.push(0);
    }
    out
}

/// All notes: the first thread's with those of the process, then the others'.
pub(super) fn all(
    process: &ProcessNote<'_>,
    threads: &[ThreadNote<'_>],
    files: &[FileNote],
    features: u64,
) -> Vec<u8> {
    let mut out = Vec::new();
    for (n, thread) in threads.iter().enumerate() {
        note(&mut out, "CORE", NT_PRSTATUS, &prstatus(thread, process));
        if n == 0 {
            note(&mut out, "CORE", NT_PRPSINFO, &prpsinfo(process));
            note(&mut out, "CORE", NT_AUXV, process.auxv);
            note(&mut out, "CORE", NT_FILE, &file_table(files));
        }
        let fp = &thread.state.fp;
        if let Some(legacy) = fp.get(..FXSAVE_LEN) {
            note(&mut out, "CORE", NT_FPREGSET, legacy);
        }
        if fp.len() > FXSAVE_LEN + 64 {
            let mut whole = fp.clone();
            whole[XCR0_AT..XCR0_AT + 8].copy_from_slice(&features.to_le_bytes());
            note(&mut out, "LINUX", NT_X86_XSTATE, &whole);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_have_linuxs_sizes() {
        let state = UserState {
            regs: Default::default(),
            rflags: 0x202,
            fs_base: 0,
            gs_base: 0,
            fp: vec![0; 832],
        };
        let thread = ThreadNote {
            tid: 2,
            state: &state,
            syscall: Some(1),
            signal: 0,
            held: 0,
            pending: 0,
            times_ns: (1_500_000_000, 0),
        };
        let process = ProcessNote {
            pid: 2,
            parent: 1,
            name: b"a-name-that-is-far-too-long",
            arguments: &[b"/prog".to_vec(), b"x".to_vec()],
            auxv: &[0; 16],
        };
        let status = prstatus(&thread, &process);
        assert_eq!(status.len(), 336);
        assert_eq!(&status[32..36], 2i32.to_le_bytes());
        assert_eq!(
            &status[48..64],
            [1, 0, 0, 0, 0, 0, 0, 0, 0x20, 0xa1, 7, 0, 0, 0, 0, 0]
        );
        // orig_rax is the sixteenth register.
        assert_eq!(&status[112 + 15 * 8..112 + 16 * 8], 1u64.to_le_bytes());
        let info = prpsinfo(&process);
        assert_eq!(info.len(), 136);
        assert_eq!(&info[40..56], b"a-name-that-is-\0");
        assert_eq!(&info[56..64], b"/prog x\0");
        let notes = all(&process, &[thread], &[], 7);
        assert!(notes.len().is_multiple_of(4));
        assert_eq!(
            &notes[..20],
            b"\x05\0\0\0\x50\x01\0\0\x01\0\0\0CORE\0\0\0\0"
        );
    }

    #[test]
    fn mapped_files_are_listed() {
        let table = file_table(&[FileNote {
            start: 0x1000,
            end: 0x3000,
            page: 2,
            name: b"/lib/x".to_vec(),
        }]);
        let word = |n: usize| u64::from_le_bytes(table[n * 8..n * 8 + 8].try_into().unwrap());
        let words: Vec<u64> = (0..5).map(word).collect();
        assert_eq!(words, [1, 4096, 0x1000, 0x3000, 2]);
        assert_eq!(&table[40..], b"/lib/x\0");
    }
}
