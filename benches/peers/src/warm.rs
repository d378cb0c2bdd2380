//! A run of an image whose layers are there, beside one of the same program in a bundle
//! of plain files.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::bundles::Config;
use crate::figures::{Figure, Figures};
use crate::image;
use crate::measure::next_id;
use crate::process::Runner;
use crate::stats::Random;
use crate::table::{BUNDLE, TARE};

/// Layers of the image: an overlay of many takes longer than one of few.
const LAYERS: usize = 5;

pub(crate) struct Warm<'a> {
    pub(crate) runner: &'a Runner,
    pub(crate) tare: &'a Path,
    pub(crate) rootfs: &'a Path,
    pub(crate) work: &'a Path,
    pub(crate) tag: &'a str,
    pub(crate) counter: &'a Cell<u64>,
}

impl Warm<'_> {
    /// All rounds: an error is one of tare's.
    pub(crate) fn measure(
        &self,
        rounds: usize,
        figures: &mut Figures,
        random: &mut Random,
    ) -> Result<()> {
        let layout = image::small(&self.work.join("small"), self.rootfs, LAYERS)?;
        let bundle = self.work.join("warm");
        let mut import = self.tare();
        self.runner.at_once(import.args(["image", "import", "--name", "warm"]).arg(layout))?;
        let mut unpack = self.tare();
        unpack.args(["unpack", "warm", "--rootfs-mode", "copy"]).arg(&bundle);
        self.runner.at_once(&mut unpack)?;
        for _ in 0..rounds {
            let mut ways = [true, false];
            random.shuffle(&mut ways);
            for by_image in ways {
                let mut run = self.tare();
                match by_image {
                    true => run.args(["run", "--image", "warm"]),
                    false => run.arg("run").arg("--bundle").arg(&bundle),
                };
                run.arg(next_id(self.tag, self.counter));
                let took = self.runner.spaced(&mut run).context("run, warm")?;
                let who = if by_image { TARE } else { BUNDLE };
                figures.add(Figure::Warm, Config::Any, who, took);
            }
        }
        Ok(())
    }

    fn tare(&self) -> Command {
        let dir = |name: &str| -> PathBuf { self.work.join(name) };
        let mut command = Command::new(self.tare);
        command.arg("--root").arg(dir("warm-state")).arg("--store").arg(dir("warm-store"));
        command
    }
}
