//! Messages of D-Bus as bytes (D-Bus specification, Message Protocol): calls go
//! out, answers and signals come in. Of what comes in, only what systemd answers
//! with is read: numbers, strings, and variants of strings.

use super::value::Value;

/// Longest message that is read: the specification allows 128 MiB, and systemd
/// has nothing to say that takes a thousandth of it.
const LONGEST: usize = 1 << 20;

/// Bytes of a header before its fields.
pub(super) const FIXED: usize = 16;

const METHOD_CALL: u8 = 1;
const LITTLE_ENDIAN: u8 = b'l';
const BIG_ENDIAN: u8 = b'B';

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

/// What kind of message came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Call,
    Return,
    Error,
    Signal,
}

/// A message that came in.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) kind: Kind,
    /// Serial of the call that it answers; 0 for none.
    pub(super) answers: u32,
    /// Name of the method or signal; empty for answers.
    pub(super) member: String,
    /// Name of an error; else empty.
    pub(super) error: String,
    big_endian: bool,
    body: Vec<u8>,
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

/// Length of a whole message whose first [`FIXED`] bytes are these.
///
/// # Errors
/// It is no message, or longer than any that systemd sends.
pub(super) fn length(fixed: &[u8]) -> Result<usize, &'static str> {
    let mut reader = Decoder { big_endian: is_big_endian(fixed)?, bytes: fixed, at: 4 };
    let body = reader.u32()?;
    reader.u32()?;
    let fields = reader.u32()?;
    let [body, fields] = [body, fields].map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    if body.max(fields) > LONGEST {
        return Err("a message is too long");
    }
    Ok((FIXED + fields).next_multiple_of(8) + body)
}

fn is_big_endian(bytes: &[u8]) -> Result<bool, &'static str> {
    match bytes.first() {
        Some(&LITTLE_ENDIAN) => Ok(false),
        Some(&BIG_ENDIAN) => Ok(true),
        _ => Err("what came is no message of D-Bus"),
    }
}

impl Message {
    /// Reads a whole message.
    ///
    /// # Errors
    /// It is malformed.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let big_endian = is_big_endian(bytes)?;
        let kind = match bytes.get(1) {
            Some(1) => Kind::Call,
            Some(2) => Kind::Return,
            Some(3) => Kind::Error,
            Some(4) => Kind::Signal,
            _ => return Err("a message of an unknown kind"),
        };
        let mut reader = Decoder { big_endian, bytes, at: 8 };
        reader.u32()?;
        let end = usize::try_from(reader.u32()?).unwrap_or(usize::MAX).saturating_add(FIXED);
        let mut message = Message {
            kind,
            answers: 0,
            member: String::new(),
            error: String::new(),
            big_endian,
            body: Vec::new(),
        };
        while reader.at < end {
            reader.align(8);
            let code = reader.byte()?;
            let signature = reader.short_string()?;
            match (signature.as_str(), code) {
                ("u", 5) => message.answers = reader.u32()?,
                ("u", _) => drop(reader.u32()?),
                ("s", 3) => message.member = reader.string()?,
                ("s", 4) => message.error = reader.string()?,
                ("s" | "o", _) => drop(reader.string()?),
                ("g", _) => drop(reader.short_string()?),
                _ => return Err("a message with a field of an unknown type"),
            }
        }
        reader.align(8);
        message.body = bytes.get(reader.at..).ok_or(CUT)?.to_vec();
        Ok(message)
    }

    /// Its arguments.
    pub(super) fn body(&self) -> Decoder<'_> {
        Decoder { big_endian: self.big_endian, bytes: &self.body, at: 0 }
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

const CUT: &str = "a message is cut off";

/// Reads values, one after the other.
#[derive(Debug)]
pub(super) struct Decoder<'a> {
    big_endian: bool,
    bytes: &'a [u8],
    at: usize,
}

impl Decoder<'_> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, length: usize) -> Result<&[u8], &'static str> {
        let start = self.at;
        self.at = start.checked_add(length).ok_or(CUT)?;
        self.bytes.get(start..self.at).ok_or(CUT)
    }

    fn byte(&mut self) -> Result<u8, &'static str> {
        self.take(1)?.first().copied().ok_or(CUT)
    }

    pub(super) fn u32(&mut self) -> Result<u32, &'static str> {
        self.align(4);
        let big_endian = self.big_endian;
        let bytes: [u8; 4] = self.take(4)?.try_into().map_err(|_length| CUT)?;
        Ok(if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    /// A string, or an object path.
    pub(super) fn string(&mut self) -> Result<String, &'static str> {
        let length = self.u32()?;
        self.text(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// A signature.
    fn short_string(&mut self) -> Result<String, &'static str> {
        let length = self.byte()?;
        self.text(usize::from(length))
    }

    fn text(&mut self, length: usize) -> Result<String, &'static str> {
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        match self.byte()? {
            0 => Ok(text),
            _ => Err("a string does not end where it should"),
        }
    }

    /// A variant that holds a string.
    pub(super) fn variant_string(&mut self) -> Result<String, &'static str> {
        match self.short_string()?.as_str() {
            "s" | "o" => self.string(),
            _ => Err("a property is of another type"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(body: &[u8]) -> Vec<u8> {
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
    fn what_was_written_is_read() {
        let mut body = Encoder::default();
        body.str("a.scope");
        body.u32(9);
        let bytes = call(&body.finish());
        let message = Message::decode(&bytes).unwrap();
        assert_eq!(message.kind, Kind::Call);
        assert_eq!(message.answers, 0);
        assert_eq!(message.member, "ResetFailedUnit");
        let mut body = message.body();
        assert_eq!(body.string().unwrap(), "a.scope");
        assert_eq!(body.u32().unwrap(), 9);
        assert_eq!(body.u32().unwrap_err(), CUT);
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

    #[test]
    fn the_other_byte_order_is_read() {
        let mut bytes = b"B\x02\0\x01\0\0\0\x09\0\0\0\x02\0\0\0\x08".to_vec();
        bytes.extend(b"\x05\x01u\0\0\0\0\x07");
        bytes.extend(b"\0\0\0\x04/a/b\0");
        assert_eq!(length(&bytes[..FIXED]).unwrap(), bytes.len());
        let message = Message::decode(&bytes).unwrap();
        assert_eq!((message.kind, message.answers), (Kind::Return, 7));
        assert_eq!(message.body().string().unwrap(), "/a/b");
    }

    #[test]
    fn what_is_malformed_is_an_error() {
        assert!(length(b"HTTP/1.1 200 OK\r").is_err());
        assert!(length(b"l\x02\0\x01\xff\xff\xff\xff\0\0\0\0\0\0\0\0").is_err());
        assert!(Message::decode(b"l\x09\0\x01\0\0\0\0\0\0\0\0\0\0\0\0").is_err());
        assert!(Message::decode(b"l\x02\0\x01\0\0\0\0\0\0\0\0\xff\0\0\0\x05\x01u\0").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_fall_over(bytes: Vec<u8>) {
            let _length = length(&bytes);
            if let Ok(message) = Message::decode(&bytes) {
                let _string = message.body().string();
                let _variant = message.body().variant_string();
            }
            let mut whole = b"l\x02\0\x01\0\0\0\0\x01\0\0\0".to_vec();
            whole.extend(bytes);
            let _message = Message::decode(&whole);
        }
    }
}
