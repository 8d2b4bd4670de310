//! The page on which a barn is chosen, and the one that leads to the rest.

use askama::Template;

use super::frame::Frame;

/// A barn to choose.
pub(crate) struct PlaceRow {
    /// What the browser says to choose it.
    pub(crate) value: String,
    /// What it is called.
    pub(crate) name: String,
    /// Where it is.
    pub(crate) path: String,
    /// Whether one is there.
    pub(crate) is_here: bool,
}

/// The page of the barns.
#[derive(Template)]
#[template(path = "places.html")]
pub(crate) struct PlacesPage {
    /// What surrounds it.
    pub(crate) f: Frame,
    /// The barns.
    pub(crate) places: Vec<PlaceRow>,
}

/// The page behind the last tab of a phone.
#[derive(Template)]
#[template(path = "more.html")]
pub(crate) struct MorePage {
    /// What surrounds it.
    pub(crate) f: Frame,
}
