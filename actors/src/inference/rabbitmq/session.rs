//! One connection to RabbitMQ, from the preparation of the queues to its end.

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
use tokio::time::interval;

use super::link::{Args, LinkError, answer};
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

/// A connection whose queues are as they should be.
pub(super) struct Session {
    connection: Connection,
    publishing: Channel,
    confirms: JoinSet<Result<Confirmation, LinkError>>,
    settled: mpsc::UnboundedReceiver<(Acker, Fate)>,
    broken: mpsc::Receiver<LinkError>,
    hub: InferenceHub,
    /// Dropping it would end the deliveries.
    _consumer: Option<Consumer>,
}

impl Session {
    /// Prepares the queues, and has orders delivered if this engine takes any.
    pub(super) async fn open(connection: Connection, args: &Args) -> Result<Self, LinkError> {
        let (settle, settled) = mpsc::unbounded_channel();
        let (breaks, broken) = mpsc::channel(1);
        let inbox = Inbox { orders: args.orders.clone(), hub: args.hub.clone(), settle, breaks };
        let opening = async {
            let publishing = connection.create_channel().await?;
            publishing.confirm_select(ConfirmSelectOptions::default()).await?;
            declare(&publishing).await?;
            let consumer = match args.prefetch {
                Some(prefetch) => Some(consume(&connection, prefetch, inbox).await?),
                None => None,
            };
            Ok::<_, lapin::Error>((publishing, consumer))
        };
        let (publishing, _consumer) = answer(opening).await?.map_err(LinkError::Prepare)?;
        let (confirms, hub) = (JoinSet::new(), args.hub.clone());
        Ok(Self { connection, publishing, confirms, settled, broken, hub, _consumer })
    }

    /// Carries orders both ways until the connection breaks or the link is stopped.
    pub(super) async fn carry(
        mut self,
        outgoing: &mut mpsc::Receiver<Outgoing>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), LinkError> {
        let mut look = interval(LOOK_EVERY);
        loop {
            let has_room = self.confirms.len() < UNCONFIRMED_MAX;
            tokio::select! {
                Some((acker, fate)) = self.settled.recv() => settle(&acker, fate).await?,
                Some(message) = outgoing.recv(), if has_room => self.publish(message).await?,
                Some(confirmed) = self.confirms.join_next() => self.confirmed(confirmed)?,
                Some(error) = self.broken.recv() => return Err(error),
                _ = look.tick() => self.check()?,
                () = stopped(stop) => return self.close(outgoing).await,
            }
        }
    }

    /// A connection that only sends is told of nothing when it breaks.
    fn check(&self) -> Result<(), LinkError> {
        let stands = self.connection.status().connected() && self.publishing.status().connected();
        if stands { Ok(()) } else { Err(LinkError::Gone) }
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
        let sent = self.publishing.basic_publish(exchange.into(), QUEUE.into(), options, &body, properties);
        let confirm = answer(sent).await?.map_err(LinkError::Carry)?;
        self.confirms.spawn(async { answer(confirm).await?.map_err(LinkError::Carry) });
        Ok(())
    }

    fn confirmed(
        &mut self,
        confirmed: Result<Result<Confirmation, LinkError>, JoinError>,
    ) -> Result<(), LinkError> {
        let confirmation = confirmed.expect("waiting for an answer does not panic and is not cut off");
        if let Ok(Confirmation::Ack(None)) = confirmation {
            metrics::inference_orders("sent").increment(1);
            return Ok(());
        }
        metrics::inference_orders("lost").increment(1);
        // Its job is found in the database.
        self.hub.wake();
        match confirmation? {
            // It was returned, since its queue is not there.
            Confirmation::Ack(_) => Err(LinkError::Gone),
            Confirmation::Nack(_) | Confirmation::NotRequested => Ok(()),
        }
    }

    /// Sends and settles what there is, and takes leave of the server.
    async fn close(mut self, outgoing: &mut mpsc::Receiver<Outgoing>) -> Result<(), LinkError> {
        while let Ok((acker, fate)) = self.settled.try_recv() {
            settle(&acker, fate).await?;
        }
        while let Ok(message) = outgoing.try_recv() {
            self.publish(message).await?;
        }
        while let Some(confirmed) = self.confirms.join_next().await {
            self.confirmed(confirmed)?;
        }
        answer(self.connection.close(200, "the engine stops".into())).await?.map_err(LinkError::Carry)
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The sender lives as long as the actor, and its end is a stop as well.
    let _ = stop.wait_for(|is_stopping| *is_stopping).await;
}

/// Orders with two priorities; what is rejected goes to the dead ones, which wait for a person.
async fn declare(channel: &Channel) -> lapin::Result<()> {
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
