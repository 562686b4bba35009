//! A real Chromium without a screen: what a page looks like to whoever opens it.
//!
//! Driven by the DevTools protocol (https://chromedevtools.github.io/devtools-protocol) over the
//! pipe that it has for that: JSON between zero bytes, in on descriptor 3, out on 4.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{context::Context, kernels};

const PROGRAM: &str = "chromium";
/// For an answer, or for what is waited for.
const PATIENCE: Duration = Duration::from_mins(1);
/// Before it is killed.
const ITS_END: Duration = Duration::from_secs(5);
/// Nothing but the page: no updates, no names, no proxy, no first run's windows.
const FLAGS: [&str; 15] = [
    "--headless=new",
    "--remote-debugging-pipe",
    // Its own sandbox is not for root, and what it opens is ours.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--disable-breakpad",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "--hide-scrollbars",
];

/// One page of it; ended, with all that it wrote, when dropped.
#[derive(Debug)]
pub struct Chromium {
    browser: Child,
    dir: PathBuf,
    asks: ChildStdin,
    answers: Receiver<Value>,
    asked: u64,
    session: Option<String>,
    /// What it told by itself, in its order.
    told: Vec<Value>,
}

impl Chromium {
    /// `None` in guests, which carry none.
    pub fn start(context: &Context) -> Result<Option<Self>> {
        let path = env::var_os("PATH").unwrap_or_default();
        if !env::split_paths(&path).any(|dir| dir.join(PROGRAM).is_file()) {
            ensure!(
                kernels::is_guest(),
                "{PROGRAM} is not here: use `cargo xtask test`"
            );
            return Ok(None);
        }
        let dir = context.state.with_extension(PROGRAM);
        fs::create_dir(&dir)?;
        let mut browser = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null", "sh"])
            .arg(PROGRAM)
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", dir.display()))
            .arg("about:blank")
            .env_clear()
            .envs([("PATH", path.as_os_str()), ("HOME", dir.as_os_str())])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let asks = browser.stdin.take().context("no pipe to it")?;
        let from = browser.stdout.take().context("no pipe from it")?;
        let (sender, answers) = mpsc::channel();
        thread::spawn(move || {
            for message in BufReader::new(from).split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else {
                    return;
                };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut started = Self {
            browser,
            dir,
            asks,
            answers,
            asked: 0,
            session: None,
            told: Vec::new(),
        };
        let target = started.ask("Target.createTarget", &json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = started.ask("Target.attachToTarget", &attach)?;
        started.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Network", "Log", "Runtime", "Audits"] {
            started.ask(&format!("{domain}.enable"), &json!({}))?;
        }
        Ok(Some(started))
    }

    fn ask(&mut self, method: &str, params: &Value) -> Result<Value> {
        self.asked += 1;
        let mut question = json!({"id": self.asked, "method": method, "params": params});
        if let Some(session) = &self.session {
            question["sessionId"] = session.as_str().into();
        }
        let mut bytes = serde_json::to_vec(&question)?;
        bytes.push(0);
        self.asks.write_all(&bytes)?;
        let end = Instant::now() + PATIENCE;
        loop {
            let mut message = self.next(method, end)?;
            if message["id"] != self.asked {
                self.told.push(message);
                continue;
            }
            ensure!(message["error"].is_null(), "{method}: {message}");
            return Ok(message["result"].take());
        }
    }

    fn next(&self, what: &str, end: Instant) -> Result<Value> {
        let left = end.saturating_duration_since(Instant::now());
        let next = self.answers.recv_timeout(left);
        next.with_context(|| format!("Chromium ended or is silent: {what}"))
    }

    /// A window of that size; a narrow one is a phone's.
    pub fn resize(&mut self, width: u32, height: u32) -> Result<()> {
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600,
        });
        self.ask("Emulation.setDeviceMetricsOverride", &metrics)
            .map(drop)
    }

    /// Until everything of it has been loaded.
    pub fn open(&mut self, url: &str) -> Result<()> {
        let from = self.told.len();
        let went = self.ask("Page.navigate", &json!({"url": url}))?;
        ensure!(went["errorText"].is_null(), "{url}: {went}");
        self.is_loaded(from)
    }

