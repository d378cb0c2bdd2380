//! `image import`, `pull`, `ls`, `inspect`, `rm`, `export`, `gc`, `df`, `verify`.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::Path;

use indicatif::HumanBytes;
use serde_json::json;

use super::table::lines;

use crate::cli::{
    GlobalArgs, ImageBounds, ImageCommand, ImageDfArgs, ImageExportArgs, ImageGcArgs,
    ImageImportArgs, ImageInspectArgs, ImageLsArgs, ImageSelector, ImageVerifyArgs,
};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::image::limits::{Limits, size};
use crate::image::select::{Platform, Selector};
use crate::image::store::{ImportOptions, Record, Store};
use crate::image::verify::{Problem, Verified};

/// Runs one of the subcommands.
pub(super) fn run(global: &GlobalArgs, command: ImageCommand) -> anyhow::Result<i32> {
    let store = Store::open(global.store.as_deref())?;
    // a pull does so when all has come
    if !matches!(command, ImageCommand::Ls(_) | ImageCommand::Inspect(_) | ImageCommand::Pull(_)) {
        super::become_root_of_files()?;
    }
    match command {
        ImageCommand::Import(args) => import(&store, args)?,
        ImageCommand::Pull(args) => return Ok(super::pull::run(&store, &args)?),
        ImageCommand::Ls(args) => ls(&store, &args)?,
        ImageCommand::Inspect(args) => inspect(&store, &args)?,
        ImageCommand::Rm(args) => store.remove(&args.names)?,
        ImageCommand::Export(args) => export(&store, &args)?,
        ImageCommand::Gc(args) => gc(&store, &args)?,
        ImageCommand::Df(args) => df(&store, &args)?,
        ImageCommand::Verify(args) => return verify(&store, &args),
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
    let options = ImportOptions {
        name: args.name,
        selector: selector(&args.select)?,
        limits: limits(&args.bounds)?,
        keep_blobs: args.keep_blobs,
    };
    for record in store.import(&args.path, &options)? {
        writeln!(std::io::stdout(), "{} {}", record.name, record.digest)
            .step(|| super::PRINTING)?;
    }
    Ok(())
}

/// The words of the bounds, checked.
pub(super) fn limits(words: &ImageBounds) -> Result<Limits> {
    let bytes = |option: &str, text: &Option<String>| {
        text.as_deref().map(size).transpose().step(|| option.to_owned())
    };
    let default = Limits::default();
    Ok(Limits {
        layer: bytes("--max-layer-size", &words.max_layer_size)?,
        ratio: words.max_ratio.unwrap_or(default.ratio),
        entries: words.max_entries.unwrap_or(default.entries),
        entry_meta: bytes("--max-entry-meta", &words.max_entry_meta)?.unwrap_or(default.entry_meta),
        json: bytes("--max-document-size", &words.max_document_size)?.unwrap_or(default.json),
        ..default
    })
}

/// The archive appears under its name when it is whole.
fn export(store: &Store, args: &ImageExportArgs) -> anyhow::Result<()> {
    let step = || format!("export to {}", args.output.display());
    if args.output == Path::new("-") {
        let stdout = std::io::stdout();
        if stdout.is_terminal() {
            return Err(Error::invalid("standard output is a terminal").step(step()).into());
        }
        store.export(&args.names, &mut BufWriter::with_capacity(1 << 18, stdout)).step(step)?;
        return Ok(());
    }
    let name =
        args.output.file_name().ok_or_else(|| Error::invalid("no file name").step(step()))?;
    if args.output.symlink_metadata().is_ok() {
        return Err(Error::new(ErrorKind::Exists, "the file is there already").step(step()).into());
    }
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}", std::process::id()));
    let temporary = args.output.with_file_name(temporary);
    let file = File::create_new(&temporary).step(step)?;
    let mut writer = BufWriter::with_capacity(1 << 18, &file);
    let written = store.export(&args.names, &mut writer);
    drop(writer);
    let done = written
        .and_then(|()| Ok(file.sync_all()?))
        .and_then(|()| Ok(std::fs::rename(&temporary, &args.output)?));
    Ok(done.map_err(|e| e.step(step()).undone(std::fs::remove_file(&temporary)))?)
}

