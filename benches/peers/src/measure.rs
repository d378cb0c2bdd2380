//! The jobs, and the order they are done in: all runtimes and cases mixed, so
//! that whatever else the machine does meets each of them alike.

use std::cell::Cell;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use crate::bundles::{Bundles, Config};
use crate::figures::{Figure, Figures};
use crate::process::{GAP, Runner};
use crate::runtime::Runtime;
use crate::settings::Settings;
use crate::stats::Random;

/// Starts of a row that count; one before them does not, it still meets the
/// rest that the spaced starts wait for.
const ROW: usize = 5;
/// Figures that hardly vary are taken this often.
const FEW: usize = 5;

/// One thing to do with one runtime.
#[derive(Debug, Clone, Copy)]
struct Job {
    case: &'static str,
    config: Config,
    runtime: usize,
}

/// Figures that a case gives.
fn figures_of(case: &str) -> &'static [Figure] {
    match case {
        "run" => &[Figure::Run],
        "row" => &[Figure::Row],
        "lifecycle" => &[Figure::Lifecycle],
        "control" => &[Figure::State, Figure::Kill, Figure::KillDelete, Figure::Exec],
        "version" => &[Figure::Version],
        "memory" => &[Figure::Memory],
        "syscalls" => &[Figure::Syscalls],
        "limits" => &[Figure::Limits],
        _ => &[],
    }
}

pub(crate) struct Bench<'a> {
    pub(crate) runner: &'a Runner,
    pub(crate) bundles: &'a Bundles,
    pub(crate) runtimes: &'a [Runtime],
    /// In the name of every container and cgroup.
    pub(crate) tag: &'a str,
    pub(crate) counter: &'a Cell<u64>,
    pub(crate) figures: Figures,
}

/// A name that no other container has.
pub(crate) fn next_id(tag: &str, counter: &Cell<u64>) -> String {
    counter.set(counter.get() + 1);
    format!("{tag}-{}", counter.get())
}

