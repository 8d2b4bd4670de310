//! A door to test: an intake that hands every delivery to the test, and a gatekeeper that knows a few devices.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use broker::guesses::{GuessLimits, Guesses};
use broker::{
    CredentialId, Delivery, Door, DoorParts, DoorSettings, Forgetful, Gatekeeper, Identity, Intake, Login,
    Operator, Scope, Shown, Tenants,
};
use schema::clock::Clock;
use schema::id::{BarnId, DeviceId, FarmId, StationId, TenantId};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

/// Gives up a test that waits for something that never comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Hands every delivery to the test.
pub(crate) struct Tray(UnboundedSender<Delivery>);

impl Intake for Tray {
    fn take(&self, delivery: Delivery) {
        let _ = self.0.send(delivery);
    }
}

/// Deliveries on their way to the test.
pub(crate) struct Arrivals(pub(crate) UnboundedReceiver<Delivery>);

impl Arrivals {
    pub(crate) async fn next(&mut self) -> Delivery {
        tokio::time::timeout(PATIENCE, self.0.recv())
            .await
            .expect("a delivery in time")
            .expect("an open tray")
    }

    pub(crate) async fn take(&mut self, count: usize) -> Vec<Delivery> {
        let mut taken = Vec::new();
        while taken.len() < count {
            taken.push(self.next().await);
        }
        taken
    }

    pub(crate) fn is_empty(&mut self) -> bool {
        self.0.is_empty()
    }
}

pub(crate) fn tray() -> (Arc<Tray>, Arrivals) {
    let (sender, receiver) = unbounded_channel();
    (Arc::new(Tray(sender)), Arrivals(receiver))
}

/// Takes every delivery and settles it at once.
pub(crate) struct Done;

impl Intake for Done {
    fn take(&self, delivery: Delivery) {
        delivery.done();
    }
}

/// Knows device `d` of tenant `t` under user `d`, password `secret`; others as they are enabled.
pub(crate) struct House {
    scopes: Mutex<HashMap<Identity, Scope>>,
    generation: AtomicU64,
    /// How often a scope was asked for.
    asked: AtomicU64,
    /// What the passwords of all users are now; another one makes all of them void.
    password: Mutex<Vec<u8>>,
    stalled_for: Mutex<Duration>,
    /// Logins of the user `slow` that were found right and wait to be told so, and the permits to tell them.
    held: Semaphore,
    told: Semaphore,
}

impl House {
    fn new() -> Arc<Self> {
        let password = Mutex::new(b"secret".to_vec());
        let house = Self {
            scopes: Mutex::default(),
            generation: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            password,
            stalled_for: Mutex::default(),
            held: Semaphore::new(0),
            told: Semaphore::new(0),
        };
        for device in ["d", "d2"] {
            house.enable(&identity(device), scope("f", "b", Some("st")));
        }
        Arc::new(house)
    }

    pub(crate) fn enable(&self, identity: &Identity, scope: Scope) {
        self.scopes.lock().unwrap().insert(identity.clone(), scope);
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn disable(&self, identity: &Identity) {
        self.scopes.lock().unwrap().remove(identity);
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// How often a scope was asked for.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    pub(crate) fn set_password(&self, password: &[u8]) {
        *self.password.lock().unwrap() = password.to_vec();
    }

    fn mark(&self) -> [u8; 32] {
        let mut mark = [0; 32];
        let password = self.password.lock().unwrap();
        mark[..password.len()].copy_from_slice(&password);
        mark
    }

    /// Waits until a login of the user `slow` was found right, and does what happens before it is told.
    pub(crate) async fn before_told(&self, happens: impl Future<Output = ()>) {
        self.held.acquire().await.unwrap().forget();
        happens.await;
        self.told.add_permits(1);
    }

    pub(crate) fn stall(&self, stalled_for: Duration) {
        *self.stalled_for.lock().unwrap() = stalled_for;
    }
}

#[async_trait]
impl Gatekeeper for House {
    async fn login(&self, shown: Shown<'_>) -> Login {
        match (shown.username, shown.password) {
            (None, _) => match shown.certificate {
                Some(subject) => {
                    Login::Device { identity: identity(subject.device_id.as_str()), credential: None }
                }
                None => Login::Anonymous,
            },
            (Some("panic"), _) => panic!("a gatekeeper with a bug"),
            (Some("operator:of t"), Some(b"secret")) => operator(Tenants::Of(vec![identity("d").tenant_id])),
            (Some("operator:of all"), Some(b"secret")) => operator(Tenants::All),
            (Some("slow"), Some(_)) => {
                let credential = CredentialId { username: "slow".into(), mark: self.mark() };
                self.held.add_permits(1);
                self.told.acquire().await.unwrap().forget();
                Login::Device { identity: identity("d"), credential: Some(credential) }
            }
            (Some(device), Some(password)) if *password == *self.password.lock().unwrap() => {
                let credential = CredentialId { username: device.into(), mark: self.mark() };
                Login::Device { identity: identity(device), credential: Some(credential) }
            }
            (Some(_), _) => Login::Refused,
        }
    }

