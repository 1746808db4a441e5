//! Starting the program: its file, its dynamic linker, its memory and its first stack (`execve(2)`).
//!
//! [`elf`] reads headers, [`mod@load`] maps, [`stack`] lays out arguments and environment.
pub mod elf;
pub mod load;
pub mod stack;

use alloc::sync::Arc;
use alloc::vec::Vec;

use errno::{Errno, Result};
use machine::context::UserContext;
use machine::user;

use self::elf::{Image, PROGRAM_HEADER, ReadAt};
use self::stack::{Contents, at};
use crate::mm::layout::Entropy;
use crate::mm::map::{MapRequest, Placement};
use crate::mm::pager::Pager;
use crate::mm::vma::{Backing, PAGE, VmFlags, VmName, VmProt};
use crate::process::Process;

/// The longest chain of `#!` scripts (`BINPRM_MAX_RECURSION`).
const MAX_SCRIPTS: usize = 5;
/// How much of a script's first line counts (`BINPRM_BUF_SIZE`).
const SCRIPT_LINE: usize = 256;
/// The stack that is mapped at first below the strings; it grows from there.
const FIRST_STACK: usize = 128 << 10;

/// A file that can be run.
#[derive(Clone)]
pub struct ImageFile {
    /// Its pages.
    pub pager: Arc<dyn Pager>,
    /// Its length in bytes.
    pub size: u64,
}

impl ReadAt for ImageFile {
    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        let end = offset
            .checked_add(into.len() as u64)
            .ok_or(Errno::ENOEXEC)?;
        if end > self.size {
            return Err(Errno::ENOEXEC);
        }
        let mut done = 0;
        while done < into.len() {
            let at = offset + done as u64;
            let within = (at % PAGE as u64) as usize;
            let len = (PAGE - within).min(into.len() - done);
            self.pager
                .page(at / PAGE as u64)?
                .read(within, &mut into[done..done + len]);
            done += len;
        }
        Ok(())
    }

    fn size(&self) -> u64 {
        self.size
    }
}

/// What a file's name leads to: the file and its resolved path.
pub type Lookup<'a> = &'a dyn Fn(&[u8]) -> Result<(ImageFile, Vec<u8>)>;

/// What to start.
pub struct Request<'a> {
    /// The path of the program.
    pub path: Vec<u8>,
    /// The arguments; the first is the name the program sees for itself.
    pub arguments: Vec<Vec<u8>>,
    /// The environment, `NAME=value`.
    pub environment: Vec<Vec<u8>>,
    /// Finds files.
    pub lookup: Lookup<'a>,
    /// Random words, or nothing for fixed addresses (`noaslr`).
    pub entropy: Option<&'a mut dyn Entropy>,
    /// Sixteen random bytes for the program.
    pub random: [u8; 16],
}

/// The interpreter and its optional argument, if `head` starts a script (`execve(2)`, "Interpreter scripts").
fn script(head: &[u8]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    let rest = head.strip_prefix(b"#!")?;
    let line = rest.split(|byte| *byte == b'\n').next()?.trim_ascii();
    let split = line
        .iter()
        .position(|byte| matches!(byte, b' ' | b'\t'))
        .unwrap_or(line.len());
    let (name, argument) = line.split_at(split);
    let argument = argument.trim_ascii();
    (!name.is_empty()).then(|| {
        (
            name.to_vec(),
            (!argument.is_empty()).then(|| argument.to_vec()),
        )
    })
}

/// Follows `#!` lines until a binary is found.
fn follow_scripts(request: &mut Request<'_>) -> Result<(ImageFile, Vec<u8>)> {
    for _ in 0..=MAX_SCRIPTS {
        let (file, resolved) = (request.lookup)(&request.path)?;
        let mut head = [0; SCRIPT_LINE];
        let len = (file.size as usize).min(SCRIPT_LINE);
        file.read_exact_at(0, &mut head[..len])?;
        let Some((interpreter, argument)) = script(&head[..len]) else {
            return Ok((file, resolved));
        };
        let mut arguments = alloc::vec![interpreter.clone()];
        arguments.extend(argument);
        arguments.push(core::mem::replace(&mut request.path, interpreter));
        arguments.extend(request.arguments.drain(..).skip(1));
        request.arguments = arguments;
    }
    Err(Errno::ELOOP)
}

