//! The HTTP side of a station: where to put a picture, putting it there, saying that it is there.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::header::HOST;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::{Access, Tally};
use crate::device::{Image, Place, Station};
use crate::http;

/// Type of every picture.
const JPEG: &str = "image/jpeg";

/// A picture in the store.
#[derive(Clone, Debug)]
pub struct Upload {
    /// The picture as messages speak of it.
    pub image: Image,
    /// Its key.
    pub object_key: String,
    /// Id of the event that says it is stored, when the engine told it.
    pub event_id: Option<String>,
    /// Id of the inference job, when the engine made one at once.
    pub job_id: Option<String>,
}

/// Where a picture goes.
struct Offer {
    url: String,
    object_key: String,
    media_id: String,
    headers: Vec<(String, String)>,
}

/// Uploads the pictures of a station.
#[derive(Debug)]
pub(super) struct Camera {
    edge: String,
    pub(super) tally: Arc<Tally>,
    timeout: Duration,
}

impl Camera {
    pub(super) fn new(access: &Access, timeout: Duration) -> Self {
        Self { edge: access.edge.clone(), tally: Arc::clone(&access.tally), timeout }
    }

    /// The way of weight-vision-service: snake_case and the tenant as a header.
    pub(super) async fn upload(
        &self,
        station: &Station,
        session: &str,
        role: &'static str,
        jpeg: &Bytes,
    ) -> Result<Upload> {
        let Station { place: Place { tenant, farm, barn }, device, .. } = station;
        let body = json!({"tenant_id": tenant, "farm_id": farm, "barn_id": barn, "device_id": device,
            "content_type": JPEG, "filename": format!("{session}_{role}.jpg")});
        let offer = self.presign(Some(tenant), &body, "headers").await?;
        self.put(&offer, jpeg).await?;
        Ok(upload(offer, role, jpeg))
    }

    /// The way of iot-weighvision-agent: camelCase and no header at all.
    pub(super) async fn upload_camel(&self, station: &Station, jpeg: &Bytes) -> Result<Upload> {
        let Station { place: Place { tenant, farm, barn }, device, .. } = station;
        let body = json!({"tenantId": tenant, "farmId": farm, "barnId": barn, "deviceId": device,
            "contentType": JPEG});
        let offer = self.presign(None, &body, "required_headers").await?;
        ensure!(!offer.media_id.is_empty(), "presign answered without a media_id");
        self.put(&offer, jpeg).await?;
        Ok(upload(offer, "vis", jpeg))
    }

    /// Says that a picture is there, and to which session it belongs.
    pub(super) async fn complete(&self, station: &Station, session: &str, upload: &mut Upload) -> Result<()> {
        let Station { place: Place { tenant, farm, barn }, device, .. } = station;
        let body = json!({"tenant_id": tenant, "farm_id": farm, "barn_id": barn, "device_id": device,
            "object_key": upload.object_key, "mime_type": JPEG, "size_bytes": upload.image.size_bytes,
            "session_id": session});
        let (status, answer) = self.post("/api/v1/media/images/complete", Some(tenant), &body).await?;
        ensure!(status == 200, "complete answered {status}: {answer}");
        upload.image.media_id = text(&answer, "media_id")?;
        upload.event_id = answer["event_id"].as_str().map(str::to_owned);
        // A repeated complete answers without the job that the first one made.
        if let Some(job_id) = answer["inference_job_id"].as_str() {
            upload.job_id = Some(job_id.to_owned());
        }
        Ok(())
    }

    /// Posts JSON and reads the answer, whatever it is.
    pub(super) async fn post(&self, path: &str, tenant: Option<&str>, body: &Value) -> Result<(u16, Value)> {
        let mut request = Request::post(path).header("content-type", "application/json");
        if let Some(tenant) = tenant {
            request = request.header("x-tenant-id", tenant);
        }
        let (status, answer) = self.call(&self.edge, request, Bytes::from(body.to_string())).await?;
        Ok((status, serde_json::from_slice(&answer).unwrap_or(Value::Null)))
    }

    async fn presign(&self, tenant: Option<&str>, body: &Value, headers_key: &str) -> Result<Offer> {
        let (status, answer) = self.post("/api/v1/media/images/presign", tenant, body).await?;
        ensure!(status == 200, "presign answered {status}: {answer}");
        let headers = answer[headers_key].as_object();
        let headers = headers.with_context(|| format!("presign answered without an object {headers_key}"))?;
        let pair = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
        Ok(Offer {
            url: text(&answer, "upload_url")?,
            object_key: text(&answer, "object_key")?,
            media_id: answer["media_id"].as_str().unwrap_or_default().to_owned(),
            headers: headers.iter().filter_map(pair).collect(),
        })
    }

    async fn put(&self, offer: &Offer, jpeg: &Bytes) -> Result<()> {
        let path = offer.url.strip_prefix("http://").and_then(|rest| rest.find('/').map(|at| &rest[at..]));
        let path = path.with_context(|| format!("{} is no http URL with a path", offer.url))?;
        let mut request = Request::put(path);
        for (name, value) in &offer.headers {
            request = request.header(name, value);
        }
        let (status, answer) = self.call(&offer.url, request, jpeg.clone()).await?;
        let answer = String::from_utf8_lossy(&answer);
        ensure!(matches!(status, 200 | 201), "PUT of a picture answered {status}: {answer}");
        super::count(&self.tally.images);
        Ok(())
    }

    async fn call(
        &self,
        base: &str,
        request: hyper::http::request::Builder,
        body: Bytes,
    ) -> Result<(u16, Bytes)> {
        let authority = http::authority(base)?;
        let request = request.header(HOST, authority).body(Full::new(body)).context("make a request")?;
        timeout(self.timeout, http::call(base, request)).await.context("no answer in time")?
    }
}

fn upload(offer: Offer, role: &'static str, jpeg: &Bytes) -> Upload {
    let sha256 = hex::encode(Sha256::digest(jpeg));
    let image = Image { media_id: offer.media_id, role, size_bytes: jpeg.len() as u64, sha256 };
    Upload { image, object_key: offer.object_key, event_id: None, job_id: None }
}

fn text(answer: &Value, key: &str) -> Result<String> {
    let value = answer[key].as_str().filter(|value| !value.is_empty());
    value.map(str::to_owned).with_context(|| format!("the answer has no {key}: {answer}"))
}
