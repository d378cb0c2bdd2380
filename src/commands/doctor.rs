//! `tare doctor`.

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;

use nix::sys::signal::{SIGHUP, SIGINT, SIGTERM, SigSet};

use crate::cli::{DoctorArgs, GlobalArgs};
use crate::container::Store;
use crate::doctor::{Places, Style, examine};
use crate::image;
use crate::sys::signals::block_signals;

/// Exit code where no container can be created.
const UNUSABLE: i32 = 1;

pub(super) fn run(global: &GlobalArgs, args: &DoctorArgs) -> anyhow::Result<i32> {
    let state_root = match &global.root {
        Some(root) => super::absolute(root),
        None => Store::default_root(),
    };
    let store = image::store::Store::open(global.store.as_deref());
    // what a trial makes is removed at its end: an interruption waits for that
    let mut ends = SigSet::empty();
    [SIGINT, SIGTERM, SIGHUP].into_iter().for_each(|signal| ends.add(signal));
    block_signals(&ends).map_err(crate::error::Error::from)?;
    let report = examine(Places { state_root, store: store.map(|store| store.path().to_owned()) });
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        out.write_all(report.text(style()).as_bytes())?;
    }
    Ok(if report.summary.usable { 0 } else { UNUSABLE })
}

/// Colours for a terminal whose user wants them (<https://no-color.org>), and
/// no lines that are tiring to read.
fn style() -> Style {
    let stdout = std::io::stdout();
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let plain = set("NO_COLOR").is_some() || set("TERM").is_none_or(|term| term == "dumb");
    let columns =
        crate::sys::process::window_size(stdout.as_fd()).map_or(0, |(_, columns)| columns);
    let width = if columns == 0 { 80 } else { usize::from(columns).clamp(60, 100) };
    Style { width, colour: stdout.is_terminal() && !plain }
}
