//! The store's marker: whether the images in a directory or a bucket are those of this database.
//!
//! The marker has a line for each database that keeps images there: its id, and how often it has written markers. Every
//! look writes its own line anew, in the database first. So a line that is ahead of the database was written by another
//! copy of it, or after the backup that it was restored from; such a database takes an id of its own. An engine that finds
//! others in the marker adds itself, so that they notice it as well.

use std::fmt::Write;

use schema::id::{Uuid, new_id};
use schema::metrics;
use schema::store::retention::images;
use schema::store::retention::mark::{self, Identity};

use super::janitor::{Janitor, LISTED_PER_PAGE, PassError};
use super::trouble::Trouble;
use crate::media::store::{MARKER, marker};

/// Pages that are looked at before a store is marked for the first time.
const SAMPLED_PAGES_MAX: usize = 20;
/// What the heading of every marker says.
const HEADING: &str =
    "# FarmiQ edge images. A line is a database that keeps some here: do not edit, copy or delete this file.";

/// Whose images those in the store are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Those of this database alone.
    Own,
    /// Those of this database and others, or of one that this is a copy of.
    Shared,
    /// Nobody has said so.
    Unmarked,
}

impl Standing {
    /// Whether files may go of which the database has the row.
    pub(super) fn knows_files(self) -> bool {
        self != Self::Unmarked
    }

    /// Why files stay that the database does not know.
    pub(super) fn trouble(self) -> Option<Trouble> {
        let reason = match self {
            Self::Own => return None,
            Self::Shared => "other databases keep their images here, or this one was copied or restored",
            Self::Unmarked => {
                "the store has no marker: a wrong place, a volume that is missing, or images of another database"
            }
        };
        let detail = format!(
            "{MARKER} must name this database alone; if all of it is ours, order janitor/run?adopt_store=true"
        );
        Some(Trouble { reason, detail })
    }
}

impl Janitor {
    /// Looks whose images those in the store are, and marks it where that is safe or somebody who knows orders it.
    pub(super) async fn look_at_store(&self, is_adopting: bool) -> Result<Standing, PassError> {
        let standing = self.standing(is_adopting).await?;
        metrics::retention_store_not_ours().set(f64::from(u8::from(standing != Standing::Own)));
        self.troubles.note("store", standing.trouble());
        Ok(standing)
    }

    async fn standing(&self, is_adopting: bool) -> Result<Standing, PassError> {
        // Before the database is asked, which then has at least the count of any line it wrote.
        let found = marker(&*self.media).await?.map(|text| Marker::of(&text)).unwrap_or_default();
        let identity = self.identity(&found).await?;
        if !is_adopting && found.0.is_empty() && !self.may_mark(identity).await? {
            return Ok(Standing::Unmarked);
        }
        let others = if is_adopting { Marker::default() } else { found.without(identity.id) };
        let put = async |count| self.media.put_marker(&others.text_with(identity.id, count)).await;
        // Our line comes before the first count: whoever has counted has a marker, and a kill between the two changes
        // nothing.
        if is_adopting || found.count_of(identity.id).is_none() {
            put(identity.marks_count).await?;
        }
        let count = async |conn: &mut _| mark::count(conn, identity.id, self.watch.now()).await;
        let count = self.store.run("count_mark", count).await?;
        // It names us already, and does so on a full disk as well.
        let _ = put(count).await;
        Ok(if others.0.is_empty() { Standing::Own } else { Standing::Shared })
    }

    /// What this database calls itself; a new name when it has none yet or must doubt the one it has.
    async fn identity(&self, found: &Marker) -> Result<Identity, PassError> {
        let known = self.store.run("store_identity", async |conn| mark::identity(conn).await).await?;
        let is_ahead =
            |known: &Identity| found.count_of(known.id).is_some_and(|count| count > known.marks_count);
        if let Some(known) = known.filter(|known| known.is_own && !is_ahead(known)) {
            return Ok(known);
        }
        let identify = async |conn: &mut _| mark::identify(conn, new_id(), known.map(|known| known.id)).await;
        self.store.run("identify_store", identify).await?;
        let identity = self.store.run("store_identity", async |conn| mark::identity(conn).await).await?;
        Ok(identity.expect("a row that was written is never deleted"))
    }

