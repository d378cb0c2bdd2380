//! A registry in a few lines, whose answers a test may replace.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::layout::{HOST, INDEX, Layer, Layout, MANIFEST, Scene, dir, file, layer, sha256};
use crate::support::pull_program;

/// A request, headers in lower case.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Request {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// An answer; nothing keeps it from being nonsense.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Only so many bytes of the body come, then the connection ends.
    pub cut: Option<usize>,
    /// The body comes again and again, without a length.
    pub endless: bool,
}

pub fn reply(status: u16, body: impl Into<Vec<u8>>) -> Reply {
    Reply { status, body: body.into(), ..Reply::default() }
}

impl Reply {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn send(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.endless && !self.headers.iter().any(|(name, _)| name == "Content-Length") {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        loop {
            stream.write_all(&self.body[..self.cut.unwrap_or(self.body.len())])?;
            if !self.endless {
                return stream.flush();
            }
        }
    }
}

type Handler = Box<dyn Fn(&Request) -> Option<Reply> + Send + Sync>;

/// Serves on a port of its own as long as the test's process lives.
pub struct Server {
    pub address: SocketAddr,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// What the handler has no answer to is looked for among the blobs of a layout.
    pub fn new(blobs: &Path, handler: Handler) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (seen, blobs) = (log.clone(), blobs.to_owned());
        let handler = Arc::new(handler);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, blobs, handler) = (seen.clone(), blobs.clone(), handler.clone());
                std::thread::spawn(move || serve(stream, &seen, &blobs, handler.as_ref()));
            }
        });
        Server { address, log }
    }

    /// The requests so far whose path holds this.
    pub fn requests(&self, part: &str) -> Vec<Request> {
        let log = self.log.lock().unwrap();
        log.iter().filter(|request| request.path.contains(part)).cloned().collect()
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<Request>>, blobs: &Path, handler: &Handler) {
    let Some(request) = read(&stream) else { return };
    log.lock().unwrap().push(request.clone());
    let reply = handler(&request).unwrap_or_else(|| stored(&request, blobs));
    // whoever has enough hangs up
    reply.send(&mut stream).unwrap_or_default();
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path, headers, body: String::from_utf8(body).ok()? })
}

/// A document or blob by its digest, with ranges.
pub fn stored(request: &Request, blobs: &Path) -> Reply {
    let Some((_, hex)) = request.path.split_once("/sha256:") else {
        return reply(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown"}]}"#);
    };
    let Ok(data) = std::fs::read(blobs.join("blobs/sha256").join(hex)) else {
        return reply(404, "");
    };
    let range = request.header("range").strip_prefix("bytes=").unwrap_or_default();
    match range.trim_end_matches('-').parse::<usize>() {
        Ok(from) => {
            let whole = data.len();
            let range = format!("bytes {from}-{}/{whole}", whole - 1);
            reply(206, &data[from..]).header("Content-Range", &range)
        }
        Err(_) => reply(200, data),
    }
}

/// An image of two layers in a registry's place, and a store to pull it into.
pub struct Shop {
    pub scene: Scene,
    /// The manifest's descriptor.
    pub manifest: Value,
    pub layers: Vec<Layer>,
}

impl Shop {
    pub fn new() -> Self {
        pull_program();
        let scene = Scene::new();
        // does not shrink, so that it takes more than one read
        let mut noise = file("noise", "");
        noise.data = (0..3_000_000u64).map(|n| (n.wrapping_mul(0x9E37_79B9) >> 13) as u8).collect();
        let layers = vec![layer(&[dir("./"), file("etc", "one")], "gzip"), layer(&[noise], "none")];
        let layout = Layout::new(&scene.path("remote"));
        let manifest = layout.image(&layers, HOST, json!({"Cmd": ["/x"]}));
        Shop { scene, manifest, layers }
    }

    pub fn digest(&self, layer: usize) -> String {
        sha256(&self.layers[layer].blob)
    }

    /// An index with the image for this platform, and one that is for another.
    pub fn index(&self) -> Vec<u8> {
        let (os, arch) = HOST.split_once('/').unwrap();
        let mut ours = self.manifest.clone();
        ours["platform"] = json!({"os": os, "architecture": arch});
        let mut other = self.manifest.clone();
        other["platform"] = json!({"os": "plan9", "architecture": arch});
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [other, ours]});
        serde_json::to_vec(&index).unwrap()
    }

    /// Serves the image as `box:v1`; the handler comes first.
    pub fn serve(
        &self,
        handler: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static,
    ) -> Server {
        let index = self.index();
        let all = move |request: &Request| {
            let named = request.path == "/v2/box/manifests/v1";
            handler(request)
                .or_else(|| named.then(|| reply(200, index.clone()).header("Content-Type", INDEX)))
        };
        Server::new(&self.scene.path("remote"), Box::new(all))
    }

    /// Pulls `box:v1`, or fails with one line.
    pub fn pull(&self, server: &Server, options: &[&str]) -> Result<String, String> {
        self.pull_name(&format!("{}/box:v1", server.address), options)
    }

    pub fn pull_name(&self, name: &str, options: &[&str]) -> Result<String, String> {
        let mut command = self.scene.command(&["image", "pull", "--plain-http", name]);
        command.args(options).env("HOME", self.scene.path("home"));
        for variable in ["XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG"] {
            command.env_remove(variable);
        }
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (out, err) = (text(output.stdout), text(output.stderr));
        if output.status.success() {
            return Ok(out);
        }
        assert_eq!(output.status.code(), Some(1), "{err}");
        assert_eq!(err.trim_end().lines().count(), 1, "{err}");
        Err(err)
    }

    #[track_caller]
    pub fn assert_pulled(&self) {
        let there = std::fs::read(self.scene.layer_dir(&self.layers[1]).join("noise")).unwrap();
        assert_eq!(there.len(), 3_000_000);
        let left = std::fs::read_dir(self.scene.path("store/downloads")).unwrap().count();
        assert_eq!(left, 0, "downloads are left");
    }
}

/// Counts, for answers that change.
#[derive(Clone, Default)]
pub struct Count(Arc<Mutex<usize>>);

impl Count {
    /// How often it was asked before.
    pub fn next(&self) -> usize {
        let mut count = self.0.lock().unwrap();
        *count += 1;
        *count - 1
    }
}

pub const MANIFEST_TYPE: &str = MANIFEST;
