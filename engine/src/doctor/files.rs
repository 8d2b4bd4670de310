//! The certificates that the configuration names: whether each of a file is understood, and when the first of them ends.

use std::path::Path;

use broker::tls::inspect::{CertificateFile, inspect};
use chrono::TimeDelta;
use schema::clock::Timestamp;

use super::{Finding, Verdict, causes};
use crate::certificates;
use crate::config::Config;

/// From how many days before its end a certificate is complained about.
const WARN_DAYS: i64 = 30;

/// A line for each file of certificates.
pub(super) async fn certificates(config: &Config, now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (key, path) in certificates::files(config) {
        findings.push(match inspect(&path).await {
            Ok(file) => judge(key, &path, &file, now),
            Err(error) => {
                let advice = format!("check {key}, and who may read the file");
                Finding::new(Verdict::Fail, "certificates", causes(&error), advice)
            }
        });
    }
    findings
}

fn judge(key: &str, path: &Path, file: &CertificateFile, now: Timestamp) -> Finding {
    const SUBJECT: &str = "certificates";
    let place = path.display();
    if let Some(line) = file.skipped_lines.first() {
        let text = format!(
            "{key}: {place} line {line} looks like the beginning of a certificate and is not read as one"
        );
        let advice = "remove what stands before its dashes, such as a byte order mark or a space";
        return Finding::new(Verdict::Fail, SUBJECT, text, advice);
    }
    let Some(first) = file.certificates.iter().min_by_key(|certificate| certificate.ends_at) else {
        let text = format!("{key}: {place} holds no certificate that can be read");
        return Finding::new(Verdict::Fail, SUBJECT, text, "replace the file");
    };
    let count = file.certificates.len();
    let ends = format!("{key}: \"{}\" ends {}", first.subject, first.ends_at.format("%Y-%m-%d"));
    if let Some(later) = file.certificates.iter().find(|certificate| certificate.begins_at > now) {
        let text =
            format!("{key}: \"{}\" is good from {} only", later.subject, later.begins_at.format("%Y-%m-%d"));
        return Finding::new(Verdict::Warn, SUBJECT, text, "check the clock of this machine, or wait");
    }
    if first.ends_at <= now {
        return Finding::new(Verdict::Fail, SUBJECT, format!("{ends}: it is over"), "replace it");
    }
    if first.ends_at - now < TimeDelta::days(WARN_DAYS) {
        let text = format!("{ends}, in {} days", (first.ends_at - now).num_days());
        return Finding::new(
            Verdict::Warn,
            SUBJECT,
            text,
            "replace it: changed files are taken up within seconds",
        );
    }
    Finding::ok(
        SUBJECT,
        format!("{ends}{}", if count > 1 { format!(", the first of {count}") } else { String::new() }),
    )
}

#[cfg(test)]
mod tests {
    use broker::tls::inspect::Inspected;

    use super::*;

    #[test]
    fn the_certificate_that_ends_first_decides() {
        let now = schema::wire::time::parse("2026-11-30T00:00:00Z").unwrap();
        let certificate = |begins: i64, ends: i64| Inspected {
            subject: "CN=barn".to_owned(),
            begins_at: now + TimeDelta::days(begins),
            ends_at: now + TimeDelta::days(ends),
        };
        let check =
            |certificates: Vec<Inspected>, skipped_lines: Vec<usize>, expected: Verdict, words: &str| {
                let file = CertificateFile { certificates, skipped_lines };
                let finding = judge("http.tls_cert", Path::new("/tls/crt.pem"), &file, now);
                assert_eq!(finding.verdict, expected, "{finding:?}");
                assert!(finding.text.contains(words), "{finding:?}");
            };
        check(vec![certificate(-5, 400)], vec![], Verdict::Ok, "ends 2028-01-04");
        check(vec![certificate(-5, 400), certificate(-5, 60)], vec![], Verdict::Ok, "the first of 2");
        check(vec![certificate(-5, 400), certificate(-5, 12)], vec![], Verdict::Warn, "in 12 days");
        check(vec![certificate(-5, -1), certificate(-5, 12)], vec![], Verdict::Fail, "it is over");
        check(vec![certificate(2, 400)], vec![], Verdict::Warn, "is good from");
        check(vec![certificate(-5, 400)], vec![17], Verdict::Fail, "line 17");
        check(vec![], vec![], Verdict::Fail, "no certificate");
    }
}
