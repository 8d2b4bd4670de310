//! The description of the API, made of the handlers, and the page that shows it without a network.

use std::sync::{Arc, LazyLock};

use axum::extract::Path;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Value, json};
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, Http, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{OpenApi, RefOr, Required, ResponseBuilder};
use utoipa_swagger_ui::Config;

use super::auth::{API_KEY, Class, TENANT_ID};
use super::error::{Code, Error, ErrorBody};

const DEVICE_TOKEN: &str = "deviceToken";
const DEVICE_PASSWORD: &str = "devicePassword";
const CLIENT_CERTIFICATE: &str = "clientCertificate";
const OPERATOR_KEY: &str = "operatorKey";
const OPERATOR_BEARER: &str = "operatorBearer";

/// The shape of errors.
const ERROR_BODY: &str = "#/components/schemas/ErrorBody";
/// The id of examples.
const EXAMPLE_ID: &str = "0198a6f2-7c1e-7d2a-9f35-0c8a5b1e2d3f";
/// Levels of a schema an example is made of; none of ours contains itself.
const SCHEMA_DEPTH_MAX: usize = 16;

/// The description without its paths.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "FarmIQ edge engine",
        description = "One port of one barn: telemetry, events, the outbox towards the cloud, health.\n\n\
            Every error has one shape (`ErrorBody`); `message` joins several problems with `; `. \
            A path that is not described here is 404 `NOT_FOUND`, a method that is not is 405 `METHOD_NOT_ALLOWED`. \
            In compat mode devices may call without a credential."
    ),
    components(schemas(ErrorBody)),
    tags(
        (name = "telemetry", description = "Readings and their aggregates"),
        (name = "devices", description = "Who may come in, and with which password"),
        (name = "events", description = "Generic events of devices"),
        (name = "weighvision", description = "Weighing sessions"),
        (name = "ingress", description = "What comes in, and the tokens devices call with"),
        (name = "media", description = "Images: uploads, and what they became"),
        (name = "sync", description = "The outbox and the cloud"),
        (name = "alarms", description = "What is wrong with the birds or the box, and who knows"),
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
    let operator_bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("An operator's key, from a tool that cannot send x-api-key"))
        .build();
    components.add_security_scheme(OPERATOR_BEARER, SecurityScheme::Http(operator_bearer));
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

/// Adds to an operation what follows from its class: credentials, headers, and the errors it may answer. An error that a
/// handler describes itself needs no body: its description begins with the code, and [`document`] does the rest.
pub(super) fn describe(class: Class, path: &str, operation: &mut Operation) {
    if class != Class::Public {
        operation.security = Some(requirements(class));
    }
    let parameters = operation.parameters.get_or_insert_default();
    if matches!(class, Class::Device | Class::Read | Class::Write) {
        parameters.push(header(TENANT_ID, "Tenant; must agree with credential, query and body"));
    }
    parameters.push(header("x-request-id", "Name of this request; made when absent, echoed"));
    parameters
        .push(header("x-trace-id", "Trace id of what the call causes; x-request-id when absent, echoed"));
    let has_body = operation.request_body.is_some();
    for (status, codes) in errors(class, path, has_body) {
        let response = operation.responses.responses.entry(status.to_string());
        let response = response.or_insert_with(|| RefOr::T(ResponseBuilder::new().build()));
        if let RefOr::T(response) = response
            && response.content.is_empty()
        {
            let names = codes.iter().map(|code| code.as_str());
            let new =
                names.filter(|name| !response.description.contains(name)).collect::<Vec<_>>().join(", ");
            let between = if response.description.is_empty() || new.is_empty() { "" } else { "; or " };
            response.description = format!("{}{between}{new}", response.description);
        }
    }
}

