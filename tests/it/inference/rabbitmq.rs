//! Work orders through a real RabbitMQ: the server comes and goes, queues are emptied, workers are killed. Whatever
//! happens, each image is looked at once and its weight reaches the cloud once.

use std::net::SocketAddr;

use actors::inference::rabbitmq::{RabbitUrl, link};
use hyper::Request;
use loadtest::cloud::{self, PretendCloud};
use serde_json::{Value, json};
use tests::barn::admit;
use tests::engine::Engine;
use tests::rabbitmq::{DEAD, ORDERS, RabbitMq};

use super::workers::lock_a_job_of;
use super::*;

/// A farm whose engine makes jobs and looks at no image, since workers elsewhere do.
struct Farm {
    rabbit: RabbitMq,
    db: Database,
    cloud: PretendCloud,
    engine: Engine,
    /// What its workers are told.
    shared: Settings,
    _package: tempfile::TempDir,
    _images: tempfile::TempDir,
}

impl Farm {
    async fn start() -> Self {
        let rabbit = RabbitMq::start().await;
        let db = Database::fresh().await;
        admit(&db).await;
        // The engine and the workers write into the lane of one camera side by side: whoever took the time first may commit
        // last, and a batch may go in between.
        let cloud = cloud::Settings { tolerates_late: true, ..cloud::Settings::default() };
        let cloud = PretendCloud::start(cloud).await.expect("a free port");
        let (package, images) = (folder(), folder());
        write_package(package.path(), "v1", Network::Mean);
        let shared = |settings: Settings| {
            settings
                .set("inference.model_path", &package.path().display().to_string())
                .set("inference.queue", "rabbitmq")
                .set("inference.rabbitmq_url", &rabbit.url())
                .set("media.root", &images.path().display().to_string())
        };
        let settings = Settings::of(&db.url);
        let base = format!("http://{}", settings.http);
        let settings = shared(settings)
            .set("inference.enabled", "false")
            .set("cloud.url", &cloud.url())
            .set("media.public_base_url", &base)
            .set("media.presign_per_minute", "60000")
            .set("retention.free_disk_gb_min", "0")
            .set("ops.check_seconds", "1");
        let engine = Engine::start(settings).await;
        let shared = shared(Settings::of(&db.url));
        let farm = Self { rabbit, db, cloud, engine, shared, _package: package, _images: images };
        farm.knows_the_server(&farm.engine, true).await;
        farm
    }

    /// Starts a worker and waits until orders reach it.
    async fn worker(&self) -> Engine {
        self.worker_with(|settings| settings).await
    }

    async fn worker_with(&self, change: impl FnOnce(Settings) -> Settings) -> Engine {
        let mut worker = Engine::stopped(change(self.shared.elsewhere()));
        worker.spawn_as("worker");
        until("the worker is up", async || worker.log().contains("farmiq-edge runs")).await;
        self.knows_the_server(&worker, true).await;
        worker
    }

    /// Waits until a process knows whether RabbitMQ is there.
    async fn knows_the_server(&self, process: &Engine, is_there: bool) {
        let wanted = f64::from(u8::from(is_there));
        until("rabbitmq is noticed", async || process.metric("inference_rabbitmq_up", "").await == wanted)
            .await;
    }

    async fn images(&self, count: usize) {
        images(self.engine.settings.http, count).await;
    }

    async fn completed(&self, count: i64) {
        until("every image is looked at", async || in_status(&self.db, "completed").await == count).await;
    }

    async fn is_inference_ready(&self) -> bool {
        let status = self.engine.json("/api/v1/ops/edge/status").await;
        let services = status["data"]["services"].as_array().expect("a list").clone();
        let part =
            services.iter().find(|part| part["name"] == "edge-vision-inference").expect("it is listed");
        assert_eq!(part["health_ok"], true, "{part}");
        part["ready_ok"] == true
    }

