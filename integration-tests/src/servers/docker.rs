//! Servers in containers, through testcontainers, where a Docker engine answers.
//!
//! Faults are what operators meet: a container that is killed, paused, or cut off its network.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use futures_util::StreamExt as _;
use testcontainers::{
    ContainerAsync, ContainerRequest, GenericImage, ImageExt as _,
    bollard::{
        Docker,
        models::{NetworkConnectRequest, NetworkDisconnectRequest},
        query_parameters::{
            CreateImageOptionsBuilder, InspectContainerOptions, KillContainerOptionsBuilder,
            LogsOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
            StopContainerOptions,
        },
    },
    core::{ContainerPort, Mount, client::docker_client_instance},
    runners::AsyncRunner as _,
};
use tokio::runtime::Runtime;

use crate::{nats::repository, ports::free_port};

/// An engine that is there answers at once.
const PING_MAX: Duration = Duration::from_secs(5);
/// Until a registry says the first word about an image: longer means that there is none.
const REGISTRY_ANSWER_MAX: Duration = Duration::from_secs(10);
/// Between two words of a registry while an image comes.
const REGISTRY_SILENCE_MAX: Duration = Duration::from_secs(60);
/// From creation to running; a busy machine is slow, not broken.
const START_MAX: Duration = Duration::from_secs(120);
/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(20);
/// The network that containers are on unless told otherwise.
const NETWORK: &str = "bridge";
/// Lines of a log that an error shows.
const LOG_LINES: &str = "30";
/// Written by `scripts/offline-images`: the images that it built on this machine.
const OFFLINE: &str = "offline.env";
/// By this label what a killed run left behind can be removed.
pub const LABEL: &str = "lakegauge.test";

static RUNTIME: OnceLock<Runtime> = OnceLock::new();
/// What was found out about each image, so that a registry is asked once.
static IMAGES: Mutex<BTreeMap<String, Result<(), String>>> = Mutex::new(BTreeMap::new());

/// Which image a server is started from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    name: String,
    tag: String,
}

/// A container with published ports, removed when it is dropped.
#[derive(Debug)]
pub struct Container {
    docker: Docker,
    inner: Option<Box<ContainerAsync<GenericImage>>>,
    /// By its ports where they are published on this machine; stays the same.
    ports: BTreeMap<u16, u16>,
}

/// How a container is made.
#[derive(Debug)]
pub struct Recipe<'a> {
    /// Its image.
    pub image: &'a Image,
    /// Arguments of its entry point.
    pub arguments: Vec<String>,
    /// Its environment.
    pub environment: Vec<(String, String)>,
    /// The ports that are published.
    pub ports: Vec<u16>,
    /// A folder of this machine and where it stands in the container.
    pub folder: Option<(String, String)>,
    /// `user:group`, if not the image's own.
    pub user: Option<String>,
}

/// Waits for the engine on threads of its own, so that tests may call from anywhere.
fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> Result<T> {
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap_or_else(|error| unreachable!("a runtime can be built: {error}"))
    });
    std::thread::scope(|scope| scope.spawn(|| runtime.block_on(future)).join())
        .map_err(|_| anyhow!("a call to the Docker engine panicked"))
}

/// The engine, if one answers.
///
/// # Errors
///
/// None does; how it was asked is in the text.
pub fn engine() -> Result<Docker> {
    block_on(async {
        let docker = docker_client_instance().await.context("no Docker engine")?;
        let answer = tokio::time::timeout(PING_MAX, docker.ping()).await;
        answer
            .map_err(|_| anyhow!("the Docker engine did not answer within {PING_MAX:?}"))?
            .context("no Docker engine answers")?;
        Ok(docker)
    })?
}

