//! The files of `sql/`, read as psql reads them: variables, conditions, and queries whose answers
//! are run (`\gexec`). Only as much of psql as those files use, so that they are the one text of
//! what is set up, whoever applies it.

use std::collections::BTreeMap;

/// A file of `sql/`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Script {
    /// Its name there.
    pub(super) name: &'static str,
    /// What is in it.
    pub(super) text: &'static str,
}

pub(super) const PUBLICATION: Script =
    Script { name: "01-publication.sql", text: include_str!("../../../sql/01-publication.sql") };
pub(super) const REPLICATION_ROLE: Script = Script {
    name: "02-replication-role.sql",
    text: include_str!("../../../sql/02-replication-role.sql"),
};
pub(super) const ASKING_ROLE: Script =
    Script { name: "03-asking-role.sql", text: include_str!("../../../sql/03-asking-role.sql") };
pub(super) const CLIENT_ROLES: Script =
    Script { name: "04-client-roles.sql", text: include_str!("../../../sql/04-client-roles.sql") };
pub(super) const FENCE: Script =
    Script { name: "06-fence.sql", text: include_str!("../../../sql/06-fence.sql") };
pub(super) const REMOVE: Script =
    Script { name: "05-remove.sql", text: include_str!("../../../sql/05-remove.sql") };

/// What the variables of a script are.
pub(super) type Variables = BTreeMap<&'static str, String>;

/// One thing to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A statement.
    Run(String),
    /// A query: each cell of its answer is a statement, which is run.
    Generate(String),
}

impl Script {
    /// The script as psql takes it, with the variables set in front.
    pub(super) fn with(self, variables: &Variables) -> String {
        let mut text = format!("-- {}\n\n", self.name);
        for (name, value) in variables {
            let value = literal(&value.replace('\\', "\\\\"));
            text.push_str(&format!("\\set {name} {value}\n"));
        }
        text.push('\n');
        text.push_str(self.text);
        text
    }

    /// What psql would run.
    pub(super) fn steps(self, variables: &Variables) -> Vec<Step> {
        let mut variables: BTreeMap<String, String> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let (mut steps, mut statement, mut taken) = (Vec::new(), String::new(), vec![true]);
        for line in self.text.lines() {
            let trimmed = line.trim();
            if let Some(condition) = trimmed.strip_prefix("\\if ") {
                let name = condition.trim().trim_start_matches(":{?").trim_end_matches('}');
                taken.push(variables.contains_key(name));
            } else if trimmed == "\\else" {
                let condition = taken.pop().unwrap_or(false);
                taken.push(!condition);
            } else if trimmed == "\\endif" {
                taken.pop();
            } else if taken.contains(&false) || trimmed.is_empty() || trimmed.starts_with("--") {
                // Not for us, or for nobody.
            } else if let Some(setting) = trimmed.strip_prefix("\\set ") {
                let (name, value) = setting.split_once(' ').unwrap_or((setting, ""));
                variables.insert(name.to_owned(), value.trim_matches('\'').to_owned());
            } else if trimmed == "\\gexec" {
                steps.push(Step::Generate(fill(&std::mem::take(&mut statement), &variables)));
            } else {
                statement.push_str(line);
                statement.push('\n');
                if trimmed.ends_with(';') {
                    steps.push(Step::Run(fill(&std::mem::take(&mut statement), &variables)));
                }
            }
        }
        steps
    }
}

/// The statement with `:'name'` and `:"name"` put in.
fn fill(statement: &str, variables: &BTreeMap<String, String>) -> String {
    let mut filled = statement.trim().trim_end_matches(';').to_owned();
    for (name, value) in variables {
        filled = filled.replace(&format!(":'{name}'"), &literal(value));
        let identifier = format!("\"{}\"", value.replace('"', "\"\""));
        filled = filled.replace(&format!(":\"{name}\""), &identifier);
    }
    filled
}

/// A value in single quotes, for psql's `\set` and for SQL.
fn literal(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Script; 6] =
        [PUBLICATION, REPLICATION_ROLE, ASKING_ROLE, CLIENT_ROLES, FENCE, REMOVE];

    #[test]
    fn nothing_of_psql_is_left_in_a_step() {
        for script in ALL {
            let variables =
                Variables::from([("DBNAME", "app".to_owned()), ("roles", "web".to_owned())]);
            let steps = script.steps(&variables);
            assert!(steps.len() >= 3, "{}: {steps:?}", script.name);
            for Step::Run(sql) | Step::Generate(sql) in steps {
                assert!(!sql.contains('\\'), "{}: {sql}", script.name);
                let rest = sql.replace("::", "");
                assert!(!rest.contains(":'") && !rest.contains(":\""), "{}: {sql}", script.name);
            }
        }
    }

    #[test]
    fn what_is_given_wins_over_what_the_file_sets() {
        let variables = Variables::from([("publication", "it's".to_owned())]);
        let steps = PUBLICATION.steps(&variables);
        let Some(Step::Generate(create)) = steps.first() else { panic!("{steps:?}") };
        assert!(create.contains("pubname = 'it''s'"), "{create}");
        let Some(Step::Run(alter)) = steps.get(1) else { panic!("{steps:?}") };
        assert!(alter.starts_with("ALTER PUBLICATION \"it's\" SET ("), "{alter}");
        let without = PUBLICATION.steps(&Variables::new());
        let Some(Step::Run(alter)) = without.get(1) else { panic!("{without:?}") };
        assert!(alter.starts_with("ALTER PUBLICATION \"walcast\" SET ("), "{alter}");
    }
}
