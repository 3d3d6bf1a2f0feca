//! Parameters of a prepared statement: `$1` where a text, a number or a cursor may stand.
//!
//! ```text
//! Parse    SHOW CLIENTS LIMIT $1     read with samples, so that its columns are known
//! Bind     $1 = 5                    written into the text, which is read again
//! ```
//!
//! A value is written as a text in quotes, as which every type can be given, and as a bare number
//! where the grammar wants one. Nothing of it is ever taken for anything else.

use bytes::Bytes;
use pgwire::api::Type;
use pgwire::api::portal::Format;

use crate::console::answer::Refused;
use crate::console::parse::Statement;
use crate::console::parse::parse;
use crate::console::split::Place;
use crate::console::split::places;

/// Parameters that a statement may have; that is more than there are clauses.
const PARAMETERS_MAX: usize = 64;

/// A statement that was prepared.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// What it is, with samples for its parameters.
    pub(crate) statement: Statement,
    text: String,
    parameters: usize,
}

impl Prepared {
    /// Reads a statement, which may have parameters.
    pub(crate) fn new(text: &str) -> Result<Prepared, Refused> {
        let places = places(text);
        let parameters = places.iter().map(|place| place.number).max().unwrap_or(0);
        if parameters > PARAMETERS_MAX {
            let message = format!("a statement may have {PARAMETERS_MAX} parameters");
            return Err(Refused::new("54023", message));
        }
        let statement = if parameters == 0 {
            parse(text)?
        } else {
            read(&filled(text, &places, |place| Ok(sample(text, place).to_owned()))?)?
        };
        Ok(Prepared { statement, text: text.to_owned(), parameters })
    }

    /// What each parameter is taken for, where the client does not say: a text fits everywhere.
    pub(crate) fn types(&self) -> Vec<Type> {
        vec![Type::TEXT; self.parameters]
    }

    /// The statement with its parameters put in; none where it has no parameters.
    pub(crate) fn bound(
        &self,
        values: &[Option<Bytes>],
        types: &[Option<Type>],
        format: &Format,
    ) -> Result<Option<Statement>, Refused> {
        if self.parameters == 0 {
            return Ok(None);
        }
        let text = filled(&self.text, &places(&self.text), |place| {
            let at = place.number - 1;
            let value = values.get(at).cloned().flatten().ok_or_else(|| missing(place.number))?;
            let of = types.get(at).cloned().flatten().unwrap_or(Type::TEXT);
            let value = if format.is_binary(at) { binary(&value, &of)? } else { text_of(&value)? };
            let number = wants_number(&self.text, place);
            if number && (value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit())) {
                let message = format!("${} has to be a whole number", place.number);
                return Err(Refused::new("22P02", message));
            }
            Ok(if number { value } else { format!("'{}'", value.replace('\'', "''")) })
        })?;
        read(&text).map(Some)
    }
}

/// Reads a text that is not the client's own, so that no place in it can be pointed at.
fn read(text: &str) -> Result<Statement, Refused> {
    parse(text).map_err(|refused| Refused { position: None, ..refused })
}

fn missing(number: usize) -> Refused {
    let refused = Refused::new("22004", format!("${number} is null or was not given"));
    refused.hint("Leave the clause out, or write IS NULL.")
}

/// The text with something else where the parameters stand.
fn filled(
    text: &str,
    places: &[Place],
    mut value: impl FnMut(&Place) -> Result<String, Refused>,
) -> Result<String, Refused> {
    let mut filled = String::with_capacity(text.len());
    let mut at = 0;
    for place in places {
        filled.push_str(text.get(at..place.begin).unwrap_or_default());
        filled.push_str(&value(place)?);
        at = place.end;
    }
    filled.push_str(text.get(at..).unwrap_or_default());
    Ok(filled)
}

/// The word before a parameter, in capitals.
fn before(text: &str, place: &Place) -> String {
    let before = text.get(..place.begin).unwrap_or_default().trim_end();
    let word = before.rsplit(|it: char| !it.is_ascii_alphabetic()).next();
    word.unwrap_or_default().to_ascii_uppercase()
}

fn wants_number(text: &str, place: &Place) -> bool {
    matches!(&*before(text, place), "LIMIT" | "KILL")
}

/// Something that may stand there, so that the rest of the statement can be read.
fn sample(text: &str, place: &Place) -> &'static str {
    match &*before(text, place) {
        "LIMIT" | "KILL" => "1",
        "CLAIMS" | "ROW" => "'{}'",
        "SINCE" | "AT" => "'1.1.1.0'",
        _ => "'x'",
    }
}

