//! `/trace`: the trace of system calls that goes to the machine's console, and what those cost who follow it.
use alloc::string::String;
use alloc::vec::Vec;

use machine::sync::SpinLock;
use store::{Branch, Leaf};

use crate::trace::{self, CallSet, Filter};

/// What is printed while the trace is on, as it was given: names and groups of calls; all when empty.
static FILTER: SpinLock<String> = SpinLock::new(String::new());

fn parse(text: &str) -> Result<CallSet, String> {
    let words: Vec<&str> = text
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .collect();
    match words.is_empty() {
        true => Ok(CallSet::ALL),
        false => CallSet::parse(words),
    }
}

fn is_printed() -> bool {
    !trace::printed().is_empty()
}

fn print(filter: Option<&str>) -> Result<(), String> {
    let filters = match filter {
        Some(text) => Vec::from([Filter {
            calls: parse(text)?,
            ..Filter::default()
        }]),
        None => Vec::new(),
    };
    trace::print_to_console(filters);
    Ok(())
}

/// The trace of system calls.
pub fn branch() -> Branch {
    Branch::new("The trace of system calls; /api/trace follows it.")
        .with(
            "enabled",
            Leaf::bool(is_printed)
                .help("Whether calls are printed on the machine's console.")
                .writable(
                    |_| Ok(()),
                    |value| {
                        let filter = FILTER.lock().clone();
                        print((value.as_bool() == Some(true)).then_some(filter.as_str()))
                    },
                ),
        )
        .with(
            "filter",
            Leaf::text(|| FILTER.lock().clone())
                .help("Which calls are printed: names and groups (read,%network) with commas; all when empty.")
                .writable(
                    |value| parse(value.as_str().unwrap_or_default()).map(|_| ()),
                    |value| {
                        let text = value.as_str().unwrap_or_default();
                        parse(text)?;
                        *FILTER.lock() = text.into();
                        if is_printed() { print(Some(text)) } else { Ok(()) }
                    },
                ),
        )
        .with("subscribers", Leaf::gauge(|| trace::totals().subscribers).unit("clients").help("Who follows the trace now."))
        .with("events", Leaf::count(|| trace::totals().events).unit("events").help("Calls given to those who follow."))
        .with("dropped", Leaf::count(|| trace::totals().dropped).unit("events").help("Calls that slow followers lost."))
}
