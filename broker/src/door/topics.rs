//! What a connection knows about the topics it uses: parsed and judged once, not once per message.

use std::sync::Arc;

use schema::wire::topic::{Kind, Topic};

use crate::acl;
use crate::fanout::is_routable;
use crate::gatekeeper::{Identity, Scope};
use crate::window::Echo;

/// Topics remembered per connection; a device uses a handful.
const TOPICS_REMEMBERED: usize = 16;

/// A topic and what follows from it for one client.
#[derive(Clone, Debug)]
pub(crate) struct KnownTopic {
    pub(crate) name: Arc<str>,
    /// `None` when the topic has no meaning here; the intake refuses and records it.
    pub(crate) kind: Option<Kind>,
    pub(crate) may_publish: bool,
    is_routable: bool,
}

impl KnownTopic {
    /// Parses and judges a topic; without a scope the client is anonymous.
    pub(crate) fn judge(name: &str, who: Option<(&Identity, &Scope)>) -> Self {
        let parsed = Topic::parse(name).ok();
        let may_publish = match who {
            None => true,
            Some((identity, scope)) => {
                parsed.as_ref().is_some_and(|topic| acl::may_publish(scope, identity, topic))
            }
        };
        let kind = parsed.map(|topic| topic.kind());
        Self { name: Arc::from(name), kind, may_publish, is_routable: is_routable(name) }
    }

    /// The same topic, for a client that may not publish at all any more.
    pub(crate) fn denied(self) -> Self {
        Self { may_publish: false, ..self }
    }

    /// Who wants a message of this topic after the commit. Only status messages are retained.
    pub(crate) fn echo(&self, retain: bool) -> Echo {
        Echo { retain: retain && self.kind == Some(Kind::Status), fan_out: self.is_routable }
    }
}

/// The topics a connection used last.
#[derive(Default)]
pub(crate) struct Topics {
    known: [Option<KnownTopic>; TOPICS_REMEMBERED],
}

impl Topics {
    /// Finds or judges a topic.
    pub(crate) fn get(&mut self, name: &str, who: Option<(&Identity, &Scope)>) -> &KnownTopic {
        let place = &mut self.known[place_of(name)];
        if place.as_ref().is_some_and(|known| &*known.name != name) {
            *place = None;
        }
        place.get_or_insert_with(|| KnownTopic::judge(name, who))
    }

    /// Forgets every judgement, because the scope changed.
    pub(crate) fn forget(&mut self) {
        self.known = Default::default();
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
                let known = topics.get(&name, None);
                assert_eq!(
                    (&*known.name, known.kind),
                    (name.as_str(), Some(Kind::Telemetry)),
                    "round {round}"
                );
            }
            topics.forget();
        }
    }

    #[test]
    fn only_status_is_retained_and_only_ascii_below_the_root_is_routed() {
        let echo = |name: &str| KnownTopic::judge(name, None).echo(true);
        assert_eq!(echo("iot/status/t/f/b/d"), Echo { retain: true, fan_out: true });
        assert_eq!(echo("iot/telemetry/t/f/b/d/m"), Echo { retain: false, fan_out: true });
        assert_eq!(echo("iot/telemetry/t/f/b/d/ü"), Echo { retain: false, fan_out: false });
        assert_eq!(echo("other"), Echo { retain: false, fan_out: false });
    }
}
