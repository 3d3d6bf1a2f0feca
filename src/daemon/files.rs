//! Reloads when the configuration's files change, where `reload.watch` says so.
//!
//! The folders are watched, not the files: an editor writes a new file and gives it the old one's
//! name, and what is mounted into a container changes by a symbolic link.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use notify::Event;
use notify::RecommendedWatcher;
use notify::RecursiveMode;
use notify::Watcher as _;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::config::Layers;
use crate::control::Control;
use crate::control::ControlError;

/// How long nothing must have happened: whoever writes a file writes it in several steps.
const QUIET: Duration = Duration::from_millis(200);

/// What a container's mounted files are changed by.
const MOUNTED: &str = "..data";

/// A watch on the configuration's files.
#[derive(Debug)]
pub(super) struct Watch {
    changes: mpsc::Receiver<()>,
    control: Control,
    /// Watches until it is dropped.
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Begins to watch; `None` where there is no file, or it can't be watched.
    pub(super) fn start(layers: &Layers, control: Control) -> Option<Watch> {
        let file = layers.file.clone()?;
        let (tell, changes) = mpsc::channel(1);
        let folder = match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let drop_ins = layers.drop_ins();
        let looked_at = (file, drop_ins.clone());
        let begun = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| concerns(&event, &looked_at.0, looked_at.1.as_deref())) {
                // One that waits stands for all.
                let _full = tell.try_send(());
            }
        });
        let begun = begun.and_then(|mut watcher| {
            watcher.watch(&folder, RecursiveMode::NonRecursive)?;
            if let Some(drop_ins) = drop_ins.filter(|folder| folder.is_dir()) {
                watcher.watch(&drop_ins, RecursiveMode::NonRecursive)?;
            }
            Ok(watcher)
        });
        match begun {
            Ok(watcher) => Some(Watch { changes, control, _watcher: watcher }),
            Err(error) => {
                tracing::warn!(%error, "the configuration's files can't be watched");
                None
            }
        }
    }

    /// Reloads after each change, until nobody takes orders any more.
    pub(super) async fn run(mut self) {
        while self.changes.recv().await.is_some() {
            while timeout(QUIET, self.changes.recv()).await.is_ok_and(|more| more.is_some()) {}
            tracing::info!("the configuration's files have changed");
            if self.control.reload().await == Err(ControlError::Stopping) {
                return;
            }
        }
    }
}

/// Whether the event changes what the configuration is read from. Reading it does not.
fn concerns(event: &Event, file: &Path, drop_ins: Option<&Path>) -> bool {
    let changes = event.kind.is_modify() || event.kind.is_create() || event.kind.is_remove();
    let is_ours = |path: &PathBuf| {
        path.file_name() == file.file_name()
            || path.file_name().is_some_and(|name| name == MOUNTED)
            || path.parent().is_some_and(|folder| drop_ins.is_some_and(|ours| ends(folder, ours)))
    };
    changes && event.paths.iter().any(is_ours)
}

/// Whether two paths name folders that are called alike: one may be absolute, the other not.
fn ends(folder: &Path, other: &Path) -> bool {
    folder.file_name() == other.file_name()
}

#[cfg(test)]
mod tests {
    use notify::EventKind;
    use notify::event::AccessKind;
    use notify::event::ModifyKind;

    use super::*;

    #[test]
    fn what_concerns_the_configuration_is_a_change_of_its_files() {
        let file = Path::new("/etc/walcast/walcast.toml");
        let drop_ins = Some(Path::new("/etc/walcast/conf.d"));
        let check = |kind: EventKind, path: &str| {
            concerns(&Event::new(kind).add_path(path.into()), file, drop_ins)
        };
        let modified = EventKind::Modify(ModifyKind::Any);
        assert!(check(modified, "/etc/walcast/walcast.toml"));
        assert!(check(modified, "/etc/walcast/conf.d/10-tables.toml"));
        assert!(check(EventKind::Create(notify::event::CreateKind::Any), "/etc/walcast/..data"));
        assert!(!check(modified, "/etc/walcast/.walcast.toml.swp"));
        assert!(!check(EventKind::Access(AccessKind::Any), "/etc/walcast/walcast.toml"));
    }
}
