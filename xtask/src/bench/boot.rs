//! Boot, first answer, request rate and least memory of the Python example; whole run of a static hello.
//!
//! nanos is started through the tool from an image that exists, so the tool's own time counts against it.

use super::guest::Guest;
use super::machine::{self, COUNTED, EMULATED, LIMIT, Machine, Tool, free_port, linux, output};
use crate::{build, demo, setup};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::Command;
use xshell::{Shell, cmd};

/// What one side did with the Python example.
#[derive(Debug)]
struct Served {
    first_answer: f64,
    rate_of_1: f64,
    rate_of_16: f64,
    least_memory: u32,
}

/// Runs the benchmark and prints its tables.
pub fn run(sh: &Shell, runs: usize) -> Result<()> {
    setup::for_bench(sh)?;
    let built = build::all(sh)?;
    let folder = build::target_dir().join("bench/boot");
    sh.create_dir(&folder)?;
    sh.write_file(folder.join("server.py"), demo::SERVER)?;
    let tool = Tool::new(&built, &folder, &folder);
    let guest = Guest::fetch(sh)?;

    let size = built.shipped.metadata()?.len() as f64 / 1e6;
    println!("kernel image: {size:.2} MB, names of its functions included");
    println!();
    hello(sh, &built, &tool, &guest, runs)?;
    println!();
    python(sh, &tool, &guest, runs)
}

fn hello(sh: &Shell, built: &build::Built, tool: &Tool, guest: &Guest, runs: usize) -> Result<()> {
    let program = |name: &str, flags: &[&str]| -> Result<PathBuf> {
        let (source, output) = (
            build::root().join(format!("tests/e2e/programs/{name}.c")),
            build::target_dir().join("bench/boot").join(name),
        );
        cmd!(sh, "gcc -O2 -static {flags...} -o {output} {source}")
            .quiet()
            .run()?;
        Ok(output)
    };
    let hello = program("hello", &[])?;
    let first = program("first", &["-nostdlib"])?;
    for (path, name) in [(&hello, "hello"), (&first, "first")] {
        let path = path.to_str().context("a path in UTF-8")?;
        tool.output(&["build", path, "-i", name])?;
    }
    let append = "console=ttyS0 quiet panic=-1";
    let (hello_init, first_init) = (
        guest.initramfs_of(sh, &hello)?,
        guest.initramfs_of(sh, &first)?,
    );
    let hello = hello.to_str().context("a path in UTF-8")?;

    let mut nanos: [Vec<f64>; 2] = Default::default();
    let mut on_linux = Vec::new();
    for _ in 0..runs {
        for (times, machine) in nanos.iter_mut().zip(["microvm", "q35"]) {
            let command = tool.command(&["run", hello, "-s", "-i", "hello", "--machine", machine]);
            times.push(Machine::start(command)?.whole_run()?);
        }
        let command = linux(
            &EMULATED,
            &guest.kernel,
            &hello_init,
            append,
            &["-m", "512"],
        );
        on_linux.push(Machine::start(command)?.whole_run()?);
    }
    let counted = |text: String| -> Result<f64> {
        let line = text
            .lines()
            .rev()
            .find_map(|line| line.trim().parse::<f64>().ok());
        line.with_context(|| format!("the program printed no count: {text}"))
    };
    // What a device made it wait for counts as well, so the least of several is the nearest.
    let least = |command: &dyn Fn() -> Command| -> Result<f64> {
        let counts: Result<Vec<f64>> = (0..runs).map(|_| counted(output(command())?)).collect();
        Ok(counts?.into_iter().fold(f64::INFINITY, f64::min))
    };
    let first_image = tool.image("first")?;
    let ours = least(&|| machine::nanos(&COUNTED, &built.shipped, &first_image, "512"))?;
    let theirs = least(&|| linux(&COUNTED, &guest.kernel, &first_init, append, &["-m", "512"]))?;

    let [mut micro, mut q35] = nanos;
    let (micro, q35, linux) = (median(&mut micro), median(&mut q35), median(&mut on_linux));
    println!(
        "static hello                              nanos     Linux {}    ratio",
        guest.release
    );
    row("whole run, microvm (s)", micro, linux, 3);
    row("whole run, q35 (s)", q35, linux, 3);
    row(
        "instructions to the first (millions)",
        ours / 1e6,
        theirs / 1e6,
        2,
    );
    Ok(())
}

