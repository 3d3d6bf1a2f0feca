//! The log as lines of JSON: `time`, `level`, `target`, `message`, then the event's own fields.

use std::fmt;

use serde::Serializer;
use serde_json::Value;
use tracing::Event;
use tracing::Subscriber;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::FormatEvent;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::time::SystemTime;
use tracing_subscriber::registry::LookupSpan;

use crate::logging::fields::Fields;

/// An event as one line of JSON.
#[derive(Debug)]
pub(super) struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let fields = Fields::of(event);
        let level = event.metadata().level().as_str().to_ascii_lowercase();
        let first: [(&str, Value); 4] = [
            ("time", time.into()),
            ("level", level.into()),
            ("target", event.metadata().target().into()),
            ("message", fields.message.into()),
        ];
        let mut line = Vec::new();
        let all = first.into_iter().chain(fields.others);
        serde_json::Serializer::new(&mut line).collect_map(all).map_err(|_| fmt::Error)?;
        writeln!(writer, "{}", String::from_utf8(line).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::Mutex;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_a_line_with_its_fields_and_the_causes_of_its_error() {
        let lines = Lines::default();
        let written = lines.clone();
        let layer = tracing_subscriber::fmt::layer()
            .event_format(Json)
            .with_writer(move || written.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let error = crate::logging::LoggingError::Journal(io::Error::other("nobody \"there\""));
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, clients = 3, lsn = %"0/16", "two\nlines");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let mut line: Value = serde_json::from_str(&text).unwrap();
        assert!(line["time"].take().as_str().unwrap().ends_with('Z'));
        let expected = serde_json::json!({
            "time": null, "level": "warn", "target": "walcast::logging::json::tests",
            "message": "two\nlines", "clients": 3, "lsn": "0/16",
            "error": "journald does not answer: nobody \"there\"",
        });
        assert_eq!(line, expected);
    }
}
