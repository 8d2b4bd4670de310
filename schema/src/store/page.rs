//! Pages of lists that have the newest row first.
//!
//! A page begins behind a row, which is named by the time that the list is ordered by and by its id: rows of one time are
//! never skipped and never shown twice, whatever is inserted between two pages.

use uuid::Uuid;

use crate::clock::Timestamp;

/// A row's place in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The time that the list is ordered by.
    pub at: Timestamp,
    /// The row among those of this time.
    pub id: Uuid,
}

impl Place {
    /// The two parameters of [`behind`]: nothing, before the first row.
    #[must_use]
    pub fn params(place: Option<Self>) -> (Option<Timestamp>, Option<Uuid>) {
        (place.map(|place| place.at), place.map(|place| place.id))
    }
}

// The condition of rows that stand behind a place, of which `$columns` are the time and the id. The time alone is what an
// index is asked for. Both parameters are NULL before the first row.
macro_rules! behind {
    ($columns:literal, $at:literal, $id:literal) => {
        concat!(
            "(",
            $columns,
            ") < (coalesce(",
            $at,
            "::timestamptz, 'infinity'), coalesce(",
            $id,
            "::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))"
        )
    };
}
pub(in crate::store) use behind;

/// Rows of a list, and where it goes on.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// The row behind which the next page begins; `None` at the end of the list.
    pub next: Option<Place>,
}

/// Rows that one page looks at when only some of them are wanted.
pub const ROWS_LOOKED_AT_MAX: usize = 2_000;
/// Rows that are read at once then.
pub const ROWS_PER_READ: i64 = 500;

/// Makes a page of the rows that are wanted. It is full when it has `limit` of them, and also when it has looked at
/// [`ROWS_LOOKED_AT_MAX`]: a page may have no row at all and yet not be the last.
#[derive(Debug)]
pub struct Sieve<T> {
    page: Page<T>,
    rows_max: usize,
    looked_at: usize,
}

impl<T> Sieve<T> {
    /// One that has seen no row behind a place.
    #[must_use]
    pub fn new(after: Option<Place>, limit: i64) -> Self {
        let page = Page { rows: Vec::new(), next: after };
        Self { page, rows_max: usize::try_from(limit).unwrap_or_default(), looked_at: 0 }
    }

    /// Behind which row it wants to see [`ROWS_PER_READ`] more.
    #[must_use]
    pub fn after(&self) -> Option<Place> {
        self.page.next
    }

    /// Takes what was found there; `true` when it needs no more.
    pub fn take(
        &mut self,
        found: Vec<T>,
        is_wanted: impl Fn(&T) -> bool,
        place: impl Fn(&T) -> Place,
    ) -> bool {
        let is_end = i64::try_from(found.len()).is_ok_and(|found| found < ROWS_PER_READ);
        for row in found {
            if self.page.rows.len() == self.rows_max {
                return true;
            }
            self.looked_at += 1;
            self.page.next = Some(place(&row));
            if is_wanted(&row) {
                self.page.rows.push(row);
            }
        }
        if is_end {
            self.page.next = None;
        }
        is_end || self.page.rows.len() == self.rows_max || self.looked_at >= ROWS_LOOKED_AT_MAX
    }

    /// What it has made.
    #[must_use]
    pub fn page(self) -> Page<T> {
        self.page
    }
}

/// A page of rows that were read with this limit.
pub fn whole<T>(rows: Vec<T>, limit: i64, place: impl Fn(&T) -> Place) -> Page<T> {
    let is_full = i64::try_from(rows.len()) == Ok(limit);
    let next = rows.last().filter(|_| is_full).map(place);
    Page { rows, next }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list of so many rows, each of the time of two others; the newest has the highest number.
    fn place(number: &u32) -> Place {
        let at = Timestamp::UNIX_EPOCH + chrono::Duration::seconds(i64::from(number / 3));
        Place { at, id: Uuid::from_u128(u128::from(*number)) }
    }

    fn pages(rows: u32, limit: i64, is_wanted: impl Fn(&u32) -> bool) -> Vec<Vec<u32>> {
        let rows_per_read = usize::try_from(ROWS_PER_READ).expect("a number of rows");
        let read = |after: Option<Place>| {
            let behind = |number: &u32| after.is_none_or(|after| place(number).id < after.id);
            (0..rows).rev().filter(behind).take(rows_per_read).collect::<Vec<u32>>()
        };
        let (mut pages, mut after) = (Vec::new(), None);
        loop {
            let mut sieve = Sieve::new(after, limit);
            while !sieve.take(read(sieve.after()), &is_wanted, place) {}
            let page = sieve.page();
            pages.push(page.rows);
            after = page.next;
            if after.is_none() {
                return pages;
            }
            assert!(pages.len() < 10_000, "it ends");
        }
    }

    #[test]
    fn each_wanted_row_is_on_one_page() {
        for (rows, limit) in [(0, 10), (1, 10), (10, 10), (1700, 7), (1001, 1000)] {
            let pages = pages(rows, limit, |number| number % 7 == 0);
            let shown: Vec<u32> = pages.iter().flatten().copied().collect();
            let expected: Vec<u32> = (0..rows).rev().filter(|number| number % 7 == 0).collect();
            assert_eq!(shown, expected, "{rows} {limit}");
            assert!(pages.iter().all(|page| page.len() <= 1000), "{rows} {limit}");
        }
    }

    #[test]
    fn a_page_ends_when_it_has_looked_at_enough() {
        let pages = pages(10_000, 10, |number| *number == 5);
        assert_eq!(pages.iter().filter(|page| page.is_empty()).count(), pages.len() - 1);
        assert_eq!(pages.len(), 10_000 / ROWS_LOOKED_AT_MAX + 1, "{pages:?}");
    }
}
