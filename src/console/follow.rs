//! `SUBSCRIBE` and `COPY (SUBSCRIBE …) TO STDOUT`: changes, for as long as a client wants them.
//!
//! ```text
//! a shard's session ──lines──▶ Follower ──▶ Output ──CopyData or DataRow──▶ client
//! ```
//!
//! What is ready is sent with one flush, and nothing is held back, so that psql prints a row when it
//! is committed. A client that reads slowly is waited for here; its session falls behind meanwhile,
//! like any other, and reads on from the ring.
//!
//! While nothing happens, `ParameterStatus` is sent: clients keep it to themselves, and one that is
//! gone is noticed. It is called `walcast.cursor` and says from where the client could go on.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::Sink;
use futures_util::SinkExt;
use pgwire::api::ClientInfo;
use pgwire::api::results::FieldInfo;
use pgwire::api::results::Response;
use pgwire::api::results::Tag;
use pgwire::error::PgWireError;
use pgwire::error::PgWireResult;
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::copy::CopyData;
use pgwire::messages::copy::CopyDone;
use pgwire::messages::copy::CopyOutResponse;
use pgwire::messages::data::RowDescription;
use pgwire::messages::startup::ParameterStatus;
use tokio::time::timeout;

use crate::auth::Claims;
use crate::console::Console;
use crate::console::answer::Refused;
use crate::console::answer::Value;
use crate::console::login::Login;
use crate::console::users::Level;
use crate::console::wire;
use crate::dialect::sql::rows;
use crate::dialect::sql::rows::Ending;
use crate::dialect::sql::rows::Line;
use crate::dialect::sql::rows::Record;
use crate::dialect::sql::statement::Format;
use crate::dialect::sql::statement::Identity;
use crate::dialect::sql::statement::Subscription;
use crate::route::plan::Refusal;
use crate::serve::inside::InsideError;

/// What a client is told while nothing happens.
const CURSOR: &str = "walcast.cursor";

/// As what the changes are sent.
#[derive(Clone, Debug)]
pub(super) enum Manner {
    /// As the data of a COPY.
    Copy,
    /// As rows, whose columns are described first where the client has not asked for that.
    Rows { schema: Arc<Vec<FieldInfo>>, described: bool },
}

/// Who may act as whom.
///
/// # Errors
///
/// Where the token is not believed, or nobody has said that the user may say claims.
pub(super) fn claims(
    console: &Console,
    login: &Login,
    identity: &Identity,
) -> Result<Claims, Refused> {
    let verifier = (console.view.judging)().verifier;
    let refused = |error: &dyn std::error::Error| Refused::new("28000", error.to_string());
    match identity {
        Identity::Token(token) => verifier.verify(token).map_err(|error| refused(&error)),
        Identity::Claims(_) if login.level < Level::Admin => {
            let message = format!("{} has the level stats and may not say claims", login.user);
            Err(Refused::new("42501", message).hint("AS '<token>' acts as whoever it is of."))
        }
        Identity::Claims(json) => verifier.assume(json).map_err(|error| refused(&error)),
        Identity::Nobody => verifier.anonymous().ok_or_else(|| {
            let message = "there is no anonymous role: say in whose name";
            Refused::new("28000", message)
                .hint("AS CLAIMS '{\"role\":\"…\",\"sub\":\"…\"}', or AS '<token>'")
        }),
    }
}

/// Sends changes until the client, the subscription or the limit ends it.
pub(super) async fn follow<C>(
    console: &Console,
    client: &mut C,
    login: &Login,
    of: &Subscription,
    manner: Manner,
) -> PgWireResult<Response>
where
    C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    let claims = claims(console, login, &of.identity).map_err(wire::error)?;
    let (user, role) = (&login.user, claims.role().to_owned());
    let table = &of.subscribe.request.table;
    tracing::info!(%user, role, relation = %table, "the console follows a table");
    let address = Some(client.socket_addr());
    let following = console.view.inspector.follow(claims, of.subscribe.clone(), address);
    let mut follower = following.await.map_err(|error| wire::error(not_begun(error, of)))?;
    let mut output = Output::new(of, manner);
    for message in output.opening() {
        client.feed(message).await?;
    }
    client.flush().await?;
    while !output.is_full() {
        let Ok(lines) = timeout(console.view.heartbeat, follower.next()).await else {
            client.send(output.sign_of_life()).await?;
            continue;
        };
        let Some(lines) = lines else { return Err(wire::error(output.lost())) };
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            match output.take(line) {
                Ok(Some(message)) => client.feed(message).await?,
                Ok(None) => {}
                Err(refused) => {
                    client.flush().await?;
                    return Err(wire::error(refused));
                }
            }
            if output.is_full() {
                break;
            }
        }
        client.flush().await?;
    }
    drop(follower);
    if matches!(output.manner, Manner::Copy) {
        client.feed(PgWireBackendMessage::CopyDone(CopyDone::new())).await?;
    }
    Ok(Response::Execution(output.tag()))
}

