//! What is worth another try, and when.

use std::thread;
use std::time::Duration;

use tare::error::Error;

/// What became of one try.
pub(crate) type Attempt<T> = Result<T, Failure>;

/// How often something is tried.
const TRIES: u32 = 5;
/// The first pause; each later one is twice as long.
const FIRST: Duration = Duration::from_millis(500);
/// No server may have us wait longer.
const LONGEST: Duration = Duration::from_secs(60);

/// Why something failed, and whether it may work later.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) again: Again,
}

/// Whether to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// It would fail again.
    Never,
    /// After a while, or after as long as the server said.
    After(Option<Duration>),
}

impl Failure {
    /// It may work later.
    pub(crate) fn passing(error: Error) -> Self {
        Failure { error, again: Again::After(None) }
    }

    /// The same, one step further out.
    pub(crate) fn step(self, step: &str) -> Self {
        Failure { error: self.error.step(step), ..self }
    }
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure { error: error.into(), again: Again::Never }
    }
}

/// Counts the tries of one thing.
#[derive(Debug, Default)]
pub(crate) struct Tries(u32);

impl Tries {
    /// Waits for the next try, or gives the error up.
    ///
    /// # Errors
    /// The failure's, if it is final or was the last one.
    pub(crate) fn after(&mut self, failure: Failure) -> Result<(), Error> {
        let Again::After(asked) = failure.again else {
            return Err(failure.error);
        };
        self.0 += 1;
        if self.0 >= TRIES {
            return Err(failure.error.hint(format!("tried {TRIES} times")));
        }
        let pause = asked.unwrap_or(FIRST.saturating_mul(1 << (self.0 - 1)));
        if pause > LONGEST {
            let seconds = pause.as_secs();
            return Err(failure
                .error
                .hint(format!("it asks to wait {seconds} seconds: try later")));
        }
        thread::sleep(pause);
        Ok(())
    }

    /// Something has come of the last try: it does not count.
    pub(crate) fn forget(&mut self) {
        self.0 = 0;
    }
}

/// Tries until it works, or is given up.
pub(crate) fn retrying<T>(mut attempt: impl FnMut() -> Attempt<T>) -> Result<T, Error> {
    let mut tries = Tries::default();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(failure) => tries.after(failure)?,
        }
    }
}
