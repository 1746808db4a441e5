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
use sides::{Programs, Side};
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
    let sides = [nanos, linux, host];
    let mut running = Vec::new();
    for side in sides {
        running.push(side.start_server(options.cpus, None)?);
    }
    let mut rates = Vec::new();
    for connections in CONNECTIONS {
        let mut row = Vec::new();
        let mut errors = Vec::new();
        for side in sides {
            let loaded = load::requests(&side.address, connections, options.seconds)
                .with_context(|| format!("{} at {connections} connections", side.name))?;
            row.push(loaded.rate);
            errors.push(loaded.errors);
        }
        print_row(
            &format!("requests/s, {connections} connections"),
            [Some(row[0]), Some(row[1]), Some(row[2])],
            0,
        );
        if errors.iter().any(|&count| count > 0) {
            print_row(
                "  failed connections and requests",
                [0, 1, 2].map(|at| errors.get(at).map(|&count| count as f64)),
                0,
            );
        }
        rates.push(row);
    }
    let change = |at: usize| Some(100.0 * (rates[3][at] / rates[1][at] - 1.0));
    print_row(
        "  from 64 to 10,000 connections (%)",
        [change(0), change(1), change(2)],
        0,
    );
    Ok(())
}

fn setups(options: &Options, nanos: &Side, linux: &Side, host: &Side) -> Result<()> {
    let mut row = [None; 3];
    let mut errors = 0;
    for (side, rate) in [nanos, linux, host].into_iter().zip(&mut row) {
        let _running = side.start_server(options.cpus, None)?;
        let loaded = load::setups(&side.address, options.seconds)
            .with_context(|| format!("{}: connections", side.name))?;
        *rate = Some(loaded.rate);
        errors += loaded.errors;
    }
    print_row("connections/s, 64 at a time", row, 0);
    if errors > 0 {
        println!("  failed: {errors}");
    }
    Ok(())
}

fn bulk(options: &Options, nanos: &Side, linux: &Side) -> Result<()> {
    let _running = [
        nanos.start_iperf(options.cpus)?,
        linux.start_iperf(options.cpus)?,
    ];
    for (what, reverse) in [("receive", false), ("send", true)] {
        let mut row = [None; 3];
        for (side, rate) in [nanos, linux].into_iter().zip(&mut row) {
            let gigabits = load::bulk(&side.address, reverse, options.seconds)
                .with_context(|| format!("{}: bulk {what}", side.name))?;
            *rate = Some(gigabits);
        }
        print_row(&format!("bulk {what} (Gbit/s)"), row, 2);
    }
    Ok(())
}

fn cost(options: &Options, nanos: &Side, linux: &Side) -> Result<()> {
    let counted = [nanos, linux].map(|side| side.start_server(options.cpus, Some("cost")));
    let mut counters = Vec::new();
    for running in counted {
        counters.push(running?);
    }
    for connections in CONNECTIONS {
        let mut row = [None; 3];
        for (index, side) in [nanos, linux].into_iter().enumerate() {
            let counter = counters[index]
                .counter
                .as_deref()
                .context("a machine that counts")?;
            let cost = load::cost(&side.address, connections, options.seconds, counter)
                .with_context(|| format!("{}: cost at {connections} connections", side.name))?;
            row[index] = Some(cost);
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
    let figure = |figure: Option<f64>| figure.map_or(String::new(), |f| format!("{f:.digits$}"));
    println!(
        "{what:38} {:>9} {:>16} {ratio:>8} {:>10}",
        figure(ours),
        figure(theirs),
        figure(host)
    );
}
