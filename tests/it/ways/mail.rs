//! E-mail, at a real SMTP server with a login and STARTTLS.

use std::path::{Path, PathBuf};

use actors::alarm::way::email::{Email, EmailSettings, Encryption};
use actors::alarm::way::{Failure, Language, MessageKind};
use tests::certificates::Authority;
use tests::told::Told;

use super::{message, only};

struct Post {
    server: Told,
    port: u16,
    ca: PathBuf,
    password: PathBuf,
    home: tempfile::TempDir,
}

impl Post {
    async fn start() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let authority = Authority::new("mail");
        let (cert, key) = authority.server().write(home.path());
        let (ca, password) = (home.path().join("ca.pem"), home.path().join("password"));
        std::fs::write(&ca, authority.pem()).expect("a file can be written");
        std::fs::write(&password, "hush\n").expect("a file can be written");
        let path = |path: &Path| path.display().to_string();
        let server = Told::start("smtpd.py", &[&path(&cert), &path(&key), "barn", "hush"]);
        let port = server.heard("listening", 1).await["port"].as_u64().expect("a port");
        Self { server, port: u16::try_from(port).expect("a port"), ca, password, home }
    }

    fn settings(&self) -> EmailSettings {
        EmailSettings {
            server: "localhost".to_owned(),
            port: Some(self.port),
            encryption: Encryption::Starttls,
            tls_ca: Some(self.ca.clone()),
            username: Some("barn".to_owned()),
            password_file: Some(self.password.clone()),
            from: "barn@example.org".to_owned(),
            to: vec!["farmer@example.org".to_owned(), "Neighbor <neighbor@example.org>".to_owned()],
            language: Language::Th,
            timeout_seconds: 10,
        }
    }

    async fn failure(&self, settings: EmailSettings) -> Failure {
        let ways = only(Email::new("mail", settings));
        let error = ways.tell("mail", &message(MessageKind::Raised)).await.expect_err("it does not get out");
        assert!(!error.to_string().contains("hush") && !error.advice.is_empty(), "{error}");
        error.failure
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_arrives_in_the_language_of_its_readers() {
    let post = Post::start().await;
    let ways = only(Email::new("mail", post.settings()));
    assert_eq!(ways.reach("mail").await.expect("it greets us"), "localhost greets us");
    let receipt = ways.tell("mail", &message(MessageKind::Raised)).await.expect("it is taken");
    assert!(receipt.detail.contains("taken as number 7"), "{receipt:?}");
    let mail = post.server.heard("mail", 1).await;
    assert_eq!(mail["to"], serde_json::json!(["farmer@example.org", "neighbor@example.org"]));
    let data = mail["data"].as_str().expect("text");
    assert!(data.contains("From: barn@example.org") && data.contains("Subject: "), "{data}");
    assert_eq!(post.server.said("mail").len(), 1, "the question sends none");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_a_letter_from_getting_out_is_said() {
    let post = Post::start().await;
    let wrong = post.home.path().join("wrong");
    std::fs::write(&wrong, "guess").expect("a file can be written");
    let settings = EmailSettings { password_file: Some(wrong), ..post.settings() };
    assert_eq!(post.failure(settings).await, Failure::Refused);
    let settings = EmailSettings { to: vec!["nobody@example.org".to_owned()], ..post.settings() };
    assert_eq!(post.failure(settings).await, Failure::Refused);
    // The system's CAs do not vouch for this server.
    let settings = EmailSettings { tls_ca: None, ..post.settings() };
    assert_ne!(post.failure(settings).await, Failure::TimedOut);
    let settings = EmailSettings { password_file: Some("/nowhere".into()), ..post.settings() };
    assert_eq!(post.failure(settings).await, Failure::Broken);
    let settings = EmailSettings { port: Some(1), ..post.settings() };
    assert_eq!(post.failure(settings).await, Failure::Unreachable);
    // A server that takes the connection and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = silent.local_addr().expect("it listens").port();
    let settings = EmailSettings { port: Some(port), timeout_seconds: 1, ..post.settings() };
    assert_eq!(post.failure(settings).await, Failure::TimedOut);
    assert_eq!(post.server.said("mail").len(), 0);
}
