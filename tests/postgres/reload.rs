//! Orders to a running daemon, and its configuration read again.

use std::fs;

use walcast::control::ControlError;
use walcast::control::State;

use crate::deployment::Deployment;
use crate::deployment::Plan;

/// A daemon that serves `notes`.
async fn notes() -> Deployment {
    let schema = "CREATE TABLE notes (id int PRIMARY KEY, body text)";
    let tables = "[[table]]\nname = 'public.notes'\nopen = true\n";
    Deployment::start(Plan { schema, tables, ..Plan::default() }).await
}

/// Replaces text in the configuration file.
fn edit(deployment: &Deployment, from: &str, to: &str) {
    let text = fs::read_to_string(&deployment.files.config).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(&deployment.files.config, text.replace(from, to)).unwrap();
}

fn state(deployment: &Deployment) -> State {
    deployment.daemon.control().state().borrow().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_holds_is_told_with_its_source() {
    let deployment = notes().await;
    let settings = deployment.daemon.control().config().await.unwrap();
    let source = |name: &str| {
        let setting = settings.iter().find(|it| it.name == name).unwrap();
        let file = deployment.files.config.display().to_string();
        (setting.value.clone(), setting.source.replace(&file, "FILE"))
    };
    let is = |value: &str, source: &str| (value.to_owned(), source.to_owned());
    assert_eq!(source("drain.seconds"), is("0", "FILE:5"));
    assert_eq!(source("window.seconds"), is("60", "default"));
    assert_eq!(source("table.0.name"), is("public.notes", "FILE:15"));
    let secret = deployment.files.secret.display().to_string();
    assert_eq!(source("auth.keys.0.secret_file").0, secret);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_with_mistakes_changes_nothing_and_all_of_them_are_told() {
    let deployment = notes().await;
    let control = deployment.daemon.control();
    let before = control.config().await.unwrap();
    edit(&deployment, "open = true", "policy = 'id = = 1'\nopne = true");
    let Err(ControlError::Refused { mistakes }) = control.reload().await else {
        panic!("it was reloaded")
    };
    let [policy, key] = mistakes.as_slice() else { panic!("{mistakes:?}") };
    assert!(policy.contains(":16:1: table.0.policy"), "{policy}");
    assert!(key.contains("did you mean table[].open?"), "{key}");
    assert_eq!(control.config().await.unwrap(), before);
    let failed = state(&deployment).reload_failed.unwrap();
    assert!(failed.contains("table[].open"), "{failed}");

    edit(&deployment, "policy = 'id = = 1'\nopne = true", "open = true");
    assert_eq!(control.reload().await.unwrap().changes, []);
    assert_eq!(state(&deployment), State { reloads: 1, reloads_refused: 1, ..State::default() });
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_to_rest_and_to_stop_are_passed_on() {
    let deployment = notes().await;
    let control = deployment.daemon.control();
    control.pause().await.unwrap();
    assert!(state(&deployment).paused);
    control.resume().await.unwrap();
    control.drain().await.unwrap();
    control.shutdown().await.unwrap();
    control.drain().await.unwrap();
    let stop = Some(walcast::control::Stop::Now);
    assert_eq!(state(&deployment), State { stop, ..State::default() });
    deployment.daemon.stop().await;
    assert_eq!(control.reload().await, Err(ControlError::Stopping));
}