/// Makes messages of lines.
struct Output {
    format: Format,
    manner: Manner,
    /// The table's key, as the first line tells it.
    key: Vec<String>,
    /// Where the client could go on from.
    cursor: Option<String>,
    count: u64,
    limit: Option<u64>,
}

impl Output {
    fn new(of: &Subscription, manner: Manner) -> Output {
        let (key, cursor) = (Vec::new(), None);
        Output { format: of.format, manner, key, cursor, count: 0, limit: of.limit }
    }

    /// What comes before the first change.
    fn opening(&self) -> Vec<PgWireBackendMessage> {
        match &self.manner {
            Manner::Copy => {
                let (columns, formats) = match self.format {
                    Format::Json => (1, vec![0]),
                    Format::Csv { .. } => (6, vec![0; 6]),
                };
                let begin = CopyOutResponse::new(0, columns, formats);
                let mut opening = vec![PgWireBackendMessage::CopyOutResponse(begin)];
                if self.format == (Format::Csv { header: true }) {
                    let header = format!("{}\n", Record::COLUMNS.join(","));
                    opening.push(data(header.into_bytes()));
                }
                opening
            }
            Manner::Rows { described: true, .. } => Vec::new(),
            Manner::Rows { schema, .. } => {
                let fields = schema.iter().map(Into::into).collect();
                vec![PgWireBackendMessage::RowDescription(RowDescription::new(fields))]
            }
        }
    }

    fn is_full(&self) -> bool {
        self.limit.is_some_and(|limit| self.count >= limit)
    }

    fn tag(&self) -> Tag {
        let word = if matches!(self.manner, Manner::Copy) { "COPY" } else { "SUBSCRIBE" };
        Tag::new(word).with_rows(usize::try_from(self.count).unwrap_or(usize::MAX))
    }

    fn sign_of_life(&self) -> PgWireBackendMessage {
        let value = self.cursor.clone().unwrap_or_default();
        PgWireBackendMessage::ParameterStatus(ParameterStatus::new(CURSOR.to_owned(), value))
    }

    /// What is sent of a line, if anything; or why there is no more.
    fn take(&mut self, line: &[u8]) -> Result<Option<PgWireBackendMessage>, Refused> {
        if let Some(cursor) = rows::cursor_of(line) {
            self.cursor = Some(cursor.to_owned());
        }
        let is_copied = matches!(self.manner, Manner::Copy) && self.format == Format::Json;
        if is_copied && rows::is_row(line) {
            self.count += 1;
            return Ok(Some(data(line.to_vec())));
        }
        let line_is = rows::read(line, &self.key);
        match &line_is {
            Line::Ended(ending) => return self.ended(ending).map_or(Ok(None), Err),
            Line::Heartbeat { .. } | Line::Other => return Ok(None),
            Line::Subscribed { key, cursor } => {
                self.key.clone_from(key);
                self.cursor = cursor.clone().or(self.cursor.take());
            }
            Line::Record(_) => {}
        }
        if is_copied {
            return Ok(Some(data(line.to_vec())));
        }
        let Line::Record(record) = line_is else { return Ok(None) };
        self.count += u64::from(record.is_row());
        Ok(Some(match &self.manner {
            Manner::Copy => {
                let mut csv = Vec::new();
                record.write_csv(&mut csv);
                data(csv)
            }
            Manner::Rows { schema, .. } => {
                PgWireBackendMessage::DataRow(wire::data_row(schema, &values(record)))
            }
        }))
    }

    /// What is said of an end. A `restart` is followed by a `closed`, which ends it.
    fn ended(&mut self, ending: &Ending) -> Option<Refused> {
        Some(match ending {
            Ending::Restart { cursor } => {
                self.cursor = cursor.clone().or(self.cursor.take());
                return None;
            }
            Ending::Refused { code, message, hint } => {
                let refused = Refused::new(sqlstate(code), message.clone());
                let refused = Refused { detail: Some(format!("code: {code}")), ..refused };
                match hint {
                    Some(hint) => refused.hint(hint.clone()),
                    None => refused,
                }
            }
            Ending::Closed { code: 1012, .. } => self.goes_on("57P01", "walcast is stopping"),
            Ending::Closed { code: 4410, .. } => {
                self.goes_on("57P01", "an operator ended the session")
            }
            Ending::Closed { reason, .. } if reason == "token_expired" => {
                self.goes_on("28000", "the token has expired")
            }
            Ending::Closed { reason, .. } if reason == "silent" => {
                self.goes_on("57P05", "nothing was read for too long")
            }
            Ending::Closed { reason, .. } => self.goes_on("57P01", reason),
        })
    }

    fn lost(&self) -> Refused {
        self.goes_on("08006", "the session ended")
    }

    fn goes_on(&self, code: &'static str, message: &str) -> Refused {
        let refused = Refused::new(code, message);
        match &self.cursor {
            Some(cursor) => refused.hint(format!("SINCE '{cursor}' goes on after what was sent.")),
            None => refused,
        }
    }
}

fn data(bytes: Vec<u8>) -> PgWireBackendMessage {
    PgWireBackendMessage::CopyData(CopyData::new(Bytes::from(bytes)))
}

