//! The words of `doctor`.

use clap::Args;

/// `doctor`.
#[derive(Debug, Args)]
#[command(
    after_help = "Nothing is changed, and nothing stays behind. Exit code: 0 if containers can be \
                  created here by this user, else 1.\n\
                  ok: there. fallback: not there, tare does without. missing: not there, something \
                  is lost. info: tare does nothing with it."
)]
pub struct DoctorArgs {
    /// Print JSON: {groups: [{id, title, checks: [{id, title, status, detail, hint,
    /// required}]}], summary: {usable, text, blocked_by, missing_limits}}
    #[arg(long)]
    pub json: bool,
}
