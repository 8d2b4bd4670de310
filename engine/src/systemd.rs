//! Tells systemd how the engine is: ready, what it waits for, alive as long as it answers over HTTP, and stopping.
//!
//! Each message is one datagram to the socket that the environment names, so no library is needed. A unit asks for it with
//! `Type=notify` and `WatchdogSec=`.

use std::convert::Infallible;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{Environment, Http};
use crate::health::{self, HealthError, Question};

/// Between two looks at an engine that is not ready yet.
const LOOK: Duration = Duration::from_secs(1);
/// Between two looks at one that is, unless the watchdog wants to hear more often.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// The service manager that started this process, and what it wants to know.
pub struct Systemd {
    socket: UnixDatagram,
    look_again: Duration,
}

impl Systemd {
    /// The one that the environment names; `None` when this process was started by somebody else.
    ///
    /// # Errors
    /// When its socket cannot be used.
    pub fn of(environment: &Environment) -> io::Result<Option<Self>> {
        let Some(name) = environment.get("NOTIFY_SOCKET") else { return Ok(None) };
        let address = match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        socket.set_nonblocking(true)?;
        let patience = environment.get("WATCHDOG_USEC").and_then(|text| text.parse().ok());
        // Two messages within its patience, so that one may be late.
        let look_again = patience.map_or(LOOK_AGAIN, |patience| Duration::from_micros(patience) / 2);
        Ok(Some(Self { socket, look_again: look_again.min(LOOK_AGAIN) }))
    }

    /// Keeps it informed about the engine that listens as configured.
    ///
    /// # Errors
    /// When signals cannot be listened for.
    pub async fn keep_informed(&self, http: &Http) -> io::Result<Infallible> {
        let mut signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let (mut is_ready, mut told) = (false, String::new());
        loop {
            let answer = health::ask(http, Question::IsReady).await;
            if !matches!(answer, Err(HealthError::Silent { .. })) {
                self.tell("WATCHDOG=1");
            }
            if answer.is_ok() && !is_ready {
                self.tell("READY=1");
                is_ready = true;
            }
            let status = answer.map_or_else(|error| error.to_string(), str::to_owned);
            if status != told {
                self.tell(&format!("STATUS={status}"));
                told = status;
            }
            let wait = if is_ready { self.look_again } else { LOOK.min(self.look_again) };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = either(&mut signals) => self.tell("STOPPING=1\nSTATUS=stopping"),
            }
        }
    }

    /// A message that finds no room is left out: the next one says the same.
    fn tell(&self, message: &str) {
        let _ = self.socket.send(message.as_bytes());
    }
}

async fn either((terminate, interrupt): &mut (Signal, Signal)) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_told_unless_the_environment_names_a_socket() {
        assert!(Systemd::of(&Environment::default()).expect("nothing is tried").is_none());
    }

    #[test]
    fn the_watchdog_hears_twice_within_its_patience() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("a socket");
        let path = path.to_str().expect("UTF-8");
        for (patience, look_again) in [("3000000", 1_500), ("60000000", 10_000), ("soon", 10_000)] {
            let environment: Environment =
                [("NOTIFY_SOCKET", path), ("WATCHDOG_USEC", patience)].into_iter().collect();
            let systemd = Systemd::of(&environment).expect("it listens").expect("it is named");
            assert_eq!(systemd.look_again, Duration::from_millis(look_again));
            systemd.tell("READY=1");
            let mut message = [0; 64];
            let length = manager.recv(&mut message).expect("a message");
            assert_eq!(&message[..length], b"READY=1");
        }
    }
}
