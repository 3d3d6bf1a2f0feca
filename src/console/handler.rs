//! What is done with a text that a client sends, by the simple protocol and by the extended one.
//!
//! Statements of one text are carried out one after the other, and each is answered before the next
//! begins; an error ends the text, as in Postgres. An answer that never ends is written by its
//! statement itself, inside `do_query`, so that a cancel request reaches it (`pgwire` hears of one
//! nowhere else).

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::Sink;
use futures_util::SinkExt;
use pgwire::api::ClientInfo;
use pgwire::api::ClientPortalStore;
use pgwire::api::Type;
use pgwire::api::auth::AuthDriver;
use pgwire::api::portal::Format;
use pgwire::api::portal::Portal;
use pgwire::api::query::ExtendedQueryHandler;
use pgwire::api::query::SimpleQueryHandler;
use pgwire::api::query::send_execution_response;
use pgwire::api::query::send_query_response;
use pgwire::api::results::FieldInfo;
use pgwire::api::results::Response;
use pgwire::api::results::Tag;
use pgwire::api::stmt::QueryParser;
use pgwire::api::store::PortalStore;
use pgwire::error::PgWireError;
use pgwire::error::PgWireResult;
use pgwire::messages::PgWireBackendMessage;

use crate::console::Console;
use crate::console::answer::Answer;
use crate::console::answer::Refused;
use crate::console::explain;
use crate::console::follow;
use crate::console::follow::Manner;
use crate::console::login::Door;
use crate::console::login::Login;
use crate::console::login::Parameters;
use crate::console::order;
use crate::console::parameter::Prepared;
use crate::console::parse::Statement;
use crate::console::parse::parse;
use crate::console::show;
use crate::console::split::statements;
use crate::console::wire;
use crate::trace::span;
use crate::trace::traced;

/// One connection.
pub(crate) struct Session {
    pub(super) console: Arc<Console>,
    pub(super) door: Door,
    /// Whether there is a place for it; without one it is told so, and ends.
    pub(super) seated: bool,
    pub(super) driver: AuthDriver<Parameters>,
}

impl Session {
    /// Carries a statement out.
    async fn execute<C>(
        &self,
        client: &mut C,
        statement: &Statement,
        format: &Format,
        described: bool,
    ) -> PgWireResult<Response>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let login = client.session_extensions().get::<Login>();
        let login = login.ok_or_else(|| wire::fatal(Refused::new("28000", "not logged in")))?;
        if login.level < statement.level() {
            let message = format!("{} has the level stats and may only see", login.user);
            let refused = Refused::new("42501", message);
            return Err(wire::error(refused.hint("console.admin_users lists who may do more.")));
        }
        let answer = match statement {
            Statement::Subscribe(of) => {
                let schema = Arc::new(wire::schema(&statement.fields(), format)?);
                let manner = Manner::Rows { schema, described };
                return follow::follow(&self.console, client, &login, of, manner).await;
            }
            Statement::Copy(of) => {
                return follow::follow(&self.console, client, &login, of, Manner::Copy).await;
            }
            Statement::Explain(of) => explain::explain(&self.console, of, &login).await,
            Statement::Show { spec, limit } => show::show(&self.console, spec, *limit).await,
            Statement::Order { order, .. } => order::carry_out(&self.console, order, &login).await,
            Statement::Constant(constant) => Ok(Answer::Rows(constant.table(&login.user))),
            Statement::Catalogue(catalogue) => {
                let catalog = self.console.view.catalog.current();
                let names = catalog.tables().map(|table| &*table.relation.name);
                Ok(Answer::Rows(catalogue.table(names)))
            }
            Statement::Accepted(tag) => Ok(Answer::Done { tag, notice: None }),
            Statement::Begin => Ok(Answer::Began),
            Statement::End(tag) => Ok(Answer::Ended(tag)),
        };
        let tag = |tag: &str| Tag::new(tag);
        let (response, notice) = match answer.map_err(wire::error)? {
            Answer::Rows(mut table) => {
                let schema = wire::schema(&statement.fields(), format)?;
                let notice = table.notice.take();
                (wire::rows(statement.tag(), schema, table), notice)
            }
            Answer::Done { tag: word, notice } => (Response::Execution(tag(word)), notice),
            Answer::Began => (Response::TransactionStart(tag("BEGIN")), None),
            Answer::Ended(word) => (Response::TransactionEnd(tag(word)), None),
        };
        if let Some(notice) = notice {
            client.feed(PgWireBackendMessage::NoticeResponse(wire::notice(notice))).await?;
        }
        Ok(response)
    }
}

