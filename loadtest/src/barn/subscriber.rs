//! Who listens while a barn publishes: a fan-out to everybody, or a shared subscription.

use std::sync::Arc;

use anyhow::Result;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::books::Books;
use crate::connection::{Connection, Device};
use crate::listener::{self, Sink, Subscription};
use crate::mqtt::listen::Delivered;

/// The subscribers of a barn.
#[derive(Clone, Debug)]
pub struct Subscribers {
    /// How they connect: with the login of somebody who may listen.
    pub connection: Connection,
    /// How many there are.
    pub count: usize,
    /// Whether each message goes to one of them instead of to all.
    pub is_shared: bool,
    /// What they listen to.
    pub filter: String,
    /// QoS of their subscription.
    pub qos: u8,
}

impl Subscribers {
    /// Connects all of them, and waits until each is connected.
    pub(super) async fn join(
        &self,
        tasks: &mut JoinSet<Result<()>>,
        books: &Arc<Books>,
        stop: watch::Receiver<bool>,
    ) -> Result<()> {
        let filter =
            if self.is_shared { format!("$share/loadtest/{}", self.filter) } else { self.filter.clone() };
        let (here, mut arrived) = mpsc::channel(self.count.max(1));
        for number in 0..self.count {
            let name = format!("loadtest-subscriber-{number}");
            let nobody = Device { tenant: String::new(), id: name.clone() };
            let link = self.connection.link(&nobody, name, 1)?;
            let subscription =
                Subscription { filters: vec![filter.clone()], qos: self.qos, wants_retained: false };
            let mut ear = Ear { books: Arc::clone(books), here: Some(here.clone()) };
            let stop = stop.clone();
            tasks.spawn(async move { listener::listen(&link, &subscription, &mut ear, stop).await });
        }
        drop(here);
        let mut count = 0;
        while count < self.count {
            tokio::select! {
                told = arrived.recv() => match told {
                    Some(()) => count += 1,
                    None => break,
                },
                Some(ended) = tasks.join_next() => ended??,
            }
        }
        Ok(())
    }
}

struct Ear {
    books: Arc<Books>,
    here: Option<mpsc::Sender<()>>,
}

impl Sink for Ear {
    fn take(&mut self, delivered: Delivered) -> Result<()> {
        if !delivered.is_retained {
            self.books.deliver(&delivered.topic, &delivered.payload);
        }
        Ok(())
    }

    fn subscribed(&mut self) {
        if let Some(here) = self.here.take() {
            // The channel has room for everybody.
            here.try_send(()).ok();
        }
    }
}
