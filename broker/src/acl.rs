//! What a device may publish and subscribe to: pure functions of its identity, its scope and the topic.
//!
//! | identity | publish, last will | subscribe |
//! |---|---|---|
//! | device | its own telemetry, event and status topics inside its farm and barn; weighing sessions of its station, or of any station of its barn when it has none | exactly its own status topic |
//! | anonymous | anything: the address and the allowlist are checked later | anything below `iot/` |

use schema::wire::topic::{Kind, Place, ROOT, Source, Topic};

use crate::gatekeeper::{Identity, Scope};

/// Whether a device may publish to `topic`, as a message or as its last will.
#[must_use]
pub fn may_publish(scope: &Scope, identity: &Identity, topic: &Topic) -> bool {
    let is_own = match topic.source() {
        Source::Device(device_id) => device_id == identity.device_id,
        Source::Station(station_id) => scope.station_id.as_ref().is_none_or(|own| *own == station_id),
    };
    is_own && covers(scope, identity, topic.place())
}

/// Whether a device may subscribe to `filter`: only to its own status topic, without a wildcard.
#[must_use]
pub fn may_subscribe(scope: &Scope, identity: &Identity, filter: &str) -> bool {
    Topic::parse(filter)
        .is_ok_and(|topic| topic.kind() == Kind::Status && may_publish(scope, identity, &topic))
}

/// Whether a client without a credential, such as an operator's tool, may subscribe to `filter`.
#[must_use]
pub fn anonymous_may_subscribe(filter: &str) -> bool {
    filter.starts_with(ROOT)
}

fn covers(scope: &Scope, identity: &Identity, place: &Place) -> bool {
    place.tenant_id == identity.tenant_id
        && scope.farm_id.as_ref().is_none_or(|own| *own == place.farm_id)
        && scope.barn_id.as_ref().is_none_or(|own| *own == place.barn_id)
}

#[cfg(test)]
mod tests {
    use schema::id::{BarnId, DeviceId, FarmId, StationId, TenantId};

    use super::*;

    fn identity() -> Identity {
        Identity { tenant_id: TenantId::new("t").unwrap(), device_id: DeviceId::new("d").unwrap() }
    }

    fn scope(farm: Option<&str>, barn: Option<&str>, station: Option<&str>) -> Scope {
        Scope {
            farm_id: farm.map(|id| FarmId::new(id).unwrap()),
            barn_id: barn.map(|id| BarnId::new(id).unwrap()),
            station_id: station.map(|id| StationId::new(id).unwrap()),
        }
    }

    fn check(scope: &Scope, topic: &str, publish: bool, subscribe: bool) {
        let parsed = Topic::parse(topic).is_ok_and(|topic| may_publish(scope, &identity(), &topic));
        assert_eq!(parsed, publish, "publish to {topic} in {scope:?}");
        assert_eq!(may_subscribe(scope, &identity(), topic), subscribe, "subscribe to {topic} in {scope:?}");
    }

    #[test]
    fn a_device_acts_only_as_itself_inside_its_scope() {
        let narrow = scope(Some("f"), Some("b"), Some("st"));
        check(&narrow, "iot/telemetry/t/f/b/d/weight", true, false);
        check(&narrow, "iot/event/t/f/b/d/door_opened", true, false);
        check(&narrow, "iot/status/t/f/b/d", true, true);
        check(&narrow, "iot/weighvision/t/f/b/st/session/s/x", true, false);
        check(&narrow, "iot/telemetry/t2/f/b/d/weight", false, false);
        check(&narrow, "iot/telemetry/t/f2/b/d/weight", false, false);
        check(&narrow, "iot/telemetry/t/f/b2/d/weight", false, false);
        check(&narrow, "iot/telemetry/t/f/b/d2/weight", false, false);
        check(&narrow, "iot/event/t/f/b/d2/door_opened", false, false);
        check(&narrow, "iot/status/t/f/b/d2", false, false);
        check(&narrow, "iot/status/t2/f/b/d", false, false);
        check(&narrow, "iot/weighvision/t/f/b/st2/session/s/x", false, false);
        check(&narrow, "iot/weighvision/t2/f/b/st/session/s/x", false, false);
        check(&narrow, "iot/feed/t/f/b/d", false, false);
        check(&narrow, "iot/status/+/+/+/+", false, false);
        check(&narrow, "iot/status/t/f/b/+", false, false);
        check(&narrow, "#", false, false);
        check(&narrow, "$SYS/broker", false, false);
    }

    #[test]
    fn an_empty_column_of_the_allowlist_is_a_wildcard() {
        let wide = scope(None, None, None);
        check(&wide, "iot/telemetry/t/f9/b9/d/weight", true, false);
        check(&wide, "iot/status/t/f9/b9/d", true, true);
        check(&wide, "iot/weighvision/t/f9/b9/st9/session/s/x", true, false);
        check(&wide, "iot/telemetry/t9/f/b/d/weight", false, false);
        check(&wide, "iot/telemetry/t/f/b/d9/weight", false, false);
        let barn_only = scope(None, Some("b"), None);
        check(&barn_only, "iot/weighvision/t/f9/b/st9/session/s/x", true, false);
        check(&barn_only, "iot/weighvision/t/f9/b9/st9/session/s/x", false, false);
    }

    #[test]
    fn an_operators_tool_listens_only_below_the_root() {
        for (filter, allowed) in
            [("iot/#", true), ("iot/status/+/+/+/+", true), ("#", false), ("$SYS/#", false)]
        {
            assert_eq!(anonymous_may_subscribe(filter), allowed, "{filter}");
        }
    }
}
