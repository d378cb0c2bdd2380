//! One request: redirects, bounds, and errors in plain words.

use std::io::Read;
use std::time::{Duration, Instant};

use tare::error::{Error, ErrorKind, Result};
use ureq::http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION};
use ureq::http::uri::{Authority, Scheme};
use ureq::http::{HeaderMap, Uri};
use ureq::tls::TlsConfig;
use ureq::{Agent, Proxy};

use crate::args::Args;
use crate::net;
use crate::proxy::{self, Direct};
use crate::retry::{Attempt, Failure};

/// Redirects that are followed.
const REDIRECTS: usize = 10;
const CONNECT: Duration = Duration::from_secs(20);
/// How long a server may be silent.
const SILENCE: Duration = Duration::from_secs(60);
/// Within this time …
const WINDOW: Duration = Duration::from_secs(60);
/// … so many bytes have to come, or the connection counts as broken.
const SLOWEST: u64 = 60 << 10;
/// How long a body may take in all, if it is no layer.
const DOCUMENT: Duration = Duration::from_secs(600);
const BUFFER: usize = 16 << 10;
/// Bytes of an error's text that are looked at.
const ERROR_BODY: u64 = 64 << 10;

/// Makes requests to one registry and to whom it redirects.
pub(crate) struct Client {
    plain: Option<Way>,
    secure: Way,
    /// To the registry itself, by its host and port.
    registry: (String, Way),
    direct: Direct,
}

/// How to get to a server.
struct Way {
    direct: Agent,
    /// If there is a proxy.
    proxied: Option<Agent>,
}

impl Way {
    fn new(scheme: &str, tls: &TlsConfig) -> Result<Self> {
        let agent = |proxy: Option<Proxy>| {
            let config = Agent::config_builder()
                .tls_config(tls.clone())
                .proxy(proxy)
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .timeout_connect(Some(CONNECT))
                .timeout_recv_response(Some(SILENCE))
                .timeout_recv_body(Some(DOCUMENT))
                .timeout_per_read(Some(SILENCE))
                .timeout_per_write(Some(SILENCE))
                .user_agent(concat!("tare/", env!("CARGO_PKG_VERSION")));
            Agent::from(config.build())
        };
        let proxied = proxy::proxy(scheme)?.map(|proxy| agent(Some(proxy)));
        Ok(Way { direct: agent(None), proxied })
    }
}

/// What to ask for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    /// Without Authorization.
    pub(crate) headers: Vec<(&'static str, String)>,
    /// Goes to the first host only.
    pub(crate) authorization: Option<String>,
    /// If there is one it is a POST.
    pub(crate) form: Option<String>,
    /// A layer comes, which may take its time.
    pub(crate) layer: bool,
}

/// Sees to it that a body comes no slower than is bearable: a server that sends a
/// byte now and then is never silent.
#[derive(Debug)]
pub(crate) struct Pace {
    window: Duration,
    since: Instant,
    came: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { window: WINDOW, since: Instant::now(), came: 0 }
    }
}

impl Pace {
    /// So many bytes more have come.
    pub(crate) fn check(&mut self, came: u64) -> Attempt<()> {
        self.came = self.came.saturating_add(came);
        if self.since.elapsed() > self.window {
            if self.came < SLOWEST {
                let e = Error::new(ErrorKind::System, "next to nothing comes any more");
                return Err(Failure::passing(e));
            }
            (self.since, self.came) = (Instant::now(), 0);
        }
        Ok(())
    }
}

/// A server's answer; its body has yet to come.
pub(crate) struct Reply {
    /// Where it came from, after all redirects.
    pub(crate) url: Uri,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Box<dyn Read>,
}

impl Reply {
    /// A header's value as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The whole body, if it is no longer than `most`.
    pub(crate) fn read(self, most: u64) -> Attempt<Vec<u8>> {
        self.read_at(most, Pace::default())
    }