/// The image that a variable names, in the environment or else in `offline.env`, or the default;
/// pulled if it is not on this machine.
///
/// # Errors
///
/// It is not there and no registry gives it. A registry is asked once in a process.
#[expect(clippy::disallowed_methods, reason = "tests take their servers from the environment")]
pub fn image(variable: &str, default: &str) -> Result<Image> {
    let given = std::env::var(variable).ok().filter(|name| !name.is_empty());
    let full = given.or_else(|| offline(variable)).unwrap_or_else(|| default.to_owned());
    let (name, tag) = full.rsplit_once(':').with_context(|| format!("{full} has no tag"))?;
    let mut images = IMAGES.lock().unwrap_or_else(PoisonError::into_inner);
    let known = match images.get(&full) {
        Some(known) => known.clone(),
        None => {
            let found = provide(name, tag).map_err(|error| format!("{error:#}"));
            images.insert(full.clone(), found.clone());
            found
        }
    };
    known.map_err(|why| {
        anyhow!(
            "no image {full}: {why}; `scripts/offline-images` builds one without a registry, or \
             set {variable}"
        )
    })?;
    Ok(Image { name: name.to_owned(), tag: tag.to_owned() })
}

fn offline(variable: &str) -> Option<String> {
    let text = std::fs::read_to_string(repository().join(OFFLINE)).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(variable)?.strip_prefix('='));
    line.map(str::to_owned)
}

fn provide(name: &str, tag: &str) -> Result<()> {
    let docker = engine()?;
    block_on(async {
        if docker.inspect_image(&format!("{name}:{tag}")).await.is_ok() {
            return Ok(());
        }
        let options = CreateImageOptionsBuilder::new().from_image(name).tag(tag).build();
        let mut pulling = docker.create_image(Some(options), None, None);
        let mut wait = REGISTRY_ANSWER_MAX;
        loop {
            match tokio::time::timeout(wait, pulling.next()).await {
                Ok(None) => return Ok(()),
                Ok(Some(Ok(_))) => wait = REGISTRY_SILENCE_MAX,
                Ok(Some(Err(error))) => return Err(error.into()),
                Err(_) => bail!("the registry said nothing for {wait:?}"),
            }
        }
    })?
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.tag)
    }
}

impl Container {
    /// Starts a container; what is in it may need longer.
    ///
    /// # Errors
    ///
    /// What the engine said.
    pub fn start(recipe: Recipe<'_>) -> Result<Self> {
        let ports: Result<BTreeMap<u16, u16>> =
            recipe.ports.iter().map(|port| Ok((*port, free_port()?))).collect();
        let ports = ports?;
        let image = GenericImage::new(&recipe.image.name, &recipe.image.tag);
        let mut request: ContainerRequest<GenericImage> = image
            .with_cmd(recipe.arguments)
            .with_label(LABEL, std::process::id().to_string())
            .with_startup_timeout(START_MAX)
            // Only this machine reaches it.
            .with_host_config_modifier(|config| {
                let bindings = config.port_bindings.iter_mut().flat_map(|all| all.values_mut());
                for binding in bindings.flatten().flatten() {
                    binding.host_ip = Some("127.0.0.1".to_owned());
                }
            });
        for (inside, outside) in &ports {
            request = request.with_mapped_port(*outside, ContainerPort::Tcp(*inside));
        }
        for (key, value) in recipe.environment {
            request = request.with_env_var(key, value);
        }
        if let Some((here, there)) = recipe.folder {
            request = request.with_mount(Mount::bind_mount(here, there));
        }
        if let Some(user) = recipe.user {
            request = request.with_user(user);
        }
        let docker = engine()?;
        let inner = block_on(request.start())??;
        Ok(Self { docker, inner: Some(Box::new(inner)), ports })
    }

    /// Where one of its ports is published on this machine.
    ///
    /// # Errors
    ///
    /// It is not.
    pub fn port(&self, inside: u16) -> Result<u16> {
        self.ports.get(&inside).copied().context("this port is not published")
    }

    /// Sends a signal to its first process: `KILL`, `QUIT`, `TERM`. Returns once it has ended.
    ///
    /// # Errors
    ///
    /// What the engine said.
    pub fn kill(&self, signal: &str) -> Result<()> {
        self.ask(|docker, id| async move {
            let options = KillContainerOptionsBuilder::new().signal(signal).build();
            docker.kill_container(&id, Some(options)).await?;
            let ending = async {
                while is_running(&docker, &id).await? {
                    tokio::time::sleep(POLL).await;
                }
                Ok(())
            };
            tokio::time::timeout(START_MAX, ending).await.context("it did not end")?
        })
    }

