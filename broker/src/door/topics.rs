//! What a connection knows about the topics it uses: parsed and judged once, not once per message.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use schema::clock::Timestamp;
use schema::wire::topic::{Kind, Topic, canonical, is_canonical};

use crate::acl;
use crate::door::packet::{Malformed, MessageProperties, Reason};
use crate::filter;
use crate::gatekeeper::{Identity, Principal, Scope};
use crate::window::Echo;

/// Topics remembered per connection; a device uses a handful.
const TOPICS_REMEMBERED: usize = 16;
/// Bytes of the longest name that is remembered, as a topic or for a number. A topic that means something here is shorter.
const REMEMBERED_BYTES_MAX: usize = 1 << 10;
/// Topics a client of version 5 may send by a number.
pub(crate) const TOPIC_ALIASES_MAX: u16 = 16;

/// A topic and what follows from it for one client.
#[derive(Clone, Debug)]
pub(crate) struct KnownTopic {
    /// As it was sent.
    pub(crate) name: Arc<str>,
    /// Under which name it is retained and shown, where that is another one.
    canonical: Option<Arc<str>>,
    /// `None` when the topic has no meaning here; the intake refuses and records it.
    pub(crate) parsed: Option<Arc<Topic>>,
    pub(crate) may_publish: bool,
    is_anonymous: bool,
}

/// Who publishes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Publisher<'a> {
    Anonymous,
    /// A device, with the scope it has now.
    Device(&'a Identity, &'a Scope),
    /// Somebody who only reads, or is not enabled any more.
    Nobody,
}

impl<'a> Publisher<'a> {
    /// What somebody is as a publisher.
    pub(crate) fn of(principal: &'a Principal, scope: Option<&'a Scope>) -> Self {
        match (principal, scope) {
            (Principal::Anonymous, _) => Self::Anonymous,
            (Principal::Device(identity), Some(scope)) => Self::Device(identity, scope),
            (Principal::Device(_), None) | (Principal::Operator(_), _) => Self::Nobody,
        }
    }
}

impl KnownTopic {
    /// Parses and judges a topic.
    pub(crate) fn judge(name: &str, publisher: Publisher<'_>) -> Self {
        let parsed = Topic::parse(name).ok();
        let may_publish = match publisher {
            Publisher::Anonymous => acl::anonymous_may_use(name),
            Publisher::Device(identity, scope) => {
                parsed.as_ref().is_some_and(|topic| acl::may_publish(scope, identity, topic))
            }
            Publisher::Nobody => false,
        };
        let canonical = (parsed.is_some() && !is_canonical(name)).then(|| Arc::from(canonical(name)));
        let is_anonymous = matches!(publisher, Publisher::Anonymous);
        Self { name: Arc::from(name), canonical, parsed: parsed.map(Arc::new), may_publish, is_anonymous }
    }

    /// What kind of message it carries.
    pub(crate) fn kind(&self) -> Option<Kind> {
        self.parsed.as_ref().map(|topic| topic.kind())
    }

    /// Who wants a message of this topic after the commit. Of what the engine takes in only status messages are retained.
    /// What it has no use for is passed on for clients without a credential: for them the door is a plain broker.
    pub(crate) fn echo(&self, retain: bool, properties: MessageProperties, now: Timestamp) -> Echo {
        let is_foreign = self.is_foreign();
        let MessageProperties { expiry_seconds, carried } = properties;
        Echo {
            topic: self.canonical.clone(),
            retain: self.is_retained(retain),
            fan_out: true,
            is_foreign,
            carried,
            expires_at: expiry_seconds.map(|seconds| now + Duration::from_secs(u64::from(seconds))),
        }
    }

    /// Whether a message that asks for it is retained.
    pub(crate) fn is_retained(&self, retain: bool) -> bool {
        retain && (self.is_foreign() || self.kind() == Some(Kind::Status))
    }

    /// Whether it means nothing to the engine, which passes it on all the same.
    fn is_foreign(&self) -> bool {
        self.is_anonymous && self.parsed.is_none() && !filter::is_too_deep(&self.name)
    }
}

/// The topics a connection used last.
#[derive(Default)]
pub(crate) struct Topics {
    known: [Option<KnownTopic>; TOPICS_REMEMBERED],
}

