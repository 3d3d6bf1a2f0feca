//! Answers in the form of the protocol.

use std::sync::Arc;

use bytes::BufMut;
use bytes::BytesMut;
use futures_util::stream;
use pgwire::api::Type;
use pgwire::api::portal::Format;
use pgwire::api::results::FieldFormat;
use pgwire::api::results::FieldInfo;
use pgwire::api::results::QueryResponse;
use pgwire::api::results::Response;
use pgwire::error::ErrorInfo;
use pgwire::error::PgWireError;
use pgwire::error::PgWireResult;
use pgwire::messages::data::DataRow;
use pgwire::messages::response::NoticeResponse;

use crate::console::answer::Field;
use crate::console::answer::Of;
use crate::console::answer::Refused;
use crate::console::answer::Table;
use crate::console::answer::Value;
use crate::dialect::sql::rows::micros;

/// The columns of an answer, in the formats that the client wants.
///
/// # Errors
///
/// Where it wants formats for another number of columns.
pub(crate) fn schema(fields: &[Field], format: &Format) -> PgWireResult<Vec<FieldInfo>> {
    if let Format::Individual(formats) = format
        && formats.len() != fields.len()
    {
        let (wanted, are) = (formats.len(), fields.len());
        let message = format!("there are {wanted} result formats, but {are} columns");
        return Err(error(Refused::new("08P01", message)));
    }
    let info = |(at, field): (usize, &Field)| {
        let (of, size) = match field.of {
            Of::Text => (Type::TEXT, -1),
            Of::Number => (Type::INT8, 8),
            Of::Flag => (Type::BOOL, 1),
            Of::Json => (Type::JSON, -1),
            Of::Time => (Type::TIMESTAMPTZ, 8),
        };
        let name = field.name.clone().into_owned();
        FieldInfo::new(name, None, None, of, format.format_for(at)).with_type_size(size)
    };
    Ok(fields.iter().enumerate().map(info).collect())
}

/// Rows, ready to be sent.
pub(crate) fn rows(tag: &str, schema: Vec<FieldInfo>, table: Table) -> Response {
    let schema = Arc::new(schema);
    let columns = Arc::clone(&schema);
    let rows = table.rows.into_iter().map(move |row| Ok(data_row(&columns, &row)));
    let mut response = QueryResponse::new(schema, stream::iter(rows));
    response.set_command_tag(tag);
    Response::Query(response)
}

/// One row, ready to be sent.
pub(crate) fn data_row(columns: &[FieldInfo], row: &[Value]) -> DataRow {
    let mut data = BytesMut::new();
    for (column, value) in columns.iter().zip(row) {
        let binary = column.format() == FieldFormat::Binary;
        match value {
            Value::Null => data.put_i32(-1),
            Value::Text(text) => put(&mut data, text.as_bytes()),
            Value::Number(number) if binary => put(&mut data, &number.to_be_bytes()),
            Value::Number(number) => put(&mut data, number.to_string().as_bytes()),
            Value::Flag(flag) if binary => put(&mut data, &[u8::from(*flag)]),
            Value::Time(time) if binary => match micros(time) {
                Some(micros) => put(&mut data, &micros.to_be_bytes()),
                None => data.put_i32(-1),
            },
            Value::Time(time) => {
                put(&mut data, time.replace('T', " ").replace('Z', "+00").as_bytes());
            }
            Value::Flag(flag) => put(&mut data, if *flag { b"t" } else { b"f" }),
        }
    }
    let count = i16::try_from(columns.len()).expect("no answer has 32,768 columns");
    DataRow::new(data, count)
}

fn put(data: &mut BytesMut, bytes: &[u8]) {
    // PostgreSQL has no text that is longer, and neither has anything here.
    data.put_i32(i32::try_from(bytes.len()).expect("no cell has 2 GiB"));
    data.extend_from_slice(bytes);
}

/// A refusal as an error of the statement; the connection goes on.
pub(crate) fn error(refused: Refused) -> PgWireError {
    PgWireError::UserError(Box::new(info("ERROR", refused)))
}

/// The same error, where it points at a statement of a text, as one that points at the text.
pub(crate) fn shifted(mut error: PgWireError, query: &str, text: &str) -> PgWireError {
    if let PgWireError::UserError(info) = &mut error
        && let Some(position) = info.position.as_ref().and_then(|at| at.parse::<usize>().ok())
        && let Some((before, _)) = query.split_once(text)
    {
        info.position = Some((before.chars().count() + position).to_string());
    }
    error
}

/// A refusal that ends the connection.
pub(crate) fn fatal(refused: Refused) -> PgWireError {
    PgWireError::UserError(Box::new(info("FATAL", refused)))
}

/// Something that is said beside an answer.
pub(crate) fn notice(message: String) -> NoticeResponse {
    NoticeResponse::from(info("NOTICE", Refused::new("00000", message)))
}

fn info(severity: &str, refused: Refused) -> ErrorInfo {
    let Refused { code, message, detail, hint, position } = refused;
    let mut info = ErrorInfo::new(severity.to_owned(), code.to_owned(), message);
    info.severity_nonlocalized = Some(severity.to_owned());
    (info.detail, info.hint) = (detail, hint);
    info.position = position.map(|position| position.to_string());
    info
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &'static str, of: Of) -> Field {
        Field { name: name.into(), of }
    }

    #[test]
    fn cells_are_as_postgres_writes_them() {
        let fields = [
            field("a", Of::Text),
            field("b", Of::Number),
            field("c", Of::Flag),
            field("d", Of::Text),
        ];
        let row = [Value::from("x"), Value::from(258_i64), Value::from(true), Value::Null];
        let text = schema(&fields, &Format::UnifiedText).unwrap();
        assert_eq!(
            &data_row(&text, &row).data[..],
            b"\0\0\0\x01x\0\0\0\x03258\0\0\0\x01t\xff\xff\xff\xff"
        );
        let binary = schema(&fields, &Format::UnifiedBinary).unwrap();
        assert_eq!(
            &data_row(&binary, &row).data[..],
            b"\0\0\0\x01x\0\0\0\x08\0\0\0\0\0\0\x01\x02\0\0\0\x01\x01\xff\xff\xff\xff"
        );
        assert!(schema(&fields, &Format::Individual(vec![0, 1])).is_err());
    }
}
