//! What the server does for a statement of the engine: which indexes it uses, which tables it reads as a whole, how many
//! pages it looks at.

use schema::store::STATEMENTS;
use serde_json::Value;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

/// How a statement was run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Indexes it used, in their alphabetical order.
    pub indexes: Vec<String>,
    /// Tables it read from end to end.
    pub scanned: Vec<String>,
    /// Pages it looked at, each as often as it did.
    pub pages: i64,
}

/// Runs a statement and says how; what it changed is taken back.
///
/// # Panics
/// When there is no statement of this name or it fails.
pub async fn plan(client: &mut Client, name: &str, params: &[&(dyn ToSql + Sync)]) -> Plan {
    let sql = statement(name);
    let transaction = client.transaction().await.expect("a transaction can begin");
    let settings = "SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL jit = off";
    transaction.batch_execute(settings).await.expect("settings can be changed");
    let explained = format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}");
    let row = transaction.query_one(&explained, params).await;
    let Value::Array(plans) = row.expect("the statement runs").get(0) else { panic!("no plan of {name}") };
    transaction.rollback().await.expect("a transaction can end");
    let mut plan = Plan::default();
    let top = &plans[0]["Plan"];
    plan.pages = pages(top);
    plan.visit(top);
    plan.indexes.sort();
    plan.indexes.dedup();
    plan
}

/// Runs a statement and says how many pages of tables and indexes it looked at, each as often as it did, those of its
/// triggers and of the parts that nothing reads included; what it changed is taken back.
///
/// # Panics
/// When there is no statement of this name or it fails.
pub async fn pages_touched(client: &mut Client, name: &str, params: &[&(dyn ToSql + Sync)]) -> i64 {
    let transaction = client.transaction().await.expect("a transaction can begin");
    let count = "SELECT coalesce(sum(pg_stat_get_xact_blocks_fetched(c.oid)), 0)::bigint FROM pg_class AS c
        WHERE c.relnamespace = 'public'::regnamespace";
    let before: i64 = transaction.query_one(count, &[]).await.expect("it can be counted").get(0);
    transaction.query(statement(name), params).await.expect("the statement runs");
    let after: i64 = transaction.query_one(count, &[]).await.expect("it can be counted").get(0);
    transaction.rollback().await.expect("a transaction can end");
    after - before
}

fn statement(name: &str) -> &'static str {
    let sql = STATEMENTS.iter().flat_map(|statements| statements.iter());
    let mut sql =
        sql.filter(|sql| sql.lines().next().and_then(|line| line.strip_prefix("-- ")) == Some(name));
    sql.next().unwrap_or_else(|| panic!("there is no statement {name}"))
}

impl Plan {
    fn visit(&mut self, node: &Value) {
        let text = |key: &str| node[key].as_str().map(str::to_owned);
        self.indexes.extend(text("Index Name"));
        if node["Node Type"] == "Seq Scan" {
            self.scanned.extend(text("Relation Name"));
        }
        node["Plans"].as_array().into_iter().flatten().for_each(|child| self.visit(child));
    }
}

fn pages(node: &Value) -> i64 {
    let count = |key: &str| node[key].as_i64().unwrap_or(0);
    count("Shared Hit Blocks") + count("Shared Read Blocks")
}
