//! `tare features`.

use std::io::Write;

use crate::error::Step;

pub(super) fn run() -> anyhow::Result<()> {
    let commit = option_env!("TARE_COMMIT").unwrap_or("unknown");
    let text = format!("{:#}\n", crate::spec::features(commit));
    Ok(std::io::stdout().write_all(text.as_bytes()).step(|| "write to stdout")?)
}
