//! Whose data a payload is: the value at the schema's `subject` pointer.
//!
//! It finds what a schema says where to look for, in payloads that are JSON within their bounds. What
//! has no schema, an opaque payload, or one in another form cannot be searched, and that is said.

use serde_json::Value;

use super::{Schema, Schemas, json};
use crate::mqtt::TopicName;

impl Schemas {
    /// Whether `payload` of `topic` is data of `subject`; `None` if that cannot be told.
    pub fn is_of_subject(&self, topic: &TopicName, payload: &[u8], subject: &str) -> Option<bool> {
        self.find(topic.as_str()).and_then(|schema| schema.is_of_subject(payload, subject))
    }

    /// Whether any schema would find that `payload` is data of `subject`, where its topic is not
    /// known.
    pub fn may_be_of_subject(&self, payload: &[u8], subject: &str) -> bool {
        self.schemas.iter().any(|schema| schema.is_of_subject(payload, subject) == Some(true))
    }
}

impl Schema {
    fn is_of_subject(&self, payload: &[u8], subject: &str) -> Option<bool> {
        let pointer = self.subject.as_deref()?;
        let value = (payload.len() <= self.bytes_max).then(|| json::read(payload, &self.bounds));
        let value = value?.ok()?;
        Some(match value.pointer(pointer) {
            Some(Value::String(text)) => text == subject,
            Some(Value::Number(number)) => number.to_string() == subject,
            Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => false,
        })
    }
}
