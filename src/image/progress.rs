//! A bar a layer, on a terminal; nothing elsewhere.

use std::io::IsTerminal;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::manifest::Layer;

/// The bars of one import.
pub(crate) struct Progress {
    bars: Option<MultiProgress>,
}

/// One of them.
pub(crate) struct Bar(Option<ProgressBar>);

impl Progress {
    pub(crate) fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        Progress { bars: terminal.then(MultiProgress::new) }
    }

    pub(crate) fn layer(&self, layer: &Layer) -> Bar {
        Bar(self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new(layer.size));
            let form = "{prefix} {bar:40} {bytes:>11} of {total_bytes:<11} {bytes_per_sec:>13}";
            if let Ok(style) = ProgressStyle::with_template(form) {
                bar.set_style(style);
            }
            bar.set_prefix(layer.digest.short().to_owned());
            bar
        }))
    }
}

impl Bar {
    pub(crate) fn set(&self, bytes: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(bytes);
        }
    }

    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish();
        }
    }
}
