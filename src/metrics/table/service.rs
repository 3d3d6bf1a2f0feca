//! Who asks, how the daemon is, and what the process uses.

use std::time::Duration;

use crate::metrics::family::Family;
use crate::metrics::family::Samples;
use crate::metrics::family::Value;
use crate::metrics::family::counter;
use crate::metrics::family::gauge;
use crate::metrics::process;

pub(super) const FAMILIES: &[Family] = &[
    counter(("walcast_auth_accepted", ""), &[], "Tokens that were believed.", |it, out| {
        out.whole(it.auth.accepted.get());
    }),
    counter(
        ("walcast_auth_rejected", ""),
        &["reason"],
        "Tokens that were not, by the reason.",
        |it, out| out.by(it.auth.rejected.get()),
    ),
    counter(
        ("walcast_auth_key_looks", ""),
        &[],
        "Looks at the addresses of `auth.jwks` that brought a set of keys.",
        |it, out| out.whole(it.auth.looks.get()),
    ),
    counter(
        ("walcast_auth_key_look_failures", ""),
        &["reason"],
        "Looks that brought none, by the reason; the keys of before count for a while.",
        |it, out| out.by(it.auth.failed_looks.get()),
    ),
    gauge(
        ("walcast_auth_published_keys", ""),
        &[],
        "Keys that were read from the addresses of `auth.jwks` and count.",
        |it, out| out.whole(it.auth.published_keys.get()),
    ),
    counter(
        ("walcast_console_logins_refused", ""),
        &["reason"],
        "Logins to the console that were refused: `password` (or the name), `late`, `full`.",
        |it, out| out.by(it.logins_refused.get()),
    ),
    counter(
        ("walcast_config_reloads", ""),
        &[],
        "Reloads of the configuration that were carried out.",
        |it, out| out.whole(it.reloads.done.get()),
    ),
    counter(
        ("walcast_config_reloads_refused", ""),
        &[],
        "Reloads that were refused; the configuration before them holds.",
        |it, out| out.whole(it.reloads.refused.get()),
    ),
    gauge(
        ("walcast_ready", ""),
        &[],
        "1 where /readyz answers 200, 0 where it answers 503.",
        |it, out| {
            let conditions = it.health.conditions();
            out.whole(u64::from(!conditions.iter().any(|condition| condition.is_unready)));
        },
    ),
    gauge(
        ("walcast_condition", ""),
        &["code"],
        "1 for each condition that /readyz names, as long as it lasts.",
        |it, out| {
            let mut codes: Vec<_> = it.health.conditions().iter().map(|it| it.code).collect();
            codes.dedup();
            out.by(codes.into_iter().map(|code| (code, 1)));
        },
    ),
    gauge(
        ("walcast_stage_turn_age_seconds", "seconds"),
        &["stage"],
        "How long ago a stage's loop turned. After 10 s it is stalled, and the watchdog is not told that all is well.",
        |it, out| {
            for (stage, since) in it.health.stages() {
                out.labelled([stage.to_string()], Value::Time(since));
            }
        },
    ),
    gauge(("walcast_build_info", ""), &["version"], "1, with the version that runs.", |_, out| {
        out.by([(env!("CARGO_PKG_VERSION"), 1)]);
    }),
    gauge(
        ("process_resident_memory_bytes", "bytes"),
        &[],
        "Memory that the process uses.",
        |_, out| whole(out, process::resident_bytes()),
    ),
    gauge(("process_open_fds", ""), &[], "Files and sockets that are open.", |_, out| {
        whole(out, process::open_files());
    }),
    gauge(("process_max_fds", ""), &[], "How many may be.", |_, out| {
        whole(out, process::open_files_max());
    }),
    gauge(("process_threads", ""), &[], "Threads.", |_, out| whole(out, process::threads())),
    counter(("process_cpu_seconds", "seconds"), &[], "Processor time used.", |_, out| {
        time(out, process::processor_time());
    }),
    gauge(
        ("process_start_time_seconds", "seconds"),
        &[],
        "When the process began, in seconds since 1970.",
        |_, out| time(out, process::began_at()),
    ),
];

fn whole(out: &mut Samples, value: Option<u64>) {
    if let Some(value) = value {
        out.whole(value);
    }
}

fn time(out: &mut Samples, value: Option<Duration>) {
    if let Some(value) = value {
        out.time(value);
    }
}
