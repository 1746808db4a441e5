//! x86 I/O ports. Ports that could subvert the machine (the legacy DMA controllers, the interrupt controllers this
//! crate owns) are refused.

use crate::arch;

/// Whether a port may be handed out. Legacy DMA (00–0F, 80–8F page registers but for 80, C0–DF) can write memory;
/// the PICs (20, 21, A0, A1) are this crate's.
fn allowed(port: u16, len: u16) -> bool {
    let Some(last) = port.checked_add(len - 1) else {
        return false;
    };
    (port..=last).all(|p| !matches!(p, 0x00..=0x0f | 0x20 | 0x21 | 0x81..=0x8f | 0xa0 | 0xa1 | 0xc0..=0xdf | 0x510..=0x51b))
}

macro_rules! ports {
    ($($name:ident $type:ty, $read:ident $write:ident $doc:literal),*) => {$(
        #[doc = $doc]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(u16);

        impl $name {
            /// The port with number `port`; `None` if this crate keeps it for itself.
            pub fn new(port: u16) -> Option<Self> {
                allowed(port, size_of::<$type>() as u16).then_some(Self(port))
            }

            /// Reads it.
            #[inline]
            pub fn read(self) -> $type {
                // SAFETY: ports that could affect memory are not handed out.
                unsafe { arch::$read(self.0) }
            }

            /// Writes it.
            #[inline]
            pub fn write(self, value: $type) {
                // SAFETY: ports that could affect memory are not handed out.
                unsafe { arch::$write(self.0, value) }
            }
        }
    )*};
}

ports!(
    Port8 u8, in8 out8 "An 8-bit port.",
    Port16 u16, in16 out16 "A 16-bit port.",
    Port32 u32, in32 out32 "A 32-bit port."
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dangerous_ports_are_refused() {
        assert!(Port8::new(0x20).is_none());
        assert!(Port32::new(0xbe).is_none());
        assert!(Port8::new(0xffff).is_some());
        assert!(Port32::new(0xffff).is_none());
        assert!(Port8::new(0x3f8).is_some());
        assert!(Port32::new(0xcf8).is_some());
    }
}
