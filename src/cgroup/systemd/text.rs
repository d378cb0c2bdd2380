//! Values in the text format of GVariant, in which annotations bring them:
//! `true`, `'a'`, `uint64 5`, `['a', 'b']`, `[('/dev/null', 'rw')]`, `@as []`.
//!
//! The whole format but for what no property of a unit has: dictionaries,
//! variants, maybe types, byte strings, object paths, signatures and handles.

use super::value::Value;

/// Arrays and tuples within each other: far above what any property has.
const DEEPEST: usize = 8;

/// Longest signature of D-Bus.
const LONGEST_SIGNATURE: usize = 255;

/// Reads one value, which is all that there is.
///
/// # Errors
/// What is wrong with the text, in words.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let mut reader = Reader { rest: text };
    let value = reader.value(None, 0)?;
    reader.skip_spaces();
    if value.signature().len() > LONGEST_SIGNATURE {
        return Err("its type is too long".to_owned());
    }
    match reader.rest {
        "" => Ok(value),
        rest => Err(format!("there is more behind the value: {}", shown(rest))),
    }
}

fn shown(text: &str) -> String {
    let start: String = text.chars().take(24).collect();
    format!("{start:?}")
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Takes this text, if it is the next one.
    fn takes(&mut self, text: &str) -> bool {
        self.skip_spaces();
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// A run of characters that words, numbers and signatures consist of.
    fn word(&mut self) -> &'a str {
        self.skip_spaces();
        let ends = |c: char| !c.is_ascii_alphanumeric() && !"+-._".contains(c);
        let (word, rest) = self.rest.split_at(self.rest.find(ends).unwrap_or(self.rest.len()));
        self.rest = rest;
        word
    }

    /// A value; `wanted` is the signature that it is to have, if that is known.
    fn value(&mut self, wanted: Option<&str>, depth: usize) -> Result<Value, String> {
        self.skip_spaces();
        if depth > DEEPEST {
            return Err(format!("arrays and tuples are nested deeper than {DEEPEST}"));
        }
        match self.rest.chars().next() {
            None => Err("a value is missing".to_owned()),
            Some('@') => {
                let signature = self.signature()?;
                self.value(Some(&signature), depth + 1)
            }
            Some('[') => self.array(wanted, depth),
            Some('(') => self.tuple(wanted, depth),
            Some('\'' | '"') => typed(Value::Str(self.string()?), wanted),
            Some(_) => self.scalar(wanted, depth),
        }
    }

    fn scalar(&mut self, wanted: Option<&str>, depth: usize) -> Result<Value, String> {
        let before = self.rest;
        let word = self.word();
        let named = match word {
            "" => return Err(format!("{} is no value", shown(before))),
            "true" => return typed(Value::Bool(true), wanted),
            "false" => return typed(Value::Bool(false), wanted),
            "boolean" => "b",
            "byte" => "y",
            "int16" => "n",
            "uint16" => "q",
            "int32" => "i",
            "uint32" => "u",
            "int64" => "x",
            "uint64" => "t",
            "double" => "d",
            "string" => "s",
            number => return parse_number(number, wanted),
        };
        match wanted {
            Some(wanted) if wanted != named => Err(format!("{word} where a {wanted} is wanted")),
            _ => self.value(Some(named), depth + 1),
        }
    }

    /// The signature behind an `@`, which ends at a space or a bracket.
    fn signature(&mut self) -> Result<String, String> {
        let text = self.rest.strip_prefix('@').unwrap_or(self.rest);
        let length = complete_type(text, 0).ok_or_else(|| {
            format!("{} does not begin with a type that is supported", shown(self.rest))
        })?;
        let (signature, rest) = text.split_at(length);
        self.rest = rest;
        Ok(signature.to_owned())
    }

    fn array(&mut self, wanted: Option<&str>, depth: usize) -> Result<Value, String> {
        let mut element = match wanted {
            None => None,
            Some(wanted) => match wanted.strip_prefix('a') {
                Some(element) => Some(element.to_owned()),
                None => return Err(format!("an array where a {wanted} is wanted")),
            },
        };
        let mut values = Vec::new();
        self.takes("[");
        while !self.takes("]") {
            if !values.is_empty() && !self.takes(",") {
                return Err(format!("an array goes on with , or ]: {}", shown(self.rest)));
            }
            let value = self.value(element.as_deref(), depth + 1)?;
            element.get_or_insert_with(|| value.signature());
            values.push(value);
        }
        match element {
            Some(element) => Ok(Value::Array(element, values)),
            None => Err("an empty array needs its type: @as []".to_owned()),
        }
    }

    fn tuple(&mut self, wanted: Option<&str>, depth: usize) -> Result<Value, String> {
        let mut types = match wanted {
            None => None,
            Some(wanted) => match wanted.strip_prefix('(').and_then(|w| w.strip_suffix(')')) {
                Some(types) => Some(types),
                None => return Err(format!("a tuple where a {wanted} is wanted")),
            },
        };
        let mut values = Vec::new();
        self.takes("(");
        while !self.takes(")") {
            if !values.is_empty() && !self.takes(",") {
                return Err(format!("a tuple goes on with , or ): {}", shown(self.rest)));
            }
            // a tuple of one ends in a comma
            if !values.is_empty() && self.takes(")") {
                break;
            }
            let (first, rest) = match types {
                None => (None, None),
                Some(types) => {
                    let length = complete_type(types, 0).ok_or("a tuple has too many values")?;
                    let (first, rest) = types.split_at(length);
                    (Some(first), Some(rest))
                }
            };
            values.push(self.value(first, depth + 1)?);
            types = rest;
        }
        match (values.is_empty(), types) {
            (true, _) => Err("D-Bus has no empty tuple".to_owned()),
            (_, None | Some("")) => Ok(Value::Struct(values)),
            (_, Some(_)) => Err("a tuple has too few values".to_owned()),
        }
    }

    fn string(&mut self) -> Result<String, String> {
        let whole = self.rest;
        let mut chars = whole.char_indices();
        let quote = chars.next().map(|(_, c)| c);
        let mut text = String::new();
        while let Some((at, c)) = chars.next() {
            if Some(c) == quote {
                if text.contains('\0') {
                    return Err("a string has a NUL inside".to_owned());
                }
                self.rest = whole.get(at + 1..).unwrap_or_default();
                return Ok(text);
            }
            if c != '\\' {
                text.push(c);
                continue;
            }
            let escaped = chars.next().map(|(_, c)| c);
            match escaped {
                Some(kind @ ('u' | 'U')) => {
                    let digits = if kind == 'u' { 4 } else { 8 };
                    let number: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
                    let code = u32::from_str_radix(&number, 16).ok().and_then(char::from_u32);
                    text.push(code.ok_or_else(|| format!("\\{kind}{number} is no character"))?);
                }
                // a line that goes on
                Some('\n') => {}
                Some(c) => text.push(unescaped(c)),
                None => break,
            }
        }
        Err(format!("{} has no end", shown(whole)))
    }
}

