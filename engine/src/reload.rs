//! What a running engine takes up when it is told to read its configuration again, by SIGHUP.

use std::sync::Arc;

use tokio::sync::watch;

use crate::config::{self, Auth, Config, Inputs};
use crate::{first_keys, observe};

/// The settings that are taken up without a restart: this one, and the section of all that decides who may call.
const LOG_LEVEL: &str = "log.level";
const AUTH: &str = "auth.";

/// The configuration as it was read last, and whoever wants to know what changes in it.
#[derive(Debug)]
pub struct Reload {
    inputs: Inputs,
    config: Config,
    /// Whether what the configuration leaves out is filled in with the secrets of the box.
    has_first_keys: bool,
    auth: watch::Sender<Arc<Auth>>,
}

impl Reload {
    /// Reads from the same inputs as the configuration in force.
    pub fn new(inputs: Inputs, config: Config, has_first_keys: bool) -> Self {
        let auth = watch::Sender::new(Arc::new(config.auth.clone()));
        Self { inputs, config, has_first_keys, auth }
    }

    /// Who may call, now and later.
    pub fn auth(&self) -> watch::Receiver<Arc<Auth>> {
        self.auth.subscribe()
    }

    /// Reads everything again and takes up what can be; what is of no use leaves everything as it was.
    pub fn again(&mut self) {
        let mut config = match config::load(&self.inputs) {
            Ok(loaded) => loaded.config,
            Err(mistakes) => {
                let report = mistakes.report(false);
                return tracing::error!(
                    report,
                    "the configuration has mistakes, the one before stays in force"
                );
            }
        };
        if self.has_first_keys {
            match first_keys::provide(&mut config) {
                Ok(first_keys) => first_keys.remark(),
                Err(error) => {
                    return tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "the secrets of the box cannot be read, the settings before stay in force"
                    );
                }
            }
        }
        let changed = self.config.changed_keys(&config);
        let (now, later): (Vec<_>, Vec<_>) =
            changed.into_iter().partition(|key| *key == LOG_LEVEL || key.starts_with(AUTH));
        self.config.log.level = config.log.level;
        self.config.auth = config.auth;
        observe::set_log_level(self.config.log.level);
        self.auth.send_replace(Arc::new(self.config.auth.clone()));
        tracing::info!(changed = now.join(", "), "read the configuration again");
        if !later.is_empty() {
            tracing::warn!(settings = later.join(", "), "changed settings wait for a restart");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LogLevel, load};

    #[test]
    fn what_can_be_taken_up_is_and_mistakes_change_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("edge.toml");
        let write = |text: &str| std::fs::write(&file, text).unwrap();
        write("[auth]\nadmin_enabled = false\n");
        let inputs = Inputs { file: Some(file.clone()), ..Inputs::default() };
        let mut reload = Reload::new(inputs.clone(), load(&inputs).unwrap().config, false);
        let auth = reload.auth();

        write(
            "[auth]\nadmin_enabled = true\n[log]\nlevel = \"debug\"\n[http]\nlisten = \"127.0.0.1:3999\"\n",
        );
        reload.again();
        assert!(auth.borrow().admin_enabled);
        assert_eq!(reload.config.log.level, LogLevel::Debug);
        assert_ne!(reload.config.http.listen.port(), 3999, "it waits for a restart");

        write("[auth]\nadmin_enabled = 7\n");
        reload.again();
        assert!(auth.borrow().admin_enabled);
        assert_eq!(reload.config.log.level, LogLevel::Debug);
    }
}
