//! Whether rows may be seen, asked of Postgres: for policies that are not decided here.
//!
//! ```text
//! route ──Inquiry: images, names──▶ Judge ──a few connections──▶ Postgres
//!   ▲                                │ a bounded number of questions a second
//!   └────── Ruled: a word for each ──┘
//! ```
//!
//! What is judged is an image of a row as the stream brought it, not the row that is there now: the
//! policy's own text is selected over a record of the table's row type, under the role and the claims
//! of whoever would see it. Subqueries and functions in it run as they do in a query of that role,
//! under the row-level security of the tables that they read.
//!
//! All of one inquiry is judged at one moment, and the answer says which: which transactions it saw.
//! That is later than the change. What may have changed in between is `route`'s to look at.
//!
//! # Invariants
//!
//! - A name is judged under its own role and claims, in a subtransaction that is rolled back, so that
//!   neither an error nor a setting reaches the next. Plans are discarded where the role changes.
//! - A setting that nobody has set is NULL or empty by what happened in the session before. Who looks at
//!   one is asked for in both kinds of session, and sees what both show. (`fresh`)
//! - What the policy reads and the image does not hold is never taken for NULL: there is no image
//!   then.
//! - Questions a second, connections, names and images of an inquiry, and inquiries that wait are
//!   bounded.

mod image;
mod judge;
mod pass;
mod fresh;
mod once;
mod script;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::ask::AskError;
use crate::change::id::RelationId;
use crate::change::lsn::Lsn;
use crate::change::relation::Relation;
use crate::change::visibility::Visibility;

pub use image::Image;
pub(super) use judge::Judge;
pub use once::once;

/// Names that are asked for at once.
pub const NAMES_MAX: usize = 64;
/// Images that are judged at once.
pub const IMAGES_MAX: usize = 1024;
/// Bytes of images that are judged at once; one may be larger.
pub const IMAGE_BYTES_MAX: usize = 1 << 20;
/// Inquiries that wait for a connection.
const WAITING_MAX: usize = 256;

/// What may be asked at once, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Connections, each for one inquiry at a time.
    pub connections: usize,
    /// Questions a second: one for each name and inquiry.
    pub per_second: u32,
    /// How long Postgres may take for one of them.
    pub timeout: Duration,
}

impl Default for Settings {
    /// Two connections keep one processor of the server busy; 5,000 questions are about half of what
    /// they can ask.
    fn default() -> Settings {
        Settings { connections: 2, per_second: 5000, timeout: Duration::from_secs(2) }
    }
}

/// In whose name is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    /// The role.
    pub role: Box<str>,
    /// The settings that policies may look at.
    pub settings: Vec<(Box<str>, Box<str>)>,
    /// What they may look at beside it; absent: nothing.
    pub unset: Option<UnsetSettings>,
}

/// Settings that policies look at and that the claims don't set. They are NULL in a session that never
/// set them and empty in one that did: what is seen must be seen in both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnsetSettings {
    /// Those that are known.
    pub names: Box<[Box<str>]>,
    /// Whether there may be others.
    pub others: bool,
}

impl Name {
    /// How long its texts are.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let setting = |(name, value): &(Box<str>, Box<str>)| name.len() + value.len();
        self.role.len() + self.settings.iter().map(setting).sum::<usize>()
    }
}

/// What is asked of every image: the policies of one table for one role.
#[derive(Clone, Debug)]
pub struct Matter {
    /// The table, in the shape that the images have.
    pub relation: Arc<Relation>,
    /// Every column of the table's row type in its order: the position in the relation, or none for
    /// a column that the stream does not carry.
    pub columns: Box<[Option<usize>]>,
    /// The positions that the condition reads, sorted.
    pub reads: Box<[usize]>,
    /// The condition, as PostgreSQL prints it with an empty `search_path`.
    pub condition: Box<str>,
    /// The `search_path` under which functions that the condition calls find what they name.
    pub search_path: Box<str>,
    /// The tables that the condition looks into, as far as the stream brings their changes; sorted.
    pub watched: Box<[RelationId]>,
}

impl PartialEq for Matter {
    fn eq(&self, other: &Matter) -> bool {
        self.relation.id == other.relation.id
            && self.relation.version == other.relation.version
            && self.condition == other.condition
            && self.search_path == other.search_path
            && self.watched == other.watched
            && self.reads == other.reads
            && self.columns == other.columns
    }
}

impl Eq for Matter {}

/// Images that are to be judged, for some names.
#[derive(Clone, Debug)]
pub struct Inquiry {
    /// What is asked of each.
    pub matter: Arc<Matter>,
    /// The images.
    pub images: Arc<[Image]>,
    /// Who wants to know.
    pub cases: Vec<Case>,
}

/// One name's part in an inquiry.
#[derive(Clone, Debug)]
pub struct Case {
    /// The name.
    pub name: Arc<Name>,
    /// Which of the images; absent: all.
    pub images: Option<Box<[usize]>>,
}

/// What Postgres says of one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// The policies let it be seen.
    Seen,
    /// They don't.
    Hidden,
    /// They raise an error, so that a query would not show it either.
    Fails,
}

/// What Postgres said.
#[derive(Debug)]
pub struct Ruling {
    /// Which transactions it saw.
    pub visibility: Arc<Visibility>,
    /// Where the log's end was after that.
    pub insert_lsn: Lsn,
    /// For each case a word for each of its images, in their order; or why there is none.
    pub words: Vec<Result<Box<[Word]>, AskError>>,
}

/// What becomes of an inquiry.
#[derive(Debug)]
pub struct Ruled {
    /// The number that was given to it.
    pub ticket: u64,
    /// The answer; where there is none at all, whoever asked may ask again.
    pub ruling: Result<Ruling, AskError>,
}

/// An inquiry on its way.
#[derive(Debug)]
pub(super) struct Task {
    inquiry: Inquiry,
    ticket: u64,
    tell: mpsc::Sender<Ruled>,
}

impl Case {
    /// How many images it is about.
    fn count(&self, inquiry: &Inquiry) -> usize {
        self.images.as_ref().map_or(inquiry.images.len(), |images| images.len())
    }
}

/// Asks for verdicts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Inquirer {
    tasks: mpsc::Sender<Task>,
}

impl Inquirer {
    /// An inquirer, and the end where inquiries come out.
    pub(super) fn new() -> (Inquirer, mpsc::Receiver<Task>) {
        let (tasks, taken) = mpsc::channel(WAITING_MAX);
        (Inquirer { tasks }, taken)
    }

    /// Asks. The answer comes through `tell`, which must have room for it.
    ///
    /// # Errors
    ///
    /// [`AskError::Busy`] where too many wait, [`AskError::Failed`] where nobody answers.
    pub fn ask(
        &self,
        inquiry: Inquiry,
        ticket: u64,
        tell: &mpsc::Sender<Ruled>,
    ) -> Result<(), AskError> {
        let task = Task { inquiry, ticket, tell: tell.clone() };
        self.tasks.try_send(task).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => AskError::Busy,
            mpsc::error::TrySendError::Closed(_) => AskError::Failed,
        })
    }
}