    /// Whether a store without a marker may get one.
    async fn may_mark(&self, identity: Identity) -> Result<bool, PassError> {
        let has_images = self.store.run("has_images", async |conn| images::any(conn).await).await?;
        let is_first = identity.marks_count == 0;
        let ours = self.ours().await?;
        let (mut sample, mut after) = (Sample::default(), None::<String>);
        for _ in 0..SAMPLED_PAGES_MAX {
            let page = self.media.list(after.as_deref(), LISTED_PER_PAGE).await?;
            let unknown = self.unknown(page.iter()).await?;
            for object in page.iter().filter(|object| object.place != MARKER) {
                sample.add(!unknown.contains(&object.place), ours.is_image(&object.place));
            }
            if page.len() < LISTED_PER_PAGE {
                sample.is_whole = true;
                break;
            }
            after = page.into_iter().next_back().map(|object| object.place);
        }
        Ok(sample.may_be_marked(is_first, has_images))
    }
}

/// What lies in a store without a marker.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    /// Files of which the database has the row.
    known: usize,
    /// Others that are named like images.
    unknown: usize,
    /// Whether this is all there is.
    is_whole: bool,
}

impl Sample {
    fn add(&mut self, is_known: bool, is_named: bool) {
        self.known += usize::from(is_known);
        self.unknown += usize::from(!is_known && is_named);
    }

    /// Decides.
    ///
    /// | the store has | it is marked if |
    /// |---|---|
    /// | no image | the database has none either: a new place. Otherwise they are elsewhere |
    /// | images, of which the database knows nine in ten | it never marked one: an older program kept them |
    /// | other images, or too many files to see | never |
    fn may_be_marked(self, is_first: bool, has_images: bool) -> bool {
        let images = self.known + self.unknown;
        if images == 0 {
            return self.is_whole && !has_images;
        }
        is_first && self.unknown * 10 <= images
    }
}

/// The lines of a marker: who has written how often. What cannot be read counts as somebody.
#[derive(Debug, Default, PartialEq, Eq)]
struct Marker(Vec<String>);

impl Marker {
    fn of(text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(lines.map(str::to_owned).collect())
    }

    /// What the line of a database says; `None` without one.
    fn count_of(&self, id: Uuid) -> Option<i64> {
        let counts = self.0.iter().filter(|line| is_line_of(line, id));
        counts
            .map(|line| line.split_whitespace().nth(1).and_then(|count| count.parse().ok()).unwrap_or(0))
            .max()
    }

    fn without(&self, id: Uuid) -> Self {
        Self(self.0.iter().filter(|line| !is_line_of(line, id)).cloned().collect())
    }

    fn text_with(&self, id: Uuid, count: i64) -> String {
        let mut text = format!("{HEADING}\n");
        for line in &self.0 {
            text.push_str(line);
            text.push('\n');
        }
        writeln!(text, "{id} {count}").expect("a text can always be written to");
        text
    }
}

fn is_line_of(line: &str, id: Uuid) -> bool {
    line.split_whitespace().next().is_some_and(|word| Uuid::try_parse(word) == Ok(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_marked_when_it_is_new_or_its_images_are_known() {
        let check = |known, unknown, is_whole, is_first, has_images, expected: bool| {
            let sample = Sample { known, unknown, is_whole };
            assert_eq!(sample.may_be_marked(is_first, has_images), expected, "{sample:?}");
        };
        for is_first in [true, false] {
            check(0, 0, true, is_first, false, true);
            check(0, 0, false, is_first, false, false);
            check(0, 0, true, is_first, true, false);
            check(0, 1, true, is_first, false, false);
        }
        // An upload may come before the first look.
        check(1, 0, true, true, false, true);
        check(1, 0, true, true, true, true);
        check(1, 0, true, false, true, false);
        check(900, 100, false, true, true, true);
        check(899, 101, true, true, true, false);
    }

    #[test]
    fn a_marker_has_a_line_for_each_database() {
        let (ours, theirs) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let text = Marker::default().text_with(theirs, 4);
        let both = Marker::of(&Marker::of(&text).text_with(ours, 7));
        assert_eq!((both.count_of(theirs), both.count_of(ours)), (Some(4), Some(7)));
        assert_eq!(both.without(theirs).0, [format!("{ours} 7")]);
        assert_eq!(both.count_of(Uuid::from_u128(3)), None);
        assert_eq!(Marker::of("\n # x\n"), Marker::default());
        let strange = Marker::of("what is this?\n");
        assert_eq!(strange.without(ours), strange);
        assert_eq!(Marker::of(&format!("{ours}")).count_of(ours), Some(0), "an id alone is a line");
    }
}
