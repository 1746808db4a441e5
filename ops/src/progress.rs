//! Progress of the long steps, on standard error. Silent when that is no terminal.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar that counts to `total`.
pub fn bar(total: u64, what: &str) -> ProgressBar {
    start(
        ProgressBar::with_draw_target(Some(total), target()),
        "{msg:24} [{wide_bar}] {pos}/{len}",
        what,
    )
}

/// A bar that counts bytes to `total`.
pub fn bytes(total: u64, what: &str) -> ProgressBar {
    start(
        ProgressBar::with_draw_target(Some(total), target()),
        "{msg:24} [{wide_bar}] {decimal_bytes}/{decimal_total_bytes}",
        what,
    )
}

/// A mark that turns while something of unknown length goes on.
pub fn spinner(what: &str) -> ProgressBar {
    let bar = start(
        ProgressBar::with_draw_target(None, target()),
        "{spinner} {msg}",
        what,
    );
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn target() -> ProgressDrawTarget {
    if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    }
}

fn start(bar: ProgressBar, template: &str, what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
    bar.set_style(style);
    bar.set_message(what.to_string());
    bar
}
