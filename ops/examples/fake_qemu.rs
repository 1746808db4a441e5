//! Stands in for QEMU in the tests of the tool: does what `FAKE_QEMU` says, and writes the arguments it was given, one a
//! line, with the merge patch after them, to the file that `FAKE_QEMU_RECORD` names.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::process::exit;
use std::{env, fs, io};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let value = |prefix: &str| {
        let found = arguments.iter().find_map(|a| a.strip_prefix(prefix));
        found.map(|v| v.replace(",,", ","))
    };
    if let Ok(path) = env::var("FAKE_QEMU_RECORD") {
        let mut text = arguments.join("\n");
        if let Some(patch) = value("name=opt/nanos/manifest,file=") {
            text.push_str("\nPATCH ");
            text.push_str(&fs::read_to_string(patch)?);
        }
        text.push_str(&format!("\nPID {}\n", std::process::id()));
        fs::write(path, text)?;
    }
    let exit_file = value("file,id=exit,path=").ok_or("no exit channel")?;
    let say = |line: &str| fs::write(&exit_file, format!("{line}\n"));
    let mode = env::var("FAKE_QEMU").unwrap_or_default();
    match mode.as_str() {
        "echo" | "talk" => {
            if mode == "talk" {
                println!("ready");
            }
            let mut bytes = Vec::new();
            for byte in io::stdin().lock().bytes() {
                match byte? {
                    4 => break,
                    other => bytes.push(other),
                }
            }
            io::stdout().write_all(&bytes)?;
            say("exit 0")?;
        }
        "fail" => {
            eprintln!("qemu-system-x86_64: something is wrong");
            exit(1);
        }
        "silent" => {}
        "powerdown" | "stubborn" => {
            let socket = value("unix:").ok_or("no control socket")?;
            let socket = socket.split(',').next().unwrap_or_default();
            let listener = UnixListener::bind(socket)?;
            println!("ready");
            for stream in listener.incoming() {
                let mut stream = stream?;
                stream.write_all(b"{\"QMP\":{}}\n")?;
                for line in BufReader::new(stream.try_clone()?).lines() {
                    let line = line?;
                    stream.write_all(b"{\"event\":\"X\"}\n{\"return\":{}}\n")?;
                    if line.contains("system_powerdown") && mode == "powerdown" {
                        say("exit 7")?;
                        exit(0);
                    }
                    if line.contains("quit") {
                        exit(0);
                    }
                }
            }
        }
        "hang" => {
            println!("ready");
            std::thread::sleep(std::time::Duration::from_secs(60));
        }
        line => {
            println!("guest output");
            say(line)?;
        }
    }
    Ok(())
}