fn python(sh: &Shell, tool: &Tool, guest: &Guest, runs: usize) -> Result<()> {
    // One run makes package and image; `-s` boots that image from then on.
    let port = free_port()?;
    let forward = format!("{port}-8000");
    let load = [
        "pkg",
        "load",
        "python",
        "-i",
        "python",
        "-a",
        "server.py",
        "-p",
        &forward,
    ];
    Machine::start(tool.command(&load))?
        .first_answer(port, LIMIT)
        .context("the first run of the package")?;

    let image = tool.image("python")?;
    let environment = [("USER", "root"), ("PWD", "/"), ("HOME", "/root")];
    let initramfs =
        guest.initramfs_for_disk(sh, &["/usr/bin/python3", "server.py"], &environment)?;
    let nanos = |port: u16, memory: u32| -> Command {
        let (forward, memory) = (format!("{port}-8000"), format!("{memory}M"));
        let words = [
            "pkg",
            "load",
            "python",
            "-s",
            "-i",
            "python",
            "-a",
            "server.py",
            "-p",
            &forward,
            "-m",
            &memory,
        ];
        tool.command(&words)
    };
    let drive = format!(
        "file={},format=raw,if=none,id=hd,snapshot=on",
        image.display()
    );
    let on_linux = |port: u16, memory: u32| -> Command {
        let (net, memory) = (
            format!("user,id=n,hostfwd=tcp:127.0.0.1:{port}-:8000"),
            format!("{memory}M"),
        );
        let more = [
            "-m",
            &memory,
            "-drive",
            &drive,
            "-device",
            "virtio-blk-pci,drive=hd",
            "-netdev",
            &net,
            "-device",
            "virtio-net-pci,netdev=n,romfile=",
            "-device",
            "virtio-rng-pci",
        ];
        linux(
            &EMULATED,
            &guest.kernel,
            &initramfs,
            "console=ttyS0 quiet panic=-1",
            &more,
        )
    };
    let ours = serve(&nanos, runs)?;
    let theirs = serve(&on_linux, runs)?;
    println!(
        "Python example                            nanos     Linux {}    ratio",
        guest.release
    );
    row(
        "first answer (s)",
        ours.first_answer,
        theirs.first_answer,
        2,
    );
    row(
        "requests/s, 1 connection",
        ours.rate_of_1,
        theirs.rate_of_1,
        0,
    );
    row(
        "requests/s, 16 connections",
        ours.rate_of_16,
        theirs.rate_of_16,
        0,
    );
    row(
        "least memory that serves (MiB)",
        f64::from(ours.least_memory),
        f64::from(theirs.least_memory),
        0,
    );
    Ok(())
}

fn serve(machine: &dyn Fn(u16, u32) -> Command, runs: usize) -> Result<Served> {
    let mut answers = Vec::new();
    for _ in 0..runs {
        let port = free_port()?;
        answers.push(Machine::start(machine(port, 512))?.first_answer(port, LIMIT)?);
    }
    let port = free_port()?;
    let mut running = Machine::start(machine(port, 512))?;
    running.first_answer(port, LIMIT)?;
    let (rate_of_1, rate_of_16) = (rate(port, 1)?, rate(port, 16)?);
    drop(running);
    // The least memory lies between one that fails and one that serves; 2 MiB is near enough.
    let (mut fails, mut serves) = (8_u32, 512_u32);
    while serves - fails > 2 {
        let memory = fails.midpoint(serves);
        let port = free_port()?;
        match Machine::start(machine(port, memory))?.first_answer(port, LIMIT / 3) {
            Ok(_) => serves = memory,
            Err(_) => fails = memory,
        }
    }
    Ok(Served {
        first_answer: median(&mut answers),
        rate_of_1,
        rate_of_16,
        least_memory: serves,
    })
}

/// Requests per second over `connections` connections, measured by wrk for five seconds.
fn rate(port: u16, connections: u32) -> Result<f64> {
    let mut command = Command::new("wrk");
    command.args([
        "-t1",
        "-d5s",
        "--timeout",
        "10s",
        &format!("-c{connections}"),
    ]);
    command.arg(format!("http://127.0.0.1:{port}/"));
    let text = output(command)?;
    text.lines()
        .find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse().ok())
        .with_context(|| format!("wrk printed no rate: {text}"))
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

fn row(what: &str, ours: f64, theirs: f64, digits: usize) {
    println!(
        "{what:38} {ours:9.digits$} {theirs:16.digits$} {:16.2}",
        ours / theirs
    );
}
