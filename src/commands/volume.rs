//! `volume create`, `ls`, `inspect`, `rm`.

use std::io::Write;

use serde_json::{Value, json};

use super::PRINTING;
use super::table::lines;
use crate::cli::{GlobalArgs, VolumeCommand, VolumeLsArgs};
use crate::error::{Result, Step};
use crate::image::bind::check_volume_name;
use crate::image::store::Store;
use crate::volume::{Volume, Volumes, container_of};

/// Runs one of the subcommands.
pub(super) fn run(global: &GlobalArgs, command: &VolumeCommand) -> anyhow::Result<()> {
    let store = Store::open(global.store.as_deref())?;
    let volumes = Volumes::of(store.path());
    match command {
        VolumeCommand::Create(args) => {
            check(&args.names)?;
            for name in &args.names {
                volumes.create(name)?;
                print(name)?;
            }
        }
        VolumeCommand::Ls(args) => ls(&volumes, args)?,
        VolumeCommand::Inspect(args) => {
            check(&args.names)?;
            let found = args.names.iter().map(|name| volumes.find(name).map(|v| value(&v)));
            let found = found.collect::<Result<Vec<_>>>()?;
            print(&serde_json::to_string_pretty(&found)?)?;
        }
        VolumeCommand::Rm(args) => {
            check(&args.names)?;
            super::become_root_of_files()?;
            volumes.remove(&args.names)?;
        }
    }
    Ok(())
}

fn check(names: &[String]) -> Result<()> {
    names.iter().try_for_each(|name| check_volume_name(name))
}

fn print(line: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{line}").step(|| PRINTING)
}

fn ls(volumes: &Volumes, args: &VolumeLsArgs) -> anyhow::Result<()> {
    let all = volumes.list()?;
    if args.json {
        let all: Vec<Value> = all.iter().map(value).collect();
        print(&serde_json::to_string_pretty(&all)?)?;
        return Ok(());
    }
    if args.quiet {
        return Ok(all.iter().try_for_each(|volume| print(&volume.name))?);
    }
    let mut rows = vec![["NAME", "CREATED", "USED BY"].map(str::to_owned)];
    rows.extend(all.iter().map(|volume| {
        let users = match volume.users.as_slice() {
            [] => "-".to_owned(),
            users => users.iter().map(|u| container_of(u)).collect::<Vec<_>>().join(", "),
        };
        let created = crate::logging::at(volume.created);
        [volume.name.clone(), created.get(..10).unwrap_or_default().to_owned(), users]
    }));
    Ok(lines(&rows).iter().try_for_each(|line| print(line))?)
}

fn value(volume: &Volume) -> Value {
    json!({
        "name": volume.name,
        "mountpoint": volume.data,
        "created": crate::logging::at(volume.created),
        "usedBy": volume.users.iter().map(|u| container_of(u)).collect::<Vec<_>>(),
    })
}
