//! `tare trace`.

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::Path;

use crate::cli::{TraceArgs, TraceFormat};
use crate::error::{Error, Result, Step};
use crate::trace;

/// Most bytes of a trace: far more than a command writes.
const MOST: u64 = 32 << 20;

pub(super) fn run(args: &TraceArgs) -> anyhow::Result<()> {
    let recording =
        read(&args.file).and_then(|bytes| trace::parse(&bytes)).step(|| args.file.display())?;
    let for_reading = args.output.is_none() && std::io::stdout().is_terminal();
    let usual = if for_reading { TraceFormat::Text } else { TraceFormat::Svg };
    let shown = match args.format.unwrap_or(usual) {
        TraceFormat::Svg => trace::svg(&recording),
        TraceFormat::Text => trace::text(&recording),
    };
    match &args.output {
        None => std::io::stdout().write_all(shown.as_bytes()).step(|| super::PRINTING)?,
        Some(path) => {
            let step = || format!("--output {}", path.display());
            let mut file = crate::logging::open_output(path).step(step)?;
            file.write_all(shown.as_bytes()).step(step)?;
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MOST + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MOST {
        true => Err(Error::invalid(format!("has more than {} MiB: no trace of ours", MOST >> 20))),
        false => Ok(bytes),
    }
}
