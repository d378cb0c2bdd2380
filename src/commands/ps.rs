//! `tare ps`.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::cli::{GlobalArgs, PsArgs, PsFormat};
use crate::container;
use crate::error::{Error, ErrorKind, Result, Step, one_line};

pub(super) fn run(global: &GlobalArgs, args: &PsArgs) -> anyhow::Result<()> {
    let Some((id, options)) = args.words.split_first() else {
        anyhow::bail!("no container: see tare ps --help");
    };
    let pids = container::processes(&super::find(global, id)?)?;
    let text = match args.format {
        PsFormat::Json => format!("{}\n", serde_json::to_string(&pids)?),
        PsFormat::Table => rows(&table(options)?, &pids)?,
    };
    std::io::stdout().write_all(text.as_bytes()).step(|| super::PRINTING)?;
    Ok(())
}

/// What ps(1) prints with these options.
fn table(options: &[String]) -> Result<String> {
    let mut ps = Command::new("ps");
    match options {
        [] => ps.arg("-ef"),
        // engines hand on all that they were given as one word
        [one] => ps.args(one.split_ascii_whitespace()),
        several => ps.args(several),
    };
    let output = ps.stdin(Stdio::null()).output().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            Error::from(e).step("run ps").hint("--format json does without it")
        }
        _ => Error::from(e).step("run ps"),
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().map(str::trim).find(|line| !line.is_empty());
    let said = said.map_or_else(|| output.status.to_string(), one_line);
    Err(Error::new(ErrorKind::System, format!("ps {}: {said}", options.join(" "))))
}

/// The head of a table, and those of its lines that are about these processes.
fn rows(table: &str, pids: &[i32]) -> Result<String> {
    let mut lines = table.lines();
    let head = lines.next().unwrap_or_default();
    let Some(column) = head.split_whitespace().position(|name| name == "PID") else {
        return Err(Error::invalid("the options of ps leave out the column PID"));
    };
    let is_ours = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|field| field.parse().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    };
    let mut text = format!("{head}\n");
    for line in lines.filter(is_ours) {
        text.push_str(line);
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_by_the_column_pid() {
        let table = "USER     PID CMD\nroot       1 init\nroot      12 sh -c 1\nbin       13 x\n";
        assert_eq!(
            rows(table, &[13, 1]).unwrap(),
            "USER     PID CMD\nroot       1 init\nbin       13 x\n"
        );
        assert_eq!(rows(table, &[2]).unwrap(), "USER     PID CMD\n");
        assert!(rows("CMD\ninit\n", &[1]).is_err());
    }
}
