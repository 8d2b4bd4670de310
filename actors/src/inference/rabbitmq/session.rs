//! A session with RabbitMQ, from the preparation of the queues to its end.
//!
//! Orders go out over one connection and come in over another: a server that runs short of memory or disk stops reading
//! from whoever publishes, and orders in hand are to be settled all the same.

use std::time::Duration;

use lapin::message::{Delivery, DeliveryResult};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions, BasicQosOptions,
    BasicRejectOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Acker, BasicProperties, Channel, Confirmation, Connection, Consumer, ExchangeKind};
use schema::metrics;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, interval, timeout};

use super::connect::{ANSWER_MAX, Args, LinkError, answer, connect};
use super::{DEAD, Fate, Orders, Outgoing, QUEUE, Taken, WorkOrder};
use crate::inference::InferenceHub;

/// How often it is looked whether the connection stands.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What was sent and is not confirmed, at most.
const UNCONFIRMED_MAX: usize = 256;
/// A message that outlives a restart of the server.
const PERSISTENT: u8 = 2;
/// The higher of two priorities, that of interactive jobs.
const PRIORITY_MAX: u8 = 1;

/// Two connections whose queues are as they should be.
pub(super) struct Session {
    outward: Outward,
    inward: Option<Inward>,
    settled: mpsc::UnboundedReceiver<(Acker, Fate)>,
    broken: mpsc::Receiver<LinkError>,
    orders: Orders,
    hub: InferenceHub,
}

/// Where orders go out.
struct Outward {
    connection: Connection,
    channel: Channel,
    confirms: JoinSet<lapin::Result<Confirmation>>,
    /// Since when the server could have confirmed something and did not.
    silent_since: Option<Instant>,
    /// Whether the server was last seen to block whoever publishes.
    is_blocked: bool,
}

/// Where orders come in.
struct Inward {
    connection: Connection,
    /// Dropping it would end the deliveries.
    _consumer: Consumer,
}

impl Session {
    /// Connects, prepares the queues, and has orders delivered if this engine takes any.
    pub(super) async fn open(args: &Args) -> Result<Self, LinkError> {
        let (settle, settled) = mpsc::unbounded_channel();
        let (breaks, broken) = mpsc::channel(1);
        let inbox = Inbox { orders: args.orders.clone(), hub: args.hub.clone(), settle, breaks };
        let outward = Outward::open(connect(&args.url, &args.name).await?).await?;
        let inward = match args.prefetch {
            Some(prefetch) => match Inward::open(args, prefetch, inbox).await {
                Ok(inward) => Some(inward),
                Err(error) => {
                    outward.close().await;
                    return Err(error);
                }
            },
            None => None,
        };
        let (orders, hub) = (args.orders.clone(), args.hub.clone());
        Ok(Self { outward, inward, settled, broken, orders, hub })
    }

    /// Carries orders both ways until a connection breaks or the link is stopped.
    pub(super) async fn carry(
        mut self,
        outgoing: &mut mpsc::Receiver<Outgoing>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), LinkError> {
        let outcome = self.work(outgoing, stop).await;
        self.close(outgoing, outcome.is_ok()).await;
        outcome
    }

    async fn work(
        &mut self,
        outgoing: &mut mpsc::Receiver<Outgoing>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), LinkError> {
        let mut look = interval(LOOK_EVERY);
        loop {
            let has_room = self.outward.confirms.len() < UNCONFIRMED_MAX && !self.outward.is_blocked;
            tokio::select! {
                Some((acker, fate)) = self.settled.recv() => settle(&acker, fate).await?,
                Some(message) = outgoing.recv(), if has_room => self.outward.publish(message).await?,
                Some(confirmed) = self.outward.confirms.join_next() => self.confirmed(confirmed)?,
                Some(error) = self.broken.recv() => return Err(error),
                _ = look.tick() => self.look()?,
                () = stopped(stop) => return Ok(()),
            }
        }
    }

    /// A connection that only sends is told of nothing when it breaks.
    fn look(&mut self) -> Result<(), LinkError> {
        let is_blocked = self.outward.look()?;
        if std::mem::replace(&mut self.outward.is_blocked, is_blocked) != is_blocked {
            // Nobody waits for a server that reads nothing: its jobs are found in the database.
            self.orders.set_connected(!is_blocked);
            self.hub.wake();
            if is_blocked {
                tracing::warn!(
                    "rabbitmq is short of memory or disk and blocks whoever publishes, workers look for jobs in the database"
                );
            } else {
                tracing::info!("rabbitmq takes work orders again");
            }
        }
        Ok(())
    }