    fn read_at(self, most: u64, mut pace: Pace) -> Attempt<Vec<u8>> {
        let mut all = Vec::new();
        let told = self.header("content-length").and_then(|n| n.parse::<u64>().ok());
        let long = || Error::invalid(format!("longer than the {most} bytes allowed"));
        if told.is_some_and(|n| n > most) {
            return Err(long().into());
        }
        let mut body = self.body;
        let mut buffer = vec![0; BUFFER];
        loop {
            let n = match body.read(&mut buffer) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                other => other.map_err(|e| Failure::passing(e.into()))?,
            };
            let Some(piece) = buffer.get(..n).filter(|piece| !piece.is_empty()) else {
                return Ok(all);
            };
            if (all.len() + n) as u64 > most {
                return Err(long().into());
            }
            all.extend_from_slice(piece);
            pace.check(n as u64)?;
        }
    }

    /// What the body of an error says (distribution-spec, "Error Codes"), short.
    pub(crate) fn words(self) -> Option<String> {
        let body = self.read(ERROR_BODY).ok()?;
        let value: serde_json::Value = serde_json::from_slice(&body).ok()?;
        let first = value.get("errors")?.get(0)?;
        let text = ["message", "code"].into_iter().find_map(|key| first.get(key)?.as_str())?;
        Some(text.chars().take(200).collect())
    }
}

impl Client {
    /// A client with the host's certificates and proxies.
    ///
    /// # Errors
    /// Settings that are wrong.
    pub(crate) fn new(args: &Args, registry: &str) -> Result<Self> {
        let tls = net::tls(args, registry)?;
        Ok(Client {
            plain: args.plain_http.then(|| Way::new("http", &tls.others)).transpose()?,
            secure: Way::new("https", &tls.others)?,
            registry: (registry.to_owned(), Way::new("https", &tls.registry)?),
            direct: Direct::of_environment(),
        })
    }

    /// Asks, and follows redirects.
    pub(crate) fn send(&self, url: &Uri, request: &Request) -> Attempt<Reply> {
        let mut url = url.clone();
        let mut request = request.clone();
        for _ in 0..=REDIRECTS {
            let reply = self.once(&url, &request)?;
            if !matches!(reply.status, 301 | 302 | 303 | 307 | 308) {
                return Ok(reply);
            }
            let target = reply.header(LOCATION.as_str()).unwrap_or_default();
            let next = resolve(&url, target)?;
            if !is_same_place(&next, &url) {
                // it was meant for the registry and for nobody else
                request.authorization = None;
            }
            if request.form.is_some() {
                return Err(Error::invalid("it redirects credentials elsewhere").into());
            }
            url = next;
        }
        Err(Error::invalid(format!("more than {REDIRECTS} redirects")).into())
    }

    fn agent(&self, url: &Uri) -> Result<&Agent> {
        let way = match url.scheme_str() {
            Some("https") if place(url) == self.registry.0 => &self.registry.1,
            Some("https") => &self.secure,
            Some("http") => self.plain.as_ref().ok_or_else(|| {
                Error::invalid(format!("{} is without TLS", place(url)))
                    .hint("--plain-http if that is as it should be")
            })?,
            _ => return Err(Error::invalid(format!("{:?} is no http or https URL", place(url)))),
        };
        Ok(match &way.proxied {
            Some(proxied) if !self.direct.has(url) => proxied,
            _ => &way.direct,
        })
    }

    fn once(&self, url: &Uri, request: &Request) -> Attempt<Reply> {
        let agent = self.agent(url)?;
        let done = match &request.form {
            Some(form) => {
                let post =
                    agent.post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
                post.send(form.as_str())
            }
            None => {
                let mut get = agent.get(url);
                if request.layer {
                    get = get.config().timeout_recv_body(None).build();
                }
                for (name, value) in &request.headers {
                    get = get.header(*name, value);
                }
                if let Some(value) = &request.authorization {
                    get = get.header(AUTHORIZATION, value);
                }
                get.call()
            }
        };
        let response = done.map_err(|e| failure(e).step(&place(url)))?;
        let (parts, body) = response.into_parts();
        let body = Box::new(body.into_reader());
        let status = parts.status.as_u16();
        Ok(Reply { url: url.clone(), status, headers: parts.headers, body })
    }
}

/// Host and port: queries may hold secrets, and are long.
pub(crate) fn place(url: &Uri) -> String {
    url.authority().map(Authority::to_string).unwrap_or_default()
}

/// Whether what is meant for the one may go to the other.
pub(crate) fn is_same_place(one: &Uri, other: &Uri) -> bool {
    (one.scheme(), one.authority()) == (other.scheme(), other.authority())
}

