//! A few lines of the NATS protocol by hand: what an operator or a foreign client does to the
//! server, without the product's own code.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// For one answer.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// Numbers the inboxes, so that no connection hears another's answers.
static INBOXES: AtomicU64 = AtomicU64::new(0);

/// A connection with one inbox.
#[derive(Debug)]
pub struct RawNats {
    stream: BufReader<TcpStream>,
    inbox: String,
}

impl RawNats {
    /// Connects to a server without a login.
    ///
    /// # Errors
    ///
    /// No server there, or one that wants a login.
    pub async fn connect(port: u16) -> Result<Self> {
        let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", port)).await?);
        let mut info = String::new();
        stream.read_line(&mut info).await?;
        ensure!(info.starts_with("INFO "), "no NATS server: {info}");
        let mut client = Self::over(stream);
        client.write("CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}").await?;
        client.write(&format!("SUB {}.* 1", client.inbox)).await?;
        client.write("PING").await?;
        client.line_beginning_with("PONG").await?;
        Ok(client)
    }

    fn over(stream: BufReader<TcpStream>) -> Self {
        let number = INBOXES.fetch_add(1, Ordering::Relaxed);
        Self { stream, inbox: format!("_INBOX.raw-{}-{number}", std::process::id()) }
    }

    /// Connects with a login, without the inbox: only for [`RawNats::may_publish`] and
    /// [`RawNats::may_subscribe`].
    ///
    /// # Errors
    ///
    /// No server there, or one that refuses the login.
    pub async fn log_in(port: u16, user: &str, password: &str) -> Result<Self> {
        let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", port)).await?);
        let mut info = String::new();
        stream.read_line(&mut info).await?;
        let mut client = Self::over(stream);
        let login = json!({ "verbose": false, "user": user, "pass": password });
        client.write(&format!("CONNECT {login}")).await?;
        client.write("PING").await?;
        client.line_beginning_with("PONG").await?;
        Ok(client)
    }

