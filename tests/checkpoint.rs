//! `checkpoint` and `restore`, by the real CRIU.
//!
//! Most of it needs a CRIU that works with the kernel: those tests are ignored by a
//! plain `cargo test`, and `integration/test` runs them in the guest.
#![allow(
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that is surprised may say so by a panic"
)]
#![allow(unsafe_code, reason = "steps between fork and exec, and received descriptors")]

mod support;

#[path = "checkpoint/flags.rs"]
mod flags;
#[path = "checkpoint/outside.rs"]
mod outside;
#[path = "checkpoint/pages.rs"]
mod pages;
#[path = "checkpoint/processes.rs"]
mod processes;
#[path = "checkpoint/refused.rs"]
mod refused;
#[path = "checkpoint/saving.rs"]
mod saving;
#[path = "checkpoint/scope.rs"]
mod scope;
#[path = "checkpoint/signals.rs"]
mod signals;
#[path = "runtime/traced.rs"]
mod traced;

use std::path::PathBuf;

use serde_json::Value;
use support::{Container, Output, Pipe, args, pipe};

/// A container that counts in its memory, with images next to its bundle.
struct Counter {
    container: Container,
    output: Pipe,
    count: u32,
}

impl std::ops::Deref for Counter {
    type Target = Container;

    fn deref(&self) -> &Container {
        &self.container
    }
}

impl Counter {
    /// It has counted to 2.
    #[track_caller]
    fn new(words: &[&str], edit: impl FnOnce(&mut Value)) -> Self {
        Counter::started(Container::new(|config| {
            args(config, words);
            edit(config);
        }))
    }

    #[track_caller]
    fn started(container: Container) -> Self {
        let output = container.started();
        let mut counter = Counter { container, output, count: 0 };
        counter.counts();
        counter.counts();
        counter
    }

    /// One more.
    #[track_caller]
    fn counts(&mut self) {
        self.count += 1;
        self.kill("USR1").ok();
        self.output.expect(&format!("COUNT {}", self.count));
    }

    fn images(&self) -> PathBuf {
        self.bundle.path().join("images")
    }

    fn checkpoint(&self, flags: &[&str]) -> Output {
        let images = self.images();
        let all = [&["--image-path", images.to_str().unwrap()], flags].concat();
        self.on_id("checkpoint", &all, &[]).run()
    }

    /// The container of `container` restored from these images in the background.
    #[track_caller]
    fn restore(&mut self, flags: &[&str]) {
        let images = self.images();
        let (output, writer) = pipe();
        let all = [&["--detach", "--image-path", images.to_str().unwrap()], flags].concat();
        let restored = self.on_bundle("restore", &all).stdout(writer).run();
        if restored.code != 0 {
            let log = std::fs::read_to_string(images.join("restore.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            println!("criu's log ends so:\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
        restored.ok();
        self.output = output;
    }

    /// Saved, gone, and back again: it counts on.
    #[track_caller]
    fn there_and_back(&mut self, flags: &[&str]) {
        self.checkpoint(flags).ok();
        assert_eq!(self.output.rest(), "");
        self.on_id("state", &[], &[]).run().fails_with(&["does not exist"]);
        self.restore(flags);
        assert_eq!(self.status(), "running");
        self.counts();
    }
}
