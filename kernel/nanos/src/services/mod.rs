//! What the console shows beyond the store: fits its [`Services`] with the engines of `linux` and `net`.

mod streams;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;

use console::{Error, PowerAction, Query, Services, Stream};
use errno::Errno;
use linux::inspect::{core_file, maps, profile, stacks};
use linux::process::{self, Process};
use linux::trace;
use net::capture::live::Options;
use net::capture::{Capture, CaptureError};
use store::By;

use streams::{CaptureStream, CoreStream, Format, LogStream, ProfileStream, TraceStream};

/// A day: the longest trace or capture that names its length.
const MAX_SECONDS: u64 = 86_400;

/// The engines.
pub struct Engines;

fn program() -> Result<&'static Process, Error> {
    process::get().ok_or_else(|| Error::not_found("no program runs"))
}

/// The monotonic time at which what a query's `seconds` bounds is over.
fn end_ns(query: &Query) -> Result<u64, Error> {
    let seconds = query.number("seconds", 1..=MAX_SECONDS)?;
    Ok(seconds.map_or(u64::MAX, |seconds| {
        machine::time::now_ns() + seconds * 1_000_000_000
    }))
}

/// How many items `count` of a query asks for.
fn count(query: &Query) -> Result<u64, Error> {
    Ok(query.number("count", 1..=u64::MAX)?.unwrap_or(u64::MAX))
}

impl Services for Engines {
    fn log(&self, query: &Query) -> Result<Box<dyn Stream>, Error> {
        let level = match query.get("level").filter(|text| !text.is_empty()) {
            None => log::LevelFilter::Trace,
            Some(text) => text
                .parse()
                .map_err(|_| Error::invalid(format!("{text:?} is no level of the log")))?,
        };
        let since = query.number("since", 0..=u64::MAX)?.unwrap_or(0);
        Ok(Box::new(LogStream::new(since, level, query.flag("follow"))))
    }

    fn trace(&self, query: &Query) -> Result<Box<dyn Stream>, Error> {
        let bounds = |name: &str| matches!(name, "seconds" | "count");
        let pairs = query.pairs().filter(|(name, _)| !bounds(name));
        let filter = trace::Filter::from_pairs(pairs).map_err(Error::invalid)?;
        let (end_ns, count) = (end_ns(query)?, count(query)?);
        let subscription =
            trace::subscribe(filter).map_err(|_| Error::too_many("too many traces run already"))?;
        if let Some(process) = process::get() {
            subscription.show_blocked(process);
        }
        Ok(Box::new(TraceStream::new(subscription, end_ns, count)))
    }

    fn profile(&self, query: &Query) -> Result<Box<dyn Stream>, Error> {
        let seconds = query.number("seconds", 1..=MAX_SECONDS)?.unwrap_or(5);
        let hz = query
            .number("hz", 1..=u64::from(profile::MAX_HZ))?
            .unwrap_or(99);
        let format = match query.get("format") {
            None | Some("" | "folded") => Format::Folded,
            Some("json") => Format::Json,
            Some("pprof") => Format::Pprof,
            Some(other) => {
                let message = format!("{other:?} is no format: folded, pprof or json");
                return Err(Error::invalid(message));
            }
        };
        let process = program()?;
        let session = profile::Session::start(process, hz as u32, seconds * 1_000_000_000);
        let session = session.map_err(|error| match error {
            Errno::EBUSY => Error::too_many("another profile is being taken"),
            other => Error::internal(format!("no profile: {other}")),
        })?;
        Ok(Box::new(ProfileStream::new(process, session, format)))
    }

    fn capture(&self, query: &Query, own_port: u16) -> Result<Box<dyn Stream>, Error> {
        let stack = net::stack().ok_or_else(|| Error::not_found("there is no network"))?;
        let snaplen = query.number("snaplen", 0..=262_144)?.unwrap_or(0);
        let (end_ns, count) = (end_ns(query)?, count(query)?);
        let options = Options {
            interface: query.get("interface"),
            filter: query.get("filter"),
            snaplen: snaplen as u32,
            own_port: Some(own_port),
            wall_offset_ns: machine::time::wall_offset_ns(),
        };
        let capture = Capture::start(stack, &options).map_err(|error| match error {
            CaptureError::TooMany => Error::too_many(format!("{error}")),
            CaptureError::NoInterface(_) | CaptureError::Filter(_) => {
                Error::invalid(format!("{error}"))
            }
        })?;
        Ok(Box::new(CaptureStream::new(capture, end_ns, count)))
    }

    fn core(&self) -> Result<Box<dyn Stream>, Error> {
        let core = core_file::take(program()?)
            .map_err(|_| Error::too_many("two core files are being read already"))?;
        Ok(Box::new(CoreStream(core)))
    }

    fn maps(&self) -> Result<String, Error> {
        Ok(maps::json(program()?)?)
    }

    fn threads(&self) -> Result<String, Error> {
        Ok(stacks::threads_json(program()?)?)
    }

    fn stack(&self, thread: u64) -> Result<String, Error> {
        let process = program()?;
        let tid = i32::try_from(thread).ok();
        tid.and_then(|tid| stacks::of(process, tid))
            .map(|stack| stack.json())
            .ok_or_else(|| Error::not_found(format!("there is no thread {thread}")))
    }

    fn power(&self, action: PowerAction, by: &By) -> Result<(), Error> {
        let restart = action == PowerAction::Reboot;
        let what = if restart { "restart" } else { "shutdown" };
        log::warn!("{what}, asked for by {}", by.0);
        crate::ending::end_program(restart)
            .map_err(|error| Error::internal(format!("the {what} could not be started: {error}")))
    }
}
