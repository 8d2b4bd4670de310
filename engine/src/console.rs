//! The console that a farmer looks at: what its pages say and how they are drawn. Everything here is a pure function of what is
//! known; where that comes from, and who may ask, is in `http::console`.

pub(crate) mod air;
pub(crate) mod alarms;
pub(crate) mod asset;
pub(crate) mod barn;
pub(crate) mod book;
pub(crate) mod chart;
pub(crate) mod climate;
pub(crate) mod delivery;
pub(crate) mod devices;
pub(crate) mod door;
pub(crate) mod frame;
pub(crate) mod icon;
pub(crate) mod import;
pub(crate) mod place;
pub(crate) mod qr;
pub(crate) mod refusal;
pub(crate) mod review;
pub(crate) mod text;
pub(crate) mod weights;
pub(crate) mod words;