fn text_of(value: &[u8]) -> Result<String, Refused> {
    match str::from_utf8(value) {
        Ok(text) if !text.contains('\0') => Ok(text.to_owned()),
        _ => Err(Refused::new("22021", "a parameter is no text in UTF-8")),
    }
}

/// A value in the binary form of its type.
fn binary(value: &[u8], of: &Type) -> Result<String, Refused> {
    let wrong = || Refused::new("22P03", format!("a parameter is not of type {}", of.name()));
    match *of {
        Type::INT2 => Ok(i16::from_be_bytes(value.try_into().map_err(|_| wrong())?).to_string()),
        Type::INT4 => Ok(i32::from_be_bytes(value.try_into().map_err(|_| wrong())?).to_string()),
        Type::INT8 => Ok(i64::from_be_bytes(value.try_into().map_err(|_| wrong())?).to_string()),
        Type::BOOL => Ok((value == [1]).to_string()),
        Type::JSONB => text_of(value.get(1..).ok_or_else(wrong)?),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::JSON | Type::UNKNOWN => {
            text_of(value)
        }
        _ => {
            let message = format!("a parameter of type {} is not taken in binary", of.name());
            Err(Refused::new("0A000", message).hint("Give it as a text: $1::text, or as a string."))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::parse::Order;

    fn bound(text: &str, values: &[&str]) -> Result<Statement, Refused> {
        let values: Vec<Option<Bytes>> =
            values.iter().map(|it| Some(Bytes::copy_from_slice(it.as_bytes()))).collect();
        let prepared = Prepared::new(text)?;
        assert_eq!(prepared.types().len(), values.len());
        Ok(prepared.bound(&values, &[], &Format::UnifiedText)?.unwrap())
    }

    #[test]
    fn a_value_stands_where_its_parameter_stood_and_is_nothing_else() {
        let Statement::Show { limit, .. } = bound("SHOW CLIENTS LIMIT $1", &["7"]).unwrap() else {
            panic!("not shown")
        };
        assert_eq!(limit, 7);
        let subject = "o'brien'; SHUTDOWN --";
        let Statement::Order { order, .. } = bound("KILL USER $1", &[subject]).unwrap() else {
            panic!("no order")
        };
        assert_eq!(order, Order::KillUser(subject.to_owned()));
        for text in [
            "SUBSCRIBE TO t WHERE id = $1 AND note = $2 SINCE $3 LIMIT $4",
            "COPY (SUBSCRIBE TO t WHERE id = $1 AND note <> $2 SINCE $3 LIMIT $4) TO STDOUT",
        ] {
            bound(text, &["7", "it's $1", "1.2.3.0", "5"]).unwrap();
        }
        bound("SUBSCRIBE TO t AS CLAIMS $1", &["{\"role\":\"web\"}"]).unwrap();
    }

    #[test]
    fn what_is_not_right_for_its_place_is_refused() {
        let message = |text: &str, values: &[&str]| bound(text, values).unwrap_err().message;
        assert_eq!(message("KILL $1", &["1; SHUTDOWN"]), "$1 has to be a whole number");
        assert_eq!(message("SHOW CLIENTS LIMIT $1", &["-1"]), "$1 has to be a whole number");
        assert!(Prepared::new("SHOW CLIENTS LIMIT $99").is_err());
        assert!(Prepared::new("SHOW $1").is_err());
        let prepared = Prepared::new("KILL USER $1").unwrap();
        let null = prepared.bound(&[None], &[], &Format::UnifiedText).unwrap_err();
        assert_eq!(null.message, "$1 is null or was not given");
    }

    #[test]
    fn a_dollar_inside_of_a_text_is_no_parameter() {
        let prepared = Prepared::new("KILL USER '$1' -- $2").unwrap();
        assert_eq!(prepared.types(), []);
    }

    #[test]
    fn numbers_come_in_binary_too() {
        let prepared = Prepared::new("SHOW CLIENTS LIMIT $1").unwrap();
        let (values, binary) = ([Some(Bytes::from_static(&[0, 9]))], Format::UnifiedBinary);
        let of = [Some(Type::INT2)];
        let bound = prepared.bound(&values, &of, &binary).unwrap().unwrap();
        assert!(matches!(bound, Statement::Show { limit: 9, .. }));
        assert!(prepared.bound(&values, &[Some(Type::INT8)], &binary).is_err());
        assert!(prepared.bound(&values, &[Some(Type::POINT)], &binary).is_err());
    }
}
