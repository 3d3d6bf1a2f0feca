//! What an operator may do. Who did what is in the log.

use crate::catalog::audit::Finding;
use crate::catalog::audit::Severity;
use crate::console::Console;
use crate::console::answer::Answer;
use crate::console::answer::Refused;
use crate::console::answer::Table;
use crate::console::login::Login;
use crate::console::parse::Order;
use crate::control::Reloaded;

/// Carries an order out.
pub(super) async fn carry_out(
    console: &Console,
    order: &Order,
    login: &Login,
) -> Result<Answer, Refused> {
    let view = &console.view;
    if *order != Order::Check {
        tracing::info!(user = login.user, order = name(order), "ordered by the console");
    }
    let done = |tag| Ok(Answer::Done { tag, notice: None });
    match order {
        Order::Check => {
            let mut findings = (view.check)().await;
            findings.sort_by_key(|finding| finding.severity);
            let nothing = "nothing is wrong".to_owned();
            let notice = findings.is_empty().then_some(nothing);
            let rows = findings.into_iter().map(found).collect();
            Ok(Answer::Rows(Table::of(rows).with_notice(notice)))
        }
        Order::Kill(id) => {
            if view.inspector.kill(*id).await? {
                return done("KILL");
            }
            let refused = Refused::new("42704", format!("there is no session {id}"));
            Err(refused.hint("SHOW CLIENTS lists them."))
        }
        Order::KillUser(subject) => {
            let killed = view.inspector.kill_subject(subject).await?;
            let notice = Some(format!("{killed} sessions were ended"));
            Ok(Answer::Done { tag: "KILL", notice })
        }
        Order::Pause => view.control.pause().await.map_err(Refused::from).and(done("PAUSE")),
        Order::Resume => view.control.resume().await.map_err(Refused::from).and(done("RESUME")),
        Order::Reload => view.control.reload().await.map(reloaded).map_err(Refused::from),
        Order::Drain => view.control.drain().await.map_err(Refused::from).and(done("DRAIN")),
        Order::Shutdown => {
            view.control.shutdown().await.map_err(Refused::from).and(done("SHUTDOWN"))
        }
    }
}

/// For the log: without the subject.
const fn name(order: &Order) -> &'static str {
    match order {
        Order::Check => "check",
        Order::Kill(_) => "kill",
        Order::KillUser(_) => "kill user",
        Order::Pause => "pause",
        Order::Resume => "resume",
        Order::Reload => "reload",
        Order::Drain => "drain",
        Order::Shutdown => "shutdown",
    }
}

fn found(finding: Finding) -> Vec<crate::console::answer::Value> {
    let severity = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Notice => "notice",
    };
    vec![
        severity.into(),
        finding.code.into(),
        finding.subject.into(),
        finding.message.into(),
        finding.mend.into(),
    ]
}

fn reloaded(reloaded: Reloaded) -> Answer {
    let row = |change: crate::control::Change| {
        vec![change.name.into(), change.old.into(), change.new.into(), change.applied.into()]
    };
    let notice = match &*reloaded.warnings {
        [] if reloaded.changes.is_empty() => Some("nothing is different".to_owned()),
        [] => None,
        warnings => Some(warnings.join("\n")),
    };
    let rows = reloaded.changes.into_iter().map(row).collect();
    Answer::Rows(Table::of(rows).with_notice(notice))
}
