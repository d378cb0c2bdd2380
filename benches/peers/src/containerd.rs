//! A containerd of the bench's own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::process::spawn;

/// A containerd of our own, with all it has in one directory.
pub(crate) struct Server {
    child: Child,
    socket: PathBuf,
    ctr: PathBuf,
}

impl Server {
    /// `ctr` lies beside the program.
    pub(crate) fn start(program: &Path, dir: &Path) -> Result<Self> {
        let ctr = program.with_file_name("ctr");
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
        let server = Server { child: spawn(&mut command)?, socket, ctr };
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

    pub(crate) fn ctr(&self) -> Command {
        let mut command = Command::new(&self.ctr);
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
