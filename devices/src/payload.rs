//! Payloads: the JSON that the shipped schemas describe, and its invalid variants.
//!
//! Telemetry: `ts` (unix milliseconds), `seq`, `values` (1 to 16 numbers), optional `unit` and
//! `operator.name`, nothing else. Status: `state` and `since`.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::profile::{Fault, State};

/// One telemetry message.
#[derive(Debug, Serialize)]
pub(crate) struct Reading<'a> {
    pub(crate) ts: u64,
    pub(crate) seq: u64,
    pub(crate) values: BTreeMap<&'a str, f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unit: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) operator: Option<Operator<'a>>,
}

/// Who stands at the machine; schemas mark the name as sensitive.
#[derive(Debug, Serialize)]
pub(crate) struct Operator<'a> {
    pub(crate) name: &'a str,
}

impl Reading<'_> {
    /// As the schema wants it.
    pub(crate) fn valid(&self) -> Vec<u8> {
        // Numbers are finite and keys are strings, so serialisation cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// As the schema must refuse it.
    pub(crate) fn invalid(&self, fault: Fault) -> Vec<u8> {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        match (fault, value.as_object_mut()) {
            (Fault::WrongType, Some(fields)) => {
                let words = self.values.iter().map(|(key, value)| {
                    ((*key).to_owned(), Value::String(format!("about {value}")))
                });
                fields.insert("values".to_owned(), Value::Object(words.collect()));
            }
            (Fault::MissingField, Some(fields)) => {
                fields.remove("seq");
            }
            (Fault::UnknownField, Some(fields)) => {
                fields.insert("firmware".to_owned(), json!("2.1.7-rc"));
            }
            (Fault::NotJson, _) | (_, None) => {
                let mut text = self.valid();
                text.truncate(text.len() / 2);
                return text;
            }
        }
        serde_json::to_vec(&value).unwrap_or_default()
    }
}

/// A status message.
pub(crate) fn status(state: State, since_ms: u64) -> Vec<u8> {
    json!({ "state": state.name(), "since": since_ms }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading() -> Reading<'static> {
        Reading {
            ts: 1_700_000_000_123,
            seq: 7,
            values: BTreeMap::from([("rms", 2.5), ("peak", 6.0)]),
            unit: Some("mm/s"),
            operator: Some(Operator { name: "R. Kim" }),
        }
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_valid_reading_has_the_shape_of_the_schema() {
        assert_eq!(
            text(reading().valid()),
            concat!(
                r#"{"ts":1700000000123,"seq":7,"values":{"peak":6.0,"rms":2.5},"#,
                r#""unit":"mm/s","operator":{"name":"R. Kim"}}"#
            )
        );
        let bare = Reading { unit: None, operator: None, ..reading() };
        assert_eq!(
            text(bare.valid()),
            r#"{"ts":1700000000123,"seq":7,"values":{"peak":6.0,"rms":2.5}}"#
        );
    }

    #[test]
    fn each_fault_breaks_what_its_name_says() {
        let parsed = |fault| serde_json::from_slice::<Value>(&reading().invalid(fault));
        assert!(parsed(Fault::WrongType).unwrap()["values"]["rms"].is_string());
        assert!(parsed(Fault::MissingField).unwrap().get("seq").is_none());
        assert!(parsed(Fault::UnknownField).unwrap().get("firmware").is_some());
        assert!(parsed(Fault::NotJson).is_err());
    }

    #[test]
    fn a_status_has_a_state_and_since() {
        let status: Value = serde_json::from_slice(&status(State::Idle, 12)).unwrap();
        assert_eq!(status, json!({ "state": "idle", "since": 12 }));
    }
}
