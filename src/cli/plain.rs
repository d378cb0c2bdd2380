//! The plain forms of the commands that engines call all the time, read without clap:
//! to describe a command costs more than all else that `state` does.
//!
//! Whatever is not plain is clap's to read, or to refuse: unknown words, values that
//! are empty or begin with a dash, options that few give.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::{
    Cli, Command, CreateArgs, DeleteArgs, ExecArgs, GlobalArgs, KillArgs, Lazy, LogFormat, RunArgs,
    StartArgs, StateArgs,
};

/// The most descriptors that may be passed on: see `--preserve-fds`.
const MOST_FDS: u32 = 65536;

/// Where an option's value goes.
enum Place<'a> {
    Flag(&'a mut bool),
    Answer(&'a mut Option<bool>),
    Path(&'a mut Option<PathBuf>),
    Text(&'a mut Option<String>),
    Word(&'a mut String),
    Texts(&'a mut Vec<String>),
    Fds(&'a mut u32),
    Format(&'a mut LogFormat),
}

/// The words of one command.
trait Words: Default {
    /// Where the value of the option with this name, its dashes included, goes.
    fn option(&mut self, name: &str) -> Option<Place<'_>>;

    /// Takes the words that are no options. False if there are more or fewer than it has.
    fn take(&mut self, words: &[&str]) -> bool;

    /// True for a command whose second word begins another command line.
    const HAS_TAIL: bool = false;

    /// Takes the words after `--`. False for a command that has none.
    fn take_last(&mut self, _words: Vec<String>) -> bool {
        false
    }
}

/// Reads a command line, whose first word is the program's; `None` if it is not plain.
pub(super) fn read(words: &[OsString]) -> Option<Cli> {
    let words: Option<Vec<&str>> = words.iter().skip(1).map(|word| word.to_str()).collect();
    let mut rest = words?.into_iter();
    let mut global = defaults(std::env::var_os("TARE_STORE"))?;
    let name = loop {
        let word = rest.next()?;
        if !word.starts_with('-') {
            break word;
        }
        let (name, value) = split(word)?;
        let place = match name {
            "--rootless" => Place::Word(&mut global.rootless),
            name => global_option(&mut global, name)?,
        };
        put(place, value, &mut rest)?;
    };
    let rest = (&mut global, rest);
    let command = match name {
        "create" => Command::Create(Lazy::of(command(rest)?)),
        "start" => Command::Start(Lazy::of(command(rest)?)),
        "run" => Command::Run(Lazy::of(command(rest)?)),
        "exec" => Command::Exec(Lazy::of(command(rest)?)),
        "state" => Command::State(Lazy::of(command(rest)?)),
        "kill" => Command::Kill(Lazy::of(command(rest)?)),
        "delete" => Command::Delete(Lazy::of(command(rest)?)),
        _ => return None,
    };
    Some(Cli { global, command: Some(command) })
}

fn defaults(store: Option<OsString>) -> Option<GlobalArgs> {
    if store.as_deref().is_some_and(OsStr::is_empty) {
        return None;
    }
    Some(GlobalArgs {
        root: None,
        store: store.map(PathBuf::from),
        log: None,
        log_format: LogFormat::Text,
        debug: false,
        trace: None,
        systemd_cgroup: false,
        rootless: "auto".to_owned(),
        cgroup_manager: None,
        log_level: None,
        version: false,
    })
}

fn command<'a, T: Words>(
    (global, mut rest): (&mut GlobalArgs, impl Iterator<Item = &'a str>),
) -> Option<T> {
    let mut args = T::default();
    let mut words = Vec::new();
    while let Some(word) = rest.next() {
        if T::HAS_TAIL && words.len() == 1 {
            // what begins with a dash here is read in several ways
            if word.starts_with('-') {
                return None;
            }
            words.push(word);
            words.extend(rest);
            break;
        }
        if !word.starts_with('-') {
            words.push(word);
            continue;
        }
        if word == "--" {
            let last = rest.map(str::to_owned).collect();
            return (args.take_last(last) && is_whole::<T>(&words) && args.take(&words))
                .then_some(args);
        }
        let (name, value) = split(word)?;
        let place = match args.option(name) {
            Some(place) => place,
            None => global_option(global, name)?,
        };
        put(place, value, &mut rest)?;
    }
    (is_whole::<T>(&words) && args.take(&words)).then_some(args)
}

fn is_whole<T: Words>(words: &[&str]) -> bool {
    words.iter().all(|word| T::HAS_TAIL || !word.is_empty())
}

/// An option's name, and its value if that is in the same word.
fn split(word: &str) -> Option<(&str, Option<&str>)> {
    match word.split_once('=') {
        Some((name, value)) if name.starts_with("--") => Some((name, Some(value))),
        Some(_) => None,
        None => Some((word, None)),
    }
}

fn global_option<'a>(global: &'a mut GlobalArgs, name: &str) -> Option<Place<'a>> {
    Some(match name {
        "--root" => Place::Path(&mut global.root),
        "--store" => Place::Path(&mut global.store),
        "--log" => Place::Path(&mut global.log),
        "--log-format" => Place::Format(&mut global.log_format),
        "--debug" => Place::Flag(&mut global.debug),
        "--trace" => Place::Path(&mut global.trace),
        "--systemd-cgroup" => Place::Flag(&mut global.systemd_cgroup),
        _ => return None,
    })
}

fn put<'a>(
    place: Place<'_>,
    value: Option<&'a str>,
    rest: &mut impl Iterator<Item = &'a str>,
) -> Option<()> {
    match place {
        Place::Flag(_) | Place::Answer(_) if value.is_some() => return None,
        Place::Flag(flag) => {
            *flag = true;
            return Some(());
        }
        Place::Answer(answer) => {
            *answer = Some(true);
            return Some(());
        }
        _ => {}
    }
    let is_own = value.is_some();
    let value = value.or_else(|| rest.next())?;
    if value.is_empty() || !is_own && value.starts_with('-') {
        return None;
    }
    match place {
        Place::Path(path) => *path = Some(value.into()),
        Place::Text(text) => *text = Some(value.into()),
        Place::Word(word) => *word = value.into(),
        Place::Texts(texts) => texts.push(value.into()),
        Place::Fds(fds) => *fds = value.parse().ok().filter(|fds| *fds <= MOST_FDS)?,
        Place::Format(format) => {
            *format = match value {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                _ => return None,
            }
        }
        Place::Flag(_) | Place::Answer(_) => return None,
    }
    Some(())
}

/// The one word that there is.
fn one(place: &mut String, words: &[&str]) -> bool {
    let [word] = words else { return false };
    (*word).clone_into(place);
    true
}

impl Words for CreateArgs {
    fn option(&mut self, name: &str) -> Option<Place<'_>> {
        Some(match name {
            "-b" | "--bundle" => Place::Path(&mut self.bundle),
            "--pid-file" => Place::Path(&mut self.pid_file),
            "--console-socket" => Place::Path(&mut self.console_socket),
            "--pidfd-socket" => Place::Path(&mut self.pidfd_socket),
            "--preserve-fds" => Place::Fds(&mut self.preserve_fds),
            "--no-pivot" => Place::Flag(&mut self.no_pivot),
            "--no-new-keyring" => Place::Flag(&mut self.no_new_keyring),
            "--no-subreaper" => Place::Flag(&mut self.no_subreaper),
            _ => return None,
        })
    }

    fn take(&mut self, words: &[&str]) -> bool {
        one(&mut self.id, words)
    }
}

impl Words for RunArgs {
    fn option(&mut self, name: &str) -> Option<Place<'_>> {
        match name {
            "-d" | "--detach" => Some(Place::Flag(&mut self.detach)),
            "--keep" => Some(Place::Flag(&mut self.keep)),
            "--init" => Some(Place::Flag(&mut self.init)),
            "--image" => Some(Place::Text(&mut self.image.image)),
            "-v" | "--volume" => Some(Place::Texts(&mut self.image.volumes)),
            "-e" | "--env" => Some(Place::Texts(&mut self.image.env)),
            "-w" | "--workdir" => Some(Place::Path(&mut self.image.workdir)),
            "-u" | "--user" => Some(Place::Text(&mut self.image.user)),
            "--memory" => Some(Place::Text(&mut self.image.memory)),
            "--read-only" => Some(Place::Flag(&mut self.image.read_only)),
            "-t" | "--tty" => Some(Place::Flag(&mut self.image.tty)),
            name => self.create.option(name),
        }
    }

    fn take(&mut self, words: &[&str]) -> bool {
        let contradicts = self.image.image.is_some() && self.create.bundle.is_some();
        !contradicts && self.create.take(words)
    }

    fn take_last(&mut self, words: Vec<String>) -> bool {
        self.args = words;
        true
    }
}

impl Words for ExecArgs {
    fn option(&mut self, name: &str) -> Option<Place<'_>> {
        Some(match name {
            "-p" | "--process" => Place::Path(&mut self.process),
            "-d" | "--detach" => Place::Flag(&mut self.detach),
            "-t" | "--tty" => Place::Answer(&mut self.tty),
            "--cwd" => Place::Path(&mut self.cwd),
            "-e" | "--env" => Place::Texts(&mut self.env),
            "-u" | "--user" => Place::Text(&mut self.user),
            "--no-new-privs" => Place::Answer(&mut self.no_new_privs),
            "--pid-file" => Place::Path(&mut self.pid_file),
            "--console-socket" => Place::Path(&mut self.console_socket),
            "--preserve-fds" => Place::Fds(&mut self.preserve_fds),
            _ => return None,
        })
    }

    fn take(&mut self, words: &[&str]) -> bool {
        let Some((id, command)) = words.split_first() else { return false };
        (*id).clone_into(&mut self.id);
        self.command = command.iter().map(|word| (*word).to_owned()).collect();
        !id.is_empty()
    }

    const HAS_TAIL: bool = true;
}

impl Words for StartArgs {
    fn option(&mut self, _name: &str) -> Option<Place<'_>> {
        None
    }

    fn take(&mut self, words: &[&str]) -> bool {
        one(&mut self.id, words)
    }
}