    /// Whether the server lets this login publish there. What may be published is, without a body.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    pub async fn may_publish(&mut self, subject: &str) -> Result<bool> {
        self.write(&format!("PUB {subject} 0\r\n")).await?;
        self.is_permitted().await
    }

    /// Whether the server lets this login listen there.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    pub async fn may_subscribe(&mut self, subject: &str) -> Result<bool> {
        self.write(&format!("SUB {subject} 2")).await?;
        let is_permitted = self.is_permitted().await?;
        self.write("UNSUB 2").await?;
        Ok(is_permitted)
    }

    /// Everything before the answer to a ping was judged by then.
    async fn is_permitted(&mut self) -> Result<bool> {
        self.write("PING").await?;
        let mut is_permitted = true;
        loop {
            let mut line = String::new();
            ensure!(self.stream.read_line(&mut line).await? > 0, "the connection is gone");
            if line.starts_with("-ERR") {
                ensure!(line.contains("Permissions Violation"), "{line}");
                is_permitted = false;
            }
            if line.starts_with("PONG") {
                return Ok(is_permitted);
            }
        }
    }

    /// Asks JetStream and gives its answer, which may be an error of its own.
    ///
    /// # Errors
    ///
    /// No answer.
    pub async fn ask(&mut self, subject: &str, body: &Value) -> Result<Value> {
        let answers = self.collect(&format!("$JS.API.{subject}"), &body.to_string(), 1).await?;
        let answer = answers.first().context("no answer")?;
        serde_json::from_slice(answer).with_context(|| format!("answer to {subject}"))
    }

    /// Asks JetStream for something that it must do.
    ///
    /// # Errors
    ///
    /// No answer, or an error.
    pub async fn demand(&mut self, subject: &str, body: &Value) -> Result<Value> {
        let answer = self.ask(subject, body).await?;
        if let Some(error) = answer.get("error") {
            bail!("{subject}: {error}");
        }
        Ok(answer)
    }

    /// Publishes and waits for the acknowledgement.
    ///
    /// # Errors
    ///
    /// It was not stored.
    pub async fn publish(&mut self, subject: &str, payload: &str) -> Result<Value> {
        let answers = self.collect(subject, payload, 1).await?;
        let answer: Value = serde_json::from_slice(answers.first().context("no answer")?)?;
        ensure!(answer.get("error").is_none(), "{subject}: {answer}");
        Ok(answer)
    }

    /// Publishes bytes that no client of ours would send, and waits for the acknowledgement; gives
    /// the sequence. Without a header block it is a plain message.
    ///
    /// # Errors
    ///
    /// It was not stored.
    pub async fn publish_bytes(
        &mut self,
        subject: &[u8],
        block: &[u8],
        payload: &[u8],
    ) -> Result<u64> {
        let total = block.len() + payload.len();
        let (verb, lengths) = if block.is_empty() {
            ("PUB", format!("{total}"))
        } else {
            ("HPUB", format!("{} {total}", block.len()))
        };
        let rest = format!(" {}.b {lengths}\r\n", self.inbox);
        let parts: [&[u8]; 7] =
            [verb.as_bytes(), b" ", subject, rest.as_bytes(), block, payload, b"\r\n"];
        self.stream.get_mut().write_all(&parts.concat()).await?;
        let answer =
            tokio::time::timeout(ANSWER_MAX, self.message()).await.context("no answer")??;
        let answer: Value = serde_json::from_slice(&answer)?;
        ensure!(answer.get("error").is_none(), "it was not stored: {answer}");
        answer["seq"].as_u64().context("no sequence")
    }

    /// Subscribes as `nats sub` would; [`RawNats::received`] gives what comes.
    ///
    /// # Errors
    ///
    /// The connection broke.
    pub async fn subscribe(&mut self, subject: &str) -> Result<()> {
        self.write(&format!("SUB {subject} 2")).await?;
        self.write("PING").await?;
        self.line_beginning_with("PONG").await
    }

    /// The payload of the next message.
    ///
    /// # Errors
    ///
    /// None came in time.
    pub async fn received(&mut self) -> Result<Vec<u8>> {
        tokio::time::timeout(ANSWER_MAX, self.message()).await.context("no message")?
    }

    /// Takes messages from a consumer as a second puller would; gives how many came.
    ///
    /// # Errors
    ///
    /// The connection broke.
    pub async fn take(&mut self, stream: &str, consumer: &str, count: usize) -> Result<usize> {
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
        let body = format!("{{\"batch\":{count},\"expires\":5000000000}}");
        Ok(self.collect(&subject, &body, count).await?.len())
    }

    async fn collect(&mut self, subject: &str, body: &str, count: usize) -> Result<Vec<Vec<u8>>> {
        let inbox = &self.inbox;
        self.write(&format!("PUB {subject} {inbox}.a {}\r\n{body}", body.len())).await?;
        let mut payloads = Vec::new();
        while payloads.len() < count {
            payloads.push(
                tokio::time::timeout(ANSWER_MAX, self.message())
                    .await
                    .with_context(|| format!("no answer to {subject}"))??,
            );
        }
        Ok(payloads)
    }

    /// Takes the place of JetStream on a server that has none.
    ///
    /// # Errors
    ///
    /// The connection broke.
    pub async fn pose_as_jetstream(&mut self) -> Result<()> {
        self.write("SUB $JS.API.STREAM.> 2").await?;
        self.write("PING").await?;
        self.line_beginning_with("PONG").await
    }

    /// Answers in its place as one would that takes every stream and ignores one of its options
    /// without a word. Ends with the connection.
    ///
    /// # Errors
    ///
    /// The connection broke.
    pub async fn ignore_option(&mut self, option: &str) -> Result<()> {
        loop {
            let (subject, reply, payload) = self.request().await?;
            let answer = if subject.contains(".CREATE.") {
                let mut config: Value = serde_json::from_slice(&payload)?;
                config.as_object_mut().context("no configuration")?.remove(option);
                json!({ "config": config })
            } else {
                json!({ "error": { "code": 404, "err_code": 10_059, "description": "not found" } })
            };
            let answer = answer.to_string();
            self.write(&format!("PUB {reply} {}\r\n{answer}", answer.len())).await?;
        }
    }

    async fn message(&mut self) -> Result<Vec<u8>> {
        Ok(self.request().await?.2)
    }

    /// Subject, reply subject (or what stands in its place) and body of the next message.
    async fn request(&mut self) -> Result<(String, String, Vec<u8>)> {
        loop {
            let mut line = String::new();
            ensure!(self.stream.read_line(&mut line).await? > 0, "the server hung up");
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.first().copied() {
                Some("PING") => self.write("PONG").await?,
                Some(kind @ ("MSG" | "HMSG")) => {
                    let total: usize = words.last().context("no length")?.parse()?;
                    let headers: usize = match (kind, words.len().checked_sub(2)) {
                        ("HMSG", Some(at)) => words.get(at).context("no length")?.parse()?,
                        _ => 0,
                    };
                    let mut payload = vec![0; total + 2];
                    self.stream.read_exact(&mut payload).await?;
                    payload.truncate(total);
                    let word = |at: usize| words.get(at).map_or("", |word| *word).to_owned();
                    return Ok((word(1), word(3), payload.split_off(headers)));
                }
                Some("-ERR") => bail!("the server says {line}"),
                Some(_) | None => {}
            }
        }
    }

    async fn line_beginning_with(&mut self, beginning: &str) -> Result<()> {
        loop {
            let mut line = String::new();
            ensure!(self.stream.read_line(&mut line).await? > 0, "the server hung up");
            if line.starts_with(beginning) {
                return Ok(());
            }
        }
    }

    async fn write(&mut self, line: &str) -> Result<()> {
        self.stream.get_mut().write_all(format!("{line}\r\n").as_bytes()).await?;
        Ok(())
    }
}
