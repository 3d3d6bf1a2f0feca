//! What can be asked of the console: every statement, with its columns. The parser reads this table,
//! `SHOW HELP` shows it, and `docs/console.md` is written from it.

use crate::console::answer::Of;
use crate::console::users::Level;

/// A column of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub of: Of,
    /// What it says.
    pub says: &'static str,
}

/// A statement.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// How it is written: keywords in capitals, what stands for something in small letters.
    pub form: &'static str,
    /// Who may say it.
    pub level: Level,
    /// What it is for.
    pub purpose: &'static str,
    /// The columns of its answer; none where it answers with a word.
    pub columns: &'static [Column],
}

impl Spec {
    /// What stands after `SHOW`; none for other statements.
    #[must_use]
    pub fn shows(&self) -> Option<&'static str> {
        let rest = self.form.strip_prefix("SHOW ")?;
        rest.split_whitespace().next()
    }
}

const fn text(name: &'static str, says: &'static str) -> Column {
    Column { name, of: Of::Text, says }
}

const fn number(name: &'static str, says: &'static str) -> Column {
    Column { name, of: Of::Number, says }
}

const fn flag(name: &'static str, says: &'static str) -> Column {
    Column { name, of: Of::Flag, says }
}

const fn json(name: &'static str, says: &'static str) -> Column {
    Column { name, of: Of::Json, says }
}

const fn time(name: &'static str, says: &'static str) -> Column {
    Column { name, of: Of::Time, says }
}

const fn show(form: &'static str, purpose: &'static str, columns: &'static [Column]) -> Spec {
    Spec { form, level: Level::Stats, purpose, columns }
}

const fn order(form: &'static str, purpose: &'static str, columns: &'static [Column]) -> Spec {
    Spec { form, level: Level::Admin, purpose, columns }
}

/// How changes are followed as rows.
pub const SUBSCRIBE: &str = "SUBSCRIBE TO table [(column, …)] [WHERE condition] \
    [AS 'token' | AS CLAIMS 'json'] [SINCE 'cursor'] [WITH SNAPSHOT] [LIMIT n]";
/// The same as the data of a COPY.
pub const COPY: &str = "COPY (SUBSCRIBE TO … [FORMAT json | csv]) TO STDOUT";
/// How a delivery is explained.
pub const EXPLAIN: &str = "EXPLAIN DELIVERY OF table {KEY (column = value, …) | ROW 'json'} \
    [WHERE condition] [FOR 'token' | FOR CLAIMS 'json'] [FORMAT json]";

