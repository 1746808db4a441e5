//! A Rust program with std: threads on all CPUs, channels, files, time, TCP over loopback, a caught panic.
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

fn main() {
    let cpus = std::thread::available_parallelism().unwrap().get();
    println!("cpus {cpus}");

    let sum = Arc::new(AtomicU64::new(0));
    let log = Arc::new(Mutex::new(Vec::new()));
    let threads: Vec<_> = (0..8u64)
        .map(|n| {
            let (sum, log) = (sum.clone(), log.clone());
            std::thread::spawn(move || {
                for i in 0..10_000 {
                    sum.fetch_add(i % (n + 1), Ordering::Relaxed);
                    if i % 1000 == 0 {
                        log.lock().unwrap().push(n);
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    println!("sum {} log {}", sum.load(Ordering::Relaxed), log.lock().unwrap().len());

    let (send, receive) = mpsc::channel();
    let start = Instant::now();
    assert!(receive.recv_timeout(Duration::from_millis(30)).is_err());
    assert!(start.elapsed() >= Duration::from_millis(30));
    send.send(42).unwrap();
    println!("received {}", receive.recv().unwrap());

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        stream.write_all(&(bytes.len() as u64).to_le_bytes()).unwrap();
    });
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(&vec![7; 300_000]).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = [0; 8];
    client.read_exact(&mut answer).unwrap();
    server.join().unwrap();
    println!("echoed {}", u64::from_le_bytes(answer));

    std::fs::create_dir_all("/tmp/a/b").unwrap();
    std::fs::write("/tmp/a/b/c", "content").unwrap();
    println!("file {}", std::fs::read_to_string("/tmp/a/b/c").unwrap());
    println!("missing {:?}", std::fs::read("/nowhere").unwrap_err().kind());

    std::panic::set_hook(Box::new(|_| {}));
    println!("caught {}", std::panic::catch_unwind(|| panic!("expected")).is_err());
    std::process::exit(5);
}
