//! The page on which weighings are looked at, and what is said of them.

use std::sync::Arc;

use actors::session::flag::flags;
use actors::session::mark::{MarkError, Weighing};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use schema::id::is_id;
use schema::store::StoreError;
use schema::store::page::{self as pages, Page, Place as Behind};
use schema::store::session::list::{self as rows, Listed, Wanted};
use serde::Deserialize;

use super::super::AppState;
use super::super::cursor::{self, SessionKey};
use super::super::error::Error;
use super::super::query::Params;
use super::answer::{page, see};
use super::form::Typed;
use super::visit::{Place, Visit};
use crate::console::frame::{Frame, Tab};
use crate::console::review::{Card, Review, ReviewPage};
use crate::console::words::{number, short_date};

/// Weighings of a page: their pictures are small, and a phone shows two or three at a time.
const CARDS_MAX: i64 = 20;

/// Which ones.
#[derive(Debug, Deserialize)]
pub(super) struct Wish {
    #[serde(default)]
    show: String,
}

/// Shows weighings that deserve a look and did not have this person's, or all of them.
pub(super) async fn show(
    State(state): State<Arc<AppState>>,
    visit: Visit,
    Query(wish): Query<Wish>,
    mut params: Params,
) -> Response {
    let f = visit.frame(visit.t().review, Tab::Review);
    let after = params.after::<SessionKey>().map(Behind::from);
    let Some(place) = &visit.place else { return visit.words().not_found() };
    let show = if wish.show == "all" { "all" } else { "odd" };
    match read(&state, &visit, place, show, after).await {
        Ok(found) => {
            let v = view(&visit, &f, show, found);
            page(StatusCode::OK, &ReviewPage { f, v })
        }
        Err(error) => visit.words().failed(error.into()),
    }
}

async fn read(
    state: &AppState,
    visit: &Visit,
    place: &Place,
    show: &str,
    after: Option<Behind>,
) -> Result<Page<Listed>, StoreError> {
    let author = visit.author();
    let wanted = Wanted {
        tenant_id: &place.tenant_id,
        farm_id: Some(&place.farm_id),
        barn_id: Some(&place.barn_id),
        reviewer: &author.actor,
        ..Wanted::default()
    };
    let now = visit.now;
    let is_odd = |listed: &Listed| {
        let found = flags(listed, now);
        !listed.is_reviewed
            && found.iter().any(|flag| !matches!(flag.as_str(), "demo" | "excluded" | "amended"))
    };
    let list = async |conn: &mut schema::store::Conn| match show {
        "all" => {
            Ok(pages::whole(rows::list(conn, &wanted, after, CARDS_MAX).await?, CARDS_MAX, Listed::place))
        }
        _ => rows::sifted(conn, &wanted, after, CARDS_MAX, &is_odd).await,
    };
    state.reads.run("console_review", list).await
}

fn view(visit: &Visit, f: &Frame, show: &'static str, found: Page<Listed>) -> Review {
    let when = |listed: &Listed| {
        let local = visit.local(listed.weighed_at);
        format!("{} {}", short_date(f.lang, local.date()), local.format("%H:%M"))
    };
    let names = [("odd", f.t.tab_odd), ("all", f.t.tab_all)];
    let next = cursor::next::<_, SessionKey>(&found);
    Review {
        show,
        tabs: names.into_iter().map(|(name, word)| (name, word, name == show)).collect(),
        count: format!("{} {}", number(found.rows.len() as f64, 0), f.t.on_this_page),
        cards: found.rows.iter().map(|listed| Card::of(f.t, listed, when(listed), visit.now)).collect(),
        next: next.map(|next| format!("/review?show={show}&after={next}")),
    }
}

/// Says of a weighing that it is fine, or that it enters no statistics, or that it does again.
pub(super) async fn mark(
    State(state): State<Arc<AppState>>,
    visit: Visit,
    Path(id): Path<String>,
    typed: Typed,
) -> Response {
    let (Some(place), true) = (&visit.place, is_id(&id)) else { return visit.words().not_found() };
    let weighing = Weighing { tenant_id: &place.tenant_id, session_id: &id, weight_id: None };
    let (author, names) = (visit.author(), [&*place.tenant_id, &*id]);
    let done = match typed.text("deed") {
        Some("two") => state.marks.exclude(weighing, "two birds on the scale", &author).await,
        Some("exclude") => {
            state.marks.exclude(weighing, "not a bird's weight, by a person's look", &author).await
        }
        Some("include") => state.marks.include(weighing, None, &author).await,
        _ => state.marks.review(names, None, &author).await,
    };
    let seen = match done {
        // Whoever says so has looked.
        Ok(_) => state.marks.review(names, None, &author).await,
        Err(error) => Err(error),
    };
    match seen {
        Ok(_) => see(if typed.text("show") == Some("all") {
            "/review?show=all&said=done"
        } else {
            "/review?said=done"
        }),
        Err(MarkError::NotExcluded) => see("/review"),
        Err(error) => visit.words().failed(Error::from(error)),
    }
}