/// Every statement, in the order of the documentation.
pub const STATEMENTS: &[Spec] = &[
    show(
        "SHOW HELP",
        "The statements.",
        &[
            text("statement", "how it is written"),
            text("level", "who may say it: `stats` or `admin`"),
            text("purpose", "what it is for"),
        ],
    ),
    show("SHOW VERSION", "The daemon's version.", &[text("version", "name and version")]),
    show(
        "SHOW STATE",
        "What the daemon is doing, in one row.",
        &[
            text(
                "state",
                "`waiting_for_database`, `connecting`, `catching_up`, `streaming`, `paused`, `interrupted`, `busy` (another process reads the slot), `lost`, `recreated` or `stopped`",
            ),
            text("why", "why, where there is something to say; of `busy` the server's process"),
            number("state_seconds", "since when it is so"),
            flag("ready", "whether clients may come, as `/readyz` says"),
            text("conditions", "what is wrong, or should be looked at, a line each"),
            flag("paused", "whether an operator let the stream rest (`PAUSE`)"),
            text("stopping", "`drain` or `now`, where the daemon was told to stop"),
            number("up_seconds", "since the start"),
            number("clients", "sessions"),
            number("lag_bytes", "received and not yet routed"),
            number(
                "renewals",
                "how often every client had to start again, because history was lost",
            ),
            text("renewed", "why, the last time"),
            number("reloads", "reloads that were carried out"),
            text("reload_failed", "why the last reload was refused, where it was"),
        ],
    ),
    show(
        "SHOW CONFIG",
        "Every setting that holds. Secrets are never shown: these are in files.",
        &[
            text("name", "the key"),
            text("value", "what holds"),
            text("source", "where it comes from"),
            flag("reloadable", "whether `RELOAD` changes it in the running daemon"),
        ],
    ),
    show(
        "SHOW SLOTS",
        "The logical slots of the database, asked now.",
        &[
            text("name", "the slot"),
            flag("own", "whether it is the one that is read here"),
            text("plugin", "its output plugin"),
            flag("active", "whether somebody reads it"),
            number("pid", "the server's process that reads it"),
            text("wal_status", "`reserved`, `extended`, `unreserved` or `lost`"),
            text("restart_lsn", "from where on Postgres keeps the log for it"),
            text("confirmed_lsn", "up to where it was confirmed"),
            number("kept_bytes", "log that is kept for it"),
            number(
                "safe_bytes",
                "how much more may be written before it is in danger; none without a limit",
            ),
        ],
    ),
    show(
        "SHOW PUBLICATIONS",
        "The publications of the database, asked now.",
        &[
            text("name", "the publication"),
            flag("own", "whether its tables are delivered here"),
            flag("all_tables", "whether every table is in it"),
            flag("inserts", "whether it has inserts"),
            flag("updates", "whether it has updates"),
            flag("deletes", "whether it has deletes"),
            flag("truncates", "whether it has truncates"),
            number("tables", "how many tables it has"),
        ],
    ),
    show(
        "SHOW TABLES",
        "The tables that are known here: what their changes carry, and who may see them.",
        &[
            text("table", "schema and name"),
            flag("published", "whether the publication has it"),
            text(
                "identity",
                "which old values its changes carry: `default`, `full`, `index` or `nothing`",
            ),
            text("key", "the columns that tell rows apart"),
            number("columns", "columns that are delivered at most"),
            text("unpublished", "columns that the stream does not carry"),
            text(
                "decided_by",
                "who decides which rows are seen: `configuration`, `row security`, `open` (grants alone) or `closed`",
            ),
            text("roles", "client roles that may select some of it"),
            text("policies", "policies of the database that could not be read"),
            text(
                "undecided",
                "roles of whom it is not decided in process what they see, each with what becomes of it (`asked`: Postgres is; `refused`), the policy, and the reason",
            ),
        ],
    ),
    show(
        "SHOW CLIENTS [LIMIT n]",
        "The sessions.",
        &[
            number("id", "its number, for `KILL`"),
            text("transport", "`websocket`, `events`, `changes`, `rows` or `console`"),
            text("address", "where it comes from"),
            text("subject", "the claim `sub`"),
            text("role", "the database role that it acts under"),
            number("seconds", "since it came"),
            number("silent_seconds", "since it last showed that it lives"),
            number("subscriptions", "how many it has"),
            text("state", "`live`, `behind` (reads the ring at its own pace) or `closing`"),
            number("outbox_bytes", "what waits for its socket"),
            number("lag_bytes", "log between what it has and what was routed"),
            text("cursor", "where it could resume from"),
            number("frames", "row frames that it was sent"),
            number("bytes", "bytes that its socket took"),
            number("shard", "the thread that serves it"),
        ],
    ),
    show(
        "SHOW SUBSCRIPTIONS [LIMIT n]",
        "The subscriptions of all sessions.",
        &[
            number("client", "the session, as in `SHOW CLIENTS`"),
            text("id", "the client's name for it"),
            text("table", "the table"),
            text("filter", "the client's filter, as it came"),
            text("columns", "the columns that it asked for; none: all that the role may select"),
            text("events", "the kinds of change; none: all"),
            text("throttle", "how often a row may be told of"),
            text(
                "state",
                "`live`, `behind`, `snapshot`, `parked` (ahead of this shard) or `paused`",
            ),
            text("decided_by", "as in `SHOW TABLES`, or `asked`: Postgres is, about each change"),
            text("group", "those that get the same bytes, as in `SHOW GROUPS`"),
        ],
    ),
    show(
        "SHOW GROUPS [LIMIT n]",
        "Subscriptions that are decided and encoded once.",
        &[
            text("group", "shard and number"),
            text("table", "the table"),
            text(
                "indexed_by",
                "the column and value under which changes find it; none: every change of the table is tried",
            ),
            text("rule", "filter and policy as they are decided, with the claims put in"),
            text("reads", "the columns that filter and policy read"),
            number("columns", "columns that are delivered"),
            text("events", "the kinds of change; none: all"),
            text("dialect", "what it is encoded in"),
            number("members", "subscriptions that are live"),
            number("attached", "all, also those that are behind"),
            number("names", "different names among them"),
        ],
    ),
    show(
        "SHOW LAG",
        "How far each stage is.",
        &[
            text("stage", "`received`, `routed`, `confirmed`, then each shard"),
            text("lsn", "up to where"),
            number("lag_bytes", "behind what was received"),
        ],
    ),
    show(
        "SHOW RING",
        "What each shard keeps for those who come back.",
        &[
            number("shard", "the thread"),
            text("tail", "from where on a client can resume"),
            text("head", "the newest position"),
            number("transactions", "transactions, or parts of large ones"),
            number("bytes", "their memory; the shards share it"),
            number("bytes_max", "what they may take"),
            number("oldest_seconds", "since when the oldest is here"),
            number("newest_seconds", "since when the newest is here"),
            number("seconds_max", "how old one may become"),
            number("waiting", "what came and was not matched yet"),
        ],
    ),
    show(
        "SHOW REPLICAS",
        "The tables that policies read beside the row that they judge, kept in memory.",
        &[
            text("table", "the table, with its schema"),
            text("state", "`held`, `loading` or `unheld`"),
            text("columns", "the columns that policies read"),
            number("rows", "how many it has now"),
            number("past", "versions of rows that are kept for who looks back"),
            number("bytes", "their memory"),
            text("since", "from which commit on it is known"),
            text("reason", "why it is not held, or could not be read again"),
            text("remedy", "the SQL that mends it, where SQL does"),
        ],
    ),
    show(
        "SHOW LIMITS",
        "What may be used, and what is.",
        &[
            text("name", "the key in the configuration"),
            text("limit", "what may be used"),
            number("used", "what is, where that is counted"),
        ],
    ),
    show(
        "SHOW ERRORS",
        "What was refused, by the codes that clients got.",
        &[
            text("kind", "`refused` (subscriptions), `resynced` or `token`"),
            text("code", "the code that clients get"),
            number("count", "how often, since the start"),
        ],
    ),
    show(
        "SHOW STATS",
        "Every metric, as in [metrics](metrics.md). `SHOW METRICS` is the same.",
        &[
            text("name", "the metric; of a histogram its `_count` and `_sum`"),
            text("labels", "what tells its values apart"),
            number("value", "what it says"),
            text("unit", "`bytes`, `microseconds`, or nothing"),
        ],
    ),
    show(
        "SHOW MEM",
        "Where memory is.",
        &[text("name", "what holds it"), number("bytes", "how much")],
    ),
    show(
        "SHOW FDS",
        "The process's descriptors, by kind.",
        &[
            text("kind", "`socket`, `file`, `pipe`, `event` or `limit`"),
            number("count", "how many"),
        ],
    ),
    show(
        SUBSCRIBE,
        "Follows a table's changes, row by row, until it is cancelled or `n` rows have come. psql \
         prints them only at the end; it prints a `COPY` as it comes.",
        &[
            text(
                "op",
                "`snapshot`, `insert`, `update`, `enter`, `leave`, `delete` or `truncate`; `synced` and `resync` are no rows of the table",
            ),
            json("key", "the row's key"),
            json("old", "the row before, as far as it is known"),
            json("new", "the row after; of a `resync` the reason"),
            text("cursor", "where to go on from"),
            time("commit_ts", "when it was committed"),
        ],
    ),
    show(
        COPY,
        "The same, as it happens: one frame of the native protocol in a line, or the columns of \
         `SUBSCRIBE` as values separated by commas.",
        &[],
    ),
    order(
        EXPLAIN,
        "Why somebody gets a row or not: grant, policies, filter, and what decided. \
         `EXPLAIN DELIVERY AT 'cursor' …` explains a change that the ring holds.",
        &[text("delivery", "a line of the explanation, or one JSON object")],
    ),
    order(
        "CHECK",
        "Looks for what is wrong with the configuration that holds and with the database, all that `walcast check --online` looks for; both roles' connections are tried.",
        &[
            text("severity", "`error`, `warning` or `notice`"),
            text("code", "a word for programs"),
            text("subject", "what it is about"),
            text("message", "a sentence"),
            text("mend", "the SQL that mends it, where there is some"),
        ],
    ),
    order("KILL id", "Ends a session with close code 4410. It may come back with its cursor.", &[]),
    order("KILL USER 'subject'", "Ends all sessions of a subject.", &[]),
    order(
        "PAUSE",
        "Lets the stream from Postgres rest. Clients stay; Postgres keeps the log meanwhile.",
        &[],
    ),
    order("RESUME", "Lets the stream go on.", &[]),
    order(
        "RELOAD",
        "Reads the configuration again: validated first, then swapped as a whole.",
        &[
            text("name", "the key that is different"),
            text("old", "what held"),
            text("new", "what was read"),
            flag("applied", "whether it holds from now on; else from the next start"),
        ],
    ),
    order(
        "DRAIN",
        "Stops the daemon: clients are asked to come back one after the other, over `drain.seconds`.",
        &[],
    ),
    order("SHUTDOWN", "Stops the daemon at once.", &[]),
];

/// The statement that is written like this.
#[must_use]
pub fn find(form: &str) -> Option<&'static Spec> {
    STATEMENTS.iter().find(|spec| spec.form == form)
}

/// The statement that shows what `name` says.
#[must_use]
pub fn showing(name: &str) -> Option<&'static Spec> {
    let name = if name.eq_ignore_ascii_case("metrics") { "STATS" } else { name };
    STATEMENTS.iter().find(|spec| spec.shows().is_some_and(|it| it.eq_ignore_ascii_case(name)))
}
