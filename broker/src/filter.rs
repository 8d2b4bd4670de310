//! Topic filters: which are well formed, and which topics they match.

/// Levels a filter may have, and a topic that is shown to subscribers.
pub(crate) const LEVELS_MAX: usize = 64;

const SHARE_PREFIX: &str = "$share/";

/// A filter that several clients share: each message goes to one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shared<'a> {
    /// The name of the group.
    pub(crate) group: &'a str,
    /// What the group subscribes to.
    pub(crate) filter: &'a str,
}

impl<'a> Shared<'a> {
    /// Takes a filter apart; `None` when it is not shared.
    pub(crate) fn parse(filter: &'a str) -> Option<Self> {
        let (group, filter) = filter.strip_prefix(SHARE_PREFIX)?.split_once('/')?;
        Some(Self { group, filter })
    }

    /// Whether the name of the group and the filter are well formed.
    pub(crate) fn is_valid(&self) -> bool {
        !self.group.is_empty() && !self.group.contains(['+', '#']) && is_valid(self.filter)
    }
}

/// Whether a topic or filter has more levels than anybody needs.
pub(crate) fn is_too_deep(topic: &str) -> bool {
    topic.bytes().filter(|byte| *byte == b'/').count() >= LEVELS_MAX
}

/// Whether `filter` is well formed: `+` fills a whole segment, `#` only the last one.
pub(crate) fn is_valid(filter: &str) -> bool {
    let mut segments = filter.split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        let is_well_formed = match segment {
            "+" => true,
            "#" => is_last,
            name => !name.contains(['+', '#']),
        };
        if !is_well_formed {
            return false;
        }
    }
    !filter.is_empty()
}

/// Whether `filter` matches `topic`; a leading wildcard does not match the topics that open with `$`.
pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut segments = topic.split('/');
    for part in filter.split('/') {
        if part == "#" {
            return true;
        }
        match segments.next() {
            Some(segment) if part == "+" || part == segment => {}
            Some(_) | None => return false,
        }
    }
    segments.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_whole_segments() {
        for filter in ["a", "a/b", "+", "#", "a/+/b", "a/#", "/", "+/+", "/a/"] {
            assert!(is_valid(filter), "{filter}");
        }
        for filter in ["", "a#", "a+", "#/a", "a/#/b", "a/+b", "##"] {
            assert!(!is_valid(filter), "{filter}");
        }
    }

    #[test]
    fn a_filter_matches_by_segment() {
        for (filter, topic) in
            [("a/+/c", "a/b/c"), ("a/#", "a"), ("a/#", "a/b/c"), ("#", "a/b"), ("+/b", "a/b"), ("a/+", "a/")]
        {
            assert!(matches(filter, topic), "{filter} {topic}");
        }
        for (filter, topic) in
            [("a/+", "a"), ("a/+", "a/b/c"), ("a", "a/b"), ("#", "$SYS/x"), ("+/x", "$SYS/x"), ("a/b", "a/c")]
        {
            assert!(!matches(filter, topic), "{filter} {topic}");
        }
    }
}
