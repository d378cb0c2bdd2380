//! Lists of processors and memory nodes: `0-3,7`.

use crate::error::{Error, Result};

/// Numbers of a list, as bits: number `n` is bit `n % 64` of word `n / 64`.
///
/// # Errors
/// Text that is no such list, a range that runs backwards, a number over `max`.
pub(super) fn mask(list: &str, max: usize) -> Result<Vec<u64>> {
    let mut words = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first, list, max)?, number(last, list, max)?);
        if first > last {
            return Err(Error::invalid(format!("{part:?} runs backwards")));
        }
        if words.len() <= last / 64 {
            words.resize(last / 64 + 1, 0);
        }
        for n in first..=last {
            if let Some(word) = words.get_mut(n / 64) {
                *word |= 1u64 << (n % 64);
            }
        }
    }
    Ok(words)
}

fn number(text: &str, list: &str, max: usize) -> Result<usize> {
    // parse takes a sign as well
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<usize>() {
        Ok(n) if digits && n <= max => Ok(n),
        Ok(n) if digits => Err(Error::invalid(format!("{n} is over {max}"))),
        _ => Err(Error::invalid(format!("{list:?} is not a list like 0-3,7"))),
    }
}

#[cfg(test)]
mod tests {
    use super::mask;

    #[test]
    fn lists() {
        assert_eq!(mask("0-3,7", 1023).unwrap(), [0b1000_1111]);
        assert_eq!(mask("64,1", 1023).unwrap(), [2, 1]);
        assert_eq!(mask("63-64", 64).unwrap(), [1 << 63, 1]);
        for wrong in ["", ",", "1,", "-1", "1-", "a", "+1", "0 - 3", "3-1", "1024", "99999999999"] {
            assert!(mask(wrong, 1023).is_err(), "{wrong:?}");
        }
    }
}
