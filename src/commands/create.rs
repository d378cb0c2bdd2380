//! `tare create`.

use crate::cli::{CreateArgs, GlobalArgs};
use crate::container::{self, Activation, Console, ContainerId, NotifySocket};
use crate::error::Result;
use crate::sandbox::Options;
use crate::{spec, trace};

pub(super) fn run(global: &GlobalArgs, args: &CreateArgs) -> anyhow::Result<()> {
    let id = ContainerId::parse(&args.id)?;
    trace::step("protect the binary", crate::sys::exe::protect)?;
    let bundle = bundle(args)?;
    let spec = spec::load(&bundle)?;
    let created = container::create(container::CreateArgs {
        id: &id,
        bundle: &bundle,
        spec: &spec,
        store: &super::store(global)?,
        console: console(args),
        options: options(args),
        pid_file: args.pid_file.as_deref(),
        pidfd_socket: args.pidfd_socket.as_deref(),
        rootfs: None,
        reserved: None,
        activation: Activation::from_env()?,
        notify: NotifySocket::from_env()?,
        rootless: super::rootless(global)?,
        systemd_cgroup: super::by_systemd(global),
        meanwhile: None,
        starts_later: true,
        stays: false,
    })?;
    Ok(created.release()?)
}

pub(super) fn bundle(args: &CreateArgs) -> Result<std::path::PathBuf> {
    super::absolute(args.bundle.as_deref().unwrap_or(std::path::Path::new(".")))
}

pub(super) fn console(args: &CreateArgs) -> Console {
    match &args.console_socket {
        Some(path) => Console::Socket(path.clone()),
        None => Console::None,
    }
}

pub(super) fn options(args: &CreateArgs) -> Options {
    Options {
        listen_fds: 0,
        preserve_fds: args.preserve_fds,
        no_pivot: args.no_pivot,
        no_new_keyring: args.no_new_keyring,
        init: false,
    }
}
