//! A running demo can be found by `walcast tail` in another terminal.
//!
//! A symbolic link under the temporary folder, of the same name for each of a user's demos, leads
//! to the demo's folder with address and token in it. A demo that was killed leaves a link to a
//! folder that its guard has removed, which counts as none.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;

use super::people::write_private;

const ADDRESS: &str = "address";

/// A demo of this user that runs at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Where its daemon listens: `ws://…`.
    pub url: String,
    /// The file of the admin's token.
    pub token_file: PathBuf,
}

/// Shows the demo, until it is dropped.
#[derive(Debug)]
pub struct Shown {
    link: Option<PathBuf>,
}

/// Lets the demo in `folder` be found, unless another one of this user is: the first one stays.
///
/// # Errors
///
/// When the address can't be written, or the link not made.
pub fn show(folder: &Path, url: &str) -> io::Result<Shown> {
    write_private(&folder.join(ADDRESS), url)?;
    let Some(link) = link() else { return Ok(Shown { link: None }) };
    if find().is_some() {
        return Ok(Shown { link: None });
    }
    drop(fs::remove_file(&link));
    symlink(folder, &link)?;
    Ok(Shown { link: Some(link) })
}

/// The demo of this user that runs, if there is one.
#[must_use]
pub fn find() -> Option<Running> {
    let link = link()?;
    // Somebody else's link must not tell this user's tail where to go.
    if fs::symlink_metadata(&link).ok()?.uid() != user()? {
        return None;
    }
    let url = fs::read_to_string(link.join(ADDRESS)).ok()?.trim().to_owned();
    let token_file = link.join("admin.token");
    token_file.exists().then_some(Running { url, token_file })
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(link) = &self.link {
            drop(fs::remove_file(link));
        }
    }
}

fn link() -> Option<PathBuf> {
    Some(std::env::temp_dir().join(format!("walcast-demo-{}", user()?)))
}

/// The user that this process acts as.
fn user() -> Option<u32> {
    fs::metadata("/proc/self").ok().map(|metadata| metadata.uid())
}
