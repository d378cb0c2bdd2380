//! What `-v` says: a directory of the host or a volume, and where it goes.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A bind mount of the host's files into a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// Where on the host, absolute.
    pub source: PathBuf,
    /// Where in the container, absolute.
    pub destination: PathBuf,
    /// As in config.json.
    pub options: Vec<String>,
}

/// What is to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file or directory of the host, absolute.
    Path(PathBuf),
    /// A volume, by its name.
    Volume(String),
    /// A fresh volume that goes with the container.
    Anonymous,
}

/// The words of one `-v`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeWords {
    /// What.
    pub source: Source,
    /// Where in the container, absolute.
    pub destination: PathBuf,
    /// As in config.json.
    pub options: Vec<String>,
    /// What the image has there stays out of an empty volume (nocopy).
    pub stays_empty: bool,
}

impl VolumeWords {
    /// Parses `SRC:DST[:OPTS]`, or `DST` alone for a volume without a name. SRC is a
    /// path if it begins with `/` or `.`, else the name of a volume.
    ///
    /// # Errors
    /// Invalid for another form.
    pub fn parse(text: &str) -> Result<Self> {
        VolumeWords::parts(text).map_err(|e| e.step(format!("volume {text:?}")))
    }

    fn parts(text: &str) -> Result<Self> {
        let mut parts = text.splitn(3, ':');
        let first = parts.next().unwrap_or_default();
        let (source, destination) = match parts.next() {
            Some(destination) => (self::source(first)?, destination),
            None => (Source::Anonymous, first),
        };
        let destination = PathBuf::from(destination);
        if !destination.is_absolute() {
            let form = "not of the form SRC:DST[:OPTS] or DST, with an absolute DST";
            return Err(Error::invalid(form));
        }
        let options = parts.next().unwrap_or_default().split(',').filter(|o| !o.is_empty());
        let mut options: Vec<String> = options.map(str::to_owned).collect();
        let before = options.len();
        options.retain(|option| option != "nocopy");
        let stays_empty = options.len() != before;
        if stays_empty && matches!(source, Source::Path(_)) {
            return Err(Error::invalid("nocopy is for volumes: a path is as it is"));
        }
        Ok(VolumeWords { source, destination, options, stays_empty })
    }

    /// The mount, once it is known where the source is.
    pub fn bind(&self, source: &Path) -> Bind {
        let mut options = self.options.clone();
        if !matches!(self.source, Source::Path(_)) {
            // no container brings the host set-id programs or devices
            for (option, opposite) in [("nosuid", "suid"), ("nodev", "dev")] {
                if !options.iter().any(|o| o == option || o == opposite) {
                    options.push(option.to_owned());
                }
            }
        }
        Bind { source: source.to_owned(), destination: self.destination.clone(), options }
    }
}

fn source(text: &str) -> Result<Source> {
    if text.is_empty() {
        return Err(Error::invalid("it names no source"));
    }
    if text.starts_with(['/', '.']) {
        return Ok(Source::Path(std::path::absolute(text)?));
    }
    check_volume_name(text)?;
    Ok(Source::Volume(text.to_owned()))
}

/// The longest name of a volume, in bytes.
const LONGEST: usize = 128;

/// Checks the name of a volume, which becomes a file's name.
///
/// # Errors
/// Invalid for another form.
pub fn check_volume_name(name: &str) -> Result<()> {
    let known = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let starts = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if starts && name.len() <= LONGEST && name.bytes().all(known) {
        return Ok(());
    }
    if name.len() > LONGEST {
        let text = format!("a volume's name may have {LONGEST} bytes, and this has {}", name.len());
        return Err(Error::invalid(text));
    }
    Err(Error::invalid(format!(
        "{name:?} is no volume's name: letters, digits and _ . - after a letter or digit"
    ))
    .hint("a directory begins with / or ./"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_names_and_options() {
        let words = VolumeWords::parse("data:/var/lib:ro,nocopy").unwrap();
        assert_eq!(words.source, Source::Volume("data".into()));
        assert!(words.stays_empty);
        let bind = words.bind(Path::new("/x"));
        assert_eq!(bind.options, ["ro", "nosuid", "nodev"]);
        let words = VolumeWords::parse("/srv/a:/b:suid").unwrap();
        assert_eq!(words.bind(Path::new("/srv/a")).options, ["suid"]);
        assert!(matches!(VolumeWords::parse("./a:/b").unwrap().source, Source::Path(_)));
        assert_eq!(VolumeWords::parse("/data").unwrap().source, Source::Anonymous);
        for bad in ["", "data", ":/b", "a/b:/c", "a:b", "-a:/b", "..a/:b", "/a:/b:nocopy", "a\n:/b"]
        {
            assert!(VolumeWords::parse(bad).is_err(), "{bad:?}");
        }
    }
}
