//! Unpacking of an image by tare, umoci and containerd.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::bundles::Config;
use crate::figures::{Figure, Figures};
use crate::image::{APP_FILES, Image};
use crate::process::{Runner, spawn};
use crate::settings::find_program;
use crate::stats::Random;

const DEADLINE: Duration = Duration::from_secs(180);
/// Each takes seconds.
const ROUNDS: usize = 3;

#[derive(Debug, Clone, Copy)]
enum Tool {
    Tare,
    Umoci,
    Containerd,
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Tool::Tare => "tare",
            Tool::Umoci => "umoci",
            Tool::Containerd => "containerd",
        }
    }
}

pub(crate) struct Unpacking<'a> {
    pub(crate) runner: &'a Runner,
    pub(crate) tare: &'a Path,
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
        for round in 0..rounds {
            let mut tools = [Tool::Tare, Tool::Umoci, Tool::Containerd];
            random.shuffle(&mut tools);
            for tool in tools {
                if figures.has_failed("image", Config::Any, tool.name()) {
                    continue;
                }
                eprint!("\rbench: image, round {} of {rounds}: {} ", round + 1, tool.name());
                self.runner.watch.check()?;
                // what was written before must not be written out meanwhile
                nix::unistd::sync();
                let dir = self.work.join("unpack");
                std::fs::create_dir(&dir)?;
                let result = match tool {
                    Tool::Tare => self.tare(&dir, figures),
                    Tool::Umoci => self.umoci(&dir, figures),
                    Tool::Containerd => self.containerd(&dir, figures),
                };
                std::fs::remove_dir_all(&dir).context("remove what was unpacked")?;
                self.runner.watch.check()?;
                if let Err(error) = result {
                    figures.fail("image", Config::Any, tool.name(), &format!("{error:#}"));
                    figures.discard(&[Figure::Import, Figure::Unpack], Config::Any, tool.name());
                }
            }
        }
        eprintln!();
        Ok(())
    }

    fn seconds(&self, command: &mut Command) -> Result<f64> {
        Ok(self.runner.within(command, DEADLINE)? / 1e3)
    }

    fn tare(&self, dir: &Path, figures: &mut Figures) -> Result<()> {
        let bundle = dir.join("bundle");
        let tare = || {
            let mut command = Command::new(self.tare);
            command.arg("--store").arg(dir.join("store"));
            command
        };
        let mut import = tare();
        import.args(["image", "import"]).arg(&self.image.layout).args(["--name", "bench"]);
        let imported = self.seconds(&mut import)?;
        let unpacked = self.seconds(tare().args(["unpack", "bench"]).arg(&bundle))?;
        let result = self.verify(&bundle.join("rootfs"));
        // what is mounted could not be removed
        let unmounted = self.runner.clean(tare().arg("umount").arg(&bundle));
        result.and(unmounted)?;
        figures.add(Figure::Import, Config::Any, Tool::Tare.name(), imported);
        figures.add(Figure::Unpack, Config::Any, Tool::Tare.name(), imported + unpacked);
        Ok(())
    }

    fn umoci(&self, dir: &Path, figures: &mut Figures) -> Result<()> {
        let bundle = dir.join("bundle");
        let mut image = self.image.layout.as_os_str().to_owned();
        image.push(format!(":{}", self.image.tag));
        let mut umoci = Command::new("umoci");
        let took = self.seconds(umoci.args(["unpack", "--image"]).arg(&image).arg(&bundle))?;
        self.verify(&bundle.join("rootfs"))?;
        figures.add(Figure::Unpack, Config::Any, Tool::Umoci.name(), took);
        Ok(())
    }

    fn containerd(&self, dir: &Path, figures: &mut Figures) -> Result<()> {
        let server = Server::start(dir)?;
        let mut ctr = server.ctr();
        ctr.args(["images", "import", "--snapshotter", "overlayfs"]).arg(&self.image.archive);
        let took = self.seconds(&mut ctr)?;
        self.seconds(server.ctr().args(["snapshots", "--snapshotter", "overlayfs", "ls"]))?;
        let snapshots = self.runner.printed().lines().skip(1).count();
        ensure!(snapshots > 0, "containerd has unpacked nothing");
        figures.add(Figure::Import, Config::Any, Tool::Containerd.name(), took);
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

/// A containerd of our own, with all it has in one directory.
struct Server {
    child: Child,
    socket: PathBuf,
}

impl Server {
    fn start(dir: &Path) -> Result<Self> {
        let path = std::env::var("PATH").unwrap_or_default();
        let Some(program) = find_program("containerd", &path) else {
            bail!("there is no containerd: install-deps bench gets it");
        };
        let socket = dir.join("containerd.sock");
        let config = dir.join("config.toml");
        let (root, state) = (dir.join("root"), dir.join("state"));
        std::fs::write(
            &config,
            format!(
                "version = 2\nroot = {root:?}\nstate = {state:?}\n\
                 disabled_plugins = [\"io.containerd.grpc.v1.cri\", \
                 \"io.containerd.internal.v1.opt\", \"io.containerd.internal.v1.tracing\"]\n\
                 [grpc]\naddress = {socket:?}\n"
            ),
        )?;
        let log = std::fs::File::create(dir.join("log"))?;
        // it ends with us, whatever we end by
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program).arg("--config").arg(&config);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let server = Server { child: spawn(&mut command)?, socket };
        let until = Instant::now() + Duration::from_secs(20);
        while !server.answers() {
            ensure!(Instant::now() < until, "containerd does not answer on its socket");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    fn answers(&self) -> bool {
        let quiet = || Stdio::null();
        let mut version = self.ctr();
        version.arg("version").stdin(quiet()).stdout(quiet()).stderr(quiet());
        version.status().is_ok_and(|status| status.success())
    }

    fn ctr(&self) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(&self.socket);
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap_or_default();
        let until = Instant::now() + Duration::from_secs(10);
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > until {
                self.child.kill().unwrap_or_default();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
