//! Unpacking of an image by tare and by other programs.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::bundles::Config;
use crate::containerd::Server;
use crate::figures::{Figure, Figures};
use crate::image::{APP_FILES, Image};
use crate::process::Runner;
use crate::settings::{TAR, TAR_SYNCED, Unpacker, UnpackerKind};
use crate::stats::Random;
use crate::table::TARE;

const DEADLINE: Duration = Duration::from_secs(180);
/// Each takes seconds.
const ROUNDS: usize = 5;

/// Inflates and unpacks all layers side by side, each into a directory of its own: what
/// there is to be done, without a check of anything.
const BY_TAR: &str = r#"
set -o pipefail
out=$1
shift
for layer; do
    mkdir "$out/${layer##*/}"
    igzip -dc <"$layer" | tar -x -C "$out/${layer##*/}" &
    jobs="$jobs $!"
done
for job in $jobs; do wait "$job" || exit 1; done
"#;

pub(crate) struct Unpacking<'a> {
    pub(crate) runner: &'a Runner,
    pub(crate) tare: &'a Path,
    /// Runs a program and writes down how large it was.
    pub(crate) launcher: &'a Path,
    pub(crate) peers: &'a [Unpacker],
    pub(crate) image: &'a Image,
    pub(crate) work: &'a Path,
}

