//! A proxy as people put one before several pages: it takes a path prefix away.

use anyhow::{Context as _, Result};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// A proxy before one server. It ends when it is dropped.
///
/// What is not below the prefix is nobody's: 404. The prefix without a slash at its end leads to the
/// one with it, as nginx, Caddy and Traefik do for a folder.
#[derive(Debug)]
pub struct PrefixProxy {
    port: u16,
    _task: AbortOnDropHandle<()>,
}

impl PrefixProxy {
    /// A proxy that takes `/prefix` away before it asks the server at this port. Must be called
    /// within a runtime.
    ///
    /// # Errors
    ///
    /// No port is left.
    pub async fn start(prefix: &'static str, server: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("the proxy's port")?;
        let port = listener.local_addr()?.port();
        let task = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                // A browser that goes away breaks its connection; that is its own affair.
                tokio::spawn(
                    async move { answer(client, prefix, server).await.unwrap_or_default() },
                );
            }
        });
        Ok(Self { port, _task: AbortOnDropHandle::new(task) })
    }

    /// Where clients connect to.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// One request a connection.
async fn answer(client: TcpStream, prefix: &str, server: u16) -> std::io::Result<()> {
    let mut client = BufReader::new(client);
    let mut first = String::new();
    client.read_line(&mut first).await?;
    let mut headers = String::new();
    loop {
        let mut line = String::new();
        client.read_line(&mut line).await?;
        if line.trim().is_empty() {
            break;
        }
        if !line.to_ascii_lowercase().starts_with("connection:") {
            headers.push_str(&line);
        }
    }
    let path = first.split(' ').nth(1).unwrap_or_default();
    let Some(below) = path.strip_prefix(prefix) else {
        let nobody = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        return client.write_all(nobody).await;
    };
    if below.is_empty() {
        let there =
            format!("location: {prefix}/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        return client.write_all(format!("HTTP/1.1 301 Moved\r\n{there}").as_bytes()).await;
    }
    let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
    let asked = format!("GET {below} HTTP/1.1\r\n{headers}connection: close\r\n\r\n");
    server.write_all(asked.as_bytes()).await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
