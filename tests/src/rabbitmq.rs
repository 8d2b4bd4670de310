//! A real RabbitMQ server of its own: stopped, killed, and started again with what it keeps on disk.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use lapin::options::{BasicGetOptions, BasicPublishOptions, QueueDeclareOptions, QueuePurgeOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::certificates::Authority;
use crate::engine::signal;
use crate::settings::free_address;
use crate::wait::until;

/// The queue of work orders.
pub const ORDERS: &str = "farmiq.inference";
/// The queue of those whose jobs were given up.
pub const DEAD: &str = "farmiq.inference.dead";
/// Where Debian and Ubuntu have the program that runs under any user.
const PROGRAM: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
/// Where they have the program that tells a server what to do.
const CONTROL: &str = "/usr/lib/rabbitmq/bin/rabbitmqctl";

/// How long one attempt to connect may take: a server that is just starting may accept and never answer.
const ATTEMPT: Duration = Duration::from_secs(5);

/// A server process; it dies with the test.
pub struct RabbitMq {
    address: SocketAddr,
    encrypted: SocketAddr,
    /// Where the node registers its name, which would otherwise be one place for the whole machine.
    epmd: SocketAddr,
    node: SocketAddr,
    directory: TempDir,
    server: Option<Child>,
    _epmd: Child,
}

impl RabbitMq {
    /// Starts a server that lets `guest` in.
    ///
    /// # Panics
    /// When RabbitMQ is not installed.
    pub async fn start() -> Self {
        let [address, encrypted, epmd, node] = std::array::from_fn(|_| free_address());
        let directory = tempfile::tempdir().expect("a directory can be made");
        let authority = Authority::new("rabbits");
        let (cert, key) = authority.server().write(directory.path());
        let config = format!(
            "listeners.tcp.1 = {address}\nlisteners.ssl.1 = {encrypted}\n\
             ssl_options.certfile = {}\nssl_options.keyfile = {}\n\
             log.file = false\nlog.console = true\nlog.console.level = warning\ndisk_free_limit.absolute = 1MB\n",
            cert.display(),
            key.display()
        );
        let put = |name: &str, text: &str| std::fs::write(directory.path().join(name), text);
        put("rabbitmq.conf", &config).expect("the configuration can be written");
        put("enabled_plugins", "[].").expect("the configuration can be written");
        put("ca.pem", &authority.pem()).expect("the configuration can be written");
        let register = Command::new("epmd")
            .args(["-address", "127.0.0.1", "-port", &epmd.port().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("Erlang is installed");
        // The server would start a registry of its own otherwise, which outlives the test.
        until("epmd listens", async || TcpStream::connect(epmd).await.is_ok()).await;
        let mut server = Self { address, encrypted, epmd, node, directory, server: None, _epmd: register };
        server.start_again().await;
        server
    }

    /// Starts the server, whose last process is gone, with what that left on disk.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_again(&mut self) {
        let home = self.directory.path();
        let log = || File::options().create(true).append(true).open(home.join("log")).expect("a log");
        let child = Command::new(PROGRAM)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LANG", "C.UTF-8")
            .env("HOME", home)
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_EPMD_PORT", self.epmd.port().to_string())
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_NODENAME", self.name())
            .env("RABBITMQ_DIST_PORT", self.node.port().to_string())
            .env("RABBITMQ_MNESIA_BASE", home.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", home)
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", home.join("enabled_plugins"))
            .env("RABBITMQ_CONFIG_FILE", home.join("rabbitmq.conf"))
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}")
            // The script becomes the server instead of watching it, so that signals reach it.
            .env("RUNNING_UNDER_SYSTEMD", "true")
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(log())
            .kill_on_drop(true)
            .spawn();
        assert!(Path::new(PROGRAM).exists(), "RabbitMQ is not installed: deploy/prerequisites test");
        self.server = Some(child.expect("the server can be started"));
        until("rabbitmq answers", async || {
            let child = self.server.as_mut().expect("it was just started");
            let ended = child.try_wait().expect("a child can be waited for");
            let log = || std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            assert!(ended.is_none(), "rabbitmq ended with {ended:?}: {}", log());
            timeout(ATTEMPT, self.connect()).await.is_ok_and(|connected| connected.is_ok())
        })
        .await;
    }

    /// Has the server end in order, and waits until it has.
    ///
    /// # Panics
    /// When it does not run.
    pub async fn stop(&mut self) {
        let mut server = self.server.take().expect("it runs");
        signal(server.id().expect("it runs"), Signal::TERM);
        server.wait().await.expect("a child can be waited for");
    }

    /// Kills the server without warning.
    ///
    /// # Panics
    /// When it does not run.
    pub async fn kill(&mut self) {
        self.server.take().expect("it runs").kill().await.expect("a child can be killed");
    }

    /// Tells the server something, as an administrator does, and returns what it answers.
    ///
    /// # Panics
    /// When it refuses.
    pub async fn control(&self, arguments: &[&str]) -> String {
        let output = Command::new(CONTROL)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LANG", "C.UTF-8")
            .env("HOME", self.directory.path())
            .env("ERL_EPMD_PORT", self.epmd.port().to_string())
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .args(["-q", "-n", &self.name()])
            .args(arguments)
            .output()
            .await;
        let output = output.expect("RabbitMQ is installed");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        said
    }

    /// How many clients are connected, this test not among them.
    ///
    /// # Panics
    /// When the server does not answer.
    pub async fn connections(&self) -> usize {
        self.control(&["list_connections", "pid"]).await.lines().filter(|line| line.starts_with('<')).count()
    }

    fn name(&self) -> String {
        format!("test{}@localhost", self.address.port())
    }

    /// Its address, with a password.
    #[must_use]
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@{}/%2f", self.address)
    }