    /// Until the page has loaded itself again.
    pub fn loads_again(&mut self) -> Result<()> {
        self.is_loaded(self.told.len())
    }

    fn is_loaded(&mut self, from: usize) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut told = self.told[from..].iter();
            let mut is_told = |method: &str| told.any(|one| one["method"] == method);
            if is_told("Page.frameNavigated") && is_told("Page.loadEventFired") {
                return Ok(());
            }
            let next = self.next("the page's load", end)?;
            self.told.push(next);
        }
    }

    /// What an expression of JavaScript is in the page.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let from = self.told.len();
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut done = self.ask("Runtime.evaluate", &params);
        let goes = |one: &Value| one["method"] == "Runtime.executionContextsCleared";
        if done.is_err() && self.told[from..].iter().any(goes) {
            // The page has just loaded itself again.
            self.is_loaded(from)?;
            done = self.ask("Runtime.evaluate", &params);
        }
        let mut done = done?;
        ensure!(done["exceptionDetails"].is_null(), "{expression}: {done}");
        Ok(done["result"]["value"].take())
    }

    /// The whole page as PNG, also what is below the window.
    pub fn picture(&mut self) -> Result<Vec<u8>> {
        let params = json!({"format": "png", "captureBeyondViewport": true});
        let taken = self.ask("Page.captureScreenshot", &params)?;
        Ok(STANDARD.decode(taken["data"].as_str().context("no picture")?)?)
    }

    /// Of every request that it made for the page, also of one that was stopped.
    pub fn requests(&self) -> Vec<&str> {
        let sent = self
            .told
            .iter()
            .filter(|one| one["method"] == "Network.requestWillBeSent");
        sent.filter_map(|one| one["params"]["request"]["url"].as_str())
            .collect()
    }

    /// What a developer would see in red: errors, and what the page's policy forbids.
    pub fn complaints(&self) -> Vec<String> {
        const OF: [&str; 4] = [
            "Log.entryAdded",
            "Runtime.consoleAPICalled",
            "Runtime.exceptionThrown",
            "Audits.issueAdded",
        ];
        let of = |one: &&Value| OF.iter().any(|method| one["method"] == *method);
        self.told
            .iter()
            .filter(of)
            .map(|one| one["params"].to_string())
            .collect()
    }

    /// Ends it as a person does, and sees that nothing of it is left.
    pub fn close(mut self) -> Result<()> {
        self.session = None;
        self.ask("Browser.close", &json!({}))?;
        let end = Instant::now() + ITS_END;
        while self.next("its end", end).is_ok() {}
        let dir = self.dir.clone();
        drop(self);
        ensure!(!dir.exists(), "left: {}", dir.display());
        let left = of_directory(&dir);
        ensure!(left.is_empty(), "of Chromium is left: {left:?}");
        Ok(())
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // It is waited for after that, so the number is nobody else's yet.
        let group = Pid::from_raw(self.browser.id().cast_signed());
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.browser.wait();
        let end = Instant::now() + PATIENCE;
        while !of_directory(&self.dir).is_empty() && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Processes that were told to keep their things there; of one that ended nothing is told.
fn of_directory(dir: &Path) -> Vec<i32> {
    let Ok(all) = procfs::process::all_processes() else {
        return Vec::new();
    };
    let dir = dir.display().to_string();
    let has = |process: &procfs::process::Process| {
        let words = process.cmdline().unwrap_or_default();
        words.iter().any(|word| word.contains(&dir))
    };
    all.flatten()
        .filter(has)
        .map(|process| process.pid)
        .collect()
}

/// Width and height of a PNG, from its first chunk.
pub fn size_of(picture: &[u8]) -> Result<(u32, u32)> {
    let number = |at: usize| {
        let bytes = picture.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_be_bytes(bytes))
    };
    match (picture.starts_with(b"\x89PNG"), number(16), number(20)) {
        (true, Some(width), Some(height)) => Ok((width, height)),
        _ => bail!("no PNG"),
    }
}