fn unescaped(c: char) -> char {
    match c {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        other => other,
    }
}

fn typed(value: Value, wanted: Option<&str>) -> Result<Value, String> {
    let has = value.signature();
    match wanted {
        Some(wanted) if wanted != has => Err(format!("a {has} where a {wanted} is wanted")),
        _ => Ok(value),
    }
}

/// A number; without a type of its own, it is an int32 or a double.
fn parse_number(text: &str, wanted: Option<&str>) -> Result<Value, String> {
    let is_real = text.contains('.') || text.contains("inf") || text.contains("nan");
    let is_real = is_real || !text.starts_with("0x") && text.contains(['e', 'E']);
    let signature = wanted.unwrap_or(if is_real { "d" } else { "i" });
    let wrong = || match wanted {
        None if !text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) => {
            format!("{text} is no value: strings stand in quotes")
        }
        _ => format!("{text} is no {}", type_name(signature)),
    };
    if signature == "d" {
        return text.parse().map(Value::Double).map_err(|_unreadable| wrong());
    }
    let number = integer(text).ok_or_else(wrong)?;
    let value = match signature {
        "y" => number.try_into().map(Value::Byte),
        "n" => number.try_into().map(Value::I16),
        "q" => number.try_into().map(Value::U16),
        "i" => number.try_into().map(Value::I32),
        "u" => number.try_into().map(Value::U32),
        "x" => number.try_into().map(Value::I64),
        "t" => number.try_into().map(Value::U64),
        _ => return Err(wrong()),
    };
    value.map_err(|_range| wrong())
}

/// Decimal, hexadecimal (`0x1f`) or octal (`017`).
fn integer(text: &str) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (digits, radix) = match (digits.strip_prefix("0x"), digits.strip_prefix('0')) {
        (Some(hex), _) => (hex, 16),
        (None, Some(octal)) if !octal.is_empty() => (octal, 8),
        _ => (digits, 10),
    };
    // from_str_radix would take a second sign
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    i128::from_str_radix(digits, radix).ok().map(|number| sign * number)
}

