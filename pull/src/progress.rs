//! A bar a layer, on a terminal; nothing elsewhere.

use std::io::IsTerminal;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tare::image::remote::Part;

/// The bars of one download.
pub(crate) struct Progress(Option<MultiProgress>);

/// One of them.
pub(crate) struct Bar(Option<ProgressBar>);

impl Progress {
    /// Bars, if somebody sees them.
    pub(crate) fn new(quiet: bool) -> Self {
        let seen = !quiet && std::io::stderr().is_terminal();
        Progress(seen.then(MultiProgress::new))
    }

    /// The bar of a layer.
    pub(crate) fn layer(&self, part: &Part) -> Bar {
        Bar(self.0.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new(part.size));
            let form = "{prefix} {bar:32} {bytes:>11} of {total_bytes:<11} {bytes_per_sec:>13}";
            if let Ok(style) = ProgressStyle::with_template(form) {
                bar.set_style(style);
            }
            bar.set_prefix(part.digest.short().to_owned());
            bar
        }))
    }
}

impl Bar {
    /// So many bytes are there.
    pub(crate) fn set(&self, bytes: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(bytes);
        }
    }

    /// All are.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish();
        }
    }
}
