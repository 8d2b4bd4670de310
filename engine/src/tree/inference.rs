//! Inference, as the configuration wants it: the model, and who works with it.

use std::sync::Arc;
use std::time::Duration;

use actors::address::Address;
use actors::gauges::Measured;
use actors::inference::InferenceHub;
use actors::inference::model::{Model, ModelError, Source};
use actors::inference::queue::QueueMonitor;
use actors::inference::rabbitmq::link::{self, RabbitLink};
use actors::inference::rabbitmq::{Orders, RabbitUrl};
use actors::inference::settings::Overrides;
use actors::inference::swap::{ModelWatch, Rest};
use actors::inference::trial::TrialReader;
use actors::inference::worker::{Args, InferenceWorker, WorkerContext};
use actors::supervisor::ChildSpec;
use anyhow::anyhow;
use tokio::sync::OnceCell;

use super::{Parts, chore};
use crate::config::{Config, InferenceQueue};

/// Work orders in hand at most, as long as there are not more workers.
const PREFETCH: usize = 10;

/// Loads the model and tries it. It takes a moment of this thread, before anything runs on it. Then the network rests until
/// an image needs it.
pub(super) fn hub(config: &Config) -> anyhow::Result<InferenceHub> {
    let source = Source::of(config.inference.model_path.as_deref());
    let explain = |error: ModelError| anyhow!("inference.model_path: {source}: {}", error.explanation());
    let model = Model::load_blocking(source.clone(), &overrides(config)).map_err(explain)?;
    if config.inference.enabled && model.is_demo() {
        let version = model.version();
        tracing::warn!(version, "a demonstration model is in use: its weights are not those of real birds");
    }
    if let Some(rest) = rest(config) {
        rest.allow(&model);
        model.put_away(Duration::ZERO);
    }
    let orders = (config.inference.queue == InferenceQueue::Rabbitmq).then(Orders::default);
    Ok(InferenceHub::new(model, config.inference.on_complete, orders))
}

/// The watch over the model, the queue's measure, the link to RabbitMQ where it is wanted, and the workers when this
/// engine has any.
pub(super) fn children(config: &Config, parts: &Parts) -> Vec<ChildSpec> {
    let (store, clock) = (parts.store.clone(), parts.clock.clone());
    let mut children = vec![
        chore(parts, ModelWatch::new(parts.inference.clone(), overrides(config), rest(config))),
        chore(parts, QueueMonitor { store, clock, gauges: Measured::new("inference") }),
    ];
    children.extend(rabbitmq(config, parts));
    if config.inference.enabled {
        children.push(chore(parts, trial_reader(config, parts)));
        children.extend(workers(config, parts));
    }
    children
}

/// The address of RabbitMQ, if it is set.
pub(crate) fn rabbitmq_url(config: &Config) -> Option<RabbitUrl> {
    let url = config.inference.rabbitmq_url.as_ref()?;
    Some(RabbitUrl::parse(url.expose()).expect("it was checked when it was read"))
}

fn rabbitmq(config: &Config, parts: &Parts) -> Option<ChildSpec> {
    let prefetch = u16::try_from(PREFETCH.max(config.inference.workers)).unwrap_or(u16::MAX);
    let args = link::Args {
        orders: parts.inference.orders()?.clone(),
        url: rabbitmq_url(config)?,
        prefetch: config.inference.enabled.then_some(prefetch),
        hub: parts.inference.clone(),
        name: format!("farmiq-edge {}", config.edge.id),
    };
    Some(ChildSpec::new("rabbitmq", "", &Address::default(), move || (RabbitLink, args.clone())))
}

/// Reads stored pictures with a candidate, when there is one.
fn trial_reader(config: &Config, parts: &Parts) -> TrialReader {
    TrialReader {
        store: parts.store.clone(),
        clock: parts.clock.clone(),
        media: Arc::clone(&parts.media),
        hub: parts.inference.clone(),
        overrides: overrides(config),
        candidate: None,
    }
}

/// The workers. What kills one is its image, and the tries of an image are bounded: their deaths never end the engine.
fn workers(config: &Config, parts: &Parts) -> impl Iterator<Item = ChildSpec> {
    let inference = &config.inference;
    let context = Arc::new(WorkerContext {
        store: parts.store.clone(),
        clock: parts.clock.clone(),
        media: Arc::clone(&parts.media),
        hub: parts.inference.clone(),
        sync: parts.sync.clone(),
        attempts_max: i32::try_from(inference.attempts_max).unwrap_or(i32::MAX),
        lease_seconds: i64::try_from(inference.lease_seconds).unwrap_or(i64::MAX),
        taken_back: OnceCell::new(),
    });
    (0..inference.workers).map(move |number| {
        let args = Args::new(Arc::clone(&context));
        let make = move || (InferenceWorker, args.clone());
        ChildSpec::new("inference", &number.to_string(), &Address::default(), make).expendable()
    })
}

/// When the network rests; `None` when it stays in memory.
fn rest(config: &Config) -> Option<Rest> {
    const MINUTE_SECONDS: u64 = 60;
    let idle = Duration::from_secs(config.inference.idle_unload_minutes * MINUTE_SECONDS);
    (!idle.is_zero()).then(|| Rest { idle, directory: config.edge.data_dir.clone() })
}

/// What the configuration says instead of the package.
pub(crate) fn overrides(config: &Config) -> Overrides {
    let inference = &config.inference;
    Overrides {
        version: inference.model_version.clone(),
        confidence_threshold: inference.confidence_threshold.map(|share| share.get()),
        nms_threshold: inference.nms_threshold.map(|share| share.get()),
        exif_orientation: inference.exif_orientation,
    }
}