impl Topics {
    /// Finds or judges a topic.
    pub(crate) fn get(&mut self, name: &str, publisher: Publisher<'_>) -> KnownTopic {
        if name.len() > REMEMBERED_BYTES_MAX {
            return KnownTopic::judge(name, publisher);
        }
        let place = &mut self.known[place_of(name)];
        if place.as_ref().is_some_and(|known| &*known.name != name) {
            *place = None;
        }
        place.get_or_insert_with(|| KnownTopic::judge(name, publisher)).clone()
    }

    /// Forgets every judgement, because the scope changed.
    pub(crate) fn forget(&mut self) {
        self.known = Default::default();
    }
}

/// The topics a client sends by a number.
#[derive(Default)]
pub(crate) struct Aliases(Vec<Option<Arc<str>>>);

impl Aliases {
    /// The topic of a PUBLISH with an alias. An empty name stands for the one the alias was given last.
    pub(crate) fn resolve(&mut self, name: &str, alias: NonZeroU16) -> Result<Arc<str>, Malformed> {
        if alias.get() > TOPIC_ALIASES_MAX {
            return Err(Malformed::with("topic alias above the maximum", Reason::TOPIC_ALIAS_INVALID));
        }
        let place = usize::from(alias.get()) - 1;
        if name.is_empty() {
            let known = self.0.get(place).cloned().flatten();
            return known.ok_or(Malformed::protocol("topic alias that was never given"));
        }
        if name.len() > REMEMBERED_BYTES_MAX {
            return Err(Malformed::with("topic too long for an alias", Reason::QUOTA_EXCEEDED));
        }
        let name: Arc<str> = Arc::from(name);
        if self.0.len() <= place {
            self.0.resize(place + 1, None);
        }
        self.0[place] = Some(Arc::clone(&name));
        Ok(name)
    }
}

/// Topics of one device differ at their end.
fn place_of(name: &str) -> usize {
    let tail = name.bytes().rev().take(8);
    let mixed = tail.fold(name.len(), |mixed, byte| mixed.wrapping_mul(31).wrapping_add(usize::from(byte)));
    mixed % TOPICS_REMEMBERED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_judged_again_when_another_took_its_place_or_the_scope_changed() {
        let mut topics = Topics::default();
        for round in 0..3 {
            for device in 0..200 {
                let name = format!("iot/telemetry/t/f/b/d{device}/weight");
                let known = topics.get(&name, Publisher::Anonymous);
                assert_eq!(
                    (&*known.name, known.kind()),
                    (name.as_str(), Some(Kind::Telemetry)),
                    "round {round}"
                );
            }
            topics.forget();
        }
    }

    #[test]
    fn a_long_name_is_not_remembered() {
        let name = format!("other/{}", "x".repeat(REMEMBERED_BYTES_MAX));
        let mut topics = Topics::default();
        assert!(topics.get(&name, Publisher::Anonymous).may_publish);
        assert!(topics.known.iter().all(Option::is_none));
        let mut aliases = Aliases::default();
        let malformed = aliases.resolve(&name, NonZeroU16::MIN).unwrap_err();
        assert_eq!(malformed.reason, Reason::QUOTA_EXCEEDED);
        assert!(aliases.0.is_empty());
    }

    #[test]
    fn a_topic_is_shown_under_its_canonical_name_and_handed_in_as_it_was_sent() {
        let check = |name: &str, canonical: Option<&str>| {
            let known = KnownTopic::judge(name, Publisher::Anonymous);
            let echo = known.echo(true, MessageProperties::default(), Timestamp::UNIX_EPOCH);
            assert_eq!((&*known.name, echo.topic.as_deref()), (name, canonical));
        };
        check("iot/status/t/f/b/d", None);
        check("/iot//status/t/f/b/d/", Some("iot/status/t/f/b/d"));
        check("/iot/telemetry/t/f/b/d/m", Some("iot/telemetry/t/f/b/d/m"));
        check("other//topic/", None);
    }

    #[test]
    fn of_what_the_engine_takes_in_only_status_is_retained() {
        let retained = |name: &str, publisher| {
            let echo = KnownTopic::judge(name, publisher).echo(
                true,
                MessageProperties::default(),
                Timestamp::UNIX_EPOCH,
            );
            (echo.retain, echo.is_foreign)
        };
        assert_eq!(retained("iot/status/t/f/b/d", Publisher::Anonymous), (true, false));
        assert_eq!(retained("iot/telemetry/t/f/b/d/m", Publisher::Anonymous), (false, false));
        assert_eq!(retained("other", Publisher::Anonymous), (true, true));
        assert_eq!(retained("other", Publisher::Nobody), (false, false));
    }
}