fn type_name(signature: &str) -> &str {
    match signature {
        "b" => "boolean",
        "y" => "byte",
        "n" => "int16",
        "q" => "uint16",
        "i" => "int32",
        "u" => "uint32",
        "x" => "int64",
        "t" => "uint64",
        "d" => "double",
        "s" => "string",
        other => other,
    }
}

/// Length of the first whole type of a signature, of those that are supported.
fn complete_type(text: &str, depth: usize) -> Option<usize> {
    if depth > DEEPEST {
        return None;
    }
    match text.as_bytes().first()? {
        b'b' | b'y' | b'n' | b'q' | b'i' | b'u' | b'x' | b't' | b'd' | b's' => Some(1),
        b'a' => complete_type(text.get(1..)?, depth + 1).map(|length| length + 1),
        b'(' => {
            let mut at = 1;
            while !text.get(at..)?.starts_with(')') {
                at += complete_type(text.get(at..)?, depth + 1)?;
            }
            (at > 1).then_some(at + 1)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_has_its_value() {
        for (text, expected) in [
            ("true", "b true"),
            (" false ", "b false"),
            ("boolean true", "b true"),
            ("'inactive-or-failed'", "s \"inactive-or-failed\""),
            ("\"it's\"", "s \"it's\""),
            (r"'it\'s \u00e4\n'", "s \"it's ä\\n\""),
            ("string 'a'", "s \"a\""),
            ("5", "i 5"),
            ("-5", "i -5"),
            ("+5", "i 5"),
            ("0x1f", "i 31"),
            ("017", "i 15"),
            ("0", "i 0"),
            ("1.5", "d 1.5"),
            ("1e3", "d 1000"),
            ("double 3", "d 3"),
            ("byte 255", "y 255"),
            ("int16 -3", "n -3"),
            ("uint16 3", "q 3"),
            ("int32 7", "i 7"),
            ("uint32 4294967295", "u 4294967295"),
            ("int64 -9", "x -9"),
            ("uint64 18446744073709551615", "t 18446744073709551615"),
            ("uint64\t5", "t 5"),
            ("@t 5", "t 5"),
            ("['a', 'b']", "as \"a\" \"b\""),
            ("['a']", "as \"a\""),
            ("[ 'a' , \"b\" ]", "as \"a\" \"b\""),
            ("@as []", "as "),
            ("@as ['a']", "as \"a\""),
            ("[uint64 1, 2]", "at 1 2"),
            ("[1, 2]", "ai 1 2"),
            ("[('/dev/null', 'rw')]", "a(ss) \"/dev/null\" \"rw\""),
            ("@a(st) [('/dev/sda', 100)]", "a(st) \"/dev/sda\" 100"),
            ("('a', uint32 1)", "(su) \"a\" 1"),
            ("('a',)", "(s) \"a\""),
        ] {
            let found = parse(text).map(|value| value.shown());
            assert_eq!(found, Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_malformed_says_why() {
        for (text, expected) in [
            ("", "a value is missing"),
            ("inactive", "inactive is no value: strings stand in quotes"),
            ("'open", "\"'open\" has no end"),
            ("'a' 'b'", "there is more behind the value: \"'b'\""),
            ("5x", "5x is no int32"),
            ("--5", "--5 is no int32"),
            ("3000000000", "3000000000 is no int32"),
            ("uint64 -1", "-1 is no uint64"),
            ("uint64 'a'", "a s where a t is wanted"),
            ("uint64", "a value is missing"),
            ("uint64 int32 5", "int32 where a t is wanted"),
            ("[]", "an empty array needs its type: @as []"),
            ("['a'", "an array goes on with , or ]: \"\""),
            ("['a' 'b']", "an array goes on with , or ]: \"'b']\""),
            ("['a', 5]", "5 is no string"),
            ("['a',]", "\"]\" is no value"),
            ("()", "D-Bus has no empty tuple"),
            ("@(ss) ('a',)", "a tuple has too few values"),
            ("@(s) ('a', 'b')", "a tuple has too many values"),
            ("<5>", "\"<5>\" is no value"),
            ("{'a': 5}", "\"{'a': 5}\" is no value"),
            ("@v 5", "\"@v 5\" does not begin with a type that is supported"),
            ("[[[[[[[[[[1]]]]]]]]]]", "arrays and tuples are nested deeper than 8"),
            (r"'\u12'", r"\u12' is no character"),
            (r"'a\u0000'", "a string has a NUL inside"),
            (&format!("({}1)", "1,".repeat(300)), "its type is too long"),
        ] {
            assert_eq!(parse(text), Err(expected.to_owned()), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_fall_over(text in "[@a-z0-9'\"\\[\\](),. \\\\ä-]{0,40}") {
            let _either = parse(&text);
        }
    }
}
