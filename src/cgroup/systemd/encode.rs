//! Calls as bytes (D-Bus specification, Message Protocol).

use super::value::Value;
#[cfg(test)]
use super::wire::Kind;
use super::wire::{LITTLE_ENDIAN, METHOD_CALL};

/// A call of a method.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
    /// Signature of the body; empty without one.
    pub(super) signature: &'a str,
    /// The arguments, by an [`Encoder`].
    pub(super) body: &'a [u8],
}

impl Call<'_> {
    /// The message, little-endian, for a connection's `serial`.
    pub(super) fn encode(&self, serial: u32) -> Vec<u8> {
        let mut out = Encoder::default();
        out.bytes.extend([LITTLE_ENDIAN, METHOD_CALL, 0, 1]);
        out.u32(u32::try_from(self.body.len()).unwrap_or(u32::MAX));
        out.u32(serial);
        out.array(8, |out| {
            for (code, kind, text) in [
                (1, "o", self.path),
                (2, "s", self.interface),
                (3, "s", self.member),
                (6, "s", self.destination),
            ] {
                out.field(code, kind);
                out.str(text);
            }
            if !self.signature.is_empty() {
                out.field(8, "g");
                out.signature(self.signature);
            }
        });
        out.align(8);
        out.bytes.extend(self.body);
        out.bytes
    }
}

/// Writes values, little-endian and aligned.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    pub(super) fn finish(self) -> Vec<u8> {
        self.bytes
    }

    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn aligned<const N: usize>(&mut self, bytes: [u8; N]) {
        self.align(N);
        self.bytes.extend(bytes);
    }

    fn field(&mut self, code: u8, kind: &str) {
        self.align(8);
        self.bytes.push(code);
        self.signature(kind);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.aligned(value.to_le_bytes());
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.u32(u32::from(value));
    }

    /// A string, or an object path.
    pub(super) fn str(&mut self, text: &str) {
        self.u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    /// An array of bytes.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.array(1, |out| out.bytes.extend(bytes));
    }

    fn signature(&mut self, text: &str) {
        self.bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    /// An array whose elements have to be aligned to `to`.
    pub(super) fn array(&mut self, to: usize, elements: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length_at = self.bytes.len() - 4;
        // the padding before the first element does not count
        self.align(to);
        let start = self.bytes.len();
        elements(self);
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        for (slot, byte) in self.bytes.iter_mut().skip(length_at).zip(length.to_le_bytes()) {
            *slot = byte;
        }
    }

    /// The fields of a struct.
    pub(super) fn structure(&mut self, fields: impl FnOnce(&mut Self)) {
        self.align(8);
        fields(self);
    }

    pub(super) fn variant(&mut self, value: &Value) {
        self.signature(&value.signature());
        self.value(value);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Bool(value) => self.bool(*value),
            Value::Byte(value) => self.bytes.push(*value),
            Value::I16(value) => self.aligned(value.to_le_bytes()),
            Value::U16(value) => self.aligned(value.to_le_bytes()),
            Value::I32(value) => self.aligned(value.to_le_bytes()),
            Value::U32(value) => self.u32(*value),
            Value::I64(value) => self.aligned(value.to_le_bytes()),
            Value::U64(value) => self.aligned(value.to_le_bytes()),
            Value::Double(value) => self.aligned(value.to_le_bytes()),
            Value::Str(text) => self.str(text),
            Value::Array(element, values) => {
                self.array(alignment(element), |out| values.iter().for_each(|v| out.value(v)));
            }
            Value::Struct(values) => {
                self.structure(|out| values.iter().for_each(|v| out.value(v)));
            }
        }
    }
}

/// What a type is aligned to, by its first letter.
fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        Some(b'n' | b'q') => 2,
        Some(b'y' | b'g' | b'v') => 1,
        _ => 4,
    }
}

/// What the other side says, in tests: a return, an error or a signal.
#[cfg(test)]
pub(super) fn said(kind: Kind, name: &str, answers: u32, signature: &str, body: &[u8]) -> Vec<u8> {
    let mut out = Encoder::default();
    out.bytes.extend([LITTLE_ENDIAN, kind as u8 + METHOD_CALL, 0, 1]);
    out.u32(u32::try_from(body.len()).unwrap());
    out.u32(1);
    out.array(8, |out| {
        match kind {
            Kind::Error => out.field(4, "s"),
            _ => out.field(3, "s"),
        }
        out.str(name);
        out.field(5, "u");
        out.u32(answers);
        if !signature.is_empty() {
            out.field(8, "g");
            out.signature(signature);
        }
    });
    out.align(8);
    out.bytes.extend(body);
    out.bytes
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::wire::{FIXED, length};
    use super::*;

    pub(in super::super) fn call(body: &[u8]) -> Vec<u8> {
        let call = Call {
            destination: "org.freedesktop.systemd1",
            path: "/org/freedesktop/systemd1",
            interface: "org.freedesktop.systemd1.Manager",
            member: "ResetFailedUnit",
            signature: "s",
            body,
        };
        call.encode(7)
    }

    #[test]
    fn a_call_has_the_bytes_of_the_specification() {
        let mut body = Encoder::default();
        body.str("a.scope");
        let bytes = call(&body.finish());
        let mut expected = b"l\x01\0\x01\x0c\0\0\0\x07\0\0\0\x9f\0\0\0".to_vec();
        expected.extend(b"\x01\x01o\0\x19\0\0\0/org/freedesktop/systemd1\0\0\0\0\0\0\0");
        expected.extend(b"\x02\x01s\0\x20\0\0\0org.freedesktop.systemd1.Manager\0\0\0\0\0\0\0\0");
        expected.extend(b"\x03\x01s\0\x0f\0\0\0ResetFailedUnit\0");
        expected.extend(b"\x06\x01s\0\x18\0\0\0org.freedesktop.systemd1\0\0\0\0\0\0\0\0");
        expected.extend(b"\x08\x01g\0\x01s\0\0");
        expected.extend(b"\x07\0\0\0a.scope\0");
        assert_eq!(length(&bytes[..FIXED]).unwrap(), bytes.len());
        assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(&expected));
    }

    #[test]
    fn values_are_aligned() {
        let tuple = Value::Struct(vec![Value::str("x"), Value::U64(1)]);
        for (value, expected) in [
            (Value::Bool(true), &b"\x01b\0\0\x01\0\0\0"[..]),
            (Value::U64(2), b"\x01t\0\0\0\0\0\0\x02\0\0\0\0\0\0\0"),
            (Value::bytes(&[3, 4]), b"\x02ay\0\x02\0\0\0\x03\x04"),
            (Value::Array("u".into(), vec![Value::U32(5)]), b"\x02au\0\x04\0\0\0\x05\0\0\0"),
            (
                Value::Array("(st)".into(), vec![tuple]),
                b"\x05a(st)\0\0\x10\0\0\0\0\0\0\0\
                  \x01\0\0\0x\0\0\0\x01\0\0\0\0\0\0\0",
            ),
            // the padding is there without an element as well
            (Value::Array("t".into(), vec![]), b"\x02at\0\0\0\0\0"),
        ] {
            let mut out = Encoder::default();
            out.variant(&value);
            assert_eq!(out.finish(), expected, "{}", value.shown());
        }
    }
}
