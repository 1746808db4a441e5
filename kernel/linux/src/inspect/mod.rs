//! Looking into the running program from outside, without ending it: backtraces, memory map, core file, profile.
//!
//! For threads of the kernel that serve an operator. The trace of system calls is [`crate::trace`]'s.
pub mod core_file;
pub mod maps;
pub mod pause;
pub mod profile;
pub mod stacks;
pub mod symbols;

mod cpp;
mod notes;
mod pprof;
mod unwind;

use alloc::sync::Arc;

use errno::{Errno, Result};

use crate::exec::elf::ReadAt;
use crate::mm::pager::Pager;

/// A mapped object as a file that can be read.
pub struct MappedFile(pub Arc<dyn Pager>);

impl ReadAt for MappedFile {
    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < into.len() {
            let at = offset.checked_add(done as u64).ok_or(Errno::ENOEXEC)?;
            let within = (at % 4096) as usize;
            let len = (4096 - within).min(into.len() - done);
            self.0
                .page(at / 4096)?
                .read(within, &mut into[done..done + len]);
            done += len;
        }
        Ok(())
    }

    fn size(&self) -> u64 {
        u64::MAX
    }
}
