//! How an actor learns that work on its behalf has ended, however it ended.

use ractor::{ActorRef, Message};

/// Tells an actor something when it is dropped. A task that holds it tells of its end, be it by a panic.
pub(crate) struct Ending<M: Message> {
    actor: ActorRef<M>,
    message: Option<M>,
}

impl<M: Message> Ending<M> {
    /// What `actor` is told.
    pub(crate) fn new(actor: ActorRef<M>, message: M) -> Self {
        Self { actor, message: Some(message) }
    }
}

impl<M: Message> Drop for Ending<M> {
    fn drop(&mut self) {
        if let Some(message) = self.message.take() {
            // The actor may be gone already, and then nobody needs to know.
            let _ = self.actor.send_message(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use ractor::{Actor, ActorProcessingErr};
    use tokio::sync::oneshot;
    use tokio::task::JoinSet;

    use super::*;

    /// Tells when it hears of the end of its work.
    struct Worker;

    #[derive(Debug)]
    struct Ended;

    impl Actor for Worker {
        type Msg = Ended;
        type State = (JoinSet<()>, Option<oneshot::Sender<()>>);
        type Arguments = (bool, oneshot::Sender<()>);

        async fn pre_start(
            &self,
            myself: ActorRef<Ended>,
            (panics, heard): Self::Arguments,
        ) -> Result<Self::State, ActorProcessingErr> {
            let mut work = JoinSet::new();
            let ending = Ending::new(myself, Ended);
            work.spawn(async move {
                let _ending = ending;
                assert!(!panics, "a bug");
            });
            Ok((work, Some(heard)))
        }

        async fn handle(
            &self,
            _: ActorRef<Ended>,
            Ended: Ended,
            (_, heard): &mut Self::State,
        ) -> Result<(), ActorProcessingErr> {
            heard.take().map(|heard| heard.send(()));
            Ok(())
        }
    }

    #[tokio::test]
    async fn an_actor_hears_of_the_end_of_its_work_also_when_a_bug_ended_it() {
        for panics in [false, true] {
            let (heard, hears) = oneshot::channel();
            let (actor, _) = Worker::spawn(None, Worker, (panics, heard)).await.expect("it starts");
            hears.await.expect("it heard");
            actor.stop(None);
        }
    }
}