    fn scope(&self, identity: &Identity) -> Option<Scope> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.scopes.lock().unwrap().get(identity).cloned()
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    async fn still_accepts(&self, credentials: &[CredentialId]) -> Option<Vec<bool>> {
        Some(credentials.iter().map(|credential| credential.mark == self.mark()).collect())
    }

    fn stalled_for(&self) -> Duration {
        *self.stalled_for.lock().unwrap()
    }
}

fn operator(tenants: Tenants) -> Login {
    Login::Operator { operator: Operator { name: "ops".into(), tenants }, credential: None }
}

pub(crate) fn identity(device: &str) -> Identity {
    Identity { tenant_id: TenantId::new("t").unwrap(), device_id: DeviceId::new(device).unwrap() }
}

pub(crate) fn scope(farm: &str, barn: &str, station: Option<&str>) -> Scope {
    Scope {
        farm_id: Some(FarmId::new(farm).unwrap()),
        barn_id: Some(BarnId::new(barn).unwrap()),
        station_id: station.map(|id| StationId::new(id).unwrap()),
    }
}

/// A door that is open, with everything around it.
pub(crate) struct OpenDoor {
    pub(crate) door: Arc<Door>,
    pub(crate) house: Arc<House>,
    /// Wall time, which stands still until a test moves it.
    pub(crate) clock: Clock,
    tasks: JoinSet<()>,
}

impl OpenDoor {
    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.door.addresses().plain.expect("a plain listener")
    }

    /// Closes the door; says how many deliveries were cut off.
    pub(crate) async fn close(mut self, deadline: Duration) -> usize {
        let abandoned = self.door.shutdown(deadline).await;
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("the door ends well");
        }
        abandoned
    }
}

/// Settings of a door for tests: any port, anonymous clients welcome, many from one address, no slow refusals.
pub(crate) fn settings() -> DoorSettings {
    DoorSettings {
        listen: Some(([127, 0, 0, 1], 0).into()),
        allow_anonymous: true,
        handshakes_per_address_max: 10_000,
        ..DoorSettings::default()
    }
}

pub(crate) async fn open_with(settings: DoorSettings, intake: Arc<dyn Intake>) -> OpenDoor {
    open_guarded(settings, intake, Duration::ZERO).await
}

/// An open door at which the first wrong credential waits so long for its answer.
pub(crate) async fn open_guarded(
    settings: DoorSettings,
    intake: Arc<dyn Intake>,
    refusal_delay: Duration,
) -> OpenDoor {
    let (house, clock) = (House::new(), Clock::manual(Clock::system().now()));
    let parts = DoorParts {
        gatekeeper: Arc::clone(&house) as Arc<dyn Gatekeeper>,
        intake,
        store: Arc::new(Forgetful),
        guesses: Guesses::new(GuessLimits { delay: refusal_delay, ..GuessLimits::default() }),
        clock: clock.clone(),
    };
    let door = Arc::new(Door::bind(settings, parts).await.expect("a free port"));
    let mut tasks = JoinSet::new();
    let running = Arc::clone(&door);
    tasks.spawn(async move { running.run().await });
    OpenDoor { door, house, clock, tasks }
}

/// An open door whose deliveries come to the test.
pub(crate) async fn open(settings: DoorSettings) -> (OpenDoor, Arrivals) {
    let (tray, arrivals) = tray();
    (open_with(settings, tray).await, arrivals)
}

/// Waits until something becomes true.
pub(crate) async fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let waiting = async {
        while !is_true() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never came true: {what}"));
}