fn gc(store: &Store, args: &ImageGcArgs) -> anyhow::Result<()> {
    let garbage = store.collect(args.dry_run)?;
    let mut out = std::io::stdout().lock();
    for one in &garbage {
        writeln!(out, "{} {} {}", one.kind, one.name, HumanBytes(one.bytes))
            .step(|| super::PRINTING)?;
    }
    let bytes: u64 = garbage.iter().map(|one| one.bytes).sum();
    let done = if args.dry_run { "to be freed" } else { "freed" };
    writeln!(out, "{done}: {}", HumanBytes(bytes)).step(|| super::PRINTING)?;
    Ok(())
}

fn df(store: &Store, args: &ImageDfArgs) -> anyhow::Result<()> {
    let usage = store.usage()?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&usage)?).step(|| super::PRINTING)?;
        return Ok(());
    }
    let bytes = |n: u64| HumanBytes(n).to_string();
    let mut images = vec![["IMAGE", "SIZE", "SHARED"].map(str::to_owned)];
    images.extend(usage.images.iter().map(|i| [i.name.clone(), bytes(i.bytes), bytes(i.shared)]));
    let mut kinds = vec![["KIND", "COUNT", "SIZE", "RECLAIMABLE"].map(str::to_owned)];
    let shares = [
        ("layers", usage.layers),
        ("blobs", usage.blobs),
        ("containers", usage.containers),
        ("volumes", usage.volumes),
        ("unfinished", usage.unfinished),
        ("downloads", usage.downloads),
    ];
    kinds.extend(shares.map(|(kind, share)| {
        [kind.into(), share.count.to_string(), bytes(share.bytes), bytes(share.reclaimable)]
    }));
    let mut all = lines(&images);
    all.push(String::new());
    all.extend(lines(&kinds));
    for line in all {
        writeln!(out, "{line}").step(|| super::PRINTING)?;
    }
    Ok(())
}

/// The answer is the exit code.
fn verify(store: &Store, args: &ImageVerifyArgs) -> anyhow::Result<i32> {
    let verified = store.verify(&args.names)?;
    let code = i32::from(!verified.problems.is_empty());
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&verified)?).step(|| super::PRINTING)?;
        return Ok(code);
    }
    for Problem { kind, name, path, what } in &verified.problems {
        let path = path.as_ref().map_or(String::new(), |path| format!(" {path}:"));
        writeln!(out, "{kind} {name}:{path} {what}").step(|| super::PRINTING)?;
    }
    let Verified { blobs, layers, files, bytes, problems } = &verified;
    let bytes = HumanBytes(*bytes);
    let wrong = match problems.len() {
        0 => "nothing is wrong".to_owned(),
        1 => "1 problem".to_owned(),
        n => format!("{n} problems"),
    };
    writeln!(out, "{layers} layers with {files} files, {blobs} blobs, {bytes} read: {wrong}")
        .step(|| super::PRINTING)?;
    Ok(code)
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
        // the day; whatever else an image says there is not for a terminal
        let created = record.created.as_deref().and_then(|time| time.get(..10));
        let created = created.filter(|day| day.bytes().all(|b| b.is_ascii_digit() || b == b'-'));
        [
            record.name.clone(),
            record.digest.short().to_owned(),
            record.platform.clone(),
            record.layers.len().to_string(),
            HumanBytes(record.size()).to_string(),
            created.unwrap_or("-").to_owned(),
        ]
    }));
    for line in lines(&rows) {
        writeln!(out, "{line}").step(|| super::PRINTING)?;
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
        "parents": record.parents.as_ref().map(|digest| store.layer_dir(digest)),
        "config": image.config,
    });
    writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&value)?)
        .step(|| super::PRINTING)?;
    Ok(())
}
