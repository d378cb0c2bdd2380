//! Messages of D-Bus from bytes (D-Bus specification, Message Protocol): answers
//! and signals, as far as systemd answers with them: numbers, strings, and variants
//! of strings.

/// Longest message that is read: the specification allows 128 MiB, and systemd
/// has nothing to say that takes a thousandth of it.
const LONGEST: usize = 1 << 20;

/// Bytes of a header before its fields.
pub(super) const FIXED: usize = 16;

pub(super) const METHOD_CALL: u8 = 1;
pub(super) const LITTLE_ENDIAN: u8 = b'l';
const BIG_ENDIAN: u8 = b'B';

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

    /// A variant that holds bytes.
    pub(super) fn variant_bytes(&mut self) -> Result<Vec<u8>, &'static str> {
        match self.short_string()?.as_str() {
            "ay" => {
                let length = self.u32()?;
                self.take(usize::try_from(length).unwrap_or(usize::MAX)).map(<[u8]>::to_vec)
            }
            _ => Err("a property is of another type"),
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
    use super::super::encode::Encoder;
    use super::super::encode::tests::call;
    use super::*;

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
    fn bytes_in_a_variant_are_read() {
        let body = b"\x02ay\0\x03\0\0\0\x01\xff\x02";
        let read = |bytes| Decoder { big_endian: false, bytes, at: 0 }.variant_bytes();
        assert_eq!(read(body).unwrap(), [1, 255, 2]);
        assert_eq!(read(&body[..10]).unwrap_err(), CUT);
        assert!(read(b"\x01s\0\0\0\0\0\0").is_err());
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
                let _bytes = message.body().variant_bytes();
            }
            let mut whole = b"l\x02\0\x01\0\0\0\0\x01\0\0\0".to_vec();
            whole.extend(bytes);
            let _message = Message::decode(&whole);
        }
    }
}