impl Bench<'_> {
    /// All rounds. An error is an interruption; what fails is in the figures.
    pub(crate) fn measure(&mut self, settings: &Settings, random: &mut Random) -> Result<()> {
        for round in 0..settings.runs {
            let mut jobs = self.jobs(settings, round);
            if jobs.is_empty() {
                return Ok(());
            }
            random.shuffle(&mut jobs);
            for job in jobs {
                self.runner.watch.check()?;
                self.attempt(job);
            }
            self.runner.watch.check()?;
            eprint!("\rbench: round {} of {} ", round + 1, settings.runs);
        }
        eprintln!();
        Ok(())
    }

    fn jobs(&self, settings: &Settings, round: usize) -> Vec<Job> {
        let mut jobs = Vec::new();
        for (index, runtime) in self.runtimes.iter().enumerate() {
            let mut add = |case: &'static str, config: Config| {
                if settings.wants(case) && !self.figures.has_failed(case, config, &runtime.name) {
                    jobs.push(Job { case, config, runtime: index });
                }
            };
            for config in self.bundles.configs() {
                add("run", *config);
                if *config == Config::Limits {
                    add("limits", *config);
                    continue;
                }
                add("row", *config);
                if !runtime.is_floor() {
                    add("lifecycle", *config);
                    // exec alone differs with the config: it has the filter to load
                    if *config == Config::Default || runtime.has_exec {
                        add("control", *config);
                    }
                }
                if round < FEW {
                    add("memory", *config);
                    add("syscalls", *config);
                }
            }
            if !runtime.is_floor() {
                add("version", Config::Any);
            }
        }
        jobs
    }

    fn attempt(&mut self, job: Job) {
        let Some(runtime) = self.runtimes.get(job.runtime) else { return };
        let result = self.perform(job, runtime);
        self.runner.reap_strays();
        let Err(error) = result else { return };
        if self.runner.watch.stopped() {
            return;
        }
        self.figures.fail(job.case, job.config, &runtime.name, &format!("{error:#}"));
        self.figures.discard(figures_of(job.case), job.config, &runtime.name);
        runtime.clean(self.runner);
        self.runner.reap_strays();
    }

    fn perform(&mut self, job: Job, runtime: &Runtime) -> Result<()> {
        match job.case {
            "run" => self.run(job.config, runtime),
            "row" => self.row(job.config, runtime),
            "lifecycle" => self.lifecycle(job.config, runtime),
            "control" => self.control(job.config, runtime),
            "memory" => self.memory(job.config, runtime),
            "syscalls" => self.syscalls(job.config, runtime),
            "limits" => self.limits(job.config, runtime),
            _ => {
                let mut version = Command::new(&runtime.path);
                let took = self.runner.spaced(version.arg("--version"))?;
                self.figures.add(Figure::Version, job.config, &runtime.name, took);
                Ok(())
            }
        }
    }

    pub(crate) fn id(&self) -> String {
        next_id(self.tag, self.counter)
    }

    /// Not in any figure: it belongs to the next one.
    fn forget(&self, runtime: &Runtime, id: &str) -> Result<()> {
        if runtime.leaves_state {
            self.runner.at_once(&mut runtime.delete_by_force(id))?;
        }
        Ok(())
    }

    fn run(&mut self, config: Config, runtime: &Runtime) -> Result<()> {
        let id = self.id();
        let took = self.runner.spaced(&mut runtime.run(self.bundles, config, "true", &id))?;
        self.figures.add(Figure::Run, config, &runtime.name, took);
        self.forget(runtime, &id)
    }

    /// One run with, between two without: what else the machine does, and what a run
    /// leaves to the next one, meets both alike.
    fn limits(&mut self, config: Config, runtime: &Runtime) -> Result<()> {
        let mut times = Vec::new();
        for config in [Config::Default, config, Config::Default] {
            let id = self.id();
            let mut run = runtime.run(self.bundles, config, "true", &id);
            times.push(self.runner.spaced(&mut run)?);
            self.forget(runtime, &id)?;
        }
        if let [before, with, after] = times[..] {
            let ratio = with / ((before + after) / 2.0);
            self.figures.add(Figure::Limits, config, &runtime.name, ratio);
        }
        Ok(())
    }

    fn row(&mut self, config: Config, runtime: &Runtime) -> Result<()> {
        let ids: Vec<String> = (0..=ROW).map(|_| self.id()).collect();
        for (at, id) in ids.iter().enumerate() {
            let took = self.runner.at_once(&mut runtime.run(self.bundles, config, "true", id))?;
            if at > 0 {
                self.figures.add(Figure::Row, config, &runtime.name, took);
            }
        }
        ids.iter().try_for_each(|id| self.forget(runtime, id))
    }

    /// `create` of a program; the answer is its pid and what it took.
    fn create(
        &self,
        config: Config,
        runtime: &Runtime,
        word: &str,
        id: &str,
    ) -> Result<(Pid, f64)> {
        std::thread::sleep(GAP);
        self.create_at_once(config, runtime, word, id)
    }

    pub(crate) fn create_at_once(
        &self,
        config: Config,
        runtime: &Runtime,
        word: &str,
        id: &str,
    ) -> Result<(Pid, f64)> {
        let pid_file = self.bundles.path(config, word).join("pid");
        let mut command = runtime.command();
        command.arg("create").arg("--bundle").arg(self.bundles.path(config, word));
        command.arg("--pid-file").arg(&pid_file).arg(id);
        let took = self.runner.at_once(&mut command)?;
        let text = std::fs::read_to_string(&pid_file).context("read the pid file")?;
        std::fs::remove_file(&pid_file)?;
        let pid = text.trim().parse().with_context(|| format!("pid file: {text:?}"))?;
        Ok((Pid::from_raw(pid), took))
    }

    fn lifecycle(&mut self, config: Config, runtime: &Runtime) -> Result<()> {
        let id = self.id();
        let (pid, create) = self.create(config, runtime, "true", &id)?;
        let rest = std::time::Instant::now();
        self.runner.at_once(&mut runtime.on("start", &id))?;
        let end = self.runner.watch.reap(pid)?;
        ensure!(matches!(end, WaitStatus::Exited(_, 0)), "the program ended with {end:?}");
        self.runner.at_once(&mut runtime.on("delete", &id))?;
        let took = create + rest.elapsed().as_secs_f64() * 1e3;
        self.figures.add(Figure::Lifecycle, config, &runtime.name, took);
        Ok(())
    }

    /// All that is done with a container that lives.
    fn control(&mut self, config: Config, runtime: &Runtime) -> Result<()> {
        let id = self.id();
        let (pid, _) = self.create(config, runtime, "wait", &id)?;
        let state = self.runner.spaced(&mut runtime.on("state", &id))?;
        let printed = self.runner.printed();
        ensure!(printed.contains("created"), "state printed {printed:?}");
        self.runner.at_once(&mut runtime.on("start", &id))?;
        let mut exec = None;
        if runtime.has_exec {
            let mut command = runtime.on("exec", &id);
            exec = Some(self.runner.spaced(command.args(["/bin/inside", "true"]))?);
        }
        let kill = self.runner.spaced(runtime.on("kill", &id).arg("KILL"))?;
        let rest = std::time::Instant::now();
        let end = self.runner.watch.reap(pid)?;
        ensure!(matches!(end, WaitStatus::Signaled(..)), "the program ended with {end:?}");
        self.runner.at_once(&mut runtime.on("delete", &id))?;
        let kill_delete = kill + rest.elapsed().as_secs_f64() * 1e3;
        if config == Config::Default {
            self.figures.add(Figure::State, config, &runtime.name, state);
            self.figures.add(Figure::Kill, config, &runtime.name, kill);
            self.figures.add(Figure::KillDelete, config, &runtime.name, kill_delete);
        }
        if let Some(exec) = exec {
            self.figures.add(Figure::Exec, config, &runtime.name, exec);
        }
        Ok(())
    }

    fn memory(&mut self, config: Config, runtime: &Runtime) -> Result<()> {
        let id = self.id();
        let out = self.bundles.path(config, "true").join("rusage");
        let mut command = Command::new(self.bundles.launcher());
        append(command.arg(&out), &runtime.run(self.bundles, config, "true", &id));
        self.runner.spaced(&mut command)?;
        let text = std::fs::read_to_string(&out)?;
        let Some(("0", size)) = text.trim().split_once(' ') else {
            anyhow::bail!("exit code and size: {text:?}");
        };
        self.figures.add(Figure::Memory, config, &runtime.name, size.parse()?);
        self.forget(runtime, &id)
    }

    fn syscalls(&mut self, config: Config, runtime: &Runtime) -> Result<()> {
        let id = self.id();
        let out = self.bundles.path(config, "true").join("strace");
        let mut command = Command::new("strace");
        command.args(["-f", "-c", "-o"]).arg(&out);
        append(&mut command, &runtime.run(self.bundles, config, "true", &id));
        self.runner.spaced(&mut command)?;
        let text = std::fs::read_to_string(&out)?;
        let calls = total_calls(&text).context("strace has counted nothing")?;
        self.figures.add(Figure::Syscalls, config, &runtime.name, calls);
        self.forget(runtime, &id)
    }
}

/// One command as the arguments of another.
fn append(command: &mut Command, other: &Command) {
    command.arg(other.get_program()).args(other.get_args());
}

/// The number of calls in the last line of `strace -c`.
fn total_calls(table: &str) -> Option<f64> {
    let total = table.lines().find(|line| line.ends_with(" total"))?;
    // share, seconds, time for a call, calls; then errors, if there were any
    total.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted() {
        let table = "% time     seconds  usecs/call     calls    errors syscall\n\
                     ------ ----------- ----------- --------- --------- ----------------\n\
                     100.00    0.000700           7        90           read\n\
                     ------ ----------- ----------- --------- --------- ----------------\n\
                     100.00    0.000700           5       133         6 total\n";
        assert_eq!(total_calls(table), Some(133.0));
        assert_eq!(total_calls("nothing"), None);
    }
}
