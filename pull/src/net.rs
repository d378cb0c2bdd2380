//! Certificates and proxies: what the host says of the way to a registry.

use std::env;
use std::path::Path;
use std::sync::Arc;

use tare::error::{Error, ErrorKind, Result, Step};
use ureq::Proxy;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::args::Args;

/// Where Docker and podman look for a registry's own authorities.
const CERTIFICATES: [&str; 2] = ["/etc/containers/certs.d", "/etc/docker/certs.d"];

/// TLS by rustls, with the system's roots (or SSL_CERT_FILE's and SSL_CERT_DIR's),
/// those that the host keeps for this registry, and the caller's.
///
/// # Errors
/// A file without certificates; no certificate at all.
pub(crate) fn tls(args: &Args, registry: &str) -> Result<TlsConfig> {
    let mut builder = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()));
    if args.insecure {
        return Ok(builder.disable_verification(true).build());
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots: Vec<Certificate<'static>> =
        found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    for dir in CERTIFICATES {
        let dir = Path::new(dir).join(registry);
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|e| e == "crt") {
                roots.extend(certificates(&entry.path())?);
            }
        }
    }
    if let Some(file) = &args.ca_file {
        roots.extend(certificates(file)?);
    }
    // without TLS it takes none, unless a redirect or a token server has it: then
    // nobody is trusted
    if roots.is_empty() && !args.plain_http {
        return Err(Error::new(ErrorKind::NotFound, "no certificate authorities on this host")
            .hint("install ca-certificates, or give --ca-file"));
    }
    builder = builder.root_certs(RootCerts::new_with_certs(&roots));
    Ok(builder.build())
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

/// The proxy for URLs of a scheme, by the environment. The own host is reached
/// without.
///
/// # Errors
/// A variable that holds no proxy's URL.
pub(crate) fn proxy(scheme: &str) -> Result<Option<Proxy>> {
    let own = if scheme == "https" {
        ["HTTPS_PROXY", "https_proxy"]
    } else {
        // a CGI script's HTTP_PROXY is whatever its caller sends as a header
        ["http_proxy", "http_proxy"]
    };
    let names = own.into_iter().chain(["ALL_PROXY", "all_proxy"]);
    let mut set = names.filter_map(|name| Some((name, env::var(name).ok()?)));
    let Some((name, text)) = set.find(|(_, text)| !text.is_empty()) else {
        return Ok(None);
    };
    let wrong = |e: ureq::Error| Error::invalid(format!("{name}: {e}"));
    let parsed = Proxy::new(&text).map_err(wrong)?;
    let mut builder = Proxy::builder(parsed.protocol()).host(parsed.host()).port(parsed.port());
    if let Some(user) = parsed.username() {
        builder = builder.username(user);
    }
    if let Some(password) = parsed.password() {
        builder = builder.password(password);
    }
    for pattern in no_proxy() {
        builder = builder.no_proxy(&pattern);
    }
    builder.build().map(Some).map_err(wrong)
}

/// Hosts to reach without a proxy. A domain means what is below it as well.
fn no_proxy() -> Vec<String> {
    let text = env::var("NO_PROXY").or_else(|_| env::var("no_proxy")).unwrap_or_default();
    let mut all = vec!["localhost".to_owned(), "127.*".to_owned(), "[::1]".to_owned()];
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if !name.starts_with(['*', '.']) {
            all.push(format!(".{name}"));
        }
        all.push(name.to_owned());
    }
    all
}