impl Session {
    /// Carries one statement of a text out. What an error points at is in that text.
    async fn carry_out<C>(&self, client: &mut C, query: &str, text: &str) -> PgWireResult<Response>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let carried_out = match parse(text) {
            Ok(statement) => {
                let execute = self.execute(client, &statement, &Format::UnifiedText, false);
                traced(span!("console.statement", tag = statement.tag()), execute).await
            }
            Err(refused) => Err(wire::error(refused)),
        };
        carried_out.map_err(|error| wire::shifted(error, query, text))
    }
}

#[async_trait]
impl SimpleQueryHandler for Session {
    async fn do_query<C>(&self, client: &mut C, query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let texts = statements(query);
        let Some((last, before)) = texts.split_last() else {
            return Ok(vec![Response::EmptyQuery]);
        };
        for text in before {
            match self.carry_out(client, query, text).await? {
                Response::Query(rows) => send_query_response(client, rows, true).await?,
                Response::Execution(tag)
                | Response::TransactionStart(tag)
                | Response::TransactionEnd(tag) => send_execution_response(client, tag).await?,
                _ => {}
            }
        }
        Ok(vec![self.carry_out(client, query, last).await?])
    }
}

/// Reads statements that are prepared.
#[derive(Debug)]
pub(crate) struct Parser;

#[async_trait]
impl QueryParser for Parser {
    type Statement = Arc<Prepared>;

    async fn parse_sql<C>(
        &self,
        _client: &C,
        sql: &str,
        _types: &[Option<Type>],
    ) -> PgWireResult<Option<Arc<Prepared>>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        match *statements(sql) {
            [] => Ok(None),
            [text] => Ok(Some(Arc::new(Prepared::new(text).map_err(wire::error)?))),
            _ => {
                let message = "cannot insert multiple commands into a prepared statement";
                Err(wire::error(Refused::syntax(message)))
            }
        }
    }

    fn get_parameter_types(&self, prepared: &Arc<Prepared>) -> PgWireResult<Vec<Type>> {
        Ok(prepared.types())
    }

    fn get_result_schema(
        &self,
        prepared: &Arc<Prepared>,
        format: Option<&Format>,
    ) -> PgWireResult<Vec<FieldInfo>> {
        wire::schema(&prepared.statement.fields(), format.unwrap_or(&Format::UnifiedText))
    }
}

#[async_trait]
impl ExtendedQueryHandler for Session {
    type Statement = Arc<Prepared>;
    type QueryParser = Parser;

    fn query_parser(&self) -> Arc<Parser> {
        Arc::new(Parser)
    }

    async fn do_query<C>(
        &self,
        client: &mut C,
        portal: &Portal<Arc<Prepared>>,
        max_rows: usize,
    ) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Arc<Prepared>>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let prepared = &portal.statement.statement;
        let types = &portal.statement.parameter_types;
        let bound = prepared.bound(&portal.parameters, types, &portal.parameter_format);
        let bound = bound.map_err(wire::error)?;
        let statement = bound.as_ref().unwrap_or(&prepared.statement);
        if max_rows > 0 && matches!(statement, Statement::Subscribe(_) | Statement::Copy(_)) {
            let message = "rows of a subscription can't be fetched in parts";
            let hint = "LIMIT n ends it after so many rows; without a number of rows to fetch, or \
                        as COPY (SUBSCRIBE …) TO STDOUT, each row comes when it is committed.";
            return Err(wire::error(Refused::new("0A000", message).hint(hint)));
        }
        let execute = self.execute(client, statement, &portal.result_column_format, true);
        traced(span!("console.statement", tag = statement.tag()), execute).await
    }
}
