//! Certificates: whom the host trusts, and who it is to a registry.

use std::env;
use std::fs::DirEntry;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tare::error::{Error, ErrorKind, Result, Step};
use tare::logging::warn;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use crate::args::Args;

/// Where Docker and podman look for what the host keeps for a registry: `*.crt` are
/// authorities, `NAME.cert` with `NAME.key` is who the host is (containers-certs.d(5)).
const CERTIFICATES: [&str; 2] = ["/etc/containers/certs.d", "/etc/docker/certs.d"];

/// How to speak TLS.
pub(crate) struct Tls {
    /// With the registry itself.
    pub(crate) registry: TlsConfig,
    /// With whoever it leads to, who is not told who the host is.
    pub(crate) others: TlsConfig,
}

/// TLS by rustls, with the system's roots (or SSL_CERT_FILE's and SSL_CERT_DIR's),
/// those that the host or the user keeps for this registry, and the caller's.
///
/// # Errors
/// A file without certificates, or without the key that belongs to it; no certificate
/// at all.
pub(crate) fn tls(args: &Args, registry: &str) -> Result<Tls> {
    let (roots, own) = kept_for(registry)?;
    let roots = match args.insecure {
        true => None,
        false => Some(RootCerts::new_with_certs(&trusted(args, roots)?)),
    };
    let config = |client: Option<ClientCert>| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = TlsConfig::builder().unversioned_rustls_crypto_provider(provider);
        let builder = match &roots {
            Some(roots) => builder.root_certs(roots.clone()),
            None => builder.disable_verification(true),
        };
        builder.client_cert(client).build()
    };
    Ok(Tls { registry: config(own), others: config(None) })
}

/// All authorities: those that are `kept` for the registry, the host's and the caller's.
fn trusted(args: &Args, kept: Vec<Certificate<'static>>) -> Result<Vec<Certificate<'static>>> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = kept;
    roots.extend(found.certs.iter().map(|der| Certificate::from_der(der).to_owned()));
    if let Some(file) = &args.ca_file {
        roots.extend(certificates(file)?);
    }
    // without TLS it takes none, unless a redirect or a token server has it: then
    // nobody is trusted
    if roots.is_empty() && !args.plain_http {
        return Err(Error::new(ErrorKind::NotFound, "no certificate authorities on this host")
            .hint("install ca-certificates, or give --ca-file"));
    }
    Ok(roots)
}

/// The authorities that are kept for a registry, and who the host is to it.
fn kept_for(registry: &str) -> Result<(Vec<Certificate<'static>>, Option<ClientCert>)> {
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
    let config = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let users = config.filter(|path| path.is_absolute()).or(home);
    let users = users.map(|dir| dir.join("containers/certs.d"));
    let (mut roots, mut own) = (Vec::new(), None);
    for dir in users.into_iter().chain(CERTIFICATES.map(PathBuf::from)) {
        for file in files(&dir.join(registry)) {
            match file.extension().and_then(|e| e.to_str()) {
                Some("crt") => roots.extend(certificates(&file)?),
                Some("cert") if own.is_none() => own = client(&file)?,
                _ => {}
            }
        }
    }
    Ok((roots, own))
}

/// What is in a directory, by name. One that is there and can't be read is as good as
/// empty: it may not be meant for this user.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut files: Vec<_> = match entries {
        Ok(entries) => entries.iter().map(DirEntry::path).collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(e) => {
            warn(&format!("certificates in {}: {}", dir.display(), Error::from(e)));
            Vec::new()
        }
    };
    files.sort();
    files
}

/// A certificate with its key, which lies beside it. `None` if the key is not for this
/// user: the registry may do without.
fn client(file: &Path) -> Result<Option<ClientCert>> {
    let key = file.with_extension("key");
    let step = || format!("key in {}", key.display());
    let bytes = match std::fs::read(&key) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            warn(&format!("{}: {}: no certificate is sent", step(), Error::from(e)));
            return Ok(None);
        }
        other => other.step(step)?,
    };
    let chain = certificates(file)?;
    let key =
        PrivateKey::from_pem(&bytes).map_err(|e| Error::invalid(e.to_string()).step(step()))?;
    Ok(Some(ClientCert::new_with_certs(&chain, key)))
}

fn certificates(file: &Path) -> Result<Vec<Certificate<'static>>> {
    let step = || format!("certificates in {}", file.display());
    let bytes = std::fs::read(file).step(step)?;
    let mut all = Vec::new();
    for item in parse_pem(&bytes) {
        match item {
            Ok(PemItem::Certificate(one)) => all.push(one),
            Ok(_) => {}
            Err(e) => return Err(Error::invalid(e.to_string()).step(step())),
        }
    }
    match all.is_empty() {
        true => Err(Error::invalid("there is none (PEM is expected)").step(step())),
        false => Ok(all),
    }
}
