//! Looks at the certificates of a file: whose they are, when they end, and whether each of them is understood.

use std::path::Path;

use chrono::DateTime;
use schema::clock::Timestamp;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{TlsError, certificates, read};

/// What begins a certificate in a PEM file.
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";

/// A certificate of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// Whom it names.
    pub subject: String,
    /// From when it is good.
    pub begins_at: Timestamp,
    /// Until when it is good.
    pub ends_at: Timestamp,
}

/// What a file of certificates holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFile {
    /// The certificates, in their order.
    pub certificates: Vec<Inspected>,
    /// Lines, counted from 1, that look like the beginning of a certificate and are none to a reader of PEM: something
    /// stands before the dashes, such as a byte order mark or a space.
    pub skipped_lines: Vec<usize>,
}

/// Reads the certificates of a PEM file.
///
/// # Errors
/// When it cannot be read, or holds no certificate.
pub async fn inspect(path: &Path) -> Result<CertificateFile, TlsError> {
    let pem = read(path).await?;
    let certificates = certificates(&pem, path)?;
    let certificates = certificates.iter().filter_map(|der| {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let validity = certificate.validity();
        Some(Inspected {
            subject: certificate.subject().to_string(),
            begins_at: DateTime::from_timestamp(validity.not_before.timestamp(), 0)?,
            ends_at: DateTime::from_timestamp(validity.not_after.timestamp(), 0)?,
        })
    });
    Ok(CertificateFile { certificates: certificates.collect(), skipped_lines: skipped_lines(&pem) })
}

fn skipped_lines(pem: &[u8]) -> Vec<usize> {
    let text = String::from_utf8_lossy(pem);
    let lines = text.lines().enumerate();
    let skipped = lines.filter(|(_, line)| line.contains(BEGIN) && !line.starts_with(BEGIN));
    skipped.map(|(index, _)| index + 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_behind_a_byte_order_mark_is_named_by_its_line() {
        let pem = format!("{BEGIN}\nAA==\n-----END CERTIFICATE-----\n\u{feff}{BEGIN}\n {BEGIN}\n");
        assert_eq!(skipped_lines(pem.as_bytes()), [4, 5]);
        assert!(skipped_lines(BEGIN.as_bytes()).is_empty());
    }
}
