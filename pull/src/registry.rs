//! One repository of a registry, with what opens it.

use std::sync::Mutex;
use std::time::Duration;

use tare::error::{Error, ErrorKind, Result};
use tare::image::digest::Digest;
use tare::image::reference::{DEFAULT_REGISTRY, Reference};
use ureq::http::Uri;

use crate::args::Args;
use crate::auth;
use crate::credentials::{self, Credentials};
use crate::http::{Client, Reply, Request, is_same_place, place};
use crate::retry::{Again, Attempt, Failure, retrying};

/// Kinds of documents that tare can use.
const ACCEPT: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// A repository.
pub(crate) struct Registry {
    client: Client,
    /// `https://HOST/v2/REPOSITORY`
    base: String,
    repository: String,
    credentials: Option<Credentials>,
    /// What opened it last.
    authorization: Mutex<Option<String>>,
}

impl Registry {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// Settings that are wrong or less safe than they look.
    pub(crate) fn new(args: &Args, reference: &Reference) -> Result<Self> {
        let Reference { registry, repository, .. } = reference;
        if args.plain_http && !args.insecure && !is_own_host(reference.host()) {
            return Err(Error::invalid(format!(
                "--plain-http: everybody on the way to {registry} could change what comes \
                 (add --insecure if that is as it should be)"
            )));
        }
        let host = match registry.as_str() {
            DEFAULT_REGISTRY => "registry-1.docker.io",
            other => other,
        };
        let scheme = if args.plain_http { "http" } else { "https" };
        let credentials = credentials::find(args.auth_file.as_deref(), registry, repository)?;
        Ok(Registry {
            client: Client::new(args, host)?,
            base: format!("{scheme}://{host}/v2/{repository}"),
            repository: repository.clone(),
            credentials,
            authorization: Mutex::new(None),
        })
    }

    /// A manifest or an index, with the digest that the registry says it has.
    ///
    /// # Errors
    /// There is none; it is too big; what requests fail with.
    pub(crate) fn document(&self, version: &str, most: u64) -> Result<(Vec<u8>, Option<Digest>)> {
        retrying(|| {
            let headers = vec![("accept", ACCEPT.join(", "))];
            let reply = self.get(&format!("manifests/{version}"), headers, false)?;
            if reply.status != 200 {
                return Err(strange(&reply).into());
            }
            let told = reply.header("docker-content-digest").map(Digest::parse).transpose()?;
            Ok((reply.read(most)?, told))
        })
    }

    /// A small blob, not verified yet.
    ///
    /// # Errors
    /// As [`Registry::document`].
    pub(crate) fn small_blob(&self, digest: &Digest, most: u64) -> Result<Vec<u8>> {
        retrying(|| {
            let reply = self.get(&format!("blobs/{digest}"), Vec::new(), false)?;
            match reply.status {
                200 => reply.read(most),
                _ => Err(strange(&reply).into()),
            }
        })
    }

    /// A layer from a byte on; from its beginning (status 200) if the server wants
    /// that.
    pub(crate) fn layer(&self, digest: &Digest, offset: u64) -> Attempt<Reply> {
        let mut headers = Vec::new();
        if offset > 0 {
            headers.push(("range", format!("bytes={offset}-")));
        }
        let reply = self.get(&format!("blobs/{digest}"), headers, true)?;
        match (reply.status, offset) {
            (200, _) | (206 | 416, 1..) => Ok(reply),
            _ => Err(strange(&reply).into()),
        }
    }

    /// Asks, and once more with credentials if they are asked for.
    fn get(&self, path: &str, headers: Vec<(&'static str, String)>, layer: bool) -> Attempt<Reply> {
        let url: Uri =
            format!("{}/{path}", self.base).parse().map_err(|e| Error::invalid(format!("{e}")))?;
        let mut request = Request { headers, authorization: self.opens(), form: None, layer };
        let mut reply = self.client.send(&url, &request)?;
        // whoever else asks for credentials does not get the registry's
        if reply.status == 401 && is_same_place(&reply.url, &url) {
            let credentials = self.credentials.as_ref();
            let value =
                auth::answer(&self.client, &url, &reply.headers, &self.repository, credentials)?;
            request.authorization = Some(value.clone());
            if let Ok(mut opens) = self.authorization.lock() {
                *opens = Some(value);
            }
            reply = self.client.send(&url, &request)?;
        }
        let reply = check_busy(reply)?;
        match reply.status {
            401 | 403 if is_same_place(&reply.url, &url) => Err(self.denied(reply).into()),
            401 | 403 => {
                let place = place(&reply.url);
                let text = format!("{place}, where the registry redirects to, denies access");
                Err(said(Error::new(ErrorKind::State, text), reply).into())
            }
            404 => {
                Err(said(Error::new(ErrorKind::NotFound, "it is not in the registry"), reply)
                    .into())
            }
            _ => Ok(reply),
        }
    }

    fn opens(&self) -> Option<String> {
        self.authorization.lock().ok()?.clone()
    }

    fn denied(&self, reply: Reply) -> Error {
        let e = said(Error::new(ErrorKind::State, "the registry denies access"), reply);
        match self.credentials {
            Some(_) => e.hint("do the credentials allow it, and does it exist?"),
            None => {
                e.hint("does it exist? If so, it takes a login: podman, skopeo or docker login")
            }
        }
    }
}

/// An answer, unless it means: later.
pub(crate) fn check_busy(reply: Reply) -> Attempt<Reply> {
    if reply.status != 429 && reply.status < 500 {
        return Ok(reply);
    }
    // the other form of it, a date, counts as none
    let seconds = reply.header("retry-after").and_then(|text| text.parse().ok());
    let e = Error::new(ErrorKind::System, format!("the server answers {}", reply.status));
    Err(Failure { error: said(e, reply), again: Again::After(seconds.map(Duration::from_secs)) })
}

fn said(e: Error, reply: Reply) -> Error {
    match reply.words() {
        Some(words) => Error::new(e.kind(), format!("{e}: {words}")),
        None => e,
    }
}

fn strange(reply: &Reply) -> Error {
    Error::new(ErrorKind::System, format!("the server answers {}, which is strange", reply.status))
}

fn is_own_host(host: &str) -> bool {
    let address = host.parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}
