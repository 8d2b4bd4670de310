//! The shape of the table of keys: what is said about a key once, and everything that is made of it.

use super::value::Setting;

/// A group of keys: a table of the file.
#[derive(Debug)]
pub struct Section {
    /// Its name in the file.
    pub name: &'static str,
    /// What its keys are about.
    pub doc: &'static [&'static str],
    /// Its keys in the order of the example file.
    pub keys: &'static [Key],
}

/// One key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// The whole name, such as `outbox.lease_seconds`.
    pub path: &'static str,
    /// The name inside its section.
    pub name: &'static str,
    /// What it does, in lines.
    pub doc: &'static [&'static str],
    /// The default, as it would be written in the environment.
    pub default: &'static str,
    /// The smallest and the largest number it takes; empty when anything goes.
    pub range: &'static [(u64, u64)],
    /// Environment names of the programs before this one that still work, strongest first.
    pub old: &'static [OldName],
    /// Whether its value is never shown and may come from a file of its own.
    pub secret: bool,
}

/// Turns the text of an old variable into ours, or says what would be right.
pub type Convert = fn(&str) -> Result<String, String>;

/// An environment name that still works.
#[derive(Debug)]
pub struct OldName {
    /// The variable.
    pub name: &'static str,
    /// How its value becomes ours, where its unit or its meaning differs.
    pub convert: Option<Convert>,
}

/// Where the values of keys come from.
pub(super) trait Source {
    /// The value of a key; the default when nobody gives one, or a mistake.
    fn take<T: Setting>(&mut self, key: &'static Key) -> T;
}

impl Key {
    /// The environment name: `outbox.lease_seconds` is `FARMIQ_OUTBOX__LEASE_SECONDS`.
    pub fn env_name(&self) -> String {
        format!("FARMIQ_{}", self.path.replace('.', "__").to_ascii_uppercase())
    }

    /// The environment name of the file that holds the secret.
    pub fn env_file_name(&self) -> String {
        self.env_name() + "_FILE"
    }
}

/// Makes, of one line per key, the structs, the list of keys, the reader and the printer.
///
/// A line reads `/// what it does`, then `name: type = "default as text" in least..=most old [NAME, NAME by convert];`
/// where the range and the old names may be missing.
macro_rules! settings {
    ($($(#[doc = $section_doc:literal])+ $section:ident: $struct:ident {
        $($(#[doc = $doc:literal])+ $name:ident: $ty:ty = $default:literal
            $(in $least:literal..=$most:literal)?
            $(old [$($old:ident $(by $convert:ident)?),+])?;)+
    })+) => {
        /// Everything that can be set, read and checked.
        #[derive(Debug, Clone)]
        pub struct Config {
            $($(#[doc = $section_doc])+ pub $section: $struct,)+
        }

        $($(#[doc = $section_doc])+
        #[derive(Debug, Clone)]
        pub struct $struct {
            $($(#[doc = $doc])+ pub $name: $ty,)+
        })+

        /// Every key there is, by section.
        pub static SECTIONS: &[$crate::config::table::Section] = &[$($crate::config::table::Section {
            name: stringify!($section),
            doc: &[$($section_doc),+],
            keys: &[$($crate::config::table::Key {
                path: concat!(stringify!($section), ".", stringify!($name)),
                name: stringify!($name),
                doc: &[$($doc),+],
                default: $default,
                range: &[$(($least, $most))?],
                old: &[$($($crate::config::table::OldName {
                    name: stringify!($old),
                    convert: settings!(@convert $($convert)?),
                }),+)?],
                secret: <$ty as $crate::config::value::Setting>::SECRET,
            }),+],
        }),+];

        /// Every key in the order of its section.
        pub fn every_key() -> impl Iterator<Item = &'static $crate::config::table::Key> {
            SECTIONS.iter().flat_map(|section| section.keys)
        }

        impl Config {
            /// Takes every key from where it is given, strongest source first.
            pub(super) fn read(sources: &mut impl $crate::config::table::Source) -> Self {
                let mut keys = every_key();
                let mut next = || keys.next().expect("the list of keys and the structs come from the same lines");
                Self { $($section: $struct { $($name: sources.take(next()),)+ },)+ }
            }

            /// The keys whose values differ.
            pub fn changed_keys(&self, other: &Self) -> Vec<&'static str> {
                let are_equal = [$($(self.$section.$name == other.$section.$name,)+)+];
                let keys = every_key().zip(are_equal).filter(|(_, is_equal)| !is_equal);
                keys.map(|(key, _)| key.path).collect()
            }

            /// Every key with its value as it would stand in the file, secrets masked.
            pub fn entries(&self) -> Vec<(&'static $crate::config::table::Key, toml::Value)> {
                let values = [$($($crate::config::value::Setting::to_toml(&self.$section.$name),)+)+];
                every_key().zip(values).collect()
            }
        }
    };
    (@convert) => { None };
    (@convert $convert:ident) => { Some($crate::config::old::$convert) };
}
pub(super) use settings;
