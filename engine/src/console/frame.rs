//! What surrounds every page: where and when it is, how the barn is, who looks, and where one can go.

use super::asset;
use super::icon;
use super::text::{Lang, Texts};

/// A page of the menu.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tab {
    /// The barn.
    Barn,
    /// Weights.
    Weights,
    /// The air.
    Climate,
    /// Alarms.
    Alarms,
    /// Flock book.
    Book,
    /// Weighings to look at.
    Review,
    /// Sensors, scales and cameras.
    Devices,
    /// What goes to the cloud.
    Delivery,
    /// Everything else.
    More,
}

impl Tab {
    /// Where it is.
    pub(crate) fn href(self) -> &'static str {
        match self {
            Self::Barn => "/",
            Self::Weights => "/weights",
            Self::Climate => "/climate",
            Self::Alarms => "/alarms",
            Self::Book => "/flocks",
            Self::Review => "/review",
            Self::Devices => "/devices",
            Self::Delivery => "/delivery",
            Self::More => "/more",
        }
    }

    fn icon(self) -> &'static str {
        match self {
            Self::Barn => "barn",
            Self::Weights => "weights",
            Self::Climate => "climate",
            Self::Alarms => "alarms",
            Self::Book => "book",
            Self::Review => "review",
            Self::Devices => "devices",
            Self::Delivery => "delivery",
            Self::More => "more",
        }
    }

    fn word(self, t: &Texts) -> &'static str {
        match self {
            Self::Barn => t.barn,
            Self::Weights => t.weights,
            Self::Climate => t.climate,
            Self::Alarms => t.alarms,
            Self::Book => t.flock_book,
            Self::Review => t.review,
            Self::Devices => t.devices,
            Self::Delivery => t.delivery,
            Self::More => t.more,
        }
    }

    fn says(self, t: &Texts) -> &'static str {
        match self {
            Self::Book => t.flock_book_says,
            Self::Review => t.review_says,
            Self::Devices => t.devices_says,
            Self::Delivery => t.delivery_says,
            Self::Barn | Self::Weights | Self::Climate | Self::Alarms | Self::More => "",
        }
    }
}

/// The menu from its top; those of the bar of a phone first.
const MENU: [(Tab, Place); 9] = [
    (Tab::Barn, Place::Everywhere),
    (Tab::Weights, Place::Everywhere),
    (Tab::Climate, Place::Everywhere),
    (Tab::Alarms, Place::Everywhere),
    (Tab::Book, Place::Desk),
    (Tab::Review, Place::Desk),
    (Tab::Devices, Place::Desk),
    (Tab::Delivery, Place::Desk),
    (Tab::More, Place::Phone),
];

/// Where a page of the menu is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// On a phone and on a desk.
    Everywhere,
    /// On a phone alone: the way to the rest.
    Phone,
    /// On a desk alone: there is room.
    Desk,
}

impl Place {
    fn class(self) -> &'static str {
        match self {
            Self::Everywhere => "",
            Self::Phone => "narrow",
            Self::Desk => "wide",
        }
    }
}

/// An entry of the menu.
pub(crate) struct Item {
    /// Where it leads.
    pub(crate) href: &'static str,
    /// Its picture.
    pub(crate) icon: String,
    /// What it is called.
    pub(crate) word: &'static str,
    /// What is there.
    pub(crate) says: &'static str,
    /// Where it is offered.
    pub(crate) class: &'static str,
    /// Whether one is there.
    pub(crate) is_here: bool,
}

/// How the barn is, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Status {
    /// Nobody can say.
    Unknown,
    /// Nothing needs anybody.
    Ok,
    /// Somebody should look.
    Look,
    /// Somebody must act now.
    Act,
}

impl Status {
    /// Its class.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Ok => "ok",
            Self::Look => "look",
            Self::Act => "act",
        }
    }

    /// Its shape, since color alone says nothing to many.
    pub(crate) fn icon(self) -> String {
        icon::svg(self.class())
    }

    /// Its word.
    pub(crate) fn word(self, t: &Texts) -> &'static str {
        match self {
            Self::Unknown => t.status_unknown,
            Self::Ok => t.status_ok,
            Self::Look => t.status_look,
            Self::Act => t.status_act,
        }
    }
}

/// What whoever looks may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rights {
    /// Answer alarms and keep the book.
    pub(crate) write: bool,
    /// Look after devices.
    pub(crate) act: bool,
    /// Repair.
    pub(crate) admin: bool,
}

/// What was just done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flash {
    /// How it looks.
    pub(crate) class: &'static str,
    /// What it says.
    pub(crate) text: String,
}

/// What surrounds a page.
pub(crate) struct Frame {
    /// Its language.
    pub(crate) lang: Lang,
    /// What is said in it.
    pub(crate) t: &'static Texts,
    /// What the page is called.
    pub(crate) title: &'static str,
    /// Where in the menu it is.
    pub(crate) tab: Tab,
    /// Its path and query.
    pub(crate) path: String,
    /// What the barn is called.
    pub(crate) barn_name: String,
    /// How old the birds are.
    pub(crate) age: Option<i64>,
    /// What time it is in the barn.
    pub(crate) now_hm: String,
    /// The same for machines.
    pub(crate) now_iso: String,
    /// How the barn is.
    pub(crate) status: Status,
    /// What was just done.
    pub(crate) flash: Option<Flash>,
    /// Who looks.
    pub(crate) who: String,
    /// What that one may do.
    pub(crate) rights: Rights,
    /// Where news come from.
    pub(crate) stream: Option<String>,
}

impl Frame {
    /// Where a file of the console is.
    #[expect(clippy::unused_self, reason = "templates reach what they need through the frame")]
    pub(crate) fn asset(&self, name: &str) -> &'static str {
        asset::url(name)
    }

    /// The menu.
    pub(crate) fn tabs(&self) -> Vec<Item> {
        MENU.iter().map(|(tab, place)| self.item(*tab, place.class())).collect()
    }

    /// What a phone finds behind its last tab.
    pub(crate) fn more(&self) -> Vec<Item> {
        let rest = MENU.iter().filter(|(tab, _)| !tab.says(self.t).is_empty());
        rest.map(|(tab, place)| self.item(*tab, place.class())).collect()
    }

    fn item(&self, tab: Tab, class: &'static str) -> Item {
        Item {
            href: tab.href(),
            icon: icon::svg(tab.icon()),
            word: tab.word(self.t),
            says: tab.says(self.t),
            class,
            is_here: tab == self.tab,
        }
    }
}
