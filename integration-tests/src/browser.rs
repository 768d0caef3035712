//! A real browser without a screen: Chromium, spoken to over two pipes in its DevTools protocol.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};
use service_kit::Clock;
use tempfile::TempDir;

/// Longest wait for an answer or a condition. A browser that starts on a busy machine takes seconds.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(50);
/// Where packages put it.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// How a page is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Width of the window, in CSS pixels.
    pub width: u32,
    /// Height of the window, in CSS pixels.
    pub height: u32,
    /// Whether the person prefers dark colours.
    pub dark: bool,
    /// Device pixels in a CSS pixel.
    pub scale: f64,
}

/// A browser with one page. Killed when it is dropped.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    to: File,
    from: Receiver<Value>,
    session: String,
    sent: u64,
    seen: Vec<Value>,
    clock: Clock,
    _folder: TempDir,
}

impl Browser {
    /// Starts a browser of somebody who reads this language, and opens an empty page.
    ///
    /// # Errors
    ///
    /// There is no Chromium, or it does not start.
    pub fn start(language: &str, look: Look) -> Result<Self> {
        let chromium = chromium()?;
        let folder = tempfile::Builder::new().prefix("lakegauge-browser-").tempdir()?;
        let (to, from) = (folder.path().join("to"), folder.path().join("from"));
        for pipe in [&to, &from] {
            mknodat(CWD, pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        }
        // Chromium reads from descriptor 3 and writes to 4.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<\"$TO_BROWSER\" 4>\"$FROM_BROWSER\"", "sh"])
            .arg(&chromium)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--no-first-run", "--disable-background-networking", "--disable-sync"])
            .args(["--disable-component-update", "--disable-extensions", "--hide-scrollbars"])
            .arg(format!("--accept-lang={language}"))
            .arg(format!("--lang={language}"))
            .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
            .args(["--remote-debugging-pipe", "about:blank"])
            .env("TO_BROWSER", &to)
            .env("FROM_BROWSER", &from)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.path().join("log"))?)
            .spawn()
            .context("can't start a shell")?;
        // Each waits for the shell to open the other end.
        let opened =
            File::options().write(true).open(&to).and_then(|to| Ok((to, File::open(&from)?)));
        let (to, from) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                child.kill()?;
                return Err(error.into());
            }
        };
        let mut browser = Self {
            child,
            to,
            from: messages(from),
            session: String::new(),
            sent: 0,
            seen: Vec::new(),
            clock: Clock::system(),
            _folder: folder,
        };
        browser.open_page(look)?;
        Ok(browser)
    }

    fn open_page(&mut self, look: Look) -> Result<()> {
        let target = self.call("Target.createTarget", json!({ "url": "about:blank" }))?;
        let target = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = self.call("Target.attachToTarget", target)?;
        self.session = attached["sessionId"].as_str().context("no session")?.to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.call(&format!("{domain}.enable"), json!({}))?;
        }
        self.look(look)
    }

    /// Changes how the page is looked at.
    ///
    /// # Errors
    ///
    /// The browser is gone.
    pub fn look(&mut self, look: Look) -> Result<()> {
        let metrics = json!({
            "width": look.width,
            "height": look.height,
            "deviceScaleFactor": look.scale,
            "mobile": look.width < 600,
        });
        self.call("Emulation.setDeviceMetricsOverride", metrics)?;
        let scheme = if look.dark { "dark" } else { "light" };
        let features = json!({
            "features": [{ "name": "prefers-color-scheme", "value": scheme }],
        });
        self.call("Emulation.setEmulatedMedia", features)?;
        Ok(())
    }

    /// Goes to an address.
    ///
    /// # Errors
    ///
    /// Nobody answers there, or not with a page that loads.
    pub fn go(&mut self, url: &str) -> Result<()> {
        let gone = self.call("Page.navigate", json!({ "url": url }))?;
        ensure!(gone.get("errorText").is_none(), "{url}: {}", gone["errorText"]);
        self.until("location.href !== 'about:blank' && document.readyState === 'complete'")
    }

    /// The value of an expression in the page.
    ///
    /// # Errors
    ///
    /// It throws, or the browser is gone.
    pub fn value(&mut self, expression: &str) -> Result<Value> {
        let asked =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", asked)?;
        if let Some(thrown) = answer.get("exceptionDetails") {
            bail!("{expression} threw {thrown}");
        }
        Ok(answer["result"]["value"].clone())
    }

    /// The value of an expression as text.
    ///
    /// # Errors
    ///
    /// As [`Browser::value`], and if it is none.
    pub fn text(&mut self, expression: &str) -> Result<String> {
        let value = self.value(expression)?;
        value.as_str().map(str::to_owned).with_context(|| format!("{expression} is {value}"))
    }

    /// Waits until an expression in the page is true.
    ///
    /// # Errors
    ///
    /// It does not come true in time; what the page says is in the text.
    pub fn until(&mut self, expression: &str) -> Result<()> {
        let deadline = self.clock.monotonic() + PATIENCE;
        while self.clock.monotonic() < deadline {
            if self.value(expression)? == Value::Bool(true) {
                return Ok(());
            }
            std::thread::sleep(POLL);
        }
        let page = self.text("document.body.innerText")?;
        bail!(
            "not after {} s: {expression}; problems {:?}; the page:\n{page}",
            PATIENCE.as_secs(),
            self.problems()
        )
    }

    /// A picture of what the window shows of the page, as PNG.
    ///
    /// # Errors
    ///
    /// The browser is gone.
    pub fn picture(&mut self) -> Result<Vec<u8>> {
        let asked = json!({ "format": "png" });
        let answer = self.call("Page.captureScreenshot", asked)?;
        Ok(STANDARD.decode(answer["data"].as_str().context("no picture")?)?)
    }

    /// What the page complained about so far: errors and warnings in its console, and what it threw.
    pub fn problems(&self) -> Vec<String> {
        let complaints = self.seen.iter().filter_map(|event| {
            let params = &event["params"];
            match event["method"].as_str()? {
                "Runtime.exceptionThrown" => Some(params["exceptionDetails"].to_string()),
                "Runtime.consoleAPICalled" => Some(params.to_string()),
                "Log.entryAdded" => Some(format!(
                    "{}: {}",
                    params["entry"]["source"].as_str()?,
                    params["entry"]["text"].as_str()?
                )),
                _ => None,
            }
        });
        complaints.collect()
    }

    /// The addresses that the page asked for so far.
    pub fn requests(&self) -> Vec<String> {
        let requests =
            self.seen.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        let url = |event: &Value| event["params"]["request"]["url"].as_str().map(str::to_owned);
        requests.filter_map(url).collect()
    }

    fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        self.sent += 1;
        let id = self.sent;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let mut bytes = serde_json::to_vec(&message)?;
        bytes.push(0);
        self.to.write_all(&bytes).context("the browser is gone")?;
        loop {
            let message = match self.from.recv_timeout(PATIENCE) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => bail!("no answer to {method}"),
                Err(RecvTimeoutError::Disconnected) => bail!("the browser ended before {method}"),
            };
            if message["id"] == id {
                ensure!(message.get("error").is_none(), "{method}: {}", message["error"]);
                return Ok(message["result"].clone());
            }
            self.seen.push(message);
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.call("Browser.close", json!({})));
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The messages of the browser, each ended by a zero.
fn messages(from: File) -> Receiver<Value> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut bytes = Vec::new();
        while from.read_until(0, &mut bytes).is_ok_and(|count| count > 0) {
            bytes.pop();
            let Ok(message) = serde_json::from_slice(&bytes) else { break };
            if sender.send(message).is_err() {
                break;
            }
            bytes.clear();
        }
    });
    receiver
}

/// The executable: `CHROMIUM_BIN`, or one on the PATH.
fn chromium() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("CHROMIUM_BIN").filter(|path| !path.is_empty()) {
        return Ok(PathBuf::from(given));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .flat_map(|folder| NAMES.map(|name| folder.join(name)))
        .find(|path| Path::is_file(path));
    found.context(
        "no Chromium: `./test` installs it; by hand it is `apt-get install chromium`, or name one \
         with CHROMIUM_BIN",
    )
}
