//! A flock whose truth is known: drawn from a seed, played into an engine as its past, and compared with what the engine says
//! of it.
//!
//! The truth is of the flock, not of the sample: what the engine says comes from some two thousand weighings a day, of which some
//! are of two birds or of half a bird, and must agree with the birds in the barn.

pub mod air;
pub mod judge;
pub mod play;
pub mod truth;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use serde_json::Value;

use crate::http;

/// The flock's book of an engine over HTTP.
#[derive(Clone, Debug)]
pub struct Book {
    /// `http://host:port` or `https://host:port`.
    pub url: String,
    /// An operator key, where the engine wants one: `write` to play, `read` to judge.
    pub key: Option<String>,
    /// The tenant.
    pub tenant: String,
}

impl Book {
    /// Writes something down.
    ///
    /// # Errors
    /// When the engine does not take it; the text says what it answered.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.ask(Request::post(path), body.to_string()).await.with_context(|| format!("POST {path}"))
    }

    /// Reads something.
    ///
    /// # Errors
    /// When the engine does not show it.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.ask(Request::get(path), String::new()).await.with_context(|| format!("GET {path}"))
    }

    async fn ask(&self, request: hyper::http::request::Builder, body: String) -> Result<Value> {
        let mut request = request
            .header("host", http::authority(&self.url)?)
            .header("content-type", "application/json")
            .header("x-tenant-id", &self.tenant);
        if let Some(key) = &self.key {
            request = request.header("x-api-key", key);
        }
        let (status, body) = http::call(&self.url, request.body(Full::new(Bytes::from(body)))?).await?;
        if !(200..300).contains(&status) {
            bail!("the engine answered {status}: {}", String::from_utf8_lossy(&body));
        }
        serde_json::from_slice(&body).context("read the answer")
    }
}
