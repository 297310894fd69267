//! JSON, read once: bounded in depth and values, without a key twice.
//!
//! The visitor builds the value that is validated, so nothing is read a second time, and stops at
//! the first bound that is passed. [`serde_json`] by itself would keep the last of two equal keys,
//! where another reader keeps the first: a payload that means two things.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::mask::{is_deceptive, shown};
use crate::refusal::{DETAIL_BYTES_MAX, Refusal};

/// What a payload may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Nested arrays and objects.
    pub(super) depth_max: u32,
    /// Values: texts, numbers, literals, arrays and objects.
    pub(super) nodes_max: u32,
    /// Whether markup and deceptive characters are refused in texts and keys.
    pub(super) reject_markup: bool,
}

/// Reads `payload`.
///
/// # Errors
/// Why it is refused, with the place: a JSON Pointer, or line and column.
pub(super) fn read(payload: &[u8], bounds: &Bounds) -> Result<Value, (Refusal, Box<str>)> {
    let mut meter = Meter { bounds, nodes: 0, depth: 0, passed: None, path: Vec::new() };
    let mut deserializer = serde_json::Deserializer::from_slice(payload);
    let read = Node(&mut meter).deserialize(&mut deserializer);
    match read.and_then(|value| deserializer.end().map(|()| value)) {
        Ok(value) => Ok(value),
        Err(error) => Err(match meter.passed {
            Some(refusal) => (refusal, meter.detail()),
            None => {
                let (line, column) = (error.line(), error.column());
                let at = format!("line {line} column {column}");
                (Refusal::PayloadNotJson, at.into())
            }
        }),
    }
}

struct Meter<'b> {
    bounds: &'b Bounds,
    nodes: u32,
    depth: u32,
    /// The bound that was passed.
    passed: Option<Refusal>,
    /// Where: keys and indexes from the inside out, filled while the error unwinds.
    path: Vec<String>,
}

impl Meter<'_> {
    fn pass<E: serde::de::Error>(&mut self, refusal: Refusal) -> E {
        self.passed = Some(refusal);
        E::custom("")
    }

    fn enter<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.depth += 1;
        if self.depth > self.bounds.depth_max {
            return Err(self.pass(Refusal::PayloadTooDeep));
        }
        Ok(())
    }

    fn check_text<E: serde::de::Error>(&mut self, text: &str) -> Result<(), E> {
        if self.bounds.reject_markup && text.chars().any(|c| "<>".contains(c) || is_deceptive(c)) {
            return Err(self.pass(Refusal::SchemaMismatch));
        }
        Ok(())
    }

    /// Unwinds through `step`; only on the way to a refusal, so the path costs nothing otherwise.
    fn unwind<T, E>(&mut self, read: Result<T, E>, step: impl FnOnce() -> String) -> Result<T, E> {
        if read.is_err() && self.passed.is_some() {
            self.path.push(step());
        }
        read
    }

    fn detail(&self) -> Box<str> {
        let mut detail = String::new();
        for step in self.path.iter().rev() {
            detail.push('/');
            detail.push_str(&step.replace('~', "~0").replace('/', "~1"));
        }
        if self.passed == Some(Refusal::SchemaMismatch) {
            detail.push_str(": reject_markup");
        }
        clip(&shown(&detail)).into()
    }
}

/// At most [`DETAIL_BYTES_MAX`] bytes of `text`.
pub(super) fn clip(text: &str) -> &str {
    let mut end = text.len().min(DETAIL_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

struct Node<'m, 'b>(&'m mut Meter<'b>);

impl<'de> DeserializeSeed<'de> for Node<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.0.nodes += 1;
        if self.0.nodes > self.0.bounds.nodes_max {
            return Err(self.0.pass(Refusal::PayloadTooManyNodes));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not finite"))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.0.check_text(value)?;
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let meter = self.0;
        meter.enter()?;
        let mut values = Vec::new();
        loop {
            let item = items.next_element_seed(Node(meter));
            match meter.unwind(item, || values.len().to_string())? {
                Some(value) => values.push(value),
                None => break,
            }
        }
        meter.depth -= 1;
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let meter = self.0;
        meter.enter()?;
        let mut values = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            let checked = meter.check_text(&key);
            meter.unwind(checked, || key.clone())?;
            let value = fields.next_value_seed(Node(meter));
            let value = meter.unwind(value, || key.clone())?;
            if values.contains_key(&key) {
                let twice = Err(meter.pass(Refusal::PayloadDuplicateKey));
                return meter.unwind(twice, || key);
            }
            values.insert(key, value);
        }
        meter.depth -= 1;
        Ok(Value::Object(values))
    }
}
