//! The 16550 serial port: bytes out through its FIFO, bytes in by interrupt. What the bytes mean (lines, echo,
//! signals) is for the tty above; baud rate and parity mean nothing on a virtual machine and are left alone.

use alloc::{boxed::Box, sync::Arc};

use machine::{
    irq::{self, IrqHandle},
    port::Port8,
    sync::{IrqLock, Once},
};

/// Register offsets from the base port.
mod reg {
    pub(super) const DATA: u16 = 0;
    pub(super) const INTERRUPT_ENABLE: u16 = 1;
    pub(super) const FIFO_CONTROL: u16 = 2;
    pub(super) const MODEM_CONTROL: u16 = 4;
    pub(super) const LINE_STATUS: u16 = 5;
}

const DATA_READY: u8 = 1;
const TRANSMIT_EMPTY: u8 = 0x20;
const ENABLE_RECEIVE: u8 = 1;
/// On, both halves cleared, receive interrupt at the first byte.
const FIFO_ON: u8 = 0x07;
const FIFO_LEN: usize = 16;
/// Ready, request to send, and OUT2, which lets the interrupt through.
const MODEM_READY: u8 = 0x0b;

/// The first serial port of a PC, and its ISA interrupt.
pub const COM1: (u16, u8) = (0x3f8, 4);

/// Told of received bytes, in an interrupt.
pub type Receiver = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// A serial port.
pub struct Uart {
    ports: Ports,
    irq: u8,
    /// How many bytes the transmitter takes at once.
    burst: usize,
    /// Held while the FIFO is fed, so that the output of two CPUs does not mix inside a burst.
    sending: IrqLock<()>,
    receiving: Once<IrqHandle>,
}

#[derive(Clone, Copy)]
struct Ports {
    data: Port8,
    interrupt_enable: Port8,
    fifo_control: Port8,
    modem_control: Port8,
    line_status: Port8,
}

impl Uart {
    /// The port at `base`, if there is one: a line status of all ones is an empty bus.
    pub fn probe((base, irq): (u16, u8)) -> Option<Uart> {
        let port = |offset: u16| Port8::new(base.checked_add(offset)?);
        let ports = Ports {
            data: port(reg::DATA)?,
            interrupt_enable: port(reg::INTERRUPT_ENABLE)?,
            fifo_control: port(reg::FIFO_CONTROL)?,
            modem_control: port(reg::MODEM_CONTROL)?,
            line_status: port(reg::LINE_STATUS)?,
        };
        let status = ports.line_status.read();
        (status != 0xff).then(|| {
            // Turning the FIFO on throws away input that is there from the start (a pipe into the tool): then the port
            // stays as it is and takes byte by byte.
            let fifo = status & DATA_READY == 0;
            if fifo {
                ports.fifo_control.write(FIFO_ON);
            }
            Uart {
                ports,
                irq,
                burst: if fifo { FIFO_LEN } else { 1 },
                sending: IrqLock::new(()),
                receiving: Once::new(),
            }
        })
    }

    /// Sends `bytes`: one look at the status for each FIFO full, since every access costs an exit from the virtual
    /// machine. Gives up on a port whose transmitter never empties.
    pub fn write(&self, bytes: &[u8]) {
        for burst in bytes.chunks(self.burst) {
            let _one_at_a_time = self.sending.lock();
            let mut tries = 0u32;
            while self.ports.line_status.read() & TRANSMIT_EMPTY == 0 {
                tries += 1;
                if tries > 10_000_000 {
                    return;
                }
                core::hint::spin_loop();
            }
            for &byte in burst {
                self.ports.data.write(byte);
            }
        }
    }

    /// Starts to receive: `receiver` gets the bytes, in interrupts. What came before is delivered with the first.
    /// Returns `false` when there is a receiver already or no interrupt.
    pub fn start_receiving(&self, receiver: Receiver) -> bool {
        if self.receiving.get().is_some() {
            return false;
        }
        let ports = self.ports;
        let (gsi, trigger) = irq::isa_to_gsi(self.irq);
        let handler = Box::new(move || {
            let mut bytes = [0; 4 * FIFO_LEN];
            loop {
                let mut len = 0;
                while len < bytes.len() && ports.line_status.read() & DATA_READY != 0 {
                    bytes[len] = ports.data.read();
                    len += 1;
                }
                if len > 0 {
                    receiver(&bytes[..len]);
                }
                if len < bytes.len() {
                    break;
                }
            }
        });
        match irq::register_gsi(gsi, trigger, handler) {
            Ok(handle) => {
                if self.receiving.set(handle).is_err() {
                    return false;
                }
                self.ports.modem_control.write(MODEM_READY);
                self.ports.interrupt_enable.write(ENABLE_RECEIVE);
                true
            }
            Err(error) => {
                log::warn!("serial port: {error}");
                false
            }
        }
    }
}
