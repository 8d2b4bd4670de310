//! The configuration as text: the one in effect, and the example file.

use std::collections::BTreeMap;
use std::fmt::Write;

use toml::Value;

use super::Loaded;
use super::keys::{Config, SECTIONS};
use super::source::Origin;
use super::table::Key;

/// Column at which the origin of a value is written, where the value leaves room.
const ORIGIN_COLUMN: usize = 48;

impl Loaded {
    /// The configuration in effect as a TOML file, each value with where it came from, secrets masked.
    pub fn effective(&self) -> String {
        let values: BTreeMap<_, _> =
            self.config.entries().into_iter().map(|(key, value)| (key.path, value)).collect();
        let mut text = String::from("# The configuration in effect; secrets are shown as ***.\n");
        for section in SECTIONS {
            let _ = write!(text, "\n[{}]\n", section.name);
            for key in section.keys {
                let line = format!("{} = {}", key.name, values[key.path]);
                let origin = self.origins.get(key.path).unwrap_or(&Origin::Default);
                let _ = writeln!(text, "{line:<ORIGIN_COLUMN$} # {origin}");
            }
        }
        text
    }
}

/// The example file: every key with what it does and its default, each switched off by a `#`.
pub fn example() -> String {
    let defaults: BTreeMap<_, _> = default_values();
    let mut text = String::from(
        "# Configuration of farmiq-edge, with every key at its default. Name this file with --config or FARMIQ_CONFIG.\n\
         # A variable FARMIQ_<SECTION>__<KEY> wins over the file: outbox.lease_seconds is FARMIQ_OUTBOX__LEASE_SECONDS.\n\
         # A secret may be in a file of its own, named by <key>_file here or FARMIQ_<SECTION>__<KEY>_FILE.\n\
         # `farmiq-edge check-config` shows every mistake at once, and what is in effect.\n",
    );
    for section in SECTIONS {
        let _ = writeln!(text, "\n#{}\n[{}]", section.doc.join("\n#"), section.name);
        for key in section.keys {
            let _ = writeln!(text, "#{}{}", key.doc.join("\n#"), remarks(key));
            let _ = writeln!(text, "#{} = {}", key.name, defaults[key.path]);
        }
    }
    text
}

/// The defaults as they are written down, before the box fills in what it knows about itself.
fn default_values() -> BTreeMap<&'static str, Value> {
    let mut config = Config::default();
    config.edge.id.clear();
    config.edge.version.clear();
    config.entries().into_iter().map(|(key, value)| (key.path, value)).collect()
}

fn remarks(key: &Key) -> String {
    let mut remarks = String::new();
    if let Some((least, most)) = key.range.first() {
        let _ = write!(remarks, " From {least} to {most}.");
    }
    if key.secret {
        remarks.push_str(" Secret.");
    }
    if !key.old.is_empty() {
        let names: Vec<_> = key.old.iter().map(|old| old.name).collect();
        let _ = write!(remarks, " Old name: {}.", names.join(", "));
    }
    remarks
}
