//! What waits for somebody outside: a typed line, the power button.

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicU32, Ordering};

use drivers::Devices;
use machine::{println, sync::IrqLock};
use sched::WaitQueue;

pub fn typed(devices: &Devices) {
    let Some(uart) = &devices.uart else {
        panic!("no serial port");
    };
    let shared = Arc::new((IrqLock::new(Vec::with_capacity(256)), WaitQueue::new()));
    let receiver = shared.clone();
    let started = uart.start_receiving(Arc::new(move |bytes: &[u8]| {
        let mut line = receiver.0.lock();
        if line.len() + bytes.len() <= 256 {
            line.extend_from_slice(bytes);
        }
        drop(line);
        receiver.1.wake_one();
    }));
    assert!(started);
    uart.write(b"type a line: the FIFO is sixteen bytes long, this text is longer\r\n");
    let line = shared.1.wait(|| {
        let line = shared.0.lock();
        let end = line.iter().position(|&b| b == b'\n' || b == b'\r')?;
        Some(line[..end].to_vec())
    });
    println!("typed: {:?}", core::str::from_utf8(&line));
}

pub fn button(devices: &Devices) {
    let Some(power) = &devices.power else {
        panic!("no ACPI");
    };
    let pressed = Arc::new((AtomicU32::new(0), WaitQueue::new()));
    let handler = pressed.clone();
    let watching = power.watch_button(Arc::new(move || {
        handler.0.fetch_add(1, Ordering::AcqRel);
        handler.1.wake_one();
    }));
    match watching {
        Ok(()) => println!("press the button"),
        Err(error) => panic!("{error}"),
    }
    pressed
        .1
        .wait(|| (pressed.0.load(Ordering::Acquire) > 0).then_some(()));
    println!("pressed");
}
