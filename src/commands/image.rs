//! `image import`, `pull`, `ls`, `inspect`, `rm`.

use std::io::Write;

use serde_json::json;

use crate::cli::{
    GlobalArgs, ImageCommand, ImageImportArgs, ImageInspectArgs, ImageLsArgs, ImageSelector,
};
use crate::error::{Result, Step};
use crate::image::limits::{Limits, size};
use crate::image::select::{Platform, Selector};
use crate::image::store::{ImportOptions, Record, Store};

/// Runs one of the subcommands.
pub(super) fn run(global: &GlobalArgs, command: ImageCommand) -> anyhow::Result<i32> {
    let store = Store::open(global.store.as_deref())?;
    if matches!(command, ImageCommand::Import(_) | ImageCommand::Rm(_)) {
        super::become_root_of_files()?;
    }
    match command {
        ImageCommand::Import(args) => import(&store, args)?,
        ImageCommand::Pull(args) => return Ok(super::pull::run(&store, &args)?),
        ImageCommand::Ls(args) => ls(&store, &args)?,
        ImageCommand::Inspect(args) => inspect(&store, &args)?,
        ImageCommand::Rm(args) => store.remove(&args.names)?,
    }
    Ok(0)
}

/// The words of `--ref` and `--platform`, checked.
pub(super) fn selector(words: &ImageSelector) -> Result<Selector> {
    Ok(Selector {
        reference: words.reference.clone(),
        platform: words.platform.as_deref().map(Platform::parse).transpose()?,
    })
}

fn import(store: &Store, args: ImageImportArgs) -> anyhow::Result<()> {
    let layer = args.max_layer_size.as_deref().map(size).transpose();
    let layer = layer.step(|| "--max-layer-size")?;
    let options = ImportOptions {
        name: args.name,
        selector: selector(&args.select)?,
        limits: Limits { layer, ..Limits::default() },
    };
    for record in store.import(&args.path, &options)? {
        writeln!(std::io::stdout(), "{} {}", record.name, record.digest)
            .step(|| super::PRINTING)?;
    }
    Ok(())
}

fn ls(store: &Store, args: &ImageLsArgs) -> anyhow::Result<()> {
    let records = store.list()?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&records)?).step(|| super::PRINTING)?;
    } else if args.quiet {
        for record in &records {
            writeln!(out, "{}", record.name).step(|| super::PRINTING)?;
        }
    } else {
        table(&mut out, &records)?;
    }
    Ok(())
}

fn table(out: &mut impl Write, records: &[Record]) -> anyhow::Result<()> {
    let header = ["NAME", "DIGEST", "PLATFORM", "LAYERS", "SIZE", "CREATED"];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(records.iter().map(|record| {
        let created = record.created.as_deref().unwrap_or("-");
        [
            record.name.clone(),
            record.digest.short().to_owned(),
            record.platform.clone(),
            record.layers.len().to_string(),
            indicatif::HumanBytes(record.size()).to_string(),
            created.get(..10).unwrap_or(created).to_owned(),
        ]
    }));
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    for row in &rows {
        let cells = row.iter().zip(widths);
        let line: Vec<_> = cells.map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", line.join("  ").trim_end()).step(|| super::PRINTING)?;
    }
    Ok(())
}

fn inspect(store: &Store, args: &ImageInspectArgs) -> anyhow::Result<()> {
    let image = store.image(&args.name)?;
    let record = image.record();
    let layers: Vec<_> = record
        .layers
        .iter()
        .map(|layer| {
            json!({
                "diffId": layer.diff_id,
                "digest": layer.digest,
                "mediaType": layer.media_type,
                "size": layer.size,
                "unpackedSize": layer.unpacked_size,
                "entries": layer.entries,
                "dir": store.layer_dir(&layer.diff_id),
            })
        })
        .collect();
    let value = json!({
        "name": image.name,
        "digest": image.digest,
        "configDigest": record.config_digest,
        "platform": record.platform,
        "created": record.created,
        "imported": record.imported,
        "size": record.size(),
        "layers": layers,
        "config": image.config,
    });
    writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&value)?)
        .step(|| super::PRINTING)?;
    Ok(())
}
