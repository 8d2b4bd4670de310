//! A line of a GPIO chip that is held: what relays hang on.
//!
//! The trait is as narrow as can be, so that everything above it is tested without a chip.

use std::fmt;
use std::path::{Path, PathBuf};

use gpiocdev::Request;
use gpiocdev::chip::Chip;
use gpiocdev::line::Value;
use serde::{Deserialize, Serialize};

/// What the kernel shows as the user of our lines.
const CONSUMER: &str = "farmiq-edge";

/// Which line, and what its level means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LineSettings {
    /// The character device of the chip, such as `/dev/gpiochip0`.
    pub chip: PathBuf,
    /// The number of the line on its chip.
    pub line: u32,
    /// Whether the relay pulls while the line is low.
    #[serde(default)]
    pub active_low: bool,
}

impl fmt::Display for LineSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} of {}", self.line, self.chip.display())
    }
}

/// A line cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LineError(pub String);

/// A line that is held; dropping it lets the kernel take it back.
pub trait Line: Send + Sync {
    /// Pulls or releases the relay.
    ///
    /// # Errors
    /// When the chip is gone.
    fn set(&self, is_pulled: bool) -> Result<(), LineError>;
}

/// Where lines come from.
pub trait Lines: Send + Sync {
    /// Takes a line, released.
    ///
    /// # Errors
    /// When there is no such line, or somebody else holds it.
    fn hold(&self, settings: &LineSettings) -> Result<Box<dyn Line>, LineError>;

    /// Who holds a line, in words, without touching it.
    ///
    /// # Errors
    /// When there is no such line, or somebody else holds it.
    fn look(&self, settings: &LineSettings) -> Result<String, LineError>;
}

/// The lines of this machine's chips, by the kernel's character devices.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelLines;

struct Held(Request);

impl Line for Held {
    fn set(&self, is_pulled: bool) -> Result<(), LineError> {
        let value = if is_pulled { Value::Active } else { Value::Inactive };
        self.0.set_lone_value(value).map(drop).map_err(|error| LineError(error.to_string()))
    }
}

impl Lines for KernelLines {
    fn hold(&self, settings: &LineSettings) -> Result<Box<dyn Line>, LineError> {
        let mut wish = Request::builder();
        wish.with_consumer(CONSUMER).on_chip(&settings.chip).with_line(settings.line);
        if settings.active_low {
            wish.as_active_low();
        }
        let held = wish.as_output(Value::Inactive).request();
        held.map(|held| Box::new(Held(held)) as Box<dyn Line>)
            .map_err(|error| explain(&settings.chip, &error))
    }

    fn look(&self, settings: &LineSettings) -> Result<String, LineError> {
        let chip = Chip::from_path(&settings.chip).map_err(|error| explain(&settings.chip, &error))?;
        let line = chip.line_info(settings.line).map_err(|error| explain(&settings.chip, &error))?;
        match (line.used, line.consumer.as_str()) {
            (false, _) => Ok(format!("{settings} is free")),
            (true, CONSUMER) => Ok(format!("{settings} is held by the engine")),
            (true, other) => Err(LineError(format!("{settings} is held by {other:?}"))),
        }
    }
}

fn explain(chip: &Path, error: &gpiocdev::Error) -> LineError {
    LineError(format!("{}: {error}", chip.display()))
}

#[cfg(test)]
pub(crate) mod doubles {
    //! A chip of the tests.

    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Its lines, and whether each is pulled; a line that nobody holds is not there.
    #[derive(Clone, Default)]
    pub(crate) struct Board {
        pub(crate) lines: Arc<Mutex<BTreeMap<u32, bool>>>,
        pub(crate) is_gone: Arc<std::sync::atomic::AtomicBool>,
    }

    impl Board {
        pub(crate) fn is_pulled(&self, line: u32) -> Option<bool> {
            self.lines.lock().unwrap().get(&line).copied()
        }

        fn check(&self) -> Result<(), LineError> {
            if self.is_gone.load(std::sync::atomic::Ordering::Relaxed) {
                return Err(LineError("no such device".to_owned()));
            }
            Ok(())
        }
    }

    struct OfBoard(Board, u32);

    impl Line for OfBoard {
        fn set(&self, is_pulled: bool) -> Result<(), LineError> {
            self.0.check()?;
            self.0.lines.lock().unwrap().insert(self.1, is_pulled);
            Ok(())
        }
    }

    impl Drop for OfBoard {
        fn drop(&mut self) {
            self.0.lines.lock().unwrap().remove(&self.1);
        }
    }

    impl Lines for Board {
        fn hold(&self, settings: &LineSettings) -> Result<Box<dyn Line>, LineError> {
            self.check()?;
            let mut lines = self.lines.lock().unwrap();
            if lines.insert(settings.line, false).is_some() {
                return Err(LineError("device or resource busy".to_owned()));
            }
            Ok(Box::new(OfBoard(self.clone(), settings.line)))
        }

        fn look(&self, settings: &LineSettings) -> Result<String, LineError> {
            self.check().map(|()| format!("{settings} is there"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chip_that_is_not_there_is_named() {
        let settings = LineSettings { chip: "/dev/gpiochip-none".into(), line: 4, active_low: false };
        let error = KernelLines.look(&settings).unwrap_err();
        assert!(error.0.contains("/dev/gpiochip-none"), "{error}");
        assert!(KernelLines.hold(&settings).is_err());
        // A file that is no chip is told from one that is not there.
        let settings = LineSettings { chip: "/dev/null".into(), ..settings };
        assert!(KernelLines.hold(&settings).is_err());
    }
}
