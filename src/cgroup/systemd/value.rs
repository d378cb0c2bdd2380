//! Values of D-Bus, as far as properties of units need them.

use std::fmt::Write;

/// One value (D-Bus specification, Type System).
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// `b`
    Bool(bool),
    /// `y`
    Byte(u8),
    /// `n`
    I16(i16),
    /// `q`
    U16(u16),
    /// `i`
    I32(i32),
    /// `u`
    U32(u32),
    /// `x`
    I64(i64),
    /// `t`
    U64(u64),
    /// `d`
    Double(f64),
    /// `s`
    Str(String),
    /// `a…`: the signature of an element, and the elements.
    Array(String, Vec<Value>),
    /// `(…)`
    Struct(Vec<Value>),
}

/// A property of a unit: its name and what it is to be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Property {
    /// As systemd's D-Bus interface has it: `MemoryMax`.
    pub(super) name: String,
    /// Of the type that systemd wants for it.
    pub(super) value: Value,
}

impl Property {
    pub(super) fn new(name: &str, value: Value) -> Self {
        Property { name: name.to_owned(), value }
    }
}

impl Value {
    /// Its type's signature.
    pub(super) fn signature(&self) -> String {
        let simple = match self {
            Value::Bool(_) => "b",
            Value::Byte(_) => "y",
            Value::I16(_) => "n",
            Value::U16(_) => "q",
            Value::I32(_) => "i",
            Value::U32(_) => "u",
            Value::I64(_) => "x",
            Value::U64(_) => "t",
            Value::Double(_) => "d",
            Value::Str(_) => "s",
            Value::Array(element, _) => return format!("a{element}"),
            Value::Struct(fields) => {
                let fields: String = fields.iter().map(Value::signature).collect();
                return format!("({fields})");
            }
        };
        simple.to_owned()
    }

    pub(super) fn str(text: &str) -> Self {
        Value::Str(text.to_owned())
    }

    pub(super) fn bytes(bytes: &[u8]) -> Self {
        Value::Array("y".to_owned(), bytes.iter().map(|byte| Value::Byte(*byte)).collect())
    }

    /// As a debug line and the tests show it: `t 512`.
    pub(super) fn shown(&self) -> String {
        let mut text = self.signature();
        text.push(' ');
        self.show(&mut text);
        text
    }

    fn show(&self, out: &mut String) {
        let written = match self {
            Value::Bool(value) => write!(out, "{value}"),
            Value::Byte(value) => write!(out, "{value}"),
            Value::I16(value) => write!(out, "{value}"),
            Value::U16(value) => write!(out, "{value}"),
            Value::I32(value) => write!(out, "{value}"),
            Value::U32(value) => write!(out, "{value}"),
            Value::I64(value) => write!(out, "{value}"),
            Value::U64(value) => write!(out, "{value}"),
            Value::Double(value) => write!(out, "{value}"),
            Value::Str(value) => write!(out, "{value:?}"),
            Value::Array(_, values) | Value::Struct(values) => {
                for (at, value) in values.iter().enumerate() {
                    if at > 0 {
                        out.push(' ');
                    }
                    value.show(out);
                }
                Ok(())
            }
        };
        // a String takes everything
        written.unwrap_or_default();
    }
}