fn requirements(class: Class) -> Vec<SecurityRequirement> {
    let names: &[&str] = match class {
        Class::Public => &[],
        Class::Device | Class::Read => &[DEVICE_TOKEN, CLIENT_CERTIFICATE, OPERATOR_KEY, OPERATOR_BEARER],
        Class::Box | Class::Write | Class::Act | Class::Admin => &[OPERATOR_KEY, OPERATOR_BEARER],
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

/// The codes any operation of a class may answer, by status.
fn errors(class: Class, path: &str, has_body: bool) -> Vec<(u16, Vec<Code>)> {
    let mut errors =
        vec![(500, vec![Code::InternalError]), (503, vec![Code::NotReady, Code::DatabaseUnavailable])];
    if class != Class::Public {
        errors.push((400, vec![Code::ValidationError, Code::MissingTenant]));
        errors.push((401, vec![Code::Unauthorized]));
        errors.push((403, vec![Code::Forbidden, Code::TenantMismatch]));
    }
    if matches!(class, Class::Device | Class::Read) {
        errors.push((403, vec![Code::DeviceNotAllowed]));
    }
    if path.contains('{') {
        errors.push((404, vec![Code::NotFound]));
    }
    if has_body {
        errors.push((400, vec![Code::BodyNotJson, Code::UnsupportedContentType]));
        errors.push((413, vec![Code::BodyTooLarge]));
    }
    errors
}

/// The whole description as a document, in which every answer has a schema and every body an example.
pub(super) fn document(api: &OpenApi) -> Value {
    let mut document = serde_json::to_value(api).expect("a description is JSON");
    let schemas = document["components"]["schemas"].clone();
    let paths = document["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut());
    let operations = paths.filter_map(Value::as_object_mut).flat_map(|item| item.values_mut());
    for operation in operations.filter(|operation| operation.get("responses").is_some()) {
        show_examples(operation.pointer_mut("/requestBody/content"), &schemas);
        let responses = operation["responses"].as_object_mut().into_iter().flatten();
        for (status, response) in responses {
            if is_error(response) {
                response["content"] =
                    error_content(response["description"].as_str().unwrap_or_default(), status);
            }
            show_examples(response.get_mut("content"), &schemas);
            response["headers"] = headers(status);
        }
    }
    document
}

/// Whether an answer has the shape of errors, said or not, and no example of its own.
fn is_error(response: &Value) -> bool {
    let body = response.pointer("/content/application~1json");
    let is_error = |body: &Value| body["schema"]["$ref"] == ERROR_BODY && body.get("example").is_none();
    body.map_or(response.get("content").is_none(), is_error)
}

/// The body of an error answer, with the first code that its description names.
fn error_content(description: &str, status: &str) -> Value {
    let mut words = description.split(|c: char| !c.is_ascii_uppercase() && c != '_');
    let code = words.find_map(|word| Code::ALL.iter().find(|code| code.as_str() == word));
    let of_status = || Code::ALL.iter().find(|code| code.status().as_str() == status);
    let code = code.or_else(of_status).unwrap_or(&Code::InternalError);
    json!({"application/json": {
        "schema": {"$ref": ERROR_BODY},
        "example": {"error": {"code": code.as_str(), "message": "what went wrong", "traceId": EXAMPLE_ID}},
    }})
}

/// The headers of an answer that a client may want to read.
fn headers(status: &str) -> Value {
    let text = |description: &str| json!({"description": description, "schema": {"type": "string"}});
    let mut headers = json!({
        "x-request-id": text("Name of this request"),
        "x-trace-id": text("Trace id of what the call caused"),
    });
    match status {
        "401" => headers["www-authenticate"] = text("The scheme of credentials that is asked for"),
        "429" | "503" => headers["retry-after"] = text("Seconds after which another try makes sense"),
        _ => {}
    }
    headers
}

/// Gives each body an example, made of those of its fields, unless it has one.
fn show_examples(content: Option<&mut Value>, schemas: &Value) {
    let bodies = content.and_then(Value::as_object_mut).into_iter().flat_map(|content| content.values_mut());
    for body in bodies.filter(|body| body.get("example").is_none() && body.get("examples").is_none()) {
        body["example"] = example(&body["schema"], schemas, SCHEMA_DEPTH_MAX);
    }
}

/// A value of a schema: the one it names itself, else one that is put together.
fn example(schema: &Value, schemas: &Value, depth: usize) -> Value {
    let Some(depth) = depth.checked_sub(1) else { return Value::Null };
    let named = ["example", "default"].iter().find_map(|key| schema.get(*key));
    let named = named.or_else(|| ["examples", "enum"].iter().find_map(|key| schema.get(*key)?.get(0)));
    if let Some(named) = named {
        return named.clone();
    }
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return example(&schemas[name], schemas, depth);
    }
    if let Some(parts) = schema["allOf"].as_array() {
        let parts = parts.iter().map(|part| example(part, schemas, depth));
        let fields = parts.filter_map(|part| part.as_object().cloned()).flatten();
        return Value::Object(fields.collect());
    }
    let is_null = |schema: &&Value| schema["type"] == "null";
    let choices = ["oneOf", "anyOf"].iter().find_map(|key| schema.get(*key)?.as_array());
    if let Some(choice) = choices.and_then(|choices| choices.iter().find(|choice| !is_null(choice))) {
        return example(choice, schemas, depth);
    }
    let fields = schema["properties"].as_object().into_iter().flatten();
    let fields = fields.map(|(name, schema)| (name.clone(), example(schema, schemas, depth)));
    let kinds = &schema["type"];
    let kinds = kinds.as_array().map_or(std::slice::from_ref(kinds), Vec::as_slice);
    let kind = kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null");
    match (kind, schema["format"].as_str()) {
        (Some("object"), _) => Value::Object(fields.collect()),
        (Some("array"), _) => json!([example(&schema["items"], schemas, depth)]),
        (Some("integer"), _) => schema.get("minimum").cloned().unwrap_or(json!(1)),
        (Some("number"), _) => json!(1.5),
        (Some("boolean"), _) => json!(true),
        (Some("string"), Some("uuid")) => json!(EXAMPLE_ID),
        (Some("string"), Some("date-time")) => json!("2026-02-12T09:32:15.052Z"),
        (Some("string"), _) => json!("text"),
        (_, _) => Value::Null,
    }
}

/// The description as it is served.
#[derive(Clone)]
pub(super) struct Description(pub(super) Arc<Value>);

/// Serves the description of the API.
#[utoipa::path(get, path = "/api-docs/openapi.json", tag = "documentation",
    responses((status = 200, description = "This description", body = Object)))]
