//! The network beside a Linux guest's: request rate, connection set-up, bulk transfer, instructions for each request.
//!
//! Both guests run at once, each behind a TAP device of a network namespace that ends with the benchmark; the load comes
//! from that namespace and meets one guest at a time. A third column serves the same load on the host itself: what the
//! load generator can do at most.

mod load;
mod sides;

use super::guest::Guest;
use crate::{build, setup};
use anyhow::{Context, Result, bail};
use sides::{Programs, Running, Side};
use std::process::Command;
use xshell::{Shell, cmd};

/// What to measure, and for how long.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Only this part.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Seconds for each figure.
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// CPUs of each guest.
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// Take the tool and the kernel as they were last built.
    #[arg(long)]
    no_build: bool,
    /// The namespace is made: measure.
    #[arg(long, hide = true)]
    inside: bool,
}

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Requests per second over 1 to 10,000 connections.
    Requests,
    /// Connections per second, one request each.
    Setup,
    /// iperf3, both ways.
    Bulk,
    /// Instructions of the guest for each request.
    Cost,
}

/// Over how many connections requests come.
const CONNECTIONS: [u32; 4] = [1, 64, 1_000, 10_000];

/// Runs the benchmark and prints its table.
pub fn run(sh: &Shell, options: &Options) -> Result<()> {
    if !options.inside {
        setup::for_bench(sh)?;
        if !options.no_build {
            build::all(sh)?;
        }
        Guest::fetch(sh)?;
        // The namespace and what is in it go with the last of its processes.
        let this = std::env::current_exe()?;
        let mut inside = Command::new("unshare");
        inside
            .args(["--net", "--map-root-user", "--"])
            .arg(this)
            .args(std::env::args_os().skip(1))
            .arg("--inside");
        let status = inside.status().context("starting unshare")?;
        if !status.success() {
            bail!("the benchmark inside its namespace ended with {status}");
        }
        return Ok(());
    }
    cmd!(sh, "ip link set lo up").quiet().run()?;
    let programs = Programs::make(sh)?;
    let guest = Guest::fetch(sh)?;
    let nanos = Side::nanos(sh, &programs)?;
    let linux = Side::linux(sh, &programs, &guest)?;
    let host = Side::host(&programs);
    println!(
        "{} CPU(s) for each guest, {} s for each figure",
        options.cpus, options.seconds
    );
    println!(
        "{:38} {:>9} {:>16} {:>8} {:>10}",
        "over TAP",
        "nanos",
        format!("Linux {}", guest.release.trim_end_matches("-cloud-amd64")),
        "ratio",
        "host"
    );
    let wanted = |part: Part| options.only.is_none_or(|only| only == part);
    if wanted(Part::Requests) {
        requests(options, &nanos, &linux, &host)?;
    }
    if wanted(Part::Setup) {
        setups(options, &nanos, &linux, &host)?;
    }
    if wanted(Part::Bulk) {
        bulk(options, &nanos, &linux)?;
    }
    if wanted(Part::Cost) {
        cost(options, &nanos, &linux)?;
    }
    Ok(())
}

fn requests(options: &Options, nanos: &Side, linux: &Side, host: &Side) -> Result<()> {
    let start = |side: &Side| side.start_server(options.cpus, None);
    let mut machines = [
        (nanos, start(nanos)?),
        (linux, start(linux)?),
        (host, start(host)?),
    ];
    let mut rates = Vec::new();
    for connections in CONNECTIONS {
        let (mut row, mut errors) = ([None; 3], [None; 3]);
        for (at, machine) in machines.iter_mut().enumerate() {
            let loaded = measured(machine, &start, |side, _| {
                load::requests(&side.address, connections, options.seconds)
            })?;
            if let Some(loaded) = loaded {
                row[at] = Some(loaded.rate);
                errors[at] = Some(loaded.errors as f64);
            }
        }
        print_row(&format!("requests/s, {connections} connections"), row, 0);
        if errors.iter().flatten().any(|&count| count > 0.0) {
            print_row("  failed connections and requests", errors, 0);
        }
        rates.push(row);
    }
    let change = |at: usize| Some(100.0 * (rates[3][at]? / rates[1][at]? - 1.0));
    println!(
        "{:38} {:>9} {:>16} {:>8} {:>10}",
        "  from 64 to 10,000 connections (%)",
        text(change(0), 0),
        text(change(1), 0),
        "",
        text(change(2), 0)
    );
    Ok(())
}

