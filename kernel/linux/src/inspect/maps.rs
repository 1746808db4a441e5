//! The memory map with what of each area is present: as JSON for `/api/maps`.
use alloc::string::String;
use core::fmt::Write;

use store::json::check_length;

use crate::mm::vma::{PAGE, VmFlags, VmProt};
use crate::process::Process;
use crate::trace::json_string;

/// A JSON array of the areas: `start`, `end`, `permissions`, `offset`, `path`, `resident` and `dirty` (bytes).
///
/// # Errors
/// `TooLarge` where they are more than an answer may hold.
pub fn json(process: &Process) -> Result<String, store::Error> {
    let mut out = String::from("[");
    for (n, line) in process.mm.map_lines().iter().enumerate() {
        check_length(&out)?;
        sched::cond_resched();
        let usage = process.mm.usage(line.range.clone());
        let flag = |on: VmProt, letter| if line.prot.contains(on) { letter } else { '-' };
        let shared = line.flags.contains(VmFlags::SHARED);
        let _ = write!(
            out,
            "{}{{\"start\":\"{:#x}\",\"end\":\"{:#x}\",\"permissions\":\"{}{}{}{}\",\"offset\":{},\"path\":",
            if n == 0 { "" } else { "," },
            line.range.start,
            line.range.end,
            flag(VmProt::READ, 'r'),
            flag(VmProt::WRITE, 'w'),
            flag(VmProt::EXEC, 'x'),
            if shared { 's' } else { 'p' },
            line.offset,
        );
        json_string(&mut out, &String::from_utf8_lossy(&line.file.path));
        let _ = write!(
            out,
            ",\"resident\":{},\"dirty\":{}}}",
            usage.resident * PAGE,
            usage.dirty * PAGE
        );
    }
    out.push(']');
    Ok(out)
}
