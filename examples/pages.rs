//! Writes the manual pages and the shells' completions, all from the command
//! line's own definition: pages DIR

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::{Shell, generate_to};
use tare::cli::Cli;

/// Section of the manual: commands of the system's administrator.
const SECTION: &str = "8";

fn main() -> Result<()> {
    let dir = std::env::args_os().nth(1).map(PathBuf::from).context("usage: pages DIR")?;
    let (man, completions) = (dir.join("man"), dir.join("completions"));
    for dir in [&man, &completions] {
        // commands that are gone leave no page behind
        std::fs::remove_dir_all(dir).or_else(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(e),
        })?;
        std::fs::create_dir_all(dir)?;
    }
    let mut command = Cli::command();
    command.build();
    write_pages(&command, "tare", &man)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut Cli::command(), "tare", &completions)?;
    }
    Ok(())
}

/// A page of a command, and of each below it: `tare-image-ls.8`.
fn write_pages(command: &clap::Command, name: &str, dir: &std::path::Path) -> Result<()> {
    let title: &'static str = Box::leak(name.to_owned().into_boxed_str());
    let page = command.clone().name(title).display_name(title);
    let page = clap_mangen::Man::new(page).section(SECTION).title(title.to_uppercase());
    let path = dir.join(format!("{name}.{SECTION}"));
    let mut file = std::fs::File::create(&path).with_context(|| path.display().to_string())?;
    page.render(&mut file)?;
    let below = command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help");
    for command in below {
        write_pages(command, &format!("{name}-{}", command.get_name()), dir)?;
    }
    Ok(())
}