    fn confirmed(
        &mut self,
        confirmed: Result<lapin::Result<Confirmation>, JoinError>,
    ) -> Result<(), LinkError> {
        let confirmation = confirmed.expect("waiting for an answer does not panic and is not cut off");
        self.outward.heard();
        if let Ok(Confirmation::Ack(None)) = confirmation {
            metrics::inference_orders("sent").increment(1);
            return Ok(());
        }
        metrics::inference_orders("lost").increment(1);
        // Its job is found in the database.
        self.hub.wake();
        match confirmation.map_err(LinkError::Carry)? {
            // It was returned, since its queue is not there.
            Confirmation::Ack(_) => Err(LinkError::Gone),
            Confirmation::Nack(_) | Confirmation::NotRequested => Ok(()),
        }
    }

    /// Sends and settles what there is, if all is well, and takes leave of the server.
    async fn close(mut self, outgoing: &mut mpsc::Receiver<Outgoing>, is_well: bool) {
        if is_well && self.finish(outgoing).await.is_err() {
            // What was not sent is found in the database, what was not settled is handed out again.
            metrics::inference_orders("lost").increment(self.outward.confirms.len() as u64);
        }
        if let Some(inward) = self.inward {
            inward.close().await;
        }
        self.outward.close().await;
    }

    async fn finish(&mut self, outgoing: &mut mpsc::Receiver<Outgoing>) -> Result<(), LinkError> {
        while let Ok((acker, fate)) = self.settled.try_recv() {
            settle(&acker, fate).await?;
        }
        while !self.outward.is_blocked
            && let Ok(message) = outgoing.try_recv()
        {
            self.outward.publish(message).await?;
        }
        while !self.outward.is_blocked
            && let Some(confirmed) = answer(self.outward.confirms.join_next()).await?
        {
            self.confirmed(confirmed)?;
        }
        Ok(())
    }
}

impl Outward {
    async fn open(connection: Connection) -> Result<Self, LinkError> {
        let opening = async {
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            declare(&channel).await?;
            Ok::<_, lapin::Error>(channel)
        };
        match answer(opening).await.and_then(|opened| opened.map_err(LinkError::prepare)) {
            Ok(channel) => {
                let confirms = JoinSet::new();
                Ok(Self { connection, channel, confirms, silent_since: None, is_blocked: false })
            }
            Err(error) => {
                leave(&connection).await;
                Err(error)
            }
        }
    }

    async fn publish(&mut self, outgoing: Outgoing) -> Result<(), LinkError> {
        let (exchange, order, priority) = match outgoing {
            Outgoing::Job { order, is_interactive } => ("", order, u8::from(is_interactive) * PRIORITY_MAX),
            Outgoing::Dead(order) => (DEAD, order, 0),
        };
        let body = serde_json::to_vec(&order).expect("text is JSON");
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(PERSISTENT)
            .with_priority(priority);
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let sent = self.channel.basic_publish(exchange.into(), QUEUE.into(), options, &body, properties);
        match timeout(ANSWER_MAX, sent).await {
            Ok(confirm) => {
                let confirm = confirm.map_err(LinkError::Carry)?;
                self.confirms.spawn(confirm);
                self.silent_since.get_or_insert_with(Instant::now);
                Ok(())
            }
            // It may still go out when the server reads again, and its job is found in the database before.
            Err(_) if self.connection.status().blocked() => {
                metrics::inference_orders("lost").increment(1);
                Ok(())
            }
            Err(_) => Err(LinkError::Silent),
        }
    }

    /// Whether the server blocks whoever publishes.
    fn look(&mut self) -> Result<bool, LinkError> {
        if !(self.connection.status().connected() && self.channel.status().connected()) {
            return Err(LinkError::Gone);
        }
        let is_blocked = self.connection.status().blocked();
        if is_blocked || self.is_blocked {
            self.heard();
        }
        match self.silent_since {
            Some(since) if since.elapsed() >= ANSWER_MAX => Err(LinkError::Silent),
            Some(_) | None => Ok(is_blocked),
        }
    }