/// Loads the program into the empty address space of `process` and answers its first registers.
/// The calling thread must run in that address space.
///
/// # Errors
/// As `execve(2)`; the log says what was wrong.
pub fn load(process: &Process, mut request: Request<'_>) -> Result<(UserContext, Vec<u8>)> {
    let file_name = request.path.clone();
    let (file, resolved) = follow_scripts(&mut request)?;
    let image = Image::parse(&file)?;
    let linker = match &image.interpreter {
        None => None,
        Some(path) => {
            let (file, _) = (request.lookup)(path).inspect_err(|errno| {
                log::error!(
                    "the program's dynamic linker {} cannot be opened: {errno}",
                    path.escape_ascii()
                );
            })?;
            let image = Image::parse(&file)?;
            Some((file, image))
        }
    };
    let mm = &process.mm;
    // The stack first: the mapping area lies below it.
    let stack_top = map_stack(process, &mut request, image.exec_stack)?;
    let mut entropy = request.entropy.take();
    let program = load::program(
        mm,
        &file,
        &image,
        entropy.as_mut().map(|e| &mut **e as &mut dyn Entropy),
    )?;
    let linker = match &linker {
        Some((file, image)) => Some(load::interpreter(mm, file, image)?),
        None => None,
    };
    let brk = load::heap_start(&program, &mut entropy);
    let vdso = load::vdso(mm)?;

    let features = machine::cpu::features();
    let (uid, gid) = {
        let credentials = process.credentials.lock();
        (credentials.uid, credentials.gid)
    };
    let auxv = [
        (at::SYSINFO_EHDR, vdso as u64),
        (at::MINSIGSTKSZ, min_sigstack() as u64),
        (at::HWCAP, features.hwcap),
        (at::PAGESZ, PAGE as u64),
        (at::CLKTCK, 100),
        (at::PHDR, program.headers.0 as u64),
        (at::PHENT, PROGRAM_HEADER as u64),
        (at::PHNUM, program.headers.1 as u64),
        (at::BASE, linker.map_or(0, |linker| linker.bias as u64)),
        (at::FLAGS, 0),
        (at::ENTRY, program.entry as u64),
        (at::UID, u64::from(uid[0])),
        (at::EUID, u64::from(uid[1])),
        (at::GID, u64::from(gid[0])),
        (at::EGID, u64::from(gid[1])),
        (at::SECURE, 0),
        (at::HWCAP2, features.hwcap2),
        (
            at::RSEQ_FEATURE_SIZE,
            crate::syscalls::RSEQ_FEATURE_SIZE as u64,
        ),
        (at::RSEQ_ALIGN, 32),
    ];
    let built = stack::build(
        stack_top,
        &Contents {
            arguments: &request.arguments,
            environment: &request.environment,
            file_name: &file_name,
            random: request.random,
            auxv: &auxv,
        },
    )?;
    user::copy_to_user(built.sp, &built.bytes).map_err(|_| Errno::EFAULT)?;
    {
        let mut layout = mm.layout.lock();
        layout.brk_start = brk;
        layout.brk = brk;
        layout.code = program.code;
        layout.data = program.data;
        layout.stack_start = built.sp;
        layout.args = built.args;
        layout.env = built.env;
        layout.vdso = vdso;
    }
    process.image.call_once(|| crate::process::Image {
        exe: resolved.clone(),
        arguments: request.arguments,
        environment: request.environment,
        auxv: built.auxv,
    });
    let mut registers = UserContext::new();
    registers.regs.rip = linker.map_or(program.entry, |linker| linker.entry) as u64;
    registers.regs.rsp = built.sp as u64;
    Ok((registers, resolved))
}

/// The smallest alternate signal stack that takes a frame (`AT_MINSIGSTKSZ`).
pub fn min_sigstack() -> usize {
    crate::signal::frame::FRAME_SIZE + UserContext::fp_state_size() + 4 + 64 + 16 + 8 + 128
}

/// Maps the stack with room for the strings; answers where the strings end.
fn map_stack(process: &Process, request: &mut Request<'_>, executable: bool) -> Result<usize> {
    let top = process.mm.layout.lock().stack_start;
    let strings = || request.arguments.iter().chain(&request.environment);
    let text: usize =
        strings().map(|string| string.len() + 9).sum::<usize>() + request.path.len() + 4096;
    if text > stack::ARG_MAX {
        return Err(Errno::E2BIG);
    }
    let len = (FIRST_STACK + text).next_multiple_of(PAGE);
    let exec = if executable {
        VmProt::EXEC
    } else {
        VmProt::empty()
    };
    process.mm.map(MapRequest {
        placement: Placement::Fixed(top - len),
        len,
        prot: VmProt::READ | VmProt::WRITE | exec,
        max_prot: VmProt::all(),
        flags: VmFlags::GROWSDOWN | VmFlags::NOHUGE,
        backing: Backing::Anonymous,
        name: VmName::Stack,
        populate: false,
    })?;
    // The last 8 of the stack's random bits, below the page (`arch_align_stack` of Linux).
    let within = request
        .entropy
        .as_mut()
        .map_or(0, |entropy| entropy.word() as usize % 512 * 16);
    Ok(top - within)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_a_script_names_its_interpreter() {
        assert_eq!(script(b"#!/bin/sh\nx"), Some((b"/bin/sh".to_vec(), None)));
        assert_eq!(
            script(b"#! /usr/bin/env  python3 -u \n"),
            Some((b"/usr/bin/env".to_vec(), Some(b"python3 -u".to_vec())))
        );
        assert_eq!(script(b"#!\n"), None);
        assert_eq!(script(b"\x7fELF"), None);
    }
}