impl Unpacking<'_> {
    /// All rounds. An error is an interruption; what fails is in the figures.
    pub(crate) fn measure(
        &self,
        runs: usize,
        figures: &mut Figures,
        random: &mut Random,
    ) -> Result<()> {
        let rounds = runs.min(ROUNDS);
        let all = self.work.join("unpack");
        std::fs::create_dir(&all)?;
        for round in 0..rounds {
            let mut tools: Vec<Option<&Unpacker>> = vec![None];
            tools.extend(self.peers.iter().map(Some));
            random.shuffle(&mut tools);
            for tool in tools {
                let name = tool.map_or(TARE, |tool| tool.name.as_str());
                if figures.has_failed("image", Config::Any, name) {
                    continue;
                }
                eprint!("\rbench: image, round {} of {rounds}: {name} ", round + 1);
                self.runner.watch.check()?;
                // what was written before must not be written out meanwhile
                nix::unistd::sync();
                let dir = all.join(format!("{round}-{name}"));
                std::fs::create_dir(&dir)?;
                let result = self.one(tool, &dir, figures);
                self.runner.watch.check()?;
                if let Err(error) = result {
                    figures.fail("image", Config::Any, name, &format!("{error:#}"));
                    let of_image = [Figure::Import, Figure::ImportMemory, Figure::Unpack];
                    figures.discard(&of_image, Config::Any, name);
                }
            }
        }
        eprintln!();
        // not before: ext4 looks for inodes much longer for some minutes after many have
        // been removed
        std::fs::remove_dir_all(&all).context("remove what was unpacked")
    }

    fn one(&self, tool: Option<&Unpacker>, dir: &Path, figures: &mut Figures) -> Result<()> {
        let Some(tool) = tool else { return self.tare(dir, figures) };
        match tool.kind {
            UnpackerKind::Umoci => self.umoci(tool, dir, figures),
            UnpackerKind::Containerd => self.containerd(tool, dir, figures),
            UnpackerKind::Podman => self.podman(tool, dir, figures),
            UnpackerKind::Tar => self.tar(dir, figures),
        }
    }

    fn seconds(&self, command: &mut Command) -> Result<f64> {
        Ok(self.runner.within(command, DEADLINE)? / 1e3)
    }

    /// The same, and the largest resident set of its processes, in KiB.
    fn seconds_and_size(&self, command: &Command, dir: &Path) -> Result<(f64, f64)> {
        let out = dir.join("rusage");
        let mut launch = Command::new(self.launcher);
        launch.arg(&out).arg(command.get_program()).args(command.get_args());
        let took = self.seconds(&mut launch)?;
        let text = std::fs::read_to_string(&out)?;
        let Some(("0", size)) = text.trim().split_once(' ') else {
            bail!("exit code and size: {text:?}: {}", self.runner.printed().trim());
        };
        Ok((took, size.parse()?))
    }

    fn tare(&self, dir: &Path, figures: &mut Figures) -> Result<()> {
        let bundle = dir.join("bundle");
        let tare = || {
            let mut command = Command::new(self.tare);
            command.arg("--store").arg(dir.join("store"));
            command
        };
        let mut import = tare();
        import.args(["image", "import"]).arg(&self.image.archive).args(["--name", "bench"]);
        let (imported, size) = self.seconds_and_size(&import, dir)?;
        let unpacked = self.seconds(tare().args(["unpack", "bench"]).arg(&bundle))?;
        let result = self.verify(&bundle.join("rootfs"));
        // what is mounted could not be removed
        let unmounted = self.runner.clean(tare().arg("umount").arg(&bundle));
        result.and(unmounted)?;
        figures.add(Figure::Import, Config::Any, TARE, imported);
        figures.add(Figure::ImportMemory, Config::Any, TARE, size);
        figures.add(Figure::Unpack, Config::Any, TARE, imported + unpacked);
        Ok(())
    }

    fn umoci(&self, tool: &Unpacker, dir: &Path, figures: &mut Figures) -> Result<()> {
        let bundle = dir.join("bundle");
        let mut image = self.image.layout.as_os_str().to_owned();
        image.push(format!(":{}", self.image.tag));
        let mut umoci = Command::new(&tool.path);
        umoci.args(["unpack", "--image"]).arg(&image).arg(&bundle);
        let (took, size) = self.seconds_and_size(&umoci, dir)?;
        self.verify(&bundle.join("rootfs"))?;
        figures.add(Figure::Unpack, Config::Any, &tool.name, took);
        figures.add(Figure::ImportMemory, Config::Any, &tool.name, size);
        Ok(())
    }

    fn containerd(&self, tool: &Unpacker, dir: &Path, figures: &mut Figures) -> Result<()> {
        let server = Server::start(&tool.path, dir)?;
        let mut ctr = server.ctr();
        ctr.args(["images", "import", "--snapshotter", "overlayfs"]).arg(&self.image.archive);
        let took = self.seconds(&mut ctr)?;
        self.seconds(server.ctr().args(["snapshots", "--snapshotter", "overlayfs", "ls"]))?;
        let snapshots = self.runner.printed().lines().skip(1).count();
        ensure!(snapshots > 0, "containerd has unpacked nothing");
        figures.add(Figure::Import, Config::Any, &tool.name, took);
        Ok(())
    }

    fn podman(&self, tool: &Unpacker, dir: &Path, figures: &mut Figures) -> Result<()> {
        let policy = dir.join("policy.json");
        std::fs::write(&policy, r#"{"default": [{"type": "insecureAcceptAnything"}]}"#)?;
        let podman = || {
            let mut command = Command::new(&tool.path);
            command.arg("--root").arg(dir.join("root")).arg("--runroot").arg(dir.join("run"));
            command.args(["--storage-driver", "overlay"]);
            command
        };
        let mut load = podman();
        load.args(["load", "--quiet", "--signature-policy"]).arg(&policy);
        load.arg("--input").arg(&self.image.archive);
        let result = self.seconds_and_size(&load, dir).and_then(|(took, size)| {
            self.seconds(podman().args(["images", "--quiet"]))?;
            ensure!(!self.runner.printed().trim().is_empty(), "podman has loaded nothing");
            figures.add(Figure::Import, Config::Any, &tool.name, took);
            figures.add(Figure::ImportMemory, Config::Any, &tool.name, size);
            Ok(())
        });
        // it mounts its own directory over itself
        let mounted = dir.join("root/overlay");
        nix::mount::umount2(&mounted, nix::mount::MntFlags::MNT_DETACH).unwrap_or_default();
        result
    }

    fn tar(&self, dir: &Path, figures: &mut Figures) -> Result<()> {
        let mut bash = Command::new("bash");
        bash.args(["-c", BY_TAR, "bash"]).arg(dir).args(&self.image.layers);
        let took = self.seconds(&mut bash)?;
        let begin = Instant::now();
        nix::unistd::sync();
        let synced = took + begin.elapsed().as_secs_f64();
        figures.add(Figure::Import, Config::Any, TAR, took);
        figures.add(Figure::Import, Config::Any, TAR_SYNCED, synced);
        Ok(())
    }

    /// Looks whether the layers lie over each other as they should.
    fn verify(&self, rootfs: &Path) -> Result<()> {
        let Some(deleted) = &self.image.deleted else { return Ok(()) };
        let mut files = 0;
        for part in 0..50 {
            files += std::fs::read_dir(rootfs.join(format!("app/part-{part:02}")))?.count();
        }
        ensure!(files == APP_FILES, "{files} files of the last layer instead of {APP_FILES}");
        ensure!(!rootfs.join(deleted).exists(), "{} should be gone", deleted.display());
        ensure!(rootfs.join("usr/bin").is_dir(), "the first layer is missing");
        Ok(())
    }
}
