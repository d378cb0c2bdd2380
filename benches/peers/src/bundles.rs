//! The bundles, and the C programs that are measured with them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::config;
use crate::process::Runner;
use crate::view::View;

/// A config that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Config {
    /// A figure that has nothing to do with a config.
    Any,
    Default,
    Docker,
    Limits,
}

impl Config {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Config::Any => "",
            Config::Default => "default",
            Config::Docker => "docker",
            Config::Limits => "limits",
        }
    }
}

/// Words of the program in the containers: what it does.
const WORDS: [&str; 3] = ["true", "wait", "check"];

#[derive(Debug)]
pub(crate) struct Bundles {
    pub(crate) work: PathBuf,
    cgroup2: PathBuf,
    documents: Vec<(Config, Value)>,
    configs: Vec<Config>,
    /// Why no config has a seccomp profile, if none has.
    pub(crate) without_seccomp: Option<String>,
}

impl Bundles {
    /// Makes a root file system, and one bundle for each config and word.
    pub(crate) fn make(runner: &Runner, work: &Path, view: &View, tare: &Path) -> Result<Self> {
        let rootfs = work.join("rootfs");
        let etc = work.join("etc");
        for dir in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            std::fs::create_dir_all(rootfs.join(dir))?;
        }
        std::fs::create_dir(&etc)?;
        for file in ["resolv.conf", "hostname", "hosts"] {
            std::fs::write(etc.join(file), "# bound into a container\n")?;
            std::fs::write(rootfs.join("etc").join(file), "")?;
        }
        compile(runner, include_str!("../c/inside.c"), &rootfs.join("bin/inside"))?;
        compile(runner, include_str!("../c/launch.c"), &work.join("launch"))?;
        compile(runner, include_str!("../c/floor.c"), &work.join("floor"))?;

        let spec = spec_of(runner, tare, work)?;
        let mut documents = vec![
            (Config::Default, config::default(&spec, &rootfs)),
            (Config::Docker, config::docker(&rootfs, &etc)),
        ];
        if view.has_limits() {
            let disk = view.disk();
            documents.push((Config::Limits, config::limits(&spec, &rootfs, disk)));
        }
        let configs = documents.iter().map(|(config, _)| *config).collect();
        let mut bundles = Bundles {
            work: work.to_owned(),
            cgroup2: view.cgroup2.clone(),
            documents,
            configs,
            without_seccomp: None,
        };
        bundles.write()?;
        bundles.add_seccomp(runner, tare)?;
        Ok(bundles)
    }

    /// Gives the docker config its profile, unless tare refuses it: then it is
    /// left out for all.
    fn add_seccomp(&mut self, runner: &Runner, tare: &Path) -> Result<()> {
        let profile = config::seccomp(&kernel_headers());
        let plain = self.document(Config::Docker).clone();
        let mut filtered = plain.clone();
        filtered["linux"]["seccomp"] = profile;
        self.set(filtered);
        self.write()?;
        let mut run = Command::new(tare);
        run.arg("--root").arg(self.work.join("seccomp-state")).arg("run");
        run.arg("--bundle").arg(self.path(Config::Docker, "true")).arg("seccomp-try");
        if let Some(header) = kernel_headers().first() {
            std::fs::write(self.filter(), config::floor_filter(header))?;
        }
        if let Err(refusal) = runner.at_once(&mut run) {
            self.without_seccomp = Some(format!("{refusal:#}"));
            self.set(plain);
            self.write()?;
        }
        Ok(())
    }

    fn set(&mut self, docker: Value) {
        for (_, document) in self.documents.iter_mut().filter(|(one, _)| *one == Config::Docker) {
            document.clone_from(&docker);
        }
    }

    fn write(&self) -> Result<()> {
        for (config, document) in &self.documents {
            for word in WORDS {
                let dir = self.path(*config, word);
                std::fs::create_dir_all(&dir)?;
                let mut document = document.clone();
                document["process"]["args"] = json!(["/bin/inside", word]);
                std::fs::write(dir.join("config.json"), format!("{document:#}"))?;
            }
        }
        Ok(())
    }

    pub(crate) fn configs(&self) -> &[Config] {
        &self.configs
    }

    pub(crate) fn document(&self, config: Config) -> &Value {
        let found = self.documents.iter().find(|(one, _)| *one == config);
        found.map_or(&Value::Null, |(_, document)| document)
    }

    pub(crate) fn path(&self, config: Config, word: &str) -> PathBuf {
        self.work.join(format!("bundle-{}-{word}", config.name()))
    }

    /// With `/bin/inside`, the program of all bundles.
    pub(crate) fn rootfs(&self) -> PathBuf {
        self.work.join("rootfs")
    }

    pub(crate) fn launcher(&self) -> PathBuf {
        self.work.join("launch")
    }

    pub(crate) fn floor(&self) -> PathBuf {
        self.work.join("floor")
    }

    fn filter(&self) -> PathBuf {
        self.work.join("seccomp.bpf")
    }

    /// The floor knows its configs by name.
    pub(crate) fn floor_command(
        &self,
        floor: &Path,
        config: Config,
        word: &str,
        id: &str,
    ) -> Command {
        let hostname = self.document(config)["hostname"].as_str().unwrap_or_default();
        let mut command = Command::new(floor);
        command.arg(config.name()).arg(&self.cgroup2).arg(id);
        command.arg(self.work.join("rootfs")).arg(self.work.join("etc")).arg(hostname);
        match self.document(config)["linux"]["seccomp"].is_null() {
            true => command.arg("-"),
            false => command.arg(self.filter()),
        };
        command.args(["/bin/inside", word]);
        command.env("FLOOR_LIMITS", config::floor_limits(self.document(config)));
        command
    }
}

fn compile(runner: &Runner, source: &str, to: &Path) -> Result<()> {
    let file = to.with_extension("c");
    std::fs::write(&file, source)?;
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-static", "-Wall", "-Wextra", "-o"]).arg(to).arg(&file);
    runner.at_once(&mut cc).context("compile with cc")?;
    std::fs::remove_file(file)?;
    Ok(())
}

fn spec_of(runner: &Runner, tare: &Path, work: &Path) -> Result<Value> {
    let dir = work.join("spec");
    std::fs::create_dir(&dir)?;
    runner.at_once(Command::new(tare).arg("spec").arg("--bundle").arg(&dir))?;
    let text = std::fs::read_to_string(dir.join("config.json"))?;
    serde_json::from_str(&text).context("tare spec wrote no JSON")
}

/// The tables of system calls that belong to the C library's headers.
fn kernel_headers() -> Vec<String> {
    let arch = std::env::consts::ARCH;
    let asm = format!("/usr/include/{arch}-linux-gnu/asm");
    [
        format!("{asm}/unistd_64.h"),
        format!("{asm}/unistd_32.h"),
        "/usr/include/asm-generic/unistd.h".to_owned(),
    ]
    .iter()
    .filter_map(|path| std::fs::read_to_string(path).ok())
    .collect()
}
