//! Which call is to fail, and how.

use std::collections::BTreeMap;

use nix::errno::Errno;

use crate::trace::Call;

/// One `--fail`.
#[derive(Debug)]
pub(crate) struct Fault {
    process: Option<String>,
    /// `None` for any that has a number
    call: Option<String>,
    filters: Vec<Filter>,
    errno: Errno,
    /// `None` for every one
    nth: Option<usize>,
    /// Calls that fitted so far, a process
    seen: BTreeMap<String, usize>,
    is_done: bool,
}

#[derive(Debug, PartialEq)]
enum Filter {
    Is(usize, u64),
    Has(usize, u64),
    Text(String),
}

impl Fault {
    /// From `[PROCESS:]CALL[FILTER…]=ERRNO[@N]`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (what, how) = text.rsplit_once('=')?;
        let (errno, nth) = match how.split_once('@') {
            Some((errno, n)) => (errno, Some(n.parse().ok()?)),
            None => (how, None),
        };
        let (name, filters) = match what.split_once('[') {
            Some((name, rest)) => (name, Filter::parse_all(rest.strip_suffix(']')?)?),
            None => (what, Vec::new()),
        };
        let (process, call) = match name.split_once(':') {
            Some((process, call)) => (Some(process.to_owned()), call),
            None => (None, name),
        };
        let call = (call != "*").then(|| call.to_owned());
        let errno = parse_errno(errno)?;
        Some(Fault { process, call, filters, errno, nth, seen: BTreeMap::new(), is_done: false })
    }

    /// The errno for this call, if it is to fail.
    pub(crate) fn answer(&mut self, call: &Call) -> Option<Errno> {
        let fits = self.process.as_ref().is_none_or(|name| *name == call.process)
            && self.call.as_ref().map_or(call.number != 0, |name| *name == call.name)
            && self.filters.iter().all(|filter| filter.fits(call));
        if !fits || self.is_done {
            return None;
        }
        let seen = self.seen.entry(call.process.clone()).or_default();
        *seen += 1;
        match self.nth {
            Some(nth) if nth != *seen => return None,
            // the first process that gets there
            Some(_) => self.is_done = true,
            None => {}
        }
        Some(self.errno)
    }

    /// True when no later call can be meant.
    pub(crate) fn is_done(&self) -> bool {
        self.is_done
    }
}

impl Filter {
    fn parse_all(text: &str) -> Option<Vec<Filter>> {
        text.split("][").map(Filter::parse).collect()
    }

    fn parse(text: &str) -> Option<Filter> {
        let at = text.find(['=', '&', '~'])?;
        let (index, rest) = text.split_at(at);
        let (how, value) = rest.split_at(1);
        let index: usize = index.parse().ok().filter(|index| *index < 6)?;
        Some(match how {
            "=" => Filter::Is(index, number(value)?),
            "&" => Filter::Has(index, number(value)?),
            // a call has one string at most that is looked at
            _ => Filter::Text(value.to_owned()),
        })
    }

    fn fits(&self, call: &Call) -> bool {
        match self {
            Filter::Is(index, value) => call.args.get(*index) == Some(value),
            Filter::Has(index, bits) => {
                call.args.get(*index).is_some_and(|arg| arg & bits == *bits)
            }
            Filter::Text(text) => call.text == *text,
        }
    }
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// By number or by name.
fn parse_errno(text: &str) -> Option<Errno> {
    if let Ok(number) = text.parse() {
        return Some(Errno::from_raw(number));
    }
    let all = (1..=133).map(Errno::from_raw);
    all.filter(|errno| *errno != Errno::UnknownErrno).find(|errno| format!("{errno:?}") == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, args: [u64; 6], text: &str) -> Call {
        Call {
            process: "child".to_owned(),
            number: 1,
            name: name.to_owned(),
            args,
            text: text.to_owned(),
            result: None,
            is_faulted: false,
        }
    }

    #[test]
    fn the_third_call_fails_and_no_other() {
        let mut fault = Fault::parse("child:mkdirat=EROFS@3").unwrap();
        let call = call("mkdirat", [0; 6], "dev");
        let answers: Vec<_> = (0..5).map(|_| fault.answer(&call)).collect();
        assert_eq!(answers, [None, None, Some(Errno::EROFS), None, None]);
        assert!(fault.is_done());
    }

    #[test]
    fn arguments_and_strings_are_filtered() {
        let mut fault = Fault::parse("fsconfig[1=1][2~lowerdir+]=EINVAL").unwrap();
        assert_eq!(
            fault.answer(&call("fsconfig", [9, 1, 7, 0, 0, 0], "lowerdir+")),
            Some(Errno::EINVAL)
        );
        assert_eq!(fault.answer(&call("fsconfig", [9, 1, 7, 0, 0, 0], "lowerdir")), None);
        assert_eq!(fault.answer(&call("fsconfig", [9, 0, 7, 0, 0, 0], "lowerdir+")), None);
        let mut fault = Fault::parse("runtime:*=1").unwrap();
        assert_eq!(fault.answer(&call("read", [0; 6], "")), None);
        assert!(Fault::parse("read=ENOTHING").is_none());
        assert!(Fault::parse("read[9=1]=EIO").is_none());
    }
}