impl Words for StateArgs {
    fn option(&mut self, _name: &str) -> Option<Place<'_>> {
        None
    }

    fn take(&mut self, words: &[&str]) -> bool {
        one(&mut self.id, words)
    }
}

impl Words for KillArgs {
    fn option(&mut self, name: &str) -> Option<Place<'_>> {
        matches!(name, "-a" | "--all").then(|| Place::Flag(&mut self.all))
    }

    fn take(&mut self, words: &[&str]) -> bool {
        let (id, signal) = match words {
            [id] => (id, "SIGTERM"),
            [id, signal] => (id, *signal),
            _ => return false,
        };
        (*id).clone_into(&mut self.id);
        signal.clone_into(&mut self.signal);
        true
    }
}

impl Words for DeleteArgs {
    fn option(&mut self, name: &str) -> Option<Place<'_>> {
        matches!(name, "-f" | "--force").then(|| Place::Flag(&mut self.force))
    }

    fn take(&mut self, words: &[&str]) -> bool {
        one(&mut self.id, words)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::Parser;
    use proptest::prelude::{Strategy, prop};
    use proptest::{prop_assert_eq, proptest};

    use super::super::Cli;
    use super::read;

    /// Words that a command line may be made of, right or wrong.
    const WORDS: [&str; 60] = [
        "create",
        "start",
        "run",
        "exec",
        "state",
        "kill",
        "delete",
        "list",
        "box",
        "b2",
        "9",
        "KILL",
        "sh",
        "-c",
        "",
        "-",
        "--",
        "-b",
        "--bundle",
        "--bundle=/b",
        "-b/x",
        "--pid-file",
        "/p",
        "--console-socket=/s",
        "--preserve-fds",
        "--preserve-fds=2",
        "70000",
        "-1",
        "--no-pivot",
        "--no-new-keyring",
        "--no-new-keyring=x",
        "-d",
        "--detach",
        "--keep",
        "--init",
        "--image",
        "--image=i",
        "-v",
        "--workdir",
        "--read-only",
        "-t",
        "--tty",
        "--tty=true",
        "-e",
        "A=1",
        "--env=B=2",
        "-u",
        "0:0",
        "--process",
        "--cwd",
        "--force",
        "-f",
        "-a",
        "--all",
        "--root",
        "--log=/l",
        "--log-format",
        "json",
        "--systemd-cgroup",
        "--rootless",
    ];

    fn owned(words: &[&str]) -> Vec<OsString> {
        std::iter::once("tare").chain(words.iter().copied()).map(OsString::from).collect()
    }

    /// What this module and clap make of it.
    fn both(words: &[&str]) -> (Option<String>, Result<String, String>) {
        let words = owned(words);
        let by_clap = Cli::try_parse_from(&words);
        let plain = read(&words).map(|cli| format!("{cli:?}"));
        (plain, by_clap.map(|cli| format!("{cli:?}")).map_err(|e| e.to_string()))
    }

    fn line() -> impl Strategy<Value = Vec<&'static str>> {
        let any = || prop::sample::select(&WORDS[..]);
        // a command first, mostly, or nearly all lines would be wrong
        let command = prop::sample::select(&WORDS[..8]);
        let words = prop::collection::vec(any(), 0..7);
        (prop::collection::vec(any(), 0..2), command, words).prop_map(|(before, command, words)| {
            before.into_iter().chain([command]).chain(words).collect()
        })
    }

    proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(4000))]
        #[test]
        fn what_is_plain_is_what_clap_makes_of_it(words in line()) {
            if let (Some(plain), by_clap) = both(&words) {
                prop_assert_eq!(Ok(plain), by_clap);
            }
        }
    }

    #[test]
    fn the_lines_of_callers_are_plain() {
        for line in [
            "--root /r --log /l --log-format json --systemd-cgroup create --bundle /b \
             --pid-file /p --console-socket /s box",
            "--root /r --systemd-cgroup=x state box",
            "--root /r start box",
            "run -b /b -d box",
            "run --detach --keep --pid-file=/p box",
            "run --image i box",
            "run -t --image=i -v /a:/b -e A=1 -w / -u 0 --memory 1g --read-only box -- sh -c true --x",
            "run box --",
            "exec --process /p --pid-file /q --detach box",
            "exec -t -e A=1 --cwd / -u 0:0 box sh -c true --help",
            "state box",
            "kill box 9",
            "kill --all box KILL",
            "kill box",
            "delete --force box",
            "delete box",
        ] {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (plain, by_clap) = both(&words);
            if line.contains("=x") {
                assert!(plain.is_none() && by_clap.is_err(), "{line}");
                continue;
            }
            assert!(plain.is_some(), "{line}");
            assert_eq!(Ok(plain.unwrap_or_default()), by_clap, "{line}");
        }
    }

    #[test]
    fn all_else_is_claps() {
        for line in [
            "",
            "list",
            "state",
            "state a b",
            "-v",
            "--help",
            "kill box -9",
            "run --image i -b /b box",
            "run -- box",
            "kill -- box",
            "exec box -t sh",
            "create --bundle -x box",
            "--rootless=true list",
            "run box b2 -- sh",
        ] {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert!(both(&words).0.is_none(), "{line}");
        }
        assert!(both(&["state", ""]).0.is_none());
    }
}
