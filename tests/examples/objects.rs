//! The S3 server of the tests as a program: prints the environment of an engine that keeps its images there, and serves
//! until it is told to end.

#![expect(clippy::print_stdout, reason = "whoever starts it reads where it listens")]

use tests::objects::{ACCESS_KEY, BUCKET, Objects, SECRET_KEY};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() {
    let mut end = signal(SignalKind::terminate()).expect("a signal can be waited for");
    let objects = Objects::start().await;
    println!("FARMIQ_MEDIA__ENDPOINT={}", objects.url());
    println!("FARMIQ_MEDIA__BUCKET={BUCKET}");
    println!("FARMIQ_MEDIA__BUCKET_AUTO_CREATE=true");
    println!("FARMIQ_MEDIA__ACCESS_KEY={ACCESS_KEY}");
    println!("FARMIQ_MEDIA__SECRET_KEY={SECRET_KEY}");
    end.recv().await;
}
