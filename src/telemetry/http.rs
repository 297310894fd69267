//! `/metrics` and `/healthz`, on loopback.
//!
//! `/healthz` answers 200 while the broker serves, and 503 with the reason when it does not: a
//! fault, a start or a stop under way, a log that cannot keep up, a shard that does not answer. There is no
//! login and no TLS here, which is why [`crate::server`] refuses other addresses than loopback
//! ones unless told otherwise.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::metrics::{MetricsSnapshot, encode_metrics};

/// What is known of the broker at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health {
    /// Numbers; `None` if a shard did not answer in time.
    pub(crate) snapshot: Option<MetricsSnapshot>,
    /// Whether the log is still being read.
    pub(crate) starting: bool,
    /// Whether there was a fault.
    pub(crate) faulted: bool,
    /// Whether a stop is under way.
    pub(crate) stopping: bool,
    /// Whether sockets are not read because too much waits for the disk.
    pub(crate) backlogged: bool,
}

/// Asks for [`Health`].
pub(crate) type HealthSource =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Health> + Send>> + Send + Sync>;

/// Serves until `stopped` is ready.
pub(crate) async fn serve(
    listener: TcpListener,
    source: HealthSource,
    stopped: impl Future<Output = ()> + Send + 'static,
) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .with_state(source);
    let served = axum::serve(listener, router).with_graceful_shutdown(stopped).await;
    if let Err(error) = served {
        tracing::error!(%error, "metrics are served no more");
    }
}

async fn metrics(State(source): State<HealthSource>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let health = source().await;
    let Some(snapshot) = health.snapshot else {
        let why = if health.starting { "starting\n" } else { "a shard did not answer\n" };
        return (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    };
    match encode_metrics(snapshot) {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn healthz(State(source): State<HealthSource>) -> Response {
    let (code, body) = verdict(&source().await);
    (code, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// The answer of `/healthz`.
fn verdict(health: &Health) -> (StatusCode, serde_json::Value) {
    let status = match health {
        Health { faulted: true, .. } => "faulted",
        Health { stopping: true, .. } => "stopping",
        Health { starting: true, .. } => "starting",
        Health { snapshot: None, .. } => "unresponsive",
        Health { backlogged: true, .. } => "backlogged",
        _ => "serving",
    };
    let code = match status {
        "serving" => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let counters = health.snapshot.as_ref().map(|snapshot| &snapshot.counters);
    let body = serde_json::json!({
        "status": status,
        "version": env!("CARGO_PKG_VERSION"),
        "connections": counters.map(|counters| counters.connections_live),
        "entries": health.snapshot.as_ref().map(|snapshot| snapshot.writer.entries),
    });
    (code, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_broker_that_serves_is_healthy() {
        let serving = Health { snapshot: Some(MetricsSnapshot::default()), ..Health::default() };
        assert_eq!(verdict(&serving).0, StatusCode::OK);
        for (sick, status) in [
            (Health { faulted: true, ..serving.clone() }, "faulted"),
            (Health { stopping: true, ..serving.clone() }, "stopping"),
            (Health { backlogged: true, ..serving.clone() }, "backlogged"),
            (Health { starting: true, ..Health::default() }, "starting"),
            (Health::default(), "unresponsive"),
        ] {
            let (code, body) = verdict(&sick);
            assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(body.get("status").and_then(|status| status.as_str()), Some(status));
        }
    }
}
