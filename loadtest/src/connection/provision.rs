//! Lets devices into an engine through its own interface, and takes the passwords it makes.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Device;
use super::logins::{Row, Table};
use crate::http;

/// Requests at once: the engine hashes two passwords at a time.
const REQUESTS_MAX: usize = 4;

/// A device to let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newcomer {
    /// Who it is.
    pub device: Device,
    /// Farm id.
    pub farm: String,
    /// Barn id.
    pub barn: String,
}

/// The engine's interface and the key of an operator who may let devices in.
#[derive(Clone, Debug)]
pub struct Api {
    /// `http://host:port`.
    pub url: String,
    /// An operator key of the role `admin`.
    pub key: String,
}

#[derive(Deserialize)]
struct Issued {
    username: String,
    password: String,
}

impl Api {
    /// Lets these devices in. One that has a password already is given a new one, and its old one ends at once.
    ///
    /// # Errors
    /// When the engine does not do it for one of them; the text says what it answered.
    pub async fn let_in(&self, newcomers: Vec<Newcomer>, mut progress: impl FnMut(usize)) -> Result<Table> {
        let turns = Arc::new(Semaphore::new(REQUESTS_MAX));
        let mut calls = JoinSet::new();
        for newcomer in newcomers {
            let (api, turns) = (self.clone(), Arc::clone(&turns));
            calls.spawn(async move {
                let _turn = turns.acquire_owned().await.context("take a turn")?;
                let row = api.let_one_in(&newcomer).await;
                row.with_context(|| format!("let {}/{} in", newcomer.device.tenant, newcomer.device.id))
            });
        }
        let mut table = Table::default();
        let mut done = 0;
        while let Some(row) = calls.join_next().await {
            table.put(row.context("a request broke")??);
            done += 1;
            progress(done);
        }
        Ok(table)
    }

    async fn let_one_in(&self, newcomer: &Newcomer) -> Result<Row> {
        let Newcomer { device: Device { tenant, id }, farm, barn } = newcomer;
        let body = json!({"tenant_id": tenant, "farm_id": farm, "barn_id": barn, "device_id": id});
        let (status, answer) = self.post("/api/v1/devices", &body).await?;
        let answer = match status {
            201 => answer,
            409 => {
                let body = json!({"tenant_id": tenant, "overlap_seconds": 0});
                let (status, rotated) = self.post(&format!("/api/v1/devices/{id}/rotate"), &body).await?;
                if status != 200 {
                    bail!("the engine answered {status}: {}", String::from_utf8_lossy(&rotated));
                }
                rotated
            }
            _ => bail!("the engine answered {status}: {}", String::from_utf8_lossy(&answer)),
        };
        let issued: Issued = serde_json::from_slice(&answer).context("read the new password")?;
        Ok(Row { device: format!("{tenant}/{id}"), username: issued.username, password: issued.password })
    }

    async fn post(&self, path: &str, body: &Value) -> Result<(u16, Bytes)> {
        let request = Request::post(path)
            .header("host", http::authority(&self.url)?)
            .header("x-api-key", &self.key)
            .header("content-type", "application/json")
            .body(Full::from(body.to_string()))?;
        http::call(&self.url, request).await
    }
}