    /// The server has said something, or may not be expected to.
    fn heard(&mut self) {
        self.silent_since = (!self.confirms.is_empty()).then(Instant::now);
    }

    /// A server that blocks reads no goodbye; it lets go when it reads again, or with this process.
    async fn close(self) {
        if !self.connection.status().blocked() {
            leave(&self.connection).await;
        }
    }
}

impl Inward {
    async fn open(args: &Args, prefetch: u16, inbox: Inbox) -> Result<Self, LinkError> {
        let connection = connect(&args.url, &args.name).await?;
        let opening = answer(consume(&connection, prefetch, inbox)).await;
        match opening.and_then(|opened| opened.map_err(LinkError::prepare)) {
            Ok(_consumer) => Ok(Self { connection, _consumer }),
            Err(error) => {
                leave(&connection).await;
                Err(error)
            }
        }
    }

    async fn close(self) {
        leave(&self.connection).await;
    }
}

/// Takes leave of the server, which may be gone.
pub(super) async fn leave(connection: &Connection) {
    if connection.status().connected() {
        drop(answer(connection.close(200, "the engine takes leave".into())).await);
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The sender lives as long as the actor, and its end is a stop as well.
    let _ = stop.wait_for(|is_stopping| *is_stopping).await;
}

/// Orders with two priorities; what is rejected goes to the dead ones, which wait for a person.
pub(super) async fn declare(channel: &Channel) -> lapin::Result<()> {
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let exchange = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(DEAD.into(), ExchangeKind::Fanout, exchange, FieldTable::default()).await?;
    channel.queue_declare(DEAD.into(), durable, FieldTable::default()).await?;
    let (bind, none) = (QueueBindOptions::default(), FieldTable::default());
    channel.queue_bind(DEAD.into(), DEAD.into(), QUEUE.into(), bind, none).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString(DEAD.into()));
    arguments.insert("x-max-priority".into(), AMQPValue::ShortShortUInt(PRIORITY_MAX));
    channel.queue_declare(QUEUE.into(), durable, arguments).await?;
    Ok(())
}

async fn consume(connection: &Connection, prefetch: u16, inbox: Inbox) -> lapin::Result<Consumer> {
    let channel = connection.create_channel().await?;
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume(QUEUE.into(), "".into(), options, FieldTable::default()).await?;
    consumer.set_delegate(move |delivery: DeliveryResult| {
        let inbox = inbox.clone();
        async move { inbox.take_in(delivery) }
    });
    Ok(consumer)
}

/// Where deliveries arrive.
#[derive(Clone)]
struct Inbox {
    orders: Orders,
    hub: InferenceHub,
    settle: mpsc::UnboundedSender<(Acker, Fate)>,
    breaks: mpsc::Sender<LinkError>,
}

impl Inbox {
    fn take_in(&self, delivery: DeliveryResult) {
        let error = match delivery {
            Ok(Some(delivery)) => return self.put(delivery),
            Ok(None) => LinkError::Gone,
            Err(error) => LinkError::Carry(error),
        };
        // One is enough.
        let _ = self.breaks.try_send(error);
    }

    fn put(&self, delivery: Delivery) {
        let order = match serde_json::from_slice::<WorkOrder>(&delivery.data) {
            Ok(order) => order,
            Err(error) => {
                tracing::warn!(%error, "a message in the queue of work orders is none");
                // When the session is over, the server hands it out again.
                let _ = self.settle.send((delivery.acker, Fate::Dead));
                return;
            }
        };
        let (acker, settle) = (delivery.acker, self.settle.clone());
        self.orders.incoming().push_back(Taken { order, fate: Fate::Again, acker, settle });
        self.hub.wake();
    }
}

async fn settle(acker: &Acker, fate: Fate) -> Result<(), LinkError> {
    let settled = answer(async {
        match fate {
            Fate::Done => acker.ack(BasicAckOptions::default()).await,
            Fate::Dead => acker.reject(BasicRejectOptions { requeue: false }).await,
            Fate::Again => acker.nack(BasicNackOptions { requeue: true, multiple: false }).await,
        }
    });
    settled.await?.map_err(LinkError::Carry)?;
    Ok(())
}
