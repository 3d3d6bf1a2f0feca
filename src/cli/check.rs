//! `walcast check`: is the configuration right, and (online) is the database?

use std::fmt;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::Value as Json;
use serde_json::json;

use crate::catalog::audit::Finding;
use crate::catalog::audit::Severity;
use crate::cli::{CliError, ConfigArguments};
use crate::config::ConfigError;
use crate::daemon::check;

/// Says what is wrong with the configuration, and with --online what is wrong with the database
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    walcast check --config walcast.toml\n  \
    walcast check --online          connects to the database, changes nothing there\n  \
    walcast check --online --format json | jq -r '.findings[].sql // empty'\n\n\
    Exit codes: 0 all is well, 1 errors, 2 warnings only.")]
pub struct Check {
    #[command(flatten)]
    config: ConfigArguments,

    /// Looks at the database too: log level, slot, publication, tables, roles, privileges
    #[arg(long)]
    online: bool,

    /// How the findings are printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

/// How the findings are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// One JSON object, for programs
    Json,
}

impl Check {
    pub(super) fn run(self) -> Result<ExitCode, CliError> {
        let findings = match self.config.load() {
            Ok(config) if self.online => {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .map_err(CliError::Process)?;
                [check::offline(&config), runtime.block_on(check::online(&config))].concat()
            }
            Ok(config) => check::offline(&config),
            Err(ConfigError::Mistakes(mistakes)) => {
                let finding = |mistake: &crate::config::Mistake| Finding {
                    severity: Severity::Error,
                    code: "configuration",
                    subject: String::new(),
                    message: mistake.to_string(),
                    mend: None,
                };
                mistakes.iter().map(finding).collect()
            }
            Err(unreadable) => return Err(CliError::Unchecked(unreadable)),
        };
        let colours = std::io::stdout().is_terminal();
        let mut out = std::io::stdout().lock();
        let printed = match self.format {
            Format::Text => {
                write!(out, "{}", Report { findings: &findings, colours, online: self.online })
            }
            Format::Json => writeln!(out, "{}", json(&findings)),
        };
        printed.and_then(|()| out.flush()).map_err(CliError::Output)?;
        Ok(exit_code(&findings))
    }
}

/// 0 where there are at most notices, 1 where there is an error, 2 where there are only warnings.
fn exit_code(findings: &[Finding]) -> ExitCode {
    match findings.iter().map(|finding| finding.severity).min() {
        None | Some(Severity::Notice) => ExitCode::SUCCESS,
        Some(Severity::Error) => ExitCode::from(1),
        Some(Severity::Warning) => ExitCode::from(2),
    }
}

/// The findings as a program reads them.
fn json(findings: &[Finding]) -> Json {
    let finding = |finding: &Finding| {
        json!({
            "severity": severity(finding.severity),
            "code": finding.code,
            "subject": finding.subject,
            "message": finding.message,
            "sql": finding.mend,
        })
    };
    let count = |of| findings.iter().filter(|finding| finding.severity == of).count();
    json!({
        "findings": findings.iter().map(finding).collect::<Vec<_>>(),
        "errors": count(Severity::Error),
        "warnings": count(Severity::Warning),
    })
}

const fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Notice => "notice",
    }
}

/// The findings as a person reads them: errors first, and a sum.
struct Report<'a> {
    findings: &'a [Finding],
    colours: bool,
    online: bool,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (red, yellow, green, plain) = if self.colours {
            ("\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[0m")
        } else {
            ("", "", "", "")
        };
        let of = |severity| self.findings.iter().filter(move |one| one.severity == severity);
        let rest = of(Severity::Warning).chain(of(Severity::Notice));
        for finding in of(Severity::Error).chain(rest) {
            match finding.severity {
                Severity::Error => write!(f, "{red}error{plain}    ")?,
                Severity::Warning => write!(f, "{yellow}warning{plain}  ")?,
                Severity::Notice => f.write_str("notice   ")?,
            }
            if !finding.subject.is_empty() {
                write!(f, "{}: ", finding.subject)?;
            }
            writeln!(f, "{} [{}]", finding.message, finding.code)?;
            for line in finding.mend.iter().flat_map(|mend| mend.lines()) {
                writeln!(f, "           {line}")?;
            }
        }
        let what = if self.online { "configuration and database" } else { "configuration" };
        match (of(Severity::Error).count(), of(Severity::Warning).count()) {
            (0, 0) => writeln!(f, "{green}ok{plain}       {what}"),
            (errors, warnings) => {
                writeln!(f, "{what}: {}, {}", many(errors, "error"), many(warnings, "warning"))
            }
        }
    }
}

fn many(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_come_first_and_what_mends_them_below() {
        let finding = |severity, subject: &str, mend: Option<&str>| Finding {
            severity,
            code: "test",
            subject: subject.to_owned(),
            message: "is wrong".to_owned(),
            mend: mend.map(str::to_owned),
        };
        let findings = [
            finding(Severity::Warning, "ring.bytes_max", None),
            finding(Severity::Error, "table public.orders", Some("alter table\n  orders;")),
            finding(Severity::Error, "", None),
        ];
        let report = Report { findings: &findings, colours: false, online: true };
        insta::assert_snapshot!(report.to_string(), @r"
    error    table public.orders: is wrong [test]
               alter table
                 orders;
    error    is wrong [test]
    warning  ring.bytes_max: is wrong [test]
    configuration and database: 2 errors, 1 warning
    ");
        assert_eq!(exit_code(&findings), ExitCode::from(1));
        assert_eq!(exit_code(&findings[..1]), ExitCode::from(2));
        assert_eq!(exit_code(&[]), ExitCode::SUCCESS);
        assert_eq!(exit_code(&[finding(Severity::Notice, "", None)]), ExitCode::SUCCESS);
    }
}
