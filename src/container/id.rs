//! Container ids.

use std::fmt;

use crate::error::{Error, Result, phrase};

/// The name of a container: also the name of its state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerId(String);

impl ContainerId {
    /// Checks a name: 1 to 255 letters, digits and `_ + - .`, but neither `.`
    /// nor `..`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(name: &str) -> Result<Self> {
        let fine = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
        if name.is_empty() {
            return Err(invalid("it is empty"));
        }
        if name.len() > 255 {
            return Err(invalid(format!("it has {} characters, 255 is the most", name.len())));
        }
        if name == "." || name == ".." {
            return Err(invalid(format!("{name:?} is the name of a directory")));
        }
        match name.chars().find(|c| !fine(*c)) {
            None => Ok(ContainerId(name.to_owned())),
            Some(c) => {
                Err(invalid(format!("{c:?} is in {name:?}"))
                    .hint("letters, digits and _ + - . may be"))
            }
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn invalid(why: impl Into<String>) -> Error {
    Error::invalid(why).step(phrase::INVALID_ID)
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "box-1", "A_b+c.d", "...", "0"] {
            assert_eq!(ContainerId::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a/b", "/", "a b", "ä", "a\n", &"x".repeat(256)] {
            assert!(ContainerId::parse(bad).is_err(), "{bad:?}");
        }
    }
}
