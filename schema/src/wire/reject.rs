//! The closed list of reasons for which input is refused for good.

/// Why a message was refused. A refusal is recorded, counted and acknowledged: sent again, it would be refused again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reject {
    /// The reason, which is also the metric label and the code in the database.
    pub reason: Reason,
    /// The field at fault, where there is one. Never a value.
    pub field: Option<&'static str>,
}

impl Reject {
    /// A refusal that concerns one field.
    #[must_use]
    pub fn of(reason: Reason, field: &'static str) -> Self {
        Self { reason, field: Some(field) }
    }
}

impl From<Reason> for Reject {
    fn from(reason: Reason) -> Self {
        Self { reason, field: None }
    }
}

impl std::fmt::Display for Reject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.field {
            Some(field) => write!(f, "{field}: {}", self.reason.text()),
            None => f.write_str(self.reason.text()),
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// A reason for a refusal; the order is the order of the checks.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $name),* }

        impl Reason {
            /// Every reason, in the order of the checks.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The code in metrics, in `ingress_rejects` and in HTTP answers.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self { $(Self::$name => $code),* }
            }

            /// The reason of a code.
            #[must_use]
            pub fn parse(code: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.code() == code)
            }

            /// The sentence a person reads.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

reasons! {
    /// The message is larger than the listener accepts.
    MessageTooLarge = "MESSAGE_TOO_LARGE", "message larger than the limit";
    /// The authenticated device may not publish there.
    AclDenied = "ACL_DENIED", "topic outside the device's scope";
    /// The topic has none of the four known shapes.
    TopicInvalid = "TOPIC_INVALID", "topic does not match a known pattern";
    /// The body is empty, not UTF-8 or not JSON.
    BodyNotJson = "BODY_NOT_JSON", "body is not valid JSON";
    /// The body is JSON but no object.
    BodyNotObject = "BODY_NOT_OBJECT", "body is not a JSON object";
    /// The dialect of the body is switched off.
    DialectDisabled = "DIALECT_DISABLED", "dialect is switched off";
    /// A required field is absent or null.
    FieldMissing = "FIELD_MISSING", "required field is missing";
    /// A field has another JSON type than required.
    FieldType = "FIELD_TYPE", "field has the wrong type";
    /// A field is empty, too long or has a forbidden character.
    FieldInvalid = "FIELD_INVALID", "field is empty, too long or has a forbidden character";
    /// `schema_version` is not 1.0.
    SchemaVersionUnsupported = "SCHEMA_VERSION_UNSUPPORTED", "schema_version is not 1.0";
    /// Neither `ts` nor `occurred_at` is there.
    TsMissing = "TS_MISSING", "neither ts nor occurred_at";
    /// `ts` cannot be read as a time.
    TsInvalid = "TS_INVALID", "ts is not a time";
    /// Tenant of topic and body differ.
    TenantMismatch = "TENANT_MISMATCH", "tenant of topic and body differ";
    /// Farm or barn of topic and body differ.
    ScopeMismatch = "SCOPE_MISMATCH", "farm or barn of topic and body differ";
    /// Device of topic and body differ.
    DeviceMismatch = "DEVICE_MISMATCH", "device of topic and body differ";
    /// A telemetry topic carries another event type.
    EventTypeNotTelemetry = "EVENT_TYPE_NOT_TELEMETRY", "telemetry topic needs event_type telemetry.reading";
    /// Metric of topic and payload differ.
    MetricMismatch = "METRIC_MISMATCH", "metric of topic and payload differ";
    /// Event type of topic and body differ.
    EventTypeMismatch = "EVENT_TYPE_MISMATCH", "event type of topic and body differ";
    /// The station has no row or is disabled.
    StationNotAllowed = "STATION_NOT_ALLOWED", "station is not enabled";
    /// The station belongs to another farm.
    StationFarmMismatch = "STATION_FARM_MISMATCH", "farm of topic and station allowlist differ";
    /// The station belongs to another barn.
    StationBarnMismatch = "STATION_BARN_MISMATCH", "barn of topic and station allowlist differ";
    /// The device has no row or is disabled.
    DeviceNotAllowed = "DEVICE_NOT_ALLOWED", "device is not enabled";
    /// The device waits for approval.
    DevicePending = "DEVICE_PENDING", "device waits for approval";
    /// The station waits for approval.
    StationPending = "STATION_PENDING", "station waits for approval";
    /// The device belongs to another farm.
    DeviceFarmMismatch = "DEVICE_FARM_MISMATCH", "farm of topic and device allowlist differ";
    /// The device belongs to another barn.
    DeviceBarnMismatch = "DEVICE_BARN_MISMATCH", "barn of topic and device allowlist differ";
    /// A weighvision topic carries an unknown event type.
    NoRoute = "NO_ROUTE", "no rule for this event type";
    /// `payload.value` is no number.
    ValueNotNumber = "VALUE_NOT_NUMBER", "payload.value is not a number";
    /// A number is infinite or not a number.
    ValueNotFinite = "VALUE_NOT_FINITE", "value is not finite";
    /// A key of the payload is missing, of the wrong type, or holds what cannot be stored.
    PayloadKeyInvalid = "PAYLOAD_KEY_INVALID", "payload key missing or of the wrong type";
    /// The session id is in use by another station.
    SessionConflict = "SESSION_CONFLICT", "session id is in use by another station";
    /// The session is cancelled.
    SessionClosed = "SESSION_CLOSED", "session is cancelled";
}