/// Runs `measure` on a machine; when it fails, once more on a new one. QEMU before 8.0 may lose a notification of a
/// guest with one CPU (see `machine::dma::barrier`), and a Linux guest's card then stands still for ever.
fn measured<'a, T>(
    machine: &mut (&'a Side, Running),
    start: &dyn Fn(&'a Side) -> Result<Running>,
    measure: impl Fn(&Side, &Running) -> Result<T>,
) -> Result<Option<T>> {
    let (side, running) = machine;
    for _ in 0..2 {
        match measure(side, running) {
            Ok(figure) => return Ok(Some(figure)),
            Err(error) => {
                eprintln!("{}: {error:#}; starting it anew", side.name);
                running.stop();
                *running = start(side)?;
            }
        }
    }
    Ok(None)
}

fn setups(options: &Options, nanos: &Side, linux: &Side, host: &Side) -> Result<()> {
    let start = |side: &Side| side.start_server(options.cpus, None);
    let (mut row, mut errors) = ([None; 3], [None; 3]);
    for (at, side) in [nanos, linux, host].into_iter().enumerate() {
        let mut machine = (side, start(side)?);
        let loaded = measured(&mut machine, &start, |side, _| {
            load::setups(&side.address, options.seconds)
        })?;
        if let Some(loaded) = loaded {
            row[at] = Some(loaded.rate);
            errors[at] = Some(loaded.errors as f64);
        }
    }
    print_row("connections/s, 64 at a time", row, 0);
    if errors.iter().flatten().any(|&count| count > 0.0) {
        print_row("  failed", errors, 0);
    }
    Ok(())
}

fn bulk(options: &Options, nanos: &Side, linux: &Side) -> Result<()> {
    let start = |side: &Side| side.start_iperf(options.cpus);
    let mut machines = [(nanos, start(nanos)?), (linux, start(linux)?)];
    for (what, reverse) in [("receive", false), ("send", true)] {
        let mut row = [None; 3];
        for (at, machine) in machines.iter_mut().enumerate() {
            row[at] = measured(machine, &start, |side, _| {
                load::bulk(&side.address, reverse, options.seconds)
            })?;
        }
        print_row(&format!("bulk {what} (Gbit/s)"), row, 2);
    }
    Ok(())
}

fn cost(options: &Options, nanos: &Side, linux: &Side) -> Result<()> {
    let start = |side: &Side| side.start_server(options.cpus, Some("cost"));
    let mut machines = [(nanos, start(nanos)?), (linux, start(linux)?)];
    // Not over one connection: an idle CPU that looks for work runs instructions that no request costs.
    for &connections in &CONNECTIONS[1..] {
        let mut row = [None; 3];
        for (at, machine) in machines.iter_mut().enumerate() {
            row[at] = measured(machine, &start, |side, running| {
                let counter = running
                    .counter
                    .as_deref()
                    .context("a machine that counts")?;
                load::cost(&side.address, connections, options.seconds, counter)
            })?;
        }
        print_row(
            &format!("instructions/request, {connections} connections"),
            row,
            0,
        );
    }
    Ok(())
}

fn print_row(what: &str, [ours, theirs, host]: [Option<f64>; 3], digits: usize) {
    let ratio = match (ours, theirs) {
        (Some(ours), Some(theirs)) if theirs != 0.0 => format!("{:.2}", ours / theirs),
        _ => String::new(),
    };
    println!(
        "{what:38} {:>9} {:>16} {ratio:>8} {:>10}",
        text(ours, digits),
        text(theirs, digits),
        text(host, digits)
    );
}

fn text(figure: Option<f64>, digits: usize) -> String {
    figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.digits$}"))
}
