//! Topic filters: which are well formed, and which topics they match.

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
