//! The secrets a box makes for itself, so that devices and a first operator can call it without further ado.

use std::path::{Path, PathBuf};

use crate::config::{AuthMode, Config, Kept, KeptError, KeptOrigin, OperatorKey, Role, Secret, kept_secret};

/// The file that keeps the secret which signs device tokens.
const SIGNING_SECRET: &str = "signing-secret";
/// The file that keeps a generated `media.upload_secret`.
pub(crate) const UPLOAD_SECRET: &str = "upload-secret";
/// The file that keeps the key of the first operator.
pub(crate) const OPERATOR_KEY: &str = "operator-key";
/// The files below the data directory that a box makes once and cannot make again: its name, and its secrets.
pub(crate) const KEPT_FILES: [&str; 4] = ["edge-id", SIGNING_SECRET, OPERATOR_KEY, UPLOAD_SECRET];
/// What the first operator is called.
const OPERATOR: &str = "admin";

/// What a box has of its own.
#[derive(Debug, Default)]
pub struct FirstKeys {
    /// The first operator's key; `None` when operators are configured, or none is needed.
    pub operator: Option<OperatorKeyFile>,
    /// Files whose secrets were empty or too short, so that they were made anew.
    made_anew: Vec<PathBuf>,
}

/// The key of the first operator.
#[derive(Clone, Debug)]
pub struct OperatorKeyFile {
    /// The file that keeps it.
    pub path: PathBuf,
    /// The key, when it was made by this start.
    pub new: Option<Secret>,
}

impl FirstKeys {
    /// Says which secrets could not be used.
    pub fn remark(&self) {
        self.made_anew.iter().for_each(|path| remark(path));
    }

    fn kept(&mut self, data_dir: &Path, name: &str) -> Result<Kept<Secret>, KeptError> {
        let kept = kept_secret(data_dir, name)?;
        if kept.origin == KeptOrigin::MadeAnew {
            self.made_anew.push(data_dir.join(name));
        }
        Ok(kept)
    }
}

/// Fills in a secret for device tokens and a key of the role `admin` for all tenants where the configuration names none,
/// each made once and kept in the data directory. In compat mode, which is open to everybody, no key is made: it would
/// shut out whoever shows none.
///
/// # Errors
/// When the data directory cannot be read or written.
pub fn provide(config: &mut Config) -> Result<FirstKeys, KeptError> {
    let data_dir = config.edge.data_dir.clone();
    let mut first = FirstKeys::default();
    let Some(key) = fill_in(config, |name| first.kept(&data_dir, name))? else { return Ok(first) };
    let new = (key.origin != KeptOrigin::Found).then_some(key.value);
    first.operator = Some(OperatorKeyFile { path: data_dir.join(OPERATOR_KEY), new });
    Ok(first)
}

/// What [`provide`] makes of a configuration, with values in the place of secrets and without a look at the disk: for
/// whoever judges it.
#[must_use]
pub fn foreseen(config: &Config) -> Config {
    let mut config = config.clone();
    let kept = |_: &str| Ok(Kept { value: Secret::from("0".repeat(64)), origin: KeptOrigin::Found });
    fill_in(&mut config, kept).expect("nothing is read");
    config
}

/// Fills in what is missing, and returns the operator key if that was.
fn fill_in(
    config: &mut Config,
    mut kept: impl FnMut(&str) -> Result<Kept<Secret>, KeptError>,
) -> Result<Option<Kept<Secret>>, KeptError> {
    let auth = &mut config.auth;
    if auth.jwt_secrets.is_empty() {
        auth.jwt_secrets = vec![kept(SIGNING_SECRET)?.value];
    }
    if auth.mode == AuthMode::Compat || !auth.operator_keys.is_empty() {
        return Ok(None);
    }
    let key = kept(OPERATOR_KEY)?;
    let (name, tenants) = (Some(OPERATOR.to_owned()), vec!["*".to_owned()]);
    auth.operator_keys = vec![OperatorKey { name, key: key.value.clone(), role: Role::Admin, tenants }];
    Ok(Some(key))
}

/// A kept secret, with a word about one that could not be used.
///
/// # Errors
/// When the data directory cannot be read or written.
pub(crate) fn kept(data_dir: &Path, name: &str) -> Result<Secret, KeptError> {
    let kept = kept_secret(data_dir, name)?;
    if kept.origin == KeptOrigin::MadeAnew {
        remark(&data_dir.join(name));
    }
    Ok(kept.value)
}

/// A key to ask the engine with: a configured one, or the one that the box made.
pub(crate) fn operator_key(config: &Config) -> Option<Secret> {
    if let Some(key) = config.auth.operator_keys.first() {
        return Some(key.key.clone());
    }
    let text = std::fs::read_to_string(config.edge.data_dir.join(OPERATOR_KEY)).ok()?;
    Some(Secret::from(text.trim().to_owned()))
}

fn remark(path: &Path) {
    tracing::warn!(file = %path.display(), "a kept secret was empty or too short, it was made anew");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(data_dir: &Path, mode: AuthMode) -> Config {
        let mut config = Config::default();
        config.edge.data_dir = data_dir.to_owned();
        config.auth.mode = mode;
        config
    }

    #[test]
    fn a_box_makes_its_first_key_once_and_shows_it_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let start = || {
            let mut config = config(directory.path(), AuthMode::JwtOrMtls);
            let first = provide(&mut config).expect("the directory can be written");
            let key = config.auth.operator_keys[0].key.expose().to_owned();
            (config, first.operator.expect("no key is configured"), key)
        };
        let (config, first, key) = start();
        assert_eq!(first.new.as_ref().map(|key| key.expose()), Some(&*key));
        assert_eq!((config.auth.operator_keys[0].role, key.len()), (Role::Admin, 64));
        assert_eq!(std::fs::read_to_string(&first.path).expect("it is kept"), key);
        let (again, second, same) = start();
        assert!(second.new.is_none() && same == key);
        assert_eq!(again.auth.jwt_secrets[0].expose(), config.auth.jwt_secrets[0].expose());
    }

    #[test]
    fn what_is_configured_stays_and_an_open_box_stays_open() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut open = config(directory.path(), AuthMode::Compat);
        assert!(provide(&mut open).expect("the directory can be written").operator.is_none());
        assert!(open.auth.operator_keys.is_empty());
        let mut own = config(directory.path(), AuthMode::Jwt);
        own.auth.jwt_secrets = vec![Secret::from("mine".to_owned())];
        provide(&mut own).expect("the directory can be written");
        let (secrets, tenants) = (&own.auth.jwt_secrets, ["*".to_owned()].to_vec());
        assert_eq!(secrets.iter().map(Secret::expose).collect::<Vec<_>>(), ["mine"]);
        own.auth.operator_keys =
            vec![OperatorKey { name: None, key: Secret::from("k".to_owned()), role: Role::Read, tenants }];
        assert!(provide(&mut own).expect("the directory can be written").operator.is_none());
        assert_eq!(own.auth.operator_keys.len(), 1);
    }
}
