//! Who may publish and subscribe to what: pure functions of who it is, its scope and the topic.
//!
//! | identity | publish, last will | subscribe |
//! |---|---|---|
//! | device | its own telemetry, event and status topics inside its farm and barn; weighing sessions of its station, or of any station of its barn when it has none | exactly its own status topic and its own commands, in their canonical spelling, and signs of life of the engine |
//! | operator | nothing | filters that match no topic outside its tenants, and signs of life of the engine |
//! | anonymous | anything but what opens with `$`: the address and the allowlist are checked later | anything but what opens with `$` |
//!
//! A filter of a shared subscription is judged without its `$share/{group}/`.

use schema::id::TenantId;
use schema::wire::topic::{Kind, Place, Source, Topic, is_canonical, is_heartbeat, parse_command};

use crate::gatekeeper::{Identity, Operator, Scope, Tenants};

/// The kinds of topics that the engine publishes to.
const COMMAND: &str = "command";
const ENGINE: &str = "engine";

/// Whether a device may publish to `topic`, as a message or as its last will.
#[must_use]
pub fn may_publish(scope: &Scope, identity: &Identity, topic: &Topic) -> bool {
    let is_own = match topic.source() {
        Source::Device(device_id) => device_id == identity.device_id,
        Source::Station(station_id) => scope.station_id.as_ref().is_none_or(|own| *own == station_id),
    };
    is_own && covers(scope, identity, topic.place())
}

/// Whether a device may publish to a topic that was not parsed yet.
#[must_use]
pub fn may_publish_to(scope: &Scope, identity: &Identity, topic: &str) -> bool {
    Topic::parse(topic).is_ok_and(|topic| may_publish(scope, identity, &topic))
}

/// Whether a device may subscribe to `filter`: to its own status topic and to a command of its own, without a wildcard, and
/// to signs of life, which say nothing of anybody. Messages are shown under their canonical topic, so another spelling would
/// match nothing.
#[must_use]
pub fn may_subscribe(scope: &Scope, identity: &Identity, filter: &str) -> bool {
    let is_status = || {
        is_canonical(filter)
            && Topic::parse(filter)
                .is_ok_and(|topic| topic.kind() == Kind::Status && may_publish(scope, identity, &topic))
    };
    let is_command = || {
        parse_command(filter).is_some_and(|(place, device_id)| {
            device_id == identity.device_id && covers(scope, identity, &place)
        })
    };
    is_heartbeat(filter) || is_command() || is_status()
}

/// Whether an operator may subscribe to `filter`: only when it can match no topic outside its tenants, or signs of life.
#[must_use]
pub fn operator_may_subscribe(operator: &Operator, filter: &str) -> bool {
    match &operator.tenants {
        Tenants::All => anonymous_may_use(filter),
        Tenants::Of(tenants) => {
            is_heartbeat(filter) || tenants.iter().any(|tenant_id| is_inside(tenant_id, filter))
        }
    }
}

/// Whether a client without a credential may publish to a topic or subscribe to a filter: to anything but the topics of a
/// broker itself.
#[must_use]
pub fn anonymous_may_use(topic_or_filter: &str) -> bool {
    !topic_or_filter.starts_with('$')
}

/// Whether `filter` opens with `iot/`, a kind or any, and this tenant. A topic that has no meaning here is not spelled anew,
/// so a tenant that is named like a kind has to name the kind: `iot/+/event` would match `iot//event/another-tenant`.
fn is_inside(tenant_id: &TenantId, filter: &str) -> bool {
    let mut segments = filter.split('/');
    let (root, kind, tenant) = (segments.next(), segments.next(), segments.next());
    let names_a_kind =
        |text: &str| text == COMMAND || text == ENGINE || Kind::ALL.iter().any(|kind| kind.as_str() == text);
    let is_kind = kind.is_some_and(|kind| {
        names_a_kind(kind) && kind != ENGINE || kind == "+" && !names_a_kind(tenant_id.as_str())
    });
    root == Some("iot") && is_kind && tenant == Some(tenant_id.as_str())
}

fn covers(scope: &Scope, identity: &Identity, place: &Place) -> bool {
    place.tenant_id == identity.tenant_id
        && scope.farm_id.as_ref().is_none_or(|own| *own == place.farm_id)
        && scope.barn_id.as_ref().is_none_or(|own| *own == place.barn_id)
}

#[cfg(test)]
mod tests {
    use schema::id::{BarnId, DeviceId, FarmId, StationId};

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
        check(&narrow, "/iot/status/t/f/b/d", true, false);
        check(&narrow, "iot/status/t//f/b/d", true, false);
        check(&narrow, "iot/status/t/f/b/d/", true, false);
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
        check(&narrow, "iot/command/t/f/b/d/siren", false, true);
        check(&narrow, "iot/command/t/f/b/d/+", false, false);
        check(&narrow, "iot/command/t/f/b/d2/siren", false, false);
        check(&narrow, "iot/command/t/f/b2/d/siren", false, false);
        check(&narrow, "iot/command/t2/f/b/d/siren", false, false);
        check(&narrow, "iot/engine/box-1/heartbeat", false, true);
        check(&narrow, "iot/engine/+/heartbeat", false, true);
        check(&narrow, "iot/engine/#", false, false);
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
    fn an_operator_hears_its_tenants_and_nobody_else() {
        let check = |tenants: &[&str], filter: &str, expected: bool| {
            let tenants = tenants.iter().map(|id| TenantId::new(id).unwrap()).collect();
            let operator = Operator { name: "ops".into(), tenants: Tenants::Of(tenants) };
            assert_eq!(operator_may_subscribe(&operator, filter), expected, "{filter} by {operator:?}");
        };
        for filter in [
            "iot/+/t/#",
            "iot/telemetry/t/#",
            "iot/status/t/+/+/d",
            "iot/event/t/f/b/d/x",
            "iot/+/t",
            "iot/+/t2/#",
            "iot/command/t/#",
            "iot/engine/+/heartbeat",
        ] {
            check(&["t", "t2"], filter, true);
        }
        for filter in [
            "#",
            "+/#",
            "iot/#",
            "iot/+/#",
            "iot/+/+/#",
            "iot/telemetry/#",
            "iot/telemetry/+/#",
            "+/telemetry/t/#",
            "iot/+/t3/#",
            "iot/telemetry/t3/#",
            "iot/command/t3/#",
            "iot/command/+/#",
            "iot/engine/t/#",
            "iot/telemetry/T/#",
            "iot//telemetry/t/#",
            "/iot/telemetry/t/#",
            "iot/other/t/#",
            "iot/telemetry",
            "iot",
            "",
            "$SYS/#",
            "$share/g/iot/+/t/#",
        ] {
            check(&["t", "t2"], filter, false);
        }
        check(&[], "iot/+/t/#", false);
        check(&["event"], "iot/+/event/#", false);
        check(&["event"], "iot/event/event/#", true);
    }

    #[test]
    fn whoever_may_hear_everything_still_does_not_hear_the_broker_itself() {
        let everybody = Operator { name: "ops".into(), tenants: Tenants::All };
        for (filter, allowed) in
            [("#", true), ("+/#", true), ("iot/#", true), ("other/x", true), ("$SYS/#", false)]
        {
            assert_eq!(anonymous_may_use(filter), allowed, "{filter}");
            assert_eq!(operator_may_subscribe(&everybody, filter), allowed, "{filter}");
        }
    }
}
