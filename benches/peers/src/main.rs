//! `make bench`: tare beside other runtimes, and beside what the kernel itself
//! takes for a container. docs/performance.md says what each case means.
#![allow(
    clippy::disallowed_methods,
    reason = "nobody reads our files while they are written, or has another copy of our directory"
)]

mod at_once;
mod bundles;
mod chart;
mod config;
mod containerd;
mod crowd;
mod figures;
mod image;
mod measure;
mod process;
mod report;
mod runtime;
mod scale;
mod scatter;
mod settings;
mod stats;
mod table;
mod unpack;
mod view;
mod warm;

use std::cell::Cell;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};

use bundles::Bundles;
use figures::{Figure, Figures};
use measure::{Bench, next_id};
use process::{Runner, Watch};
use report::Report;
use runtime::Runtime;
use settings::{Flavour, Named, Settings};
use stats::Random;
use table::{FLOOR, TARE};
use view::View;

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// All that is made outside of target/bench, taken away in any case.
struct Workspace {
    dir: tempfile::TempDir,
    tag: String,
    cgroup2: PathBuf,
}

impl Drop for Workspace {
    fn drop(&mut self) {
        view::remove_cgroups(&self.cgroup2, &self.tag);
    }
}

fn bench() -> Result<()> {
    if let Some(word) = std::env::args().nth(1) {
        bail!("{word}: there are no words, only variables: see docs/performance.md");
    }
    ensure!(nix::unistd::geteuid().is_root(), "containers are made as root: run this as root");
    let built = std::env::current_exe()?.with_file_name("tare");
    let mut settings = Settings::read(|name| std::env::var(name).ok(), &built)?;
    ensure!(
        settings.tare.is_file(),
        "{}: there is no tare: build it, or name one with BENCH_TARE",
        settings.tare.display()
    );
    settings.tare = std::path::absolute(&settings.tare)?;
    settings.out = std::path::absolute(&settings.out)?;
    std::fs::create_dir_all(&settings.out)?;
    // while there is one thread
    let view = View::enter()?;
    nix::sys::prctl::set_child_subreaper(true).context("become a subreaper")?;
    let watch = Watch::start()?;
    let dir = tempfile::Builder::new().prefix("tare-bench-").tempdir()?;
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let tag = format!("tb{}", std::process::id());
    let workspace = Workspace { dir, tag, cgroup2: view.cgroup2.clone() };
    let runner = Runner::new(watch, workspace.dir.path());
    println!("seed {} (BENCH_SEED), {} rounds (BENCH_RUNS)", settings.seed, settings.runs);

    let bundles = Bundles::make(&runner, workspace.dir.path(), &view, &settings.tare)?;
    let counter = Cell::new(0);
    let id = || next_id(&workspace.tag, &counter);
    let mut figures = Figures::default();
    let runtimes = find_runtimes(&settings, &runner, &bundles, &mut figures, &id)?;
    let result = measure(&settings, &runner, &bundles, &runtimes, &workspace, &counter, figures);
    for runtime in &runtimes {
        runtime.clean(&runner);
    }
    runner.reap_strays();
    let figures = result?;
    // before anything is printed: a closed pipe must not leave anything behind
    drop(workspace);

    let report = Report {
        figures: &figures,
        runtimes: &runtimes,
        unpackers: &settings.unpackers,
        view: &view,
        seed: settings.seed,
        runs: settings.runs,
        notes: notes(&view, &bundles),
    };
    report.write(&settings.out, settings.chart.as_deref())?;
    println!("\nresults.json and charts are in {}", settings.out.display());
    let ours = [format!("{TARE}:"), format!("{FLOOR}:")];
    let failed = figures.failures().into_iter().find(|f| ours.iter().any(|o| f.starts_with(o)));
    failed.map_or(Ok(()), |failure| bail!("{failure}"))
}