fn values(record: Record) -> Vec<Value> {
    vec![
        Value::Text(record.op),
        record.key.into(),
        record.old.into(),
        record.new.into(),
        record.cursor.into(),
        record.commit_ts.map_or(Value::Null, Value::Time),
    ]
}

/// Why there is no subscription.
fn not_begun(error: InsideError, of: &Subscription) -> Refused {
    let code = match &error {
        InsideError::Refused(refusal) => sqlstate(refusal.code()),
        InsideError::Unanswered(_) => "57014",
        InsideError::NotLive | InsideError::Stopping => "57P03",
        InsideError::Lookup(_) => "55000",
    };
    let refused = Refused::new(code, error.to_string());
    let InsideError::Refused(refusal) = error else { return refused };
    let at = match &refusal {
        Refusal::Filter(_) => of.filter_at,
        Refusal::ColumnForbidden { .. } if of.subscribe.request.columns.is_none() => of.filter_at,
        _ => Some(of.table_at),
    };
    let refused = Refused { detail: Some(format!("code: {}", refusal.code())), ..refused };
    let refused = at.map_or_else(|| refused.clone(), |at| refused.clone().at(at));
    match refusal.hint() {
        Some(hint) => refused.hint(hint),
        None => refused,
    }
}

/// The SQLSTATE that comes nearest to a refusal's code.
fn sqlstate(code: &str) -> &'static str {
    match code {
        "unknown_table" => "42P01",
        "table_closed" | "no_policy" | "table_forbidden" | "column_forbidden"
        | "snapshot_forbidden" => "42501",
        "bad_filter" => "42601",
        "unauthenticated" => "28000",
        "too_many_subscriptions" | "snapshot_busy" => "53400",
        "snapshot_too_large" => "54000",
        "snapshot_timeout" => "57014",
        "policy_undecidable" | "policy_unsupported" => "0A000",
        _ => "55000",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::sql::Statement;
    use crate::dialect::sql::parse;

    fn output(text: &str) -> Output {
        match parse(text).unwrap() {
            Some(Statement::Copy(of)) => Output::new(&of, Manner::Copy),
            other => panic!("{other:?}"),
        }
    }

    fn sent(output: &mut Output, line: &str) -> Option<String> {
        match output.take(format!("{line}\n").as_bytes()) {
            Ok(Some(PgWireBackendMessage::CopyData(data))) => {
                Some(String::from_utf8(data.data.to_vec()).unwrap())
            }
            Ok(None) => None,
            other => panic!("{other:?}"),
        }
    }

    const SUBSCRIBED: &str = r#"{"type":"subscribed","key":["id"],"cursor":"1.1.1.0"}"#;
    const ROW: &str =
        r#"{"type":"row","op":"insert","new":{"id":1},"commit_ts":"t","cursor":"1.1.2.1"}"#;

    #[test]
    fn lines_are_sent_as_they_are_and_counted() {
        let mut output = output("COPY (SUBSCRIBE TO t LIMIT 1) TO STDOUT");
        assert_eq!(sent(&mut output, SUBSCRIBED), Some(format!("{SUBSCRIBED}\n")));
        assert_eq!(sent(&mut output, r#"{"type":"heartbeat","cursor":"1.1.2.0"}"#), None);
        assert_eq!(output.cursor.as_deref(), Some("1.1.2.0"));
        assert!(!output.is_full());
        assert_eq!(sent(&mut output, ROW), Some(format!("{ROW}\n")));
        assert!(output.is_full());
        assert_eq!(output.cursor.as_deref(), Some("1.1.2.1"));
    }

    #[test]
    fn values_separated_by_commas_have_the_key() {
        let mut output = output("COPY (SUBSCRIBE TO t) TO STDOUT (FORMAT csv, HEADER)");
        assert_eq!(output.opening().len(), 2);
        assert_eq!(sent(&mut output, SUBSCRIBED), None);
        let csv = "insert,\"{\"\"id\"\":1}\",,\"{\"\"id\"\":1}\",1.1.2.1,t\n";
        assert_eq!(sent(&mut output, ROW).as_deref(), Some(csv));
    }

    #[test]
    fn an_end_says_how_to_go_on() {
        let mut output = output("COPY (SUBSCRIBE TO t) TO STDOUT");
        sent(&mut output, ROW);
        assert_eq!(
            sent(&mut output, r#"{"type":"restart","retry_ms":5,"cursor":"1.1.3.0"}"#),
            None
        );
        let closed = br#"{"type":"closed","code":1012,"reason":"restart"}"#;
        let refused = output.take(closed).unwrap_err();
        assert_eq!((refused.code, refused.message.as_str()), ("57P01", "walcast is stopping"));
        assert_eq!(refused.hint.as_deref(), Some("SINCE '1.1.3.0' goes on after what was sent."));
        let error = br#"{"type":"error","code":"column_forbidden","message":"m","hint":"h"}"#;
        let refused = output.take(error).unwrap_err();
        assert_eq!((refused.code, refused.hint.as_deref()), ("42501", Some("h")));
    }
}
