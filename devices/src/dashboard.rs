//! The one subscriber: reads everything under `plant/`, opens what was sealed for it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::client::{
    Client, ClientError, ConnectOptions, Endpoint, Messages, Qos, Received, Version,
};
use crate::ledger::Ledger;
use crate::seal::SealKey;

/// What the dashboard subscribes to.
const FILTER: &str = "plant/#";

/// Connects as `name` and subscribes.
pub(crate) async fn connect(
    endpoint: &Endpoint,
    name: &str,
) -> Result<(Client, Messages), ClientError> {
    let options = ConnectOptions::new(Version::V5_0, name);
    let (client, messages) = Client::connect(endpoint, &options).await?;
    let filters = vec![(FILTER.to_owned(), Qos::AtLeastOnce)];
    let refused = client.subscribe(filters).await?.into_iter().find(|code| *code >= 0x80);
    match refused {
        Some(reason_code) => {
            client.disconnect().await;
            Err(ClientError::Refused { reason_code, reason: Some(format!("SUBACK for {FILTER}")) })
        }
        None => Ok((client, messages)),
    }
}

/// Enters every message into the books until the connection ends.
pub(crate) async fn listen(
    client: Client,
    mut messages: Messages,
    ledger: Arc<Ledger>,
    keys: HashMap<String, Arc<SealKey>>,
) {
    while let Some(message) = messages.next().await {
        if message.retain {
            ledger.retained();
            continue;
        }
        let sender = ledger.delivered(&message.topic, &message.payload);
        if let (Some(device), Some(opened)) = (sender, open(&message, &keys)) {
            ledger.opened(device, opened);
        }
    }
    let reason = client.ended().await;
    if reason != ClientError::Finished {
        ledger.dashboard_ended(&reason);
    }
}

/// Whether a message on a sealed topic opens to JSON; `None` on other topics.
fn open(message: &Received, keys: &HashMap<String, Arc<SealKey>>) -> Option<bool> {
    let mut levels = message.topic.split('/').skip(1);
    let (name, kind) = (levels.next()?, levels.next()?);
    if kind != "sealed" {
        return None;
    }
    let plaintext = keys.get(name).and_then(|key| key.open(&message.topic, &message.payload));
    let json = plaintext.map(|text| serde_json::from_slice::<serde_json::Value>(&text).is_ok());
    Some(json.unwrap_or(false))
}
