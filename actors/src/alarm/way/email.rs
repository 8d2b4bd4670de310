//! E-mail over SMTP, for whoever reads it where there is a network.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use lettre::message::{Mailbox, SinglePart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use serde::{Deserialize, Serialize};

use super::{Failure, Language, Message, Receipt, Way, WayError, secret};

/// How the connection is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encryption {
    /// From the first byte, usually on port 465.
    Tls,
    /// After a greeting in the clear, usually on port 587; a server that cannot is not used.
    #[default]
    Starttls,
    /// Not at all: for a server on the same machine.
    None,
}

/// What e-mail is set to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmailSettings {
    /// The name of the server, which its certificate must hold.
    pub server: String,
    /// Its port; none means the usual one of the encryption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// How the connection is encrypted.
    #[serde(default)]
    pub encryption: Encryption,
    /// CA of the server's certificate (PEM file); none means the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_ca: Option<PathBuf>,
    /// The user, where the server wants a login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The file of the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// The sender.
    pub from: String,
    /// Those who get it.
    pub to: Vec<String>,
    /// Their language.
    #[serde(default)]
    pub language: Language,
    /// Longest time of the whole exchange.
    #[serde(default = "timeout_seconds")]
    pub timeout_seconds: u64,
}

fn timeout_seconds() -> u64 {
    20
}

/// Whether mail can be sent to or from this.
#[must_use]
pub fn is_address(text: &str) -> bool {
    text.parse::<Mailbox>().is_ok()
}

/// E-mail to some people.
pub struct Email {
    name: String,
    settings: EmailSettings,
}

impl Email {
    /// A way of this name.
    #[must_use]
    pub fn new(name: &str, settings: EmailSettings) -> Self {
        Self { name: name.to_owned(), settings }
    }

    fn broken(&self, what: impl std::fmt::Display, advice: &str) -> WayError {
        WayError::new(&self.name, Failure::Broken, what, advice)
    }

    fn letter(&self, message: &Message) -> Result<lettre::Message, WayError> {
        let language = self.settings.language;
        let address = |text: &String| {
            text.parse::<Mailbox>().map_err(|error| {
                self.broken(format!("{text:?} is no address: {error}"), "correct from and to")
            })
        };
        let mut letter = lettre::Message::builder().from(address(&self.settings.from)?);
        for to in &self.settings.to {
            letter = letter.to(address(to)?);
        }
        letter
            .subject(message.headline(language))
            .singlepart(SinglePart::plain(message.body(language)))
            .map_err(|error| self.broken(error, "correct from and to"))
    }

    async fn transport(&self) -> Result<AsyncSmtpTransport<Tokio1Executor>, WayError> {
        let settings = &self.settings;
        let usual_port = match settings.encryption {
            Encryption::Tls => 465,
            Encryption::Starttls => 587,
            Encryption::None => 25,
        };
        let tls = match settings.encryption {
            Encryption::Tls => Tls::Wrapper(self.tls().await?),
            Encryption::Starttls => Tls::Required(self.tls().await?),
            Encryption::None => Tls::None,
        };
        let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&settings.server)
            .port(settings.port.unwrap_or(usual_port))
            .tls(tls)
            .hello_name(ClientId::Domain("farmiq-edge".to_owned()))
            .timeout(Some(Duration::from_secs(settings.timeout_seconds)));
        if let Some(username) = &settings.username {
            let password = secret::read(&self.name, settings.password_file.as_ref()).await?;
            transport =
                transport.credentials(Credentials::new(username.clone(), password.unwrap_or_default()));
        }
        Ok(transport.build())
    }

    async fn tls(&self) -> Result<TlsParameters, WayError> {
        let mut tls = TlsParameters::builder(self.settings.server.clone());
        if let Some(path) = &self.settings.tls_ca {
            let advice = "check tls_ca, and who may read it";
            let named = |error: String| self.broken(format!("{}: {error}", path.display()), advice);
            let pem = tokio::fs::read(path).await.map_err(|error| named(error.to_string()))?;
            let ca = Certificate::from_pem(&pem).map_err(|error| named(error.to_string()))?;
            tls = tls.certificate_store(CertificateStore::None).add_root_certificate(ca);
        }
        tls.build_rustls().map_err(|error| self.broken(error, "check tls_ca and the CAs of the system"))
    }

    fn failed(&self, error: &lettre::transport::smtp::Error) -> WayError {
        let mut what = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            let text = error.to_string();
            if !what.contains(&text) {
                what = format!("{what}: {text}");
            }
            cause = error.source();
        }
        let (failure, advice) = if error.is_timeout() {
            (Failure::TimedOut, "see that the server runs and that the network of the barn reaches it")
        } else if error.is_permanent() || error.is_transient() {
            (
                Failure::Refused,
                "check username and password_file, and whether the server takes mail of this sender",
            )
        } else if error.is_tls() || error.is_client() {
            (
                Failure::Refused,
                "check encryption and port, and with an own CA tls_ca and the name of the server",
            )
        } else {
            (Failure::Unreachable, "see that the server runs and that the network of the barn reaches it")
        };
        let advice = broker::tls::advice(&what).unwrap_or(advice);
        WayError::new(&self.name, failure, what, advice)
    }
}

#[async_trait]
impl Way for Email {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "email"
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(self.settings.timeout_seconds)
    }

    async fn tell(&self, message: &Message) -> Result<Receipt, WayError> {
        let letter = self.letter(message)?;
        let sent = self.transport().await?.send(letter).await.map_err(|error| self.failed(&error))?;
        let said: Vec<&str> = sent.message().collect();
        let detail = format!("{} {}", sent.code(), said.join(" "));
        Ok(Receipt { way: self.name.clone(), detail, confirmed_by: None, latency_ms: 0 })
    }

    /// Greets the server, logs in where it is asked for, and leaves.
    async fn reach(&self) -> Result<String, WayError> {
        self.letter(&Message::trial(""))?;
        let reached = self.transport().await?.test_connection().await;
        match reached.map_err(|error| self.failed(&error))? {
            true => Ok(format!("{} greets us", self.settings.server)),
            false => Err(WayError::new(
                &self.name,
                Failure::Refused,
                format!("{} does not answer to a NOOP", self.settings.server),
                "look into the log of the server",
            )),
        }
    }
}
