//! A real PostgreSQL database per test, copied from a migrated template.

use argon2::password_hash::SaltString;

use schema::clock::Timestamp;
use schema::store::{Store, StoreSettings, index, partition};
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

/// Names the server for tests; `tests/with-postgres` sets it.
const URL_VARIABLE: &str = "FARMIQ_TEST_DATABASE_URL";
/// The advisory lock under which the template is made: any number that nothing else uses.
const TEMPLATE_LOCK: i64 = 7_001;

/// A database of one test.
pub struct Database {
    /// Connection string of the database.
    pub url: String,
    /// The engine's own way to it.
    pub store: Store,
    /// A stranger's way to it, for what the test looks at.
    pub client: Client,
}

impl Database {
    /// A migrated, empty database with partitions around `now`.
    ///
    /// # Panics
    /// When there is no server: the tests run with `tests/with-postgres`.
    pub async fn fresh_at(now: Timestamp) -> Self {
        let admin = connect(&server()).await;
        let template = template(&admin).await;
        let name = unique_name();
        admin
            .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy"))
            .await
            .expect("the template can be copied");
        let url = of_database(&name);
        let store = store(&url);
        store
            .run("partitions", async |conn| partition::ensure_ahead(conn, now).await)
            .await
            .expect("partitions can be made");
        Self { client: connect(&url).await, url, store }
    }

    /// A migrated, empty database with partitions around the present.
    pub async fn fresh() -> Self {
        Self::fresh_at(schema::clock::Clock::system().now()).await
    }

    /// A database without any table.
    pub async fn empty() -> Self {
        let admin = connect(&server()).await;
        let name = unique_name();
        admin.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("a database can be made");
        let url = of_database(&name);
        Self { client: connect(&url).await, store: store(&url), url }
    }

    /// The one number a query returns.
    pub async fn count(&self, sql: &str) -> i64 {
        self.client.query_one(sql, &[]).await.expect("the query is right").get(0)
    }

    /// Runs statements.
    pub async fn execute(&self, sql: &str) {
        self.client.batch_execute(sql).await.expect("the statements are right");
    }

    /// Lets a device act in a place.
    pub async fn allow_device(&self, tenant: &str, device: &str, farm: &str, barn: &str) {
        self.execute(&format!(
            "INSERT INTO device_allowlist (tenant_id, device_id, farm_id, barn_id) VALUES ('{tenant}', '{device}', '{farm}', '{barn}')"
        ))
        .await;
    }

    /// Gives a device a user name and a password.
    ///
    /// # Panics
    /// When it has one already.
    pub async fn set_password(&self, tenant: &str, device: &str, user: &str, password: &str) {
        let salt = SaltString::from_b64("c2FsdHNhbHQ").expect("a salt");
        let hash = actors::credentials::hash(password.as_bytes(), &salt);
        let sql = "INSERT INTO device_credentials
            (username, tenant_id, device_id, password_hash, created_at, updated_at)
            VALUES ($1, $2, $3, $4, now(), now())";
        self.client.execute(sql, &[&user, &tenant, &device, &hash]).await.expect("a credential can be made");
    }

    /// Lets a station act in a place.
    pub async fn allow_station(&self, tenant: &str, station: &str, farm: &str, barn: &str) {
        self.execute(&format!(
            "INSERT INTO station_allowlist (tenant_id, station_id, farm_id, barn_id) VALUES ('{tenant}', '{station}', '{farm}', '{barn}')"
        ))
        .await;
    }
}

/// Another way to a database, as a second engine would have it.
#[must_use]
pub fn store(url: &str) -> Store {
    let settings = StoreSettings { pool_max: 8, ..StoreSettings::new(url, "farmiq-tests") };
    Store::new(&settings).expect("the URL is right")
}

/// A connection of its own to a database.
///
/// # Panics
/// When the server does not answer.
pub async fn connect(url: &str) -> Client {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.expect("the server for tests answers");
    #[expect(
        clippy::disallowed_methods,
        reason = "the driver's task lives as long as the client of one test"
    )]
    tokio::spawn(async move {
        // The test ends with the server's answer still on the way; nobody needs it.
        let _ = connection.await;
    });
    client
}

#[expect(clippy::disallowed_methods, reason = "tests have no configuration but the environment")]
fn server() -> String {
    std::env::var(URL_VARIABLE)
        .unwrap_or_else(|_| panic!("{URL_VARIABLE} is not set: run the tests with `make test` or `tests/with-postgres cargo nextest run`"))
}

/// The server's URL with another database name, which comes last.
fn of_database(name: &str) -> String {
    let server = server();
    let (head, _) = server.rsplit_once("dbname=").expect("the server's URL ends in dbname=");
    format!("{head}dbname={name}")
}

/// A name that no other database of the server has. The number of a process would not do: it comes again within one run.
#[must_use]
pub fn unique_name() -> String {
    format!("test_{}", Uuid::new_v4().simple())
}

/// The name of the migrated template; whichever test process comes first makes it.
async fn template(admin: &Client) -> String {
    let name = "farmiq_template".to_owned();
    let failed = "the template can be made";
    admin.batch_execute(&format!("SELECT pg_advisory_lock({TEMPLATE_LOCK})")).await.expect(failed);
    let known =
        admin.query_opt("SELECT 1 FROM pg_database WHERE datname = $1", &[&name]).await.expect(failed);
    if known.is_none() {
        admin.batch_execute("CREATE DATABASE farmiq_making").await.expect(failed);
        let making = store(&of_database("farmiq_making"));
        making.migrate().await.expect("the migrations are right");
        let made = making.run_at_leisure("indexes", async |conn| index::ensure(conn).await).await;
        made.expect("the indexes can be made");
        drop(making);
        admin
            .batch_execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'farmiq_making';
                 ALTER DATABASE farmiq_making RENAME TO farmiq_template",
            )
            .await
            .expect(failed);
    }
    admin.batch_execute(&format!("SELECT pg_advisory_unlock({TEMPLATE_LOCK})")).await.expect(failed);
    name
}