    /// Checks that each image has one weight, here and at the cloud, and ends everything in order.
    async fn finish(mut self, images: i64, workers: Vec<Engine>) {
        assert_eq!(self.db.count("SELECT count(*) FROM inference_results").await, images);
        assert_eq!(self.db.count("SELECT count(*) FROM dead_letters").await, 0);
        until("the cloud has every weight", async || {
            let judged = self.cloud.judge().by_event_type;
            judged.get("inference.completed").copied() == u64::try_from(images).ok()
        })
        .await;
        until("every event is acknowledged", async || {
            self.db.count("SELECT count(*) FROM sync_outbox WHERE status <> 'acked'").await == 0
        })
        .await;
        // Of one image, what was stored first goes first.
        let in_order = "SELECT count(*) FROM sync_outbox AS image JOIN sync_outbox AS weight
            ON weight.payload_json->>'media_id' = image.payload_json->>'media_id'
            WHERE image.event_type = 'media.stored' AND weight.event_type = 'inference.completed'
                AND image.seq < weight.seq AND image.acked_at <= weight.acked_at";
        assert_eq!(self.db.count(in_order).await, images);
        until("every order is settled", async || self.rabbit.waiting(ORDERS).await == 0).await;
        for mut worker in workers {
            assert_eq!(worker.terminate().await.code, Some(0));
        }
        assert_eq!(self.engine.terminate().await.code, Some(0));
        // What a worker had in hand would be back by now.
        assert_eq!((self.rabbit.waiting(ORDERS).await, self.rabbit.waiting(DEAD).await), (0, 0));
        let verdict = self.cloud.shutdown().await;
        assert_eq!((verdict.duplicated, verdict.violations), (0, Vec::new()));
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

/// Images as a camera sends them: offered, put, completed.
async fn images(http: SocketAddr, count: usize) {
    for _ in 0..count {
        image(http).await;
    }
}

async fn image(http: SocketAddr) {
    let place = json!({"tenant_id": TENANT, "farm_id": "f-001", "barn_id": "b-001", "device_id": "wv-001"});
    let with = |more: Value| {
        let mut body = place.clone();
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        body
    };
    let wish = with(json!({"content_type": "image/png", "filename": "left.png"}));
    let presigned = post(http, "/api/v1/media/images/presign", &wish).await;
    let picture = picture(51, ImageFormat::Png);
    let size_bytes = picture.len();
    let url = presigned["upload_url"].as_str().expect("a URL");
    let path = url.strip_prefix(&format!("http://{http}")).expect("the engine itself takes it");
    let request = Request::put(path).header("host", "edge").header("content-type", "image/png");
    let request = request.body(http_body_util::Full::from(picture)).expect("a request");
    assert_eq!(
        loadtest::http::call(&format!("http://{http}"), request).await.expect("the engine answers").0,
        200
    );
    let said =
        json!({"object_key": presigned["object_key"], "mime_type": "image/png", "size_bytes": size_bytes});
    let completed = post(http, "/api/v1/media/images/complete", &with(said)).await;
    assert!(completed["inference_job_id"].is_string(), "{completed}");
}

async fn post(http: SocketAddr, path: &str, body: &Value) -> Value {
    let request = Request::post(path).header("host", "edge").header("content-type", "application/json");
    let request = request.header("x-tenant-id", TENANT).header("x-api-key", "key");
    let request = request.body(http_body_util::Full::from(body.to_string())).expect("a request");
    let (status, answer) =
        loadtest::http::call(&format!("http://{http}"), request).await.expect("the engine answers");
    let answer: Value = serde_json::from_slice(&answer).expect("JSON");
    assert_eq!(status, 200, "{answer}");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn no_image_is_lost_or_looked_at_twice_while_rabbitmq_comes_and_goes() {
    let mut farm = Farm::start().await;
    assert!(farm.is_inference_ready().await);
    farm.images(10).await;
    let sent = async || farm.engine.metric("inference_orders", "result=\"sent\"").await;
    until("the server has confirmed them", async || sent().await == 10.0).await;

    // In order: one that is killed may have forgotten a queue that is new.
    farm.rabbit.stop().await;
    farm.knows_the_server(&farm.engine, false).await;
    until("the status says so", async || !farm.is_inference_ready().await).await;
    farm.images(10).await;
    farm.rabbit.start_again().await;
    assert_eq!(farm.rabbit.waiting(ORDERS).await, 10, "what was confirmed outlives a restart");
    farm.knows_the_server(&farm.engine, true).await;

    // Ten orders were never sent, ten are lost now.
    farm.rabbit.purge(ORDERS).await;
    let worker = farm.worker().await;
    farm.completed(20).await;
    farm.images(20).await;
    let taken = async || worker.metric("inference_orders", "result=\"taken\"").await;
    until("the worker works by orders", async || taken().await > 0.0).await;

    let http = farm.engine.settings.http;
    tokio::join!(farm.rabbit.kill(), images(http, 20));
    farm.completed(60).await;
    farm.rabbit.start_again().await;
    farm.knows_the_server(&farm.engine, true).await;
    farm.knows_the_server(&worker, true).await;
    farm.images(20).await;
    assert!(worker.log().contains("rabbitmq is away"));
    farm.completed(80).await;
    assert_eq!(farm.db.count("SELECT count(*) FROM inference_jobs WHERE attempt_count = 1").await, 80);
    farm.finish(80, vec![worker]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_share_the_orders_and_take_over_the_job_of_one_that_is_killed() {
    let farm = Farm::start().await;
    let soon = |settings: Settings| settings.set("inference.lease_seconds", "5");
    let encrypted = |settings: Settings| {
        soon(settings)
            .set("inference.rabbitmq_url", &farm.rabbit.encrypted_url())
            .trusting(&farm.rabbit.authority())
    };
    let (mut one, two) = (farm.worker_with(soon).await, farm.worker_with(encrypted).await);
    let both_work = async {
        for worker in [&one, &two] {
            let taken = async || worker.metric("inference_orders", "result=\"taken\"").await;
            until("it works by orders", async || taken().await > 0.0).await;
        }
        let held = lock_a_job_of(&farm.db, &one).await;
        one.kill().await;
        held
    };
    let (held, ()) = tokio::join!(both_work, farm.images(200));
    farm.db.execute("ROLLBACK").await;
    farm.completed(200).await;
    let again = format!("SELECT count(*) FROM inference_jobs WHERE id = '{held}' AND attempt_count > 1");
    assert_eq!(farm.db.count(&again).await, 1, "it was held when its worker was killed");
    farm.finish(200, vec![two]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_blocks_whoever_publishes_costs_time_and_no_connections() {
    let farm = Farm::start().await;
    let worker = farm.worker().await;
    farm.images(2).await;
    farm.completed(2).await;
    let connections = farm.rabbit.connections().await;
    farm.rabbit.control(&["set_vm_memory_high_watermark", "0.00001"]).await;
    // The first order is what the server blocks for.
    farm.images(3).await;
    farm.knows_the_server(&farm.engine, false).await;
    assert!(!farm.is_inference_ready().await);
    farm.images(10).await;
    farm.completed(15).await;
    let told = |text: &str| farm.engine.log().matches(text).count();
    assert_eq!(told("blocks whoever publishes"), 1);
    assert_eq!(farm.rabbit.connections().await, connections, "nobody connects again and again");
    farm.rabbit.control(&["set_vm_memory_high_watermark", "0.6"]).await;
    farm.knows_the_server(&farm.engine, true).await;
    farm.images(5).await;
    farm.completed(20).await;
    assert_eq!((told("rabbitmq takes work orders again"), told("rabbitmq is away")), (1, 0));
    assert_eq!(farm.rabbit.connections().await, connections);
    farm.finish(20, vec![worker]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_let_its_queues_be_made_is_told_of_with_what_to_do() {
    let rabbit = RabbitMq::start().await;
    let url = |text: &str| RabbitUrl::parse(text).expect("an address");
    link::probe(&url(&rabbit.url())).await.expect("a guest may do everything");
    rabbit.control(&["add_user", "poor", "secret"]).await;
    rabbit.control(&["set_permissions", "poor", "", ".*", ".*"]).await;
    rabbit.control(&["add_vhost", "other", "--default-queue-type", "quorum"]).await;
    rabbit.control(&["set_permissions", "-p", "other", "guest", ".*", ".*", ".*"]).await;
    let poor = rabbit.url().replace("guest:guest", "poor:secret");
    let other = rabbit.url().replace("%2f", "other");
    for (address, expected) in [(poor, "rights to configure"), (other, "default queue type")] {
        let error = link::probe(&url(&address)).await.expect_err("it is refused");
        assert!(error.to_string().contains(expected), "{error}");
    }
    until("every connection is closed", async || rabbit.connections().await == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_image_ends_in_the_dead_letter_queue_and_a_redrive_takes_it_out_of_the_dead_letters() {
    let rabbit = RabbitMq::start().await;
    let (barn, _package) = barn_with(Network::Fragile, |settings| {
        settings
            .set("inference.queue", "rabbitmq")
            .set("inference.rabbitmq_url", &rabbit.url())
            .set("inference.attempts_max", "2")
            .set("auth.admin_enabled", "true")
            .set("auth.operator_keys", r#"[{ key = "key", role = "admin", tenants = ["t-001"] }]"#)
    })
    .await;
    let root = media_root(&barn.settings);
    until("the link stands", async || barn.metric("inference_rabbitmq_up", "") == 1.0).await;
    rabbit.put(ORDERS, b"no order").await;
    until("it is put aside", async || rabbit.waiting(DEAD).await == 1).await;
    assert_eq!(rabbit.take(DEAD).await.unwrap(), b"no order");

    let media_id = put_image(&barn.db, &root, &picture(255, ImageFormat::Png), None).await;
    let asked = json!({"tenant_id": TENANT, "media_id": media_id});
    let job = post(barn.settings.http, "/api/v1/inference/jobs", &asked).await;
    until("it is given up", async || in_status(&barn.db, "failed").await == 1).await;
    until("its order is put aside", async || rabbit.waiting(DEAD).await == 1).await;
    let order: Value = serde_json::from_slice(&rabbit.take(DEAD).await.unwrap()).unwrap();
    assert_eq!(order, json!({"tenant_id": TENANT, "job_id": job["job_id"]}));
    let letters = "SELECT count(*) FROM dead_letters WHERE reason = 'WORKER_DIED' AND attempt_count = 2 AND redriven_at IS NULL";
    assert_eq!(barn.db.count(letters).await, 1);

    // Somebody has put a good image in its place.
    std::fs::write(root.join(media_id.to_string()), picture(51, ImageFormat::Png)).unwrap();
    let redriven = post(barn.settings.http, "/api/v1/sync/redrive", &json!({"allDlq": true})).await;
    assert_eq!(redriven["redriven_count"], 1, "{redriven}");
    until("it is looked at", async || in_status(&barn.db, "completed").await == 1).await;
    assert_eq!(barn.db.count(letters).await, 0);
    until("no order is left", async || rabbit.waiting(ORDERS).await == 0).await;
    assert_eq!(rabbit.waiting(DEAD).await, 0);
    barn.delivered(1).await;
    barn.finish_after("actor ended, restarting it").await;
}
