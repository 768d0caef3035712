//! A TCP proxy that misbehaves on request: cuts, refuses, is slow, or loses what the server answers.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Bytes taken at a time.
const PIECE_BYTES: usize = 64 * 1_024;

/// What the network is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Everything passes.
    Fair,
    /// Each piece waits so long before it passes, in both directions.
    Slow(Duration),
    /// What clients send reaches the server; what it answers is lost.
    AnswersLost,
    /// No connection stands, and none is made.
    Down,
}

/// The state that every connection follows.
#[derive(Clone, Copy, Debug)]
struct State {
    weather: Weather,
    /// Raised to cut all connections.
    cuts: u64,
}

/// A proxy before one server. Ends, with its connections, when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    state: Arc<watch::Sender<State>>,
    _task: AbortOnDropHandle<()>,
}

impl Proxy {
    /// A proxy before the server at this port of this machine. Must be called within a runtime.
    ///
    /// # Errors
    ///
    /// No port is left.
    pub async fn start(server: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("the proxy's port")?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(watch::Sender::new(State { weather: Weather::Fair, cuts: 0 }));
        let states = Arc::clone(&state);
        let task = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                if states.borrow().weather == Weather::Down {
                    continue;
                }
                // It ends with its state, which ends with the proxy.
                tokio::spawn(connection(client, server, states.subscribe()));
            }
        });
        Ok(Self { port, state, _task: AbortOnDropHandle::new(task) })
    }

    /// Where clients connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes the weather; [`Weather::Down`] cuts as well.
    pub fn set(&self, weather: Weather) {
        self.state.send_modify(|state| {
            state.weather = weather;
            state.cuts += u64::from(weather == Weather::Down);
        });
    }

    /// Cuts all connections, after which everything passes.
    pub fn cut_and_heal(&self) {
        self.state.send_modify(|state| {
            state.weather = Weather::Fair;
            state.cuts += 1;
        });
    }

    /// Cuts all connections; new ones are as the weather is.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }
}

async fn connection(client: TcpStream, server: u16, states: watch::Receiver<State>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    let small_pieces_at_once = client.set_nodelay(true).and_then(|()| server.set_nodelay(true));
    if small_pieces_at_once.is_err() {
        return;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut cut = states.clone();
    let cuts = cut.borrow_and_update().cuts;
    tokio::select! {
        // Either end closes: both do.
        () = pass(from_client, to_server, &states, (cuts, false)) => {}
        () = pass(from_server, to_client, &states, (cuts, true)) => {}
        _cut_or_gone = cut.wait_for(|state| state.cuts != cuts) => {}
    }
}

/// Passes bytes on until an end closes, or there is another cut than the last before it began.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    states: &watch::Receiver<State>,
    (cuts, is_answer): (u64, bool),
) {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let Ok(length @ 1..) = from.read(&mut piece).await else { return };
        let state = *states.borrow();
        if state.cuts != cuts {
            // Nothing passes behind what was lost.
            return;
        }
        match state.weather {
            Weather::Fair | Weather::Down => {}
            Weather::Slow(wait) => tokio::time::sleep(wait).await,
            Weather::AnswersLost if is_answer => continue,
            Weather::AnswersLost => {}
        }
        if to.write_all(piece.get(..length).unwrap_or_default()).await.is_err() {
            return;
        }
    }
}