/// Where a Location leads from here (RFC 3986, 5.2, without dot segments).
fn resolve(from: &Uri, target: &str) -> Result<Uri> {
    let wrong = || Error::invalid(format!("it redirects to {target:.200?}, which is no URL"));
    let scheme = from.scheme_str().unwrap_or("https");
    let text = match target {
        "" => return Err(Error::invalid("it redirects to nowhere")),
        full if full.contains("://") => full.to_owned(),
        other if other.starts_with("//") => format!("{scheme}:{other}"),
        path if path.starts_with('/') => format!("{scheme}://{}{path}", place(from)),
        path => {
            let dir = from.path().rsplit_once('/').map_or("", |(dir, _)| dir);
            format!("{scheme}://{}{dir}/{path}", place(from))
        }
    };
    let text = text.split('#').next().unwrap_or_default();
    let next: Uri = text.parse().map_err(|_not_a_url| wrong())?;
    if next.host().is_none_or(str::is_empty) {
        return Err(wrong());
    }
    if from.scheme() == Some(&Scheme::HTTPS) && next.scheme() != Some(&Scheme::HTTPS) {
        return Err(Error::invalid("it redirects to a place without TLS"));
    }
    Ok(next)
}

/// What of ureq's errors may pass by itself, in plain words.
fn failure(e: ureq::Error) -> Failure {
    use std::io::ErrorKind as Io;
    match e {
        ureq::Error::Io(e) => match e.kind() {
            Io::ConnectionRefused | Io::PermissionDenied => Error::from(e).into(),
            _ if e.to_string().contains("lookup address") => no_such_host(),
            // rustls' errors come as InvalidData: a certificate stays wrong
            Io::InvalidData | Io::InvalidInput => certificate(&e.to_string()).into(),
            _ => Failure::passing(e.into()),
        },
        ureq::Error::Rustls(e) => certificate(&e.to_string()).into(),
        ureq::Error::HostNotFound => no_such_host(),
        ureq::Error::Timeout(_) => {
            Failure::passing(Error::new(ErrorKind::System, "it does not answer in time"))
        }
        ureq::Error::ConnectionFailed => {
            Error::new(ErrorKind::System, "the connection failed").into()
        }
        other => Error::new(ErrorKind::System, other.to_string()).into(),
    }
}

fn no_such_host() -> Failure {
    Error::new(ErrorKind::NotFound, "no such host").into()
}

fn certificate(text: &str) -> Error {
    let e = Error::new(ErrorKind::System, format!("TLS: {text}"));
    if text.contains("UnknownIssuer") {
        return e.hint("--ca-file names a file with its authority");
    }
    if text.contains("InvalidContentType") || text.contains("corrupt message") {
        return e.hint("a registry without TLS takes --plain-http");
    }
    e
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_that_drips_is_given_up() {
        struct Drips(u32);
        impl Read for Drips {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                std::thread::sleep(Duration::from_millis(20));
                self.0 += 1;
                assert!(self.0 < 100, "it goes on for ever");
                buffer[0] = b' ';
                Ok(1)
            }
        }
        let (url, headers) = (Uri::from_static("http://r.io/"), HeaderMap::new());
        let reply = Reply { url, status: 200, headers, body: Box::new(Drips(0)) };
        let pace = Pace { window: Duration::from_millis(100), ..Pace::default() };
        let failure = reply.read_at(1 << 20, pace).unwrap_err();
        assert!(failure.error.to_string().contains("next to nothing"));
        let mut pace = Pace { window: Duration::ZERO, ..Pace::default() };
        std::thread::sleep(Duration::from_millis(1));
        assert!(pace.check(SLOWEST).is_ok());
    }

    #[test]
    fn locations() {
        let at = |from: &str, to: &str| resolve(&from.parse().unwrap(), to).map(|u| u.to_string());
        let from = "https://r.io/v2/a/blobs/x?y";
        assert_eq!(at(from, "https://c.io/z?q#f").unwrap(), "https://c.io/z?q");
        assert_eq!(at(from, "//c.io/z").unwrap(), "https://c.io/z");
        assert_eq!(at(from, "/z").unwrap(), "https://r.io/z");
        assert_eq!(at(from, "z").unwrap(), "https://r.io/v2/a/blobs/z");
        for bad in ["", "http://c.io/z", "https://", "ftp://c.io/x", "https://a b/"] {
            assert!(at(from, bad).is_err(), "{bad}");
        }
        assert!(at("http://r.io/", "https://c.io/").is_ok());
    }
}
