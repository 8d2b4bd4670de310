//! Numbers, days, times and ages as people read them.

use chrono::{Datelike, NaiveDate};

use super::text::{Lang, Texts};

/// Months as Thais shorten them.
const MONTHS_TH: [&str; 12] =
    ["ม.ค.", "ก.พ.", "มี.ค.", "เม.ย.", "พ.ค.", "มิ.ย.", "ก.ค.", "ส.ค.", "ก.ย.", "ต.ค.", "พ.ย.", "ธ.ค."];
/// Months as the English shorten them.
const MONTHS_EN: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// Years that the Buddhist era is ahead.
const BUDDHIST_YEARS: i32 = 543;
/// What stands for a number that nobody knows.
pub(crate) const NOTHING: &str = "–";

/// A day with its month's name; in Thai, of the Buddhist era.
pub(crate) fn date(lang: Lang, day: NaiveDate) -> String {
    let month = usize::try_from(day.month0()).unwrap_or_default();
    match lang {
        Lang::En => format!("{} {} {}", day.day(), MONTHS_EN[month], day.year()),
        Lang::Th => format!("{} {} {}", day.day(), MONTHS_TH[month], day.year() + BUDDHIST_YEARS),
    }
}

/// A day of this year, short.
pub(crate) fn short_date(lang: Lang, day: NaiveDate) -> String {
    let month = usize::try_from(day.month0()).unwrap_or_default();
    let months = match lang {
        Lang::En => MONTHS_EN,
        Lang::Th => MONTHS_TH,
    };
    format!("{} {}", day.day(), months[month])
}

/// A number with so many digits behind its point, and commas between its thousands.
pub(crate) fn number(value: f64, places: usize) -> String {
    if !value.is_finite() {
        return NOTHING.to_owned();
    }
    let text = format!("{value:.places$}");
    let (sign, text) = text.strip_prefix('-').map_or(("", &*text), |rest| ("−", rest));
    let is_zero = text.bytes().all(|byte| matches!(byte, b'0' | b'.'));
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::with_capacity(text.len() + 4);
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{}{grouped}{rest}", if is_zero { "" } else { sign })
}

/// The same, or a dash where nothing is known.
pub(crate) fn maybe(value: Option<f64>, places: usize) -> String {
    value.map_or_else(|| NOTHING.to_owned(), |value| number(value, places))
}

/// A number with its sign.
pub(crate) fn signed(value: f64, places: usize) -> String {
    let text = number(value, places);
    if value > 0.0 && !text.chars().all(|c| matches!(c, '0' | '.')) { format!("+{text}") } else { text }
}

/// How long something took, in its largest unit.
pub(crate) fn span(t: &Texts, seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    let (count, unit) = if seconds < 60.0 {
        (seconds, t.unit_s)
    } else if seconds < 3600.0 {
        (seconds / 60.0, t.unit_min)
    } else if seconds < 172_800.0 {
        (seconds / 3600.0, t.unit_h)
    } else {
        (seconds / 86_400.0, t.unit_d)
    };
    format!("{} {unit}", number(count.floor(), 0))
}

/// Bytes in the unit people know.
pub(crate) fn bytes(count: f64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count.max(0.0);
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{} {}", number(value, usize::from(unit > 0 && value < 10.0)), UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_the_year_of_their_readers() {
        let day = NaiveDate::from_ymd_opt(2026, 2, 9).unwrap();
        assert_eq!(date(Lang::En, day), "9 Feb 2026");
        assert_eq!(date(Lang::Th, day), "9 ก.พ. 2569");
        assert_eq!(short_date(Lang::Th, day), "9 ก.พ.");
    }

    #[test]
    fn numbers_are_grouped_and_zero_has_no_sign() {
        let check = |value, places, expected: &str| assert_eq!(number(value, places), expected);
        check(1_234_567.0, 0, "1,234,567");
        check(-1234.5, 1, "−1,234.5");
        check(999.0, 0, "999");
        check(-0.001, 1, "0.0");
        check(f64::NAN, 1, "–");
        assert_eq!((&*signed(2.25, 1), &*signed(-2.0, 0), &*signed(0.01, 1)), ("+2.2", "−2", "0.0"));
        assert_eq!(maybe(None, 2), "–");
    }

    #[test]
    fn spans_and_bytes_have_one_unit() {
        let t = Lang::En.texts();
        let check = |seconds, expected: &str| assert_eq!(span(t, seconds), expected);
        check(-3.0, "0 s");
        check(59.9, "59 s");
        check(61.0, "1 min");
        check(7200.0, "2 h");
        check(400_000.0, "4 d");
        assert_eq!((&*bytes(512.0), &*bytes(1_500_000.0), &*bytes(84e9)), ("512 B", "1.5 MB", "84 GB"));
    }
}
