//! Whether clients may come, and why not: the body of `/readyz`.

use serde::Serialize;

use crate::metrics::Metrics;
use crate::metrics::health::Condition;

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether clients may come: there is no reason why not.
    pub ready: bool,
    /// Why clients should go elsewhere.
    pub reasons: Vec<Reason>,
    /// What should be looked at, although the daemon does its work.
    pub warnings: Vec<Reason>,
}

/// One thing that is so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The word for it (docs/metrics.md).
    pub code: &'static str,
    /// What it is, for a person.
    pub message: String,
    /// For how long it has been so.
    pub seconds: u64,
}

impl Report {
    /// How it is now.
    #[must_use]
    pub fn of(metrics: &Metrics) -> Report {
        let conditions = metrics.health.conditions();
        let of = |is_unready: bool| {
            let conditions = conditions.iter().filter(|it| it.is_unready == is_unready);
            conditions.map(reason).collect::<Vec<_>>()
        };
        let (reasons, warnings) = (of(true), of(false));
        Report { ready: reasons.is_empty(), reasons, warnings }
    }

    /// As JSON, with a line end, because people look at it.
    #[must_use]
    pub fn json(&self) -> String {
        // It is made of texts and numbers.
        let mut json = serde_json::to_string(self).unwrap_or_default();
        json.push('\n');
        json
    }
}

fn reason(condition: &Condition) -> Reason {
    Reason {
        code: condition.code,
        message: condition.message.to_string(),
        seconds: condition.lasted.as_secs(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_warning_is_told_and_does_not_make_it_unready() {
        let metrics = Metrics::default();
        metrics.health.warn("reload_failed", "line 3: no such key");
        let json = Report::of(&metrics).json();
        let warnings = r#"[{"code":"reload_failed","message":"line 3: no such key","seconds":0}]"#;
        assert_eq!(json, format!(r#"{{"ready":true,"reasons":[],"warnings":{warnings}}}"#) + "\n");

        metrics.health.unready("draining", "the daemon was asked to stop");
        let report = Report::of(&metrics);
        assert!(!report.ready && report.warnings.len() == 1);
        assert_eq!(report.reasons[0].code, "draining");
    }
}