fn find_runtimes(
    settings: &Settings,
    runner: &Runner,
    bundles: &Bundles,
    figures: &mut Figures,
    id: &dyn Fn() -> String,
) -> Result<Vec<Runtime>> {
    let named = |name: &str, flavour, path: PathBuf| Named { name: name.to_owned(), flavour, path };
    let mut all = vec![named(TARE, Flavour::Tare, settings.tare.clone())];
    all.extend(settings.peers.iter().cloned());
    all.push(named(FLOOR, Flavour::Floor, bundles.floor()));
    let mut found = Vec::new();
    for one in &all {
        let mut runtime = Runtime::new(one, &bundles.work);
        let result = runtime.probe(runner, bundles, id);
        runtime.clean(runner);
        runner.watch.check()?;
        match result {
            Ok(()) => found.push(runtime),
            Err(error) if runtime.is_ours() => return Err(error.context(runtime.name)),
            Err(error) => {
                let first = bundles.configs().first().copied();
                let first = first.unwrap_or(bundles::Config::Any);
                figures.fail("can't run here", first, &runtime.name, &format!("{error:#}"));
            }
        }
    }
    Ok(found)
}

#[allow(clippy::too_many_arguments, reason = "the whole of the work, from the one place")]
fn measure(
    settings: &Settings,
    runner: &Runner,
    bundles: &Bundles,
    runtimes: &[Runtime],
    workspace: &Workspace,
    counter: &Cell<u64>,
    figures: Figures,
) -> Result<Figures> {
    let mut random = Random::new(settings.seed);
    let tag = &workspace.tag;
    let mut bench = Bench { runner, bundles, runtimes, tag, counter, figures };
    if settings.wants("size") {
        for runtime in runtimes.iter().filter(|one| !one.is_floor()) {
            let size = std::fs::metadata(&runtime.path)?.len() as f64 / 1024.0;
            bench.figures.add(Figure::Size, bundles::Config::Any, &runtime.name, size);
        }
    }
    bench.measure(settings, &mut random)?;
    bench.crowds(settings)?;
    if settings.wants("image") {
        unpack_image(settings, &mut bench, workspace, &mut random)?;
    }
    Ok(bench.figures)
}

fn unpack_image(
    settings: &Settings,
    bench: &mut Bench<'_>,
    workspace: &Workspace,
    random: &mut Random,
) -> Result<()> {
    let (runner, work) = (bench.runner, workspace.dir.path());
    let warm = warm::Warm {
        runner,
        tare: &settings.tare,
        rootfs: &bench.bundles.rootfs(),
        work,
        tag: &workspace.tag,
        counter: bench.counter,
    };
    warm.measure(settings.runs, &mut bench.figures, random)?;
    let image = image::prepare(settings.image.as_deref(), &settings.out.join("image"), work)?;
    let unpacking = unpack::Unpacking {
        runner,
        tare: &settings.tare,
        launcher: &bench.bundles.launcher(),
        peers: &settings.unpackers,
        image: &image,
        work,
    };
    unpacking.measure(settings.runs, &mut bench.figures, random)
}

fn notes(view: &View, bundles: &Bundles) -> Vec<String> {
    let mut notes = vec![
        "\"tare takes\" is tare's median as a part of the other's, with the range that it is in \
         95 times of 100"
            .to_owned(),
        "all runtimes got the same config.json; its version is 1.0.2, which old ones accept"
            .to_owned(),
    ];
    if let Some(refusal) = &bundles.without_seccomp {
        notes.push(format!("the docker config has no linux.seccomp, for any of them: {refusal}"));
    }
    if view.hybrid {
        notes.push("cgroup2 was bound over /sys/fs/cgroup in a mount namespace of our own".into());
    }
    if !view.has_limits() {
        notes.push(format!(
            "no case has limits: cgroup2 has not the controllers memory, cpu and pids, but {:?}",
            view.controllers
        ));
    }
    if view::memory_goes_back() {
        notes.push(
            "free memory goes back to the hypervisor, and costs some 10 us a page when it is \
             needed again: what takes more and more of it (scale) is slower for that"
                .into(),
        );
    }
    notes
}
