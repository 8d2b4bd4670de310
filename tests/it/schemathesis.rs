//! The running engine against its own description: schemathesis makes requests of it, good and bad ones, and every answer
//! must be described and none a server error.

use std::process::Stdio;

use tests::barn::Barn;
use tests::engine::get;
use tests::python::program;
use tests::wait::until;
use tokio::process::Command;

/// Requests per operation in the random phase at most; they are the same ones each time.
const EXAMPLES_MAX: &str = "30";
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
    response_headers_conformance,response_schema_conformance,unsupported_method";
/// A wrong password waits for its answer, longer each time: what is answered there is looked at elsewhere.
const WITH_PASSWORDS: &str = "/api/v1/ingress/device-token";
/// It answers for minutes.
const LIVE: &str = "/api/v1/stream";
/// An operator of every tenant may call everything but what is signed.
const KEY: &str = "key-of-an-operator";

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_described_and_none_is_a_server_error() {
    let keys = format!(r#"[{{"key":"{KEY}","role":"admin","tenants":["*"]}}]"#);
    let barn = Barn::start_with(|settings| {
        settings
            .set("auth.mode", "jwt_or_mtls")
            .set("auth.jwt_secrets", "a secret that is as long as it must be")
            .set("auth.admin_enabled", "true")
            .set("auth.operator_keys", &keys)
    })
    .await;
    // Before its first beat the engine says that nobody may count on it, which is no error of the server.
    until("it beats", async || get(barn.settings.http, "/api/v1/heartbeat").await.0 == 200).await;
    let output = Command::new(program("schemathesis"))
        .args(["run", &format!("http://{}/api-docs/openapi.json", barn.settings.http)])
        .args(["--header", &format!("x-api-key:{KEY}"), "--checks", CHECKS])
        .args(["--max-examples", EXAMPLES_MAX, "--generation-deterministic"])
        .args(["--phases", "examples,coverage,fuzzing", "--exclude-path", WITH_PASSWORDS])
        .args(["--exclude-path", LIVE])
        // One worker: Python 3.11 reads its own source, as the program has it do, in one thread only.
        .args(["--continue-on-failure", "--workers", "1", "--no-color", "--warnings", "off"])
        .current_dir(barn.settings.data_dir())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("the program can be started");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    barn.finish().await;
}