    /// Ends it as an operator would.
    ///
    /// # Errors
    ///
    /// What the engine said.
    pub fn stop(&self) -> Result<()> {
        self.ask(|docker, id| async move {
            Ok(docker.stop_container(&id, None::<StopContainerOptions>).await?)
        })
    }

    /// Starts it again after it ended, with the same files and port.
    ///
    /// # Errors
    ///
    /// What the engine said.
    pub fn start_again(&self) -> Result<()> {
        self.ask(|docker, id| async move {
            Ok(docker.start_container(&id, None::<StartContainerOptions>).await?)
        })
    }

    /// Freezes every process in it: connections stand, nothing answers.
    ///
    /// # Errors
    ///
    /// What the engine said.
    pub fn pause(&self) -> Result<()> {
        self.ask(|docker, id| async move { Ok(docker.pause_container(&id).await?) })
    }

    /// Ends [`Container::pause`].
    ///
    /// # Errors
    ///
    /// What the engine said.
    pub fn resume(&self) -> Result<()> {
        self.ask(|docker, id| async move { Ok(docker.unpause_container(&id).await?) })
    }

    /// Takes its network away: packets of open connections go nowhere, new ones are not taken.
    ///
    /// # Errors
    ///
    /// What the engine said.
    pub fn disconnect(&self) -> Result<()> {
        self.ask(|docker, id| async move {
            let request = NetworkDisconnectRequest { container: id, force: Some(true) };
            Ok(docker.disconnect_network(NETWORK, request).await?)
        })
    }

    /// Gives it its network back.
    ///
    /// # Errors
    ///
    /// What the engine said.
    pub fn connect(&self) -> Result<()> {
        self.ask(|docker, id| async move {
            let request = NetworkConnectRequest { container: id, endpoint_config: None };
            Ok(docker.connect_network(NETWORK, request).await?)
        })
    }

    /// Its address on the network of the containers.
    ///
    /// # Errors
    ///
    /// It is on none.
    pub fn address(&self) -> Result<String> {
        self.ask(|docker, id| async move {
            let found = docker.inspect_container(&id, None::<InspectContainerOptions>).await?;
            let networks = found.network_settings.and_then(|settings| settings.networks);
            let address = networks.and_then(|mut all| all.remove(NETWORK)?.ip_address);
            address.filter(|address| !address.is_empty()).context("it is on no network")
        })
    }

    /// Whether it runs; a paused one does.
    ///
    /// # Errors
    ///
    /// What the engine said.
    pub fn is_running(&self) -> Result<bool> {
        self.ask(|docker, id| async move { is_running(&docker, &id).await })
    }

    /// The end of what it wrote.
    pub fn log_end(&self) -> String {
        let log = self.ask(|docker, id| async move {
            let options =
                LogsOptionsBuilder::new().stdout(true).stderr(true).tail(LOG_LINES).build();
            let mut lines = docker.logs(&id, Some(options));
            let mut log = String::new();
            while let Some(line) = lines.next().await {
                log.push_str(&line?.to_string());
            }
            Ok(log)
        });
        log.unwrap_or_else(|error| format!("its log can't be read: {error}"))
    }

    fn ask<T: Send, A>(&self, question: impl FnOnce(Docker, String) -> A) -> Result<T>
    where
        A: Future<Output = Result<T>> + Send,
    {
        let id = self.inner.as_ref().context("it is gone")?.id().to_owned();
        block_on(question(self.docker.clone(), id))?
    }
}

async fn is_running(docker: &Docker, id: &str) -> Result<bool> {
    let found = docker.inspect_container(id, None::<InspectContainerOptions>).await?;
    Ok(found.state.and_then(|state| state.running).unwrap_or(false))
}

impl Drop for Container {
    fn drop(&mut self) {
        let removed = self.ask(|docker, id| async move {
            let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
            Ok(docker.remove_container(&id, Some(options)).await?)
        });
        if let Err(error) = removed {
            tracing::warn!(%error, "a container was not removed");
        }
        // The crate's own way of removing needs a runtime, and is no longer needed.
        std::mem::forget(self.inner.take());
    }
}
