//! The console of the barn: pages for people, behind logins of their own. What they show and do are the calls of the API in
//! the process; what they look like is in `crate::console`.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};

use super::AppState;
use super::auth::{Caller, Class, guest, is_cross_site, may};
use super::frame::CalledBy;

mod air;
mod alarms;
mod answer;
mod barn;
mod book;
mod climate;
mod delivery;
mod devices;
mod form;
mod import;
mod login;
mod place;
mod review;
mod visit;
mod weights;

/// A page, and who may see it or do what it does.
struct Page {
    class: Class,
    path: &'static str,
    methods: MethodRouter<Arc<AppState>>,
}

/// The pages of those who have logged in.
fn pages() -> Vec<Page> {
    use Class::{Act, Admin, Box, Read, Write};
    let row = |class, path, methods| Page { class, path, methods };
    vec![
        row(Read, "/", get(barn::show)),
        row(Read, "/places", get(place::show).post(place::choose)),
        row(Read, "/more", get(place::more)),
        row(Read, "/weights", get(weights::show)),
        row(Read, "/climate", get(climate::show)),
        row(Read, "/alarms", get(alarms::show)),
        row(Read, "/alarms/{id}", get(alarms::show_one)),
        row(Write, "/alarms/{id}/ack", post(alarms::acknowledge)),
        row(Write, "/alarms/{id}/shelve", post(alarms::shelve)),
        row(Write, "/alarms/{id}/unshelve", post(alarms::unshelve)),
        row(Write, "/alarms/drills", post(alarms::begin_drill)),
        row(Write, "/alarms/drills/{id}/answer", post(alarms::answer_drill)),
        row(Write, "/alarms/mode", post(alarms::put_mode)),
        row(Box, "/devices", get(devices::list)),
        row(Act, "/devices/new", get(devices::ask_new).post(devices::let_in)),
        row(Box, "/devices/{id}", get(devices::show)),
        row(Box, "/devices/{id}/label", get(devices::label)),
        row(Write, "/devices/{id}/place", post(devices::put)),
        row(Act, "/devices/{id}/rotate", post(devices::rotate)),
        row(Act, "/devices/{id}/revoke", post(devices::revoke)),
        row(Read, "/review", get(review::show)),
        row(Write, "/review/{id}", post(review::mark)),
        row(Box, "/delivery", get(delivery::show)),
        row(Admin, "/delivery/redrive", post(delivery::redrive)),
        row(Read, "/flocks", get(book::list)),
        row(Write, "/flocks/new", get(book::ask_new).post(book::create)),
        row(Read, "/flocks/{id}", get(book::show)),
        row(Read, "/flocks/{id}/sheet", get(book::sheet)),
        row(Write, "/flocks/{id}/import", get(import::ask_records).post(import::bring_records)),
        row(Read, "/standards", get(import::standards)),
        row(Write, "/standards/import", post(import::bring_standard)),
        row(Write, "/flocks/{id}/records", post(book::record)),
        row(Write, "/flocks/{id}/records/{record_id}/void", post(book::take_back)),
        row(Write, "/flocks/{id}/end", post(book::end)),
    ]
}

/// The console's own router: its pages behind their guards, and what is before them.
pub(super) fn router(state: &Arc<AppState>) -> Router<Arc<AppState>> {
    let open = Router::new()
        .route("/login", get(login::show).post(login::log_in))
        .route("/logout", post(login::log_out))
        .route("/language", post(login::speak))
        .route("/assets/{file}", get(answer::asset));
    let router = pages().into_iter().fold(open, |router, Page { class, path, methods }| {
        let guard = from_fn_with_state((Arc::clone(state), class), guard);
        router.route(path, methods.route_layer(guard))
    });
    router.layer(from_fn(answer::packed))
}

/// Lets somebody see a page, or sends that one to the login.
async fn guard(
    State((state, class)): State<(Arc<AppState>, Class)>,
    mut request: Request,
    next: Next,
) -> Response {
    let words = answer::Words::of(&request);
    if is_cross_site(&request, &[]) {
        return words.cross_site();
    }
    let operator = match guest::operator(&state, request.headers()).await {
        Ok(Some(operator)) => operator,
        Ok(None) => return words.login_first(&request),
        Err(error) => return words.failed(error.into()),
    };
    if !may(class, operator.role) || (class == Class::Admin && !state.authority.now().is_admin_enabled()) {
        return words.not_allowed();
    }
    request.extensions_mut().insert(Caller::Operator(operator));
    let mut response = next.run(request).await.into_response();
    response.extensions_mut().insert(CalledBy { tenant_id: None, device_id: None });
    response
}
