//! What each device shows at its login.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::Device;

/// Where the credentials of devices come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Logins {
    /// Nobody shows anything.
    Anonymous,
    /// All devices are one user.
    Shared {
        /// User name.
        user: String,
        /// Password.
        password: Option<String>,
    },
    /// The user name is a prefix and the device id; the password is the same for all.
    Prefixed {
        /// What stands before the device id.
        prefix: String,
        /// Password.
        password: Option<String>,
    },
    /// Each has its own.
    Table(Table),
    /// Each shows `DEVICE.pem` with `DEVICE.key` of this directory.
    Certificates(PathBuf),
}

/// What one device shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Nothing: the broker decides.
    Nothing,
    /// A user name and a password.
    Password {
        /// User name.
        user: String,
        /// Password.
        password: Option<String>,
    },
    /// A certificate and its key, as PEM texts.
    Certificate {
        /// The certificate, and those between it and its CA.
        chain: Vec<u8>,
        /// The private key.
        key: Vec<u8>,
    },
}

impl Logins {
    /// What a device shows. One that is not in the table shows nothing, so that it is the broker that refuses it.
    ///
    /// # Errors
    /// When its certificate cannot be read.
    pub fn of(&self, device: &Device) -> Result<Shown> {
        let of = |user: &str, password: &Option<String>| Shown::Password {
            user: user.to_owned(),
            password: password.clone(),
        };
        match self {
            Self::Anonymous => Ok(Shown::Nothing),
            Self::Shared { user, password } => Ok(of(user, password)),
            Self::Prefixed { prefix, password } => Ok(of(&format!("{prefix}{}", device.id), password)),
            Self::Table(table) => Ok(table.of(device).map_or(Shown::Nothing, |row| Shown::Password {
                user: row.username.clone(),
                password: Some(row.password.clone()),
            })),
            Self::Certificates(folder) => {
                let read = |ending: &str| {
                    let path = folder.join(format!("{}.{ending}", device.id));
                    std::fs::read(&path).with_context(|| format!("read {}", path.display()))
                };
                Ok(Shown::Certificate { chain: read("pem")?, key: read("key")? })
            }
        }
    }

    /// Whether this device has nothing to show although others have.
    #[must_use]
    pub fn lacks(&self, device: &Device) -> bool {
        matches!(self, Self::Table(table) if table.of(device).is_none())
    }
}

/// User name and password of each device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    rows: HashMap<String, Row>,
}

/// A row of the file: the header names the columns.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Row {
    /// Device id, or `tenant/device` where two tenants have one of that id.
    pub device: String,
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
}

impl Table {
    /// Reads a CSV file with the columns `device`, `username` and `password`.
    ///
    /// # Errors
    /// When it cannot be read, lacks a column or names a device twice.
    pub fn read(path: &Path) -> Result<Self> {
        let file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
        Self::parse(file).with_context(|| format!("read {}", path.display()))
    }

    fn parse(file: impl std::io::Read) -> Result<Self> {
        let mut rows = HashMap::new();
        for row in csv::ReaderBuilder::new().trim(csv::Trim::Headers).from_reader(file).deserialize() {
            let row: Row = row.context("expected the columns device, username and password")?;
            let device = row.device.clone();
            ensure!(rows.insert(device.clone(), row).is_none(), "{device} is there twice");
        }
        ensure!(!rows.is_empty(), "there is no device in it");
        Ok(Self { rows })
    }

    /// Adds a row, or replaces that of the same device.
    pub fn put(&mut self, row: Row) {
        self.rows.insert(row.device.clone(), row);
    }

    /// Writes the rows to a file that only its owner reads.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
        let file = file.with_context(|| format!("open {}", path.display()))?;
        let mut writer = csv::Writer::from_writer(file);
        let mut rows: Vec<_> = self.rows.values().collect();
        rows.sort_by(|one, other| one.device.cmp(&other.device));
        for row in rows {
            writer.serialize(row).with_context(|| format!("write {}", path.display()))?;
        }
        writer.flush().with_context(|| format!("write {}", path.display()))
    }

    fn of(&self, device: &Device) -> Option<&Row> {
        self.rows.get(&format!("{}/{}", device.tenant, device.id)).or_else(|| self.rows.get(&device.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(tenant: &str, id: &str) -> Device {
        Device { tenant: tenant.into(), id: id.into() }
    }

    #[test]
    fn a_device_finds_its_row_by_its_tenant_first() {
        let text = "device,username,password\nd-1,any,one\nt-2/d-1,\"t-2/d-1\",\"with, comma\"\n";
        let logins = Logins::Table(Table::parse(text.as_bytes()).unwrap());
        let shown = |tenant, id| logins.of(&device(tenant, id)).unwrap();
        let password = |user: &str, password: &str| Shown::Password {
            user: user.into(),
            password: Some(password.into()),
        };
        assert_eq!(shown("t-1", "d-1"), password("any", "one"));
        assert_eq!(shown("t-2", "d-1"), password("t-2/d-1", "with, comma"));
        assert_eq!(shown("t-1", "d-2"), Shown::Nothing);
        assert!(logins.lacks(&device("t-1", "d-2")) && !Logins::Anonymous.lacks(&device("t-1", "d-2")));
    }

    #[test]
    fn a_table_is_written_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logins.csv");
        let mut table = Table::default();
        let row = |device: &str| Row { device: device.into(), username: "u".into(), password: "p,\"".into() };
        table.put(row("b"));
        table.put(row("a"));
        table.write(&path).unwrap();
        assert_eq!(Table::read(&path).unwrap(), table);
    }

    #[test]
    fn a_bad_file_says_what_is_wrong() {
        let check = |text: &str, flaw: &str| {
            let error = format!("{:#}", Table::parse(text.as_bytes()).unwrap_err());
            assert!(error.contains(flaw), "{error}");
        };
        check("device,username\nd,u\n", "expected the columns");
        check("device,username,password\nd,u,p\nd,u,p\n", "d is there twice");
        check("device,username,password\n", "no device");
    }
}