pub(super) async fn description(Extension(description): Extension<Description>) -> Response {
    Json(&*description.0).into_response()
}

/// Where the page finds the description. It asks nobody else: unless told otherwise, its library has the description
/// checked by a machine on the internet.
static PAGE: LazyLock<Arc<Config<'static>>> =
    LazyLock::new(|| Arc::new(Config::from("/api-docs/openapi.json").validator_url("none")));

/// What the page may do: load its own files, ask this box alone, and set styles, as its library does while it draws.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'",
);

/// Shows the description as a page.
#[utoipa::path(get, path = "/api-docs", tag = "documentation",
    responses((status = 200, description = "A page", body = String, content_type = "text/html")))]
pub(super) async fn page() -> Result<Response, Error> {
    let (content_type, html) = file("index.html")?;
    // The page asks for its files relative to itself, and its own path has no slash at the end.
    let html = String::from_utf8_lossy(&html).replacen("<head>", "<head><base href=\"/api-docs/\">", 1);
    Ok(of_page(content_type, html))
}

/// Serves the files of the page.
pub(super) async fn asset(Path(path): Path<String>) -> Result<Response, Error> {
    let (content_type, bytes) = file(&path)?;
    Ok(of_page(content_type, bytes))
}

fn of_page(content_type: String, body: impl IntoResponse) -> Response {
    let content_type = HeaderValue::from_str(&content_type).expect("the library names types as headers do");
    ([(CONTENT_TYPE, content_type), (CONTENT_SECURITY_POLICY, PAGE_POLICY)], body).into_response()
}

fn file(path: &str) -> Result<(String, Vec<u8>), Error> {
    let file = utoipa_swagger_ui::serve(path, Arc::clone(&PAGE)).ok().flatten();
    let file = file.ok_or_else(|| Error::new(Code::NotFound, "there is no such file"))?;
    Ok((file.content_type, file.bytes.into_owned()))
}
