//! The console's page in a browser, against machines under load: every view shows what the program and the client see, edits take
//! effect, and the page finds the machine again after a restart. Pictures of all views are kept in `target/e2e/page`.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::browser::Browser;
use e2e::{Ops, RUN_LIMIT, Running, free_port, http_fetch, http_get, programs, target_dir};
use serde_json::{Value, json};

/// How long a view may take to show what is asked for.
const SHOW: Duration = Duration::from_secs(60);

/// Requests without end from a thread of its own.
struct Load {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    fn start(port: u16) -> Load {
        let (stop, answers) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (stopped, counted) = (stop.clone(), answers.clone());
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if fetch(port, "/").is_ok() {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Load {
            stop,
            answers,
            thread: Some(thread),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It ends after its request, whose wait is bounded.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn fetch(port: u16, path: &str) -> Result<String> {
    Ok(http_fetch(port, path, Duration::from_secs(10))?.1)
}

/// The link that the tool prints.
fn link(ops: &Ops) -> Result<String> {
    let said = ops.run(&["console"])?;
    ensure!(said.code() == 0, "{}", said.stderr);
    Ok(said.stdout.trim().to_owned())
}

fn view(browser: &Browser, name: &str) -> Result<()> {
    browser.run("location.hash = '#/' + arguments[0]", &[json!(name)])?;
    let shown = name.split('/').next().unwrap_or(name);
    browser.until(
        name,
        &format!("return document.getElementById('view').dataset.view === '{shown}' && document.querySelector('main .card') !== null"),
        SHOW,
    )?;
    Ok(())
}

fn picture(browser: &Browser, name: &str) -> Result<()> {
    let folder = target_dir().join("e2e/page");
    std::fs::create_dir_all(&folder)?;
    browser.picture(&folder.join(format!("{name}.png")))
}

fn strings(value: &Value) -> Vec<String> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|v| v.as_str().map(|s| s.trim().to_owned()))
        .collect()
}

/// The text of the cells of a column of the first table.
fn column(browser: &Browser, number: usize) -> Result<Vec<String>> {
    let script = "return [...document.querySelectorAll('main table')][0].querySelectorAll('tbody tr').values().map(tr => tr.cells[arguments[0]].textContent).toArray()";
    Ok(strings(&browser.run(script, &[json!(number)])?))
}

fn python(ops: &Ops) -> Result<(Running, u16)> {
    ops.write("reader.py", include_str!("../programs/reader.py"))?;
    let port = free_port()?;
    let forward = format!("{port}-8000");
    let running = ops.start(&[
        "pkg",
        "load",
        "python",
        "-p",
        &forward,
        "--console",
        "-a",
        "reader.py",
    ])?;
    http_get(port, RUN_LIMIT)?;
    Ok((running, port))
}

/// Sees that the live graphs of the overview move while there is load.
fn overview(browser: &Browser, program: &str, memory: Option<f64>) -> Result<()> {
    view(browser, "overview")?;
    let shown = "return [...document.querySelectorAll('main .card')].map(card => card.innerText).join('\\n')";
    browser.until(
        "the overview shows load",
        &format!("const text = ({}); return /[1-9][\\d.]* ?k?\\/s/.test(text) && /up for/i.test(text) && text.includes('{program}') && text", shown.trim_start_matches("return ")),
        SHOW,
    )?;
    let busy = "return parseFloat(document.querySelector('main .card .big').textContent) > 1";
    browser.until("a CPU is busy", busy, SHOW)?;
    let total = browser.until(
        "memory is shown",
        "return (document.querySelectorAll('main .card .big')[1].textContent.match(/of ([\\d.]+ [KMG]iB)/) || [])[1]",
        SHOW,
    )?;
    if let Some(expected) = memory {
        let text = total.as_str().unwrap_or_default();
        let (number, unit) = text.split_once(' ').context("a size has a unit")?;
        let scale = match unit {
            "KiB" => 1024.0,
            "MiB" => 1024.0 * 1024.0,
            _ => 1024.0 * 1024.0 * 1024.0,
        };
        let shown: f64 = number.parse::<f64>()? * scale;
        ensure!(
            (shown / expected - 1.0).abs() < 0.06,
            "memory: {text}, but /proc/meminfo says {expected}"
        );
    }
    Ok(())
}

#[test]
fn the_page_shows_what_python_sees() -> Result<()> {
    let ops = Ops::with_shared_packages()?;
    let (running, port) = python(&ops)?;
    let read = |path: &str| fetch(port, &format!("/read{path}"));
    let browser = Browser::start(1280, 900)?;
    let link = link(&ops)?;

    // Nothing without the link.
    let base = link.split("/login").next().unwrap_or_default().to_owned();
    browser.go(&base)?;
    let refused = browser.run("return document.body.innerText", &[])?;
    ensure!(
        !refused.as_str().unwrap_or_default().contains("Overview"),
        "{refused}"
    );
    browser.complaints()?;

    browser.go(&link)?;
    browser.until(
        "the page is live",
        "return document.getElementById('link').dataset.state === 'on'",
        SHOW,
    )?;
    let load = Load::start(port);
    let kib: f64 = read("/proc/meminfo")?
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .context("there is MemTotal")?;
    overview(&browser, "python3", Some(kib * 1024.0))?;
    picture(&browser, "overview")?;

    view(&browser, "threads")?;
    browser.until(
        "threads are listed",
        "return document.querySelectorAll('main tbody tr').length > 0",
        SHOW,
    )?;
    let tasks: Vec<String> = fetch(port, "/tasks")?.lines().map(str::to_owned).collect();
    let main = tasks
        .iter()
        .min_by_key(|t| t.parse::<u64>().unwrap_or(0))
        .context("there is a task")?;
    ensure!(
        column(&browser, 0)?.contains(main),
        "thread {main} is not among {:?}",
        column(&browser, 0)?
    );
    browser.run("[...document.querySelectorAll('main tbody tr')].find(tr => tr.cells[0].textContent === arguments[0]).querySelector('button').click()", &[json!(main)])?;
    browser.until(
        "the stack is shown",
        "return /python3|lib/.test((document.querySelector('dialog pre') || {}).textContent)",
        SHOW,
    )?;
    picture(&browser, "threads")?;
    browser.run("document.querySelector('dialog form button').click()", &[])?;

    view(&browser, "syscalls")?;
    browser.until(
        "calls are counted",
        "return [...document.querySelectorAll('main tbody tr')].some(tr => /^(accept4|sendto|recvfrom)/.test(tr.textContent) && parseFloat(tr.cells[1].textContent) > 0)",
        SHOW,
    )?;
    browser.run("document.querySelector('main tbody tr').click(); const form = document.querySelector('main form'); form.querySelector('[name=name]').value = 'accept4,openat'; form.requestSubmit()", &[])?;
    browser.until(
        "the trace runs",
        "return /accept4\\(\\d+/.test(document.querySelector('.lines.trace').textContent)",
        SHOW,
    )?;
    browser.until(
        "the histogram is drawn",
        "return document.querySelectorAll('.bars i').length > 0",
        SHOW,
    )?;
    picture(&browser, "syscalls")?;

    view(&browser, "network")?;
    browser.until(
        "the listening socket is there",
        "return [...document.querySelectorAll('main tbody tr')].some(tr => /listen/i.test(tr.textContent) && tr.textContent.includes(':8000'))",
        SHOW,
    )?;
    let dev = read("/proc/net/dev")?;
    let received: f64 = dev
        .lines()
        .find_map(|line| {
            line.trim()
                .strip_prefix("en1:")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .with_context(|| format!("en1 is in /proc/net/dev: {dev}"))?;
    let shown = browser.run(
        "return fetch('/api/store/net/interfaces/en1/rx_bytes').then(answer => answer.json()).then(node => node.value)",
        &[],
    )?;
    ensure!(
        shown.as_f64().unwrap_or(0.0) >= received,
        "rx_bytes {shown}, earlier {received}"
    );
    picture(&browser, "network")?;

    view(&browser, "files")?;
    browser.until("descriptors are listed", "return [...document.querySelectorAll('main tbody tr')].some(tr => /socket/.test(tr.textContent))", SHOW)?;
    browser.until("the root is mounted", "return [...document.querySelectorAll('main tbody tr')].some(tr => tr.cells[0].textContent === '/' && /ext4/.test(tr.textContent))", SHOW)?;
    picture(&browser, "files")?;

    view(&browser, "memory")?;
    browser.until("the map is shown", "return [...document.querySelectorAll('main tbody tr')].some(tr => /libc/.test(tr.textContent))", SHOW)?;
    let areas = read("/proc/self/maps")?.lines().count() as f64;
    let rows = browser
        .run(
            "return document.querySelectorAll('main tbody tr').length",
            &[],
        )?
        .as_f64()
        .unwrap_or(0.0);
    // Threads that serve a request come and go with their stacks.
    ensure!(
        (rows - areas).abs() <= 12.0,
        "{rows} areas shown, {areas} in /proc/self/maps"
    );
    picture(&browser, "memory")?;

    view(&browser, "profile")?;
    browser.run("document.querySelector('main form input').value = 2; document.querySelector('main form').requestSubmit()", &[])?;
    browser.until(
        "the flame graph is drawn",
        "return document.querySelectorAll('.flame button').length > 5",
        SHOW,
    )?;
    let names = strings(&browser.run(
        "return [...document.querySelectorAll('.flame button')].map(b => b.title)",
        &[],
    )?);
    ensure!(
        names
            .iter()
            .any(|n| n.contains("python3") || n.contains("Py")),
        "{names:?}"
    );
    picture(&browser, "profile")?;

    view(&browser, "log")?;
    browser.until("the level is known", "const level = document.querySelectorAll('main select')[1]; return !level.disabled && level.value", SHOW)?;
    browser.run("const level = document.querySelectorAll('main select')[1]; level.value = 'debug'; level.dispatchEvent(new Event('change'))", &[])?;
    browser.until(
        "the change is said",
        "return /level is debug/.test(document.querySelector('main').innerText)",
        SHOW,
    )?;
    browser.until(
        "the log names the change",
        "return /\\/log\\/level/.test(document.querySelector('.lines').textContent)",
        SHOW,
    )?;
    let level = ops.run(&["get", "/log/level"])?;
    ensure!(level.stdout == "debug\n", "{level:?}");
    picture(&browser, "log")?;

    view(&browser, "store/net")?;
    browser.until("the host name can be changed", "const li = document.querySelector('li[data-name=net] li[data-name=hostname] button'); if (li) li.click(); return li !== null", SHOW)?;
    browser.run("const form = document.querySelector('li[data-name=hostname] form'); form.querySelector('input').value = 'renamed'; form.requestSubmit()", &[])?;
    browser.until("the host name is new", "return /renamed/.test(document.querySelector('li[data-name=hostname] .value').textContent)", SHOW)?;
    ensure!(read("/proc/sys/kernel/hostname")?.trim() == "renamed");
    browser.run("const search = document.querySelector('main input[type=search]'); search.value = 'rx_bytes'; search.dispatchEvent(new Event('input'))", &[])?;
    browser.until(
        "the search finds",
        "return /rx_bytes/.test((document.querySelector('.tree:not([hidden])') || {}).textContent)",
        SHOW,
    )?;
    picture(&browser, "store")?;

    ensure!(
        load.answers.load(Ordering::Relaxed) > 10,
        "the program answers while it is looked at"
    );
    let complaints = browser.complaints()?;
    ensure!(complaints.is_empty(), "{complaints:?}");
    drop(load);

    // A phone.
    browser.resize(400, 800)?;
    for name in ["overview", "threads", "network", "store"] {
        view(&browser, name)?;
        thread::sleep(Duration::from_millis(1500));
        picture(&browser, &format!("phone-{name}"))?;
        let over = browser.run(
            "return document.documentElement.scrollWidth - innerWidth",
            &[],
        )?;
        ensure!(
            over.as_i64().unwrap_or(1) <= 0,
            "{name} is wider than a phone by {over}"
        );
    }

    // The page finds the machine again after a restart, and powers it off.
    view(&browser, "power")?;
    let press = "const [, second] = document.querySelectorAll('main button'); (arguments[0] === 'reboot' ? second : document.querySelector('main button')).click(); document.querySelector('dialog button.danger').click()";
    browser.run(press, &[json!("reboot")])?;
    browser.until(
        "the loss shows",
        "return document.getElementById('link').dataset.state === 'off'",
        SHOW,
    )?;
    // A session does not outlive the machine: the page asks for the token, and goes on where it was.
    browser.until(
        "the page asks for the token",
        "return document.querySelector('#banner form') !== null",
        RUN_LIMIT,
    )?;
    let token = link.split("token=").nth(1).context("a link has a token")?;
    browser.run(
        "const form = document.querySelector('#banner form'); form.querySelector('input').value = arguments[0]; form.requestSubmit()",
        &[json!(token)],
    )?;
    browser.until(
        "the page is live again",
        "return document.getElementById('link').dataset.state === 'on'",
        RUN_LIMIT,
    )?;
    view(&browser, "power")?;
    http_get(port, RUN_LIMIT)?;
    ensure!(
        read("/proc/sys/kernel/hostname")?.trim() != "renamed",
        "the machine did restart"
    );
    browser.run(press, &[json!("shutdown")])?;
    running.wait(RUN_LIMIT)?;
    let gone = ops.run(&["console"])?;
    ensure!(
        gone.code() == 1 && gone.stderr.contains("no machine with a console runs"),
        "{gone:?}"
    );
    Ok(())
}

#[test]
fn the_page_shows_a_go_server_at_work() -> Result<()> {
    let ops = Ops::new()?;
    let program = programs::go("load")?;
    let port = free_port()?;
    let forward = format!("{port}-8000");
    let program = program.to_str().context("a path is text")?;
    let running = ops.start(&["run", program, "-p", &forward, "--smp", "2", "--console"])?;
    http_get(port, RUN_LIMIT)?;
    let browser = Browser::start(1280, 900)?;
    browser.go(&link(&ops)?)?;
    let _load = Load::start(port);
    overview(&browser, "load", None)?;
    let cores = browser.run(
        "return document.querySelectorAll('main .card .legend')[0].children.length",
        &[],
    )?;
    ensure!(cores == 2, "{cores} cores");
    view(&browser, "threads")?;
    browser.until(
        "Go's threads are listed",
        "return document.querySelectorAll('main tbody tr').length > 2",
        SHOW,
    )?;
    view(&browser, "profile")?;
    browser.run("document.querySelector('main form input').value = 2; document.querySelector('main form').requestSubmit()", &[])?;
    browser.until(
        "the work is seen",
        "return [...document.querySelectorAll('.flame button')].some(b => /sha256/.test(b.title))",
        SHOW,
    )?;
    picture(&browser, "profile-go")?;
    let complaints = browser.complaints()?;
    ensure!(complaints.is_empty(), "{complaints:?}");
    running.signal("INT")?;
    running.wait(RUN_LIMIT)?;
    Ok(())
}
