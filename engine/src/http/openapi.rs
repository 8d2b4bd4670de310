//! The description of the API, made of the handlers, and the page that shows it without a network.

use std::sync::{Arc, LazyLock};

use axum::extract::Path;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{ObjectBuilder, Ref, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, Http, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ContentBuilder, OpenApi, RefOr, Required, ResponseBuilder};
use utoipa_swagger_ui::Config;

use super::auth::{API_KEY, Class, TENANT_ID};
use super::error::{Code, Error, ErrorBody};

const DEVICE_TOKEN: &str = "deviceToken";
const DEVICE_PASSWORD: &str = "devicePassword";
const CLIENT_CERTIFICATE: &str = "clientCertificate";
const OPERATOR_KEY: &str = "operatorKey";

/// The description without its paths.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "FarmIQ edge engine",
        description = "One port of one barn: telemetry, events, the outbox towards the cloud, health.\n\n\
            Every error has one shape (`ErrorBody`); `message` joins several problems with `; `. \
            In compat mode devices may call without a credential."
    ),
    components(schemas(ErrorBody)),
    tags(
        (name = "telemetry", description = "Readings and their aggregates"),
        (name = "events", description = "Generic events of devices"),
        (name = "ingress", description = "What comes in, and the tokens devices call with"),
        (name = "sync", description = "The outbox and the cloud"),
        (name = "health", description = "Whether the engine lives and works"),
        (name = "operations", description = "What monitors read"),
        (name = "documentation", description = "This page")
    )
)]
struct Skeleton;

/// The description to which the routes are added.
pub(super) fn skeleton() -> OpenApi {
    let mut api = <Skeleton as utoipa::OpenApi>::openapi();
    let components = api.components.get_or_insert_default();
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some("A device token, such as POST /api/v1/ingress/device-token issues"))
        .build();
    let api_key = ApiKeyValue::with_description(API_KEY, "An operator's key");
    components.add_security_scheme(DEVICE_TOKEN, SecurityScheme::Http(bearer));
    components.add_security_scheme(DEVICE_PASSWORD, SecurityScheme::Http(Http::new(HttpAuthScheme::Basic)));
    components.add_security_scheme(
        CLIENT_CERTIFICATE,
        SecurityScheme::MutualTls {
            description: Some("CN is the device, O the tenant".to_owned()),
            extensions: None,
        },
    );
    components.add_security_scheme(OPERATOR_KEY, SecurityScheme::ApiKey(ApiKey::Header(api_key)));
    api
}

/// Every operation of a path.
pub(super) fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    let operations = [
        ("GET", &mut item.get),
        ("PUT", &mut item.put),
        ("POST", &mut item.post),
        ("DELETE", &mut item.delete),
        ("PATCH", &mut item.patch),
    ];
    operations.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// Adds to an operation what follows from its class: credentials, headers, and the errors it may answer.
pub(super) fn describe(class: Class, method: &str, operation: &mut Operation) {
    if class != Class::Public {
        operation.security = Some(requirements(class));
    }
    let parameters = operation.parameters.get_or_insert_default();
    if matches!(class, Class::Device | Class::Read) {
        parameters.push(header(TENANT_ID, "Tenant; must agree with credential, query and body"));
    }
    parameters.push(header("x-request-id", "Name of this request; made when absent, echoed"));
    parameters
        .push(header("x-trace-id", "Trace id of what the call causes; x-request-id when absent, echoed"));
    for (status, codes) in errors(class, method) {
        operation.responses.responses.entry(status.to_string()).or_insert_with(|| error_response(&codes));
    }
}

fn requirements(class: Class) -> Vec<SecurityRequirement> {
    let names: &[&str] = match class {
        Class::Public => &[],
        Class::Device | Class::Read => &[DEVICE_TOKEN, CLIENT_CERTIFICATE, OPERATOR_KEY],
        Class::Box | Class::Act | Class::Admin => &[OPERATOR_KEY],
    };
    names.iter().map(|name| SecurityRequirement::new(*name, [""; 0])).collect()
}

fn header(name: &str, description: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .build()
}

/// The codes an operation may answer, by status.
fn errors(class: Class, method: &str) -> Vec<(u16, Vec<Code>)> {
    let mut errors =
        vec![(500, vec![Code::InternalError]), (503, vec![Code::NotReady, Code::DatabaseUnavailable])];
    if class != Class::Public {
        errors.push((400, vec![Code::ValidationError, Code::MissingTenant]));
        errors.push((401, vec![Code::Unauthorized]));
        errors.push((403, vec![Code::Forbidden, Code::TenantMismatch]));
        if method == "POST" {
            errors.push((413, vec![Code::BodyTooLarge]));
        }
    }
    errors
}

fn error_response(codes: &[Code]) -> RefOr<utoipa::openapi::Response> {
    let names: Vec<_> = codes.iter().map(|code| code.as_str()).collect();
    let example = serde_json::json!({"error": {"code": names[0], "message": "…", "traceId": "0198a6f2-7c1e-7d2a-9f35-0c8a5b1e2d3f"}});
    let content =
        ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).example(Some(example)).build();
    let response = ResponseBuilder::new().description(names.join(", ")).content("application/json", content);
    RefOr::T(response.build())
}

/// The description as it is served.
#[derive(Clone)]
pub(super) struct Description(pub(super) Arc<OpenApi>);

/// Serves the description of the API.
#[utoipa::path(get, path = "/api-docs/openapi.json", tag = "documentation",
    responses((status = 200, description = "This description", body = Object)))]
pub(super) async fn description(Extension(description): Extension<Description>) -> Response {
    Json(&*description.0).into_response()
}

/// Where the page finds the description.
static PAGE: LazyLock<Arc<Config<'static>>> =
    LazyLock::new(|| Arc::new(Config::from("/api-docs/openapi.json")));

/// Shows the description as a page.
#[utoipa::path(get, path = "/api-docs", tag = "documentation",
    responses((status = 200, description = "A page", body = String, content_type = "text/html")))]
pub(super) async fn page() -> Result<Response, Error> {
    let (content_type, html) = file("index.html")?;
    // The page asks for its files relative to itself, and its own path has no slash at the end.
    let html = String::from_utf8_lossy(&html).replacen("<head>", "<head><base href=\"/api-docs/\">", 1);
    Ok(([(CONTENT_TYPE, content_type)], html).into_response())
}

/// Serves the files of the page.
pub(super) async fn asset(Path(path): Path<String>) -> Result<Response, Error> {
    let (content_type, bytes) = file(&path)?;
    Ok(([(CONTENT_TYPE, content_type)], bytes).into_response())
}

fn file(path: &str) -> Result<(String, Vec<u8>), Error> {
    let file = utoipa_swagger_ui::serve(path, Arc::clone(&PAGE)).ok().flatten();
    let file = file.ok_or_else(|| Error::new(Code::NotFound, "there is no such file"))?;
    Ok((file.content_type, file.bytes.into_owned()))
}
