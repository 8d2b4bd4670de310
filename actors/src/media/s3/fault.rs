//! What a person can mend when S3 refuses: said once, and again when it comes back after all was well.

use std::sync::{Mutex, PoisonError};

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

/// What the codes of S3 servers mean to an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The credential is good and lacks a right. Also an answer 403 that gives no reason.
    Refused,
    /// The name of the credential is not known.
    UnknownKey,
    /// The credential is another one.
    WrongSecret,
    /// The clock of this box or of the server is wrong.
    Clock,
    /// The server is of another region.
    Region,
    /// Anything else: the server is away, or at fault.
    Other,
}

impl Fault {
    pub(super) fn of<E>(error: &SdkError<E>) -> Self
    where
        SdkError<E>: ProvideErrorMetadata,
    {
        let status = error.raw_response().map(|response| response.status().as_u16());
        match error.code() {
            Some("RequestTimeTooSkewed" | "RequestExpired") => Self::Clock,
            Some("InvalidAccessKeyId" | "InvalidToken" | "ExpiredToken") => Self::UnknownKey,
            Some("SignatureDoesNotMatch") => Self::WrongSecret,
            Some(
                "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException",
            ) => Self::Region,
            Some("AccessDenied" | "AllAccessDisabled") => Self::Refused,
            _ if status == Some(301) => Self::Region,
            _ if status == Some(403) => Self::Refused,
            _ => Self::Other,
        }
    }

    /// What to do about it, for a request that needs the right `right`.
    fn advice(self, right: &str) -> Option<String> {
        let advice = match self {
            Self::Refused => return Some(format!("the credential lacks a right on the bucket: {right}")),
            Self::UnknownKey => "the server does not know media.access_key, or it has ended",
            Self::WrongSecret => "media.secret_key is not the one that belongs to media.access_key",
            Self::Clock => "the clock of this box or of the server is wrong: compare both with NTP",
            Self::Region => "the bucket is in another region than media.region says",
            Self::Other => return None,
        };
        Some(advice.to_owned())
    }
}

/// What was said.
#[derive(Default)]
pub(super) struct Faults(Mutex<Vec<(Fault, &'static str)>>);

impl Faults {
    /// Says what to do about a fault, unless it was said before.
    pub(super) fn report(&self, fault: Fault, right: &'static str, bucket: &str) {
        let Some(advice) = fault.advice(right) else { return };
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !said.contains(&(fault, right)) {
            said.push((fault, right));
            tracing::error!(bucket, advice, "S3 refuses what the engine asks");
        }
    }

    /// A request for an image went well, so what keeps all of them from it is mended. A missing right concerns its own
    /// requests and stays said.
    pub(super) fn forget(&self) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.retain(|(fault, _)| *fault == Fault::Refused);
    }
}
