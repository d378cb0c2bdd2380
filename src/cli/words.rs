//! Words in the forms that callers of runc use, and that clap does not know: the
//! rules of Go's flag package.

use std::ffi::{OsStr, OsString};

use clap::{Arg, Command, CommandFactory};

use super::Cli;

/// The same words in clap's forms: `-long` as `--long`, `--flag=true` as `--flag`,
/// `--flag=false` as nothing, `h` as `help`. What is not known stays as it is, for
/// clap to refuse.
pub fn usual(words: Vec<OsString>) -> Vec<OsString> {
    let is_odd = |word: &OsString| word.to_str().is_some_and(is_odd);
    // nearly always: and then the command line is described to clap once, not twice
    if !words.iter().skip(1).any(is_odd) {
        return words;
    }
    let mut rest = words.into_iter();
    let mut translation = Translation { chain: vec![Cli::command()], out: Vec::new() };
    translation.out.extend(rest.next());
    while let Some(word) = rest.next() {
        match translation.take(word) {
            Next::Word => {}
            Next::Value => translation.out.extend(rest.next()),
            Next::AllTheRest => translation.out.extend(rest.by_ref()),
        }
    }
    translation.out
}

/// A boolean as Go reads it (strconv.ParseBool).
pub fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// The same, for clap.
pub(super) fn boolean(text: &str) -> Result<bool, &'static str> {
    truth(text).ok_or("give true or false")
}

/// Whether a word may need another form.
fn is_odd(word: &str) -> bool {
    if word == "h" {
        return true;
    }
    let Some(flag) = word.strip_prefix('-') else { return false };
    match flag.strip_prefix('-') {
        Some(long) => long.split_once('=').is_some_and(|(_, value)| truth(value).is_some()),
        None => flag.len() > 1,
    }
}

/// How words go on.
enum Next {
    Word,
    /// The next word belongs to this one.
    Value,
    /// They are a program's, and none of ours.
    AllTheRest,
}

struct Translation {
    /// The commands so far, from the outermost on.
    chain: Vec<Command>,
    out: Vec<OsString>,
}

impl Translation {
    fn take(&mut self, word: OsString) -> Next {
        let next = match word.to_str() {
            Some("--") => Some(Next::AllTheRest),
            Some("-") | None => None,
            Some(text) if text.starts_with('-') => return self.flag(text),
            Some(text) => self.command(text),
        };
        if let Some(next) = next {
            let is_help = word == "h" && self.chain.len() == 1;
            self.out.push(if is_help { OsString::from("help") } else { word });
            return next;
        }
        self.out.push(word);
        let takes_all = |arg: &Arg| arg.is_trailing_var_arg_set();
        let command = self.chain.last();
        match command.is_some_and(|command| command.get_positionals().any(takes_all)) {
            true => Next::AllTheRest,
            false => Next::Word,
        }
    }

    /// Goes on with a command of this name, if there is one.
    fn command(&mut self, name: &str) -> Option<Next> {
        let command = self.chain.last()?;
        if name == "h" && self.chain.len() == 1 {
            return Some(Next::Word);
        }
        let mut command = command.find_subcommand(name)?.clone();
        command.build();
        self.chain.push(command);
        Some(Next::Word)
    }

    fn flag(&mut self, word: &str) -> Next {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        let bare = name.trim_start_matches('-');
        let is_short = !name.starts_with("--") && bare.chars().count() == 1;
        let is_it = |arg: &&Arg| match is_short {
            true => arg.get_short() == bare.chars().next(),
            false => arg.get_long() == Some(bare),
        };
        let found = self.chain.iter().rev().flat_map(Command::get_arguments).find(is_it);
        let Some((arg, long)) = found.and_then(|arg| Some((arg, arg.get_long()?))) else {
            // the root command is not built, and has no word for it yet
            self.out.push(if word == "-help" { "--help".into() } else { word.into() });
            return Next::Word;
        };
        let long = format!("--{long}");
        if arg.get_action().takes_values() {
            let needs_one = !arg.is_require_equals_set();
            self.out.push(value.map_or_else(|| long.clone(), |v| format!("{long}={v}")).into());
            return if value.is_none() && needs_one { Next::Value } else { Next::Word };
        }
        match value.map(truth) {
            None | Some(Some(true)) => self.out.push(long.into()),
            // the last one counts
            Some(Some(false)) => self.out.retain(|given| given != OsStr::new(&long)),
            Some(None) => self.out.push(word.into()),
        }
        Next::Word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn become_words(words: &str, wanted: &str) {
        let words = ["tare"].into_iter().chain(words.split_whitespace()).map(OsString::from);
        let found = usual(words.collect());
        let found: Vec<_> = found.iter().skip(1).map(|word| word.to_str().unwrap()).collect();
        assert_eq!(found.join(" "), wanted);
    }

    #[test]
    fn single_dashes_before_long_names() {
        become_words("run -detach -bundle=b x", "run --detach --bundle=b x");
        become_words("-root r -log-format json state x", "--root r --log-format json state x");
        become_words("run -no-subreaper -b b x", "run --no-subreaper --bundle b x");
        // a name that is not known may be short ones: clap says
        become_words("exec -td x sh", "exec -td x sh");
        become_words("-help", "--help");
        become_words("list -help", "list --help");
        become_words("-version", "--version");
    }

    #[test]
    fn booleans_with_a_value() {
        become_words("delete --force=true x", "delete --force x");
        become_words("delete --force=false x", "delete x");
        become_words("delete -f --force=0 x", "delete x");
        become_words("delete --force=maybe -force=t x", "delete --force=maybe --force x");
        become_words("--systemd-cgroup=false --rootless=true list", "--rootless=true list");
        become_words("exec --tty=true x sh", "exec --tty=true x sh");
    }

    #[test]
    fn words_of_others_stay() {
        become_words(
            "exec -detach x ls -detach --force=true",
            "exec --detach x ls -detach --force=true",
        );
        become_words("ps -format table x -ef h", "ps --format table x -ef h");
        become_words("run --bundle -detach x -- -detach", "run --bundle -detach x -- -detach");
        become_words("kill -all x h", "kill --all x h");
        become_words("h run", "help run");
        become_words("nonsense -detach", "nonsense -detach");
    }
}
