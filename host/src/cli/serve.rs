//! `serve`: runs the service in the foreground.

use std::io::{self, Write as _};

use super::Outcome;
use super::arguments::Serve;
use super::context::Context;
use crate::serve::log::Log;
use crate::serve::{Options, run};

pub(super) fn serve(context: &Context, arguments: Serve) -> Outcome {
    let Serve { docker, containerd, containerd_address, admin, .. } = arguments;
    let Serve { deadline, transfer_deadline, stall_timeout: stall, grace, .. } = arguments;
    let log = Log { json: context.log.is_json(), quiet: context.log.is_quiet() };
    let control = context.socket.clone();
    let options = Options {
        docker,
        containerd,
        containerd_address,
        admin,
        control,
        deadline,
        transfer_deadline,
        stall,
        grace,
        log,
    };
    Ok(run(&options, context.settings.clone(), context.shipped, |line| {
        // Whoever closed standard output does not wait for the line.
        let mut out = io::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    })?)
}