    /// The address of its encrypted listener, for clients that trust [`RabbitMq::authority`].
    #[must_use]
    pub fn encrypted_url(&self) -> String {
        format!("amqps://guest:guest@localhost:{}/%2f", self.encrypted.port())
    }

    /// Who vouches for the server, as a PEM file.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Messages that wait in a queue.
    ///
    /// # Panics
    /// When there is no such queue.
    pub async fn waiting(&self, queue: &str) -> u32 {
        let (_connection, channel) = self.channel().await;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare(queue.into(), options, FieldTable::default()).await;
        queue.expect("the queue is there").message_count()
    }

    /// Takes a message off a queue, if there is one.
    ///
    /// # Panics
    /// When there is no such queue.
    pub async fn take(&self, queue: &str) -> Option<Vec<u8>> {
        let (_connection, channel) = self.channel().await;
        let message = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await;
        message.expect("the queue is there").map(|message| message.delivery.data)
    }

    /// Puts a message into a queue.
    ///
    /// # Panics
    /// When the server does not take it.
    pub async fn put(&self, queue: &str, body: &[u8]) {
        let (connection, channel) = self.channel().await;
        let options = BasicPublishOptions::default();
        let sent = channel.basic_publish("".into(), queue.into(), options, body, BasicProperties::default());
        sent.await.expect("the server takes it").await.expect("it was not to be confirmed");
        connection.close(200, "".into()).await.expect("the server lets go");
    }

    /// Empties a queue.
    ///
    /// # Panics
    /// When there is no such queue.
    pub async fn purge(&self, queue: &str) {
        let (_connection, channel) = self.channel().await;
        let purged = channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await;
        purged.expect("the queue is there");
    }

    async fn connect(&self) -> lapin::Result<Connection> {
        Connection::connect(&self.url(), ConnectionProperties::default()).await
    }

    async fn channel(&self) -> (Connection, Channel) {
        let connection = self.connect().await.expect("the server answers");
        let channel = connection.create_channel().await.expect("the server answers");
        (connection, channel)
    }
}
