//! An opened file of generated text. The text is made once, at the first read, so that a program that reads in
//! pieces sees one state; going back to the start makes it anew, as with Linux's `seq_file`.

use alloc::vec::Vec;
use core::any::Any;

use errno::{Errno, Result};
use iobuf::{Sink, Source};
use sched::Mutex;

use super::{Read, Write};
use crate::{File, Metadata, OpenFlags};

/// The most that one write may bring: a page, as in Linux.
const WRITE_MAX: usize = 4096;

pub(super) struct TextFile {
    metadata: Metadata,
    read: Read,
    write: Option<Write>,
    text: Mutex<Option<Vec<u8>>>,
}

impl TextFile {
    pub fn new(metadata: Metadata, read: Read, write: Option<Write>) -> TextFile {
        TextFile {
            metadata,
            read,
            write,
            text: Mutex::new(None),
        }
    }
}

impl File for TextFile {
    fn seekable(&self) -> bool {
        true
    }

    fn read_at(&self, offset: u64, sink: &mut dyn Sink, _: OpenFlags) -> Result<usize> {
        let mut text = self.text.lock();
        if offset == 0 || text.is_none() {
            *text = Some((self.read)()?);
        }
        let text = text.as_deref().unwrap_or_default();
        let from = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(text.len());
        if from == text.len() {
            return Ok(0);
        }
        sink.put(&text[from..])
    }

    fn write_at(&self, offset: u64, source: &mut dyn Source, _: OpenFlags) -> Result<(usize, u64)> {
        let write = self.write.as_ref().ok_or(Errno::EINVAL)?;
        let len = source.remaining().min(WRITE_MAX);
        let mut bytes = alloc::vec![0; len];
        let len = source.take(&mut bytes)?;
        write(&bytes[..len])?;
        *self.text.lock() = None;
        Ok((len, offset + len as u64))
    }

    fn metadata(&self) -> Result<Metadata> {
        Ok(self.metadata)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
