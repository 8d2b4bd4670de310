//! What people have typed into a form.

use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::extract::{FromRequest, Request};
use chrono::NaiveDate;

use super::super::error::Error;
use super::super::query::parse_day;

/// Fields of a form at most.
const FIELDS_MAX: usize = 2000;
/// Bytes of what is typed into one field.
const FIELD_BYTES_MAX: usize = 1024;
/// The field of a table, which is longer.
pub(super) const TABLE: &str = "csv";
/// Bytes of a table.
const TABLE_BYTES_MAX: usize = 64 * 1024;

/// The fields of a form, in their order; one that is empty counts as not there.
pub(super) struct Typed(Vec<(String, String)>);

impl<S: Send + Sync> FromRequest<S> for Typed {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let form: Result<Form<Vec<(String, String)>>, FormRejection> =
            Form::from_request(request, state).await;
        let Form(fields) = form.map_err(|_| Error::validation("the form cannot be read"))?;
        let bytes_max = |name: &str| if name == TABLE { TABLE_BYTES_MAX } else { FIELD_BYTES_MAX };
        let fits = fields.len() <= FIELDS_MAX
            && fields.iter().all(|(name, value)| value.len() <= bytes_max(name) && !value.contains('\0'));
        if fits { Ok(Self(fields)) } else { Err(Error::validation("the form is too large")) }
    }
}

impl Typed {
    /// What was typed into a field.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(found, _)| found == name)?;
        Some(value.trim()).filter(|value| !value.is_empty())
    }

    /// All that was typed or ticked under a name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(found, _)| found == name).map(|(_, value)| value.trim())
    }

    /// The same as a text of its own, empty where nothing was typed.
    pub(super) fn copy(&self, name: &str) -> String {
        self.text(name).unwrap_or_default().to_owned()
    }

    /// A number, as people write it; `Err` when it is none.
    pub(super) fn number(&self, name: &str) -> Result<Option<f64>, NotANumber> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let plain = text.replace(',', if text.contains('.') { "" } else { "." });
        let number: f64 = plain.parse().map_err(|_| NotANumber)?;
        if number.is_finite() && number >= 0.0 { Ok(Some(number)) } else { Err(NotANumber) }
    }

    /// A number of birds.
    pub(super) fn birds(&self, name: &str) -> Result<Option<i32>, NotANumber> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let birds: i32 = text.parse().map_err(|_| NotANumber)?;
        if birds > 0 { Ok(Some(birds)) } else { Err(NotANumber) }
    }

    /// A day.
    pub(super) fn day(&self, name: &str) -> Option<NaiveDate> {
        self.text(name).and_then(parse_day)
    }
}

/// What was typed is no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotANumber;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_people_write_them() {
        let check = |text: &str, expected| {
            let typed = Typed(vec![("value".to_owned(), text.to_owned())]);
            assert_eq!(typed.number("value"), expected, "{text}");
        };
        check("2.231", Ok(Some(2.231)));
        check("2,231", Ok(Some(2.231)));
        check("1,250.5", Ok(Some(1250.5)));
        check(" 12 ", Ok(Some(12.0)));
        check("", Ok(None));
        check("-1", Err(NotANumber));
        check("many", Err(NotANumber));
        check("inf", Err(NotANumber));
    }
}
