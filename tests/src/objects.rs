//! A real S3 server in this process, which verifies every signature, with its objects in a directory.

use std::net::SocketAddr;
use std::path::PathBuf;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::settings::{Settings, free_address};

/// The credential of every server.
pub const ACCESS_KEY: &str = "farmiq-test";
/// Its secret.
pub const SECRET_KEY: &str = "farmiq-test-secret";
/// The bucket of every test.
pub const BUCKET: &str = "farmiq-media";

/// The server. It ends with the test.
pub struct Objects {
    address: SocketAddr,
    directory: TempDir,
    service: S3Service,
    connections: Option<JoinSet<()>>,
}

impl Objects {
    /// A server without a bucket.
    ///
    /// # Panics
    /// When there is no room for a directory, or no free port.
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let files = FileSystem::new(directory.path()).expect("a directory");
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = builder.build();
        let mut objects = Self { address: free_address(), directory, service, connections: None };
        objects.start_again().await;
        objects
    }

    /// Settings of an engine that keeps its images here.
    #[must_use]
    pub fn of(&self, settings: Settings) -> Settings {
        settings
            .set("media.endpoint", &self.url())
            .set("media.bucket", BUCKET)
            .set("media.access_key", ACCESS_KEY)
            .set("media.secret_key", SECRET_KEY)
            .set("media.bucket_auto_create", "true")
            .set("media.bootstrap_delay_ms", "50")
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where an object lies.
    #[must_use]
    pub fn place(&self, key: &str) -> PathBuf {
        self.directory.path().join(BUCKET).join(key)
    }

    /// Takes the server away, with every connection.
    ///
    /// # Panics
    /// When it is away already.
    pub async fn stop(&mut self) {
        self.connections.take().expect("the server runs").shutdown().await;
    }

    /// Brings the server back at its address.
    ///
    /// # Panics
    /// When somebody else took it.
    pub async fn start_again(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("the port is free");
        let service = self.service.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // Connections belong to this task, and end with it.
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("a listener");
                stream.set_nodelay(true).expect("an open socket");
                let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service.clone());
                connections.spawn(async move { drop(serving.await) });
            }
        });
        self.connections = Some(tasks);
    }
}
