//! Where the kernel's messages go: the console, each with the time since boot, and the log that `linux::klog` keeps.

use alloc::format;
use linux::klog;
use log::{Level, LevelFilter, Log, Metadata, Record};
use manifest::LogLevel;

struct Console;

impl Log for Console {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        klog::is_wanted(metadata.level(), metadata.target())
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let ms = machine::time::now_ns() / 1_000_000;
        let level = match record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            Level::Info | Level::Debug | Level::Trace => "",
        };
        let message = format!("{}", record.args());
        let line = format!("[{:5}.{:03}] {level}{message}\r\n", ms / 1000, ms % 1000,);
        machine::console::write(line.as_bytes());
        klog::add(record.level(), record.target(), message);
    }

    fn flush(&self) {}
}

static CONSOLE: Console = Console;

/// Begins with warnings and errors.
pub fn start() {
    // It is set once, here, so it cannot be taken already.
    let _ = log::set_logger(&CONSOLE);
    klog::set_level(LevelFilter::Warn);
}

/// Goes on at the manifest's level.
pub fn set_level(level: LogLevel) {
    klog::set_level(match level {
        LogLevel::Error => LevelFilter::Error,
        LogLevel::Warn => LevelFilter::Warn,
        LogLevel::Info => LevelFilter::Info,
        LogLevel::Debug => LevelFilter::Debug,
        LogLevel::Trace => LevelFilter::Trace,
    });
}
