//! Sockets that the caller's service manager has opened for the program
//! (sd_listen_fds(3)): they are passed on.

use std::ffi::CString;

use crate::error::{Error, Result};
use crate::spec::ProcessPlan;
use crate::sys::process::is_inherited;

/// Most descriptors that can be passed on.
const MAX_FDS: u32 = 65536;

/// Descriptors from 3 on that were meant for this process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Activation {
    /// How many.
    pub fds: u32,
    /// Their names, as in LISTEN_FDNAMES.
    names: Option<String>,
}

impl Activation {
    /// What LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES of this process say.
    ///
    /// # Errors
    /// LISTEN_PID is this process, or not there, and LISTEN_FDS no number.
    pub fn from_env() -> Result<Self> {
        let read = |name: &str| std::env::var(name).ok();
        let own = std::process::id().to_string();
        let pid = read("LISTEN_PID");
        // they may be meant for somebody further up
        if pid.as_deref().is_some_and(|pid| pid != own) {
            return Ok(Activation::default());
        }
        let given = Activation::parse(read("LISTEN_FDS").as_deref(), read("LISTEN_FDNAMES"))?;
        // without a word to whom they mean whoever has them: as with runc and crun
        let are_here = (3..).take(given.fds as usize).all(is_inherited);
        Ok(if pid.is_some() || are_here { given } else { Activation::default() })
    }

    fn parse(count: Option<&str>, names: Option<String>) -> Result<Self> {
        let Some(count) = count else { return Ok(Activation::default()) };
        match count.parse::<u32>() {
            Ok(0) => Ok(Activation::default()),
            Ok(fds) if fds <= MAX_FDS => {
                Ok(Activation { fds, names: names.filter(|n| !n.contains('\0')) })
            }
            _ => Err(Error::invalid(format!("LISTEN_FDS={count:?}: not a number of descriptors"))),
        }
    }

    /// Tells the program of them. Its own pid is added right before its execve.
    pub(super) fn tell(&self, plan: &mut ProcessPlan) {
        if self.fds == 0 {
            return;
        }
        let env = &mut plan.env;
        env.retain(|entry| !entry.as_bytes().starts_with(b"LISTEN_"));
        env.extend(CString::new(format!("LISTEN_FDS={}", self.fds)));
        if let Some(names) = &self.names {
            env.extend(CString::new(format!("LISTEN_FDNAMES={names}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Activation;

    #[test]
    fn counts() {
        let parse = |count| Activation::parse(Some(count), None);
        assert_eq!(parse("2").unwrap().fds, 2);
        assert_eq!(parse("0").unwrap(), Activation::default());
        assert!(parse("-1").is_err() && parse("x").is_err() && parse("65537").is_err());
        assert_eq!(Activation::parse(None, Some("a".into())).unwrap(), Activation::default());
    }
}
