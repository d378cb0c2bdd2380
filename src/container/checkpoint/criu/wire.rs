//! Protocol buffers, as far as CRIU's messages go: numbers and strings of bytes
//! (encoding: a key of field and type, then a varint or a length and its bytes).

/// Wire type of numbers.
const VARINT: u64 = 0;
/// Wire type of eight bytes.
const FIXED64: u64 = 1;
/// Wire type of texts and of messages inside of messages.
const BYTES: u64 = 2;
/// Wire type of four bytes.
const FIXED32: u64 = 5;

/// A message that is being written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Message(Vec<u8>);

impl Message {
    pub(super) fn number(&mut self, field: u32, value: u64) {
        self.varint(u64::from(field) << 3 | VARINT);
        self.varint(value);
    }

    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) {
        self.varint(u64::from(field) << 3 | BYTES);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    pub(super) fn message(&mut self, field: u32, value: &Message) {
        self.bytes(field, &value.0);
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Seven bits a byte, the lowest first; the eighth says that more follow.
    fn varint(&mut self, mut value: u64) {
        loop {
            let [low, ..] = value.to_le_bytes();
            value >>= 7;
            if value == 0 {
                return self.0.push(low & 0x7f);
            }
            self.0.push(low | 0x80);
        }
    }
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, in their order; `None` at what is no message.
pub(super) fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Value<'_>)>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let key = take_varint(&mut bytes)?;
        let value = match key & 7 {
            VARINT => Value::Number(take_varint(&mut bytes)?),
            FIXED64 => Value::Bytes(take(&mut bytes, 8)?),
            BYTES => {
                let length = usize::try_from(take_varint(&mut bytes)?).ok()?;
                Value::Bytes(take(&mut bytes, length)?)
            }
            FIXED32 => Value::Bytes(take(&mut bytes, 4)?),
            _ => return None,
        };
        all.push((key >> 3, value));
    }
    Some(all)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_that_of_the_specification() {
        let mut inner = Message::default();
        inner.number(1, 150);
        assert_eq!(inner.as_bytes(), [0x08, 0x96, 0x01]);
        let mut outer = Message::default();
        outer.message(3, &inner);
        outer.bytes(2, b"testing");
        outer.number(17, 0);
        let expected = b"\x1a\x03\x08\x96\x01\x12\x07testing\x88\x01\x00";
        assert_eq!(outer.as_bytes(), expected);
        let back = fields(outer.as_bytes()).unwrap();
        let all = [
            (3, Value::Bytes(&[0x08, 0x96, 0x01])),
            (2, Value::Bytes(b"testing")),
            (17, Value::Number(0)),
        ];
        assert_eq!(back, all);
    }

    #[test]
    fn a_number_of_any_size_comes_back() {
        for value in [0, 1, 127, 128, 1 << 32, u64::MAX] {
            let mut message = Message::default();
            message.number(5, value);
            assert_eq!(fields(message.as_bytes()).unwrap(), [(5, Value::Number(value))]);
        }
    }

    #[test]
    fn what_is_no_message_is_nothing() {
        for bytes in [&b"\x08"[..], b"\x12\x05ab", b"\x0b", &[0x80; 12], b"\x09\x01"] {
            assert_eq!(fields(bytes), None, "{bytes:?}");
        }
    }
}
