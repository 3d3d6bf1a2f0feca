//! `walcast explain`, as a user runs it.

use std::process::Command;

use serde_json::Value;
use serde_json::json;

use crate::deployment::Deployment;
use crate::deployment::Plan;
use crate::program::Folder;
use crate::program::printed;
use crate::program::walcast;
use crate::support;

/// A database with an asking role that may act for the client's and see nothing by itself, as
/// `sql/` makes it.
struct Asked {
    deployment: Deployment,
    folder: Folder,
    name: String,
}

impl Asked {
    async fn new() -> Asked {
        let plan = Plan {
            schema: "CREATE TABLE notes (id int PRIMARY KEY, tenant text, body text);
                 ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
                 CREATE POLICY tenancy ON notes AS RESTRICTIVE
                   USING (tenant = current_setting('request.jwt.claim.org', true));
                 CREATE POLICY long ON notes USING (length(body) > 3);
                 INSERT INTO notes VALUES (1, 'acme', 'long'), (2, 'acme', 'x'), (3, 'beta', 'long')",
            ..Plan::default()
        };
        let deployment = Deployment::start(plan).await;
        let folder = Folder::new();
        let name = deployment.role.strip_prefix("web_").unwrap().to_owned();
        let role = &deployment.role;
        let asking = format!("CREATE ROLE ask_{name} LOGIN NOINHERIT; GRANT {role} TO ask_{name}");
        deployment.execute(&[&asking]).await;
        let server = support::shared_server();
        let ask_url = server.connection_string_as(&format!("ask_{name}"), &name);
        let url = server.connection_string(&name);
        let text = format!(
            "[database]\nurl = '{url}'\nask_url = '{ask_url}'\n\
             [auth]\nroles = ['{role}']\ndefault_role = '{role}'\nanonymous_role = '{role}'\n"
        );
        folder.write("walcast.toml", text);
        Asked { deployment, folder, name }
    }

    fn command(&self, more: &[&str]) -> Command {
        let config = self.folder.path("walcast.toml");
        let mut arguments =
            vec!["explain", "--config", config.to_str().unwrap(), "--table", "notes"];
        arguments.extend(more);
        walcast(&arguments)
    }

    fn answer(&self, more: &[&str]) -> Value {
        let output = self.command(more).args(["--format", "json"]).output().unwrap();
        assert!(output.status.success(), "{}", printed(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

#[tokio::test]
async fn the_command_explains_rows_and_asks_postgres_too() {
    let asked = Asked::new().await;
    let claims = ["--claims", r#"{"org":"acme"}"#];
    let of = |key: &str, more: &[&str]| {
        let mut arguments = vec!["--key", key];
        arguments.extend(claims);
        arguments.extend(more);
        asked.answer(&arguments)
    };
    let seen = of("id = 1", &[]);
    assert_eq!((&seen["outcome"], &seen["op"]), (&json!("delivered"), &json!("snapshot")));
    assert_eq!(seen["postgres_shows_it"], true, "{seen}");
    let filtered = of("id = 1", &["--where", "body = 'x'"]);
    assert_eq!(filtered["because"], "the filter, in its part body = 'x' does not admit the row");

    // The asking role by itself sees nothing, so only the key is known.
    let hidden = of("id = 2", &[]);
    assert_eq!(
        (&hidden["outcome"], &hidden["postgres_shows_it"]),
        (&json!("undecided"), &json!(false))
    );
    let url = support::shared_server().connection_string(&asked.name);
    let hidden = of("id = 2", &["--reading-url", &url]);
    assert_eq!(
        (&hidden["outcome"], &hidden["postgres_shows_it"]),
        (&json!("hidden"), &json!(false))
    );
    assert_eq!(hidden["because"], "no permissive policy admits the row");
    let hidden = of("id = 3", &["--reading-url", &url]);
    assert_eq!(hidden["because"], "restrictive policy \"tenancy\" does not admit the row");

    let said =
        asked.answer(&["--row", r#"{"id":9,"tenant":"acme","body":"long"}"#, claims[0], claims[1]]);
    assert_eq!((&said["outcome"], &said["postgres_shows_it"]), (&json!("delivered"), &Value::Null));
    let text = asked.command(&["--key", "id=1"]).output().unwrap();
    assert!(printed(&text).starts_with("not delivered"), "{}", printed(&text));
    assert!(printed(&text).contains("ALTER TABLE public.notes REPLICA IDENTITY FULL"));
    drop(asked.deployment);
}

/// Policies that read another table, and one that Postgres is asked about: both as of now.
#[tokio::test]
async fn policies_that_are_not_decided_here_are_asked_as_of_now() {
    let asked = Asked::new().await;
    let Asked { deployment, name, .. } = &asked;
    deployment
        .execute(&[
            "CREATE TABLE members (note int PRIMARY KEY, member text)",
            "CREATE FUNCTION open_hours(note int) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
             BEGIN PERFORM 1; IF note = 1 THEN RETURN true; END IF; RETURN 1 / (note - 2) < 0; END $$",
            "DROP POLICY tenancy ON notes",
            "ALTER POLICY long ON notes USING (EXISTS (SELECT FROM members m WHERE m.note = notes.id
               AND m.member = current_setting('request.jwt.claim.sub', true)))",
            "CREATE POLICY hours ON notes AS RESTRICTIVE USING (open_hours(id))",
        ])
        .await;
    let url = support::shared_server().connection_string(name);
    let of = |id: &str| {
        let key = format!("id = {id}");
        asked.answer(&["--key", &key, "--claims", r#"{"sub":"7"}"#, "--reading-url", &url])
    };
    let hidden = of("1");
    assert_eq!(hidden["outcome"], "hidden", "{hidden}");
    assert_eq!(hidden["because"], "no permissive policy admits the row, as of now");
    let joins = "INSERT INTO members VALUES (1, '7'), (2, '7'), (3, '7')";
    deployment.execute(&[joins]).await;
    let seen = of("1");
    assert_eq!(
        (&seen["outcome"], &seen["op"]),
        (&json!("delivered"), &json!("snapshot")),
        "{seen}"
    );
    assert_eq!(seen["because"], "policy \"long\" admits the row, as of now");
    assert_eq!(seen["postgres_shows_it"], true);
    assert!(seen["clauses"].as_array().unwrap().iter().all(|it| it["asked"] == true), "{seen}");
    let raises = of("2");
    assert_eq!(raises["outcome"], "undecided", "{raises}");
    let why =
        "restrictive policy \"hours\" can't be decided of the row: it raises an error in Postgres";
    assert_eq!(raises["because"], format!("{why}, as of now"));
    assert_eq!(
        of("3")["because"],
        "restrictive policy \"hours\" does not admit the row, as of now"
    );
    let said = asked.answer(&["--row", r#"{"id":1,"tenant":"x"}"#, "--claims", r#"{"sub":"8"}"#]);
    assert_eq!(said["because"], "no permissive policy admits the row, as of now", "{said}");
}

#[tokio::test]
async fn the_command_says_what_is_wrong_with_its_question() {
    let asked = Asked::new().await;
    for (arguments, message) in [
        (&["--key", "id"][..], "--key: expected =, found the end of the statement"),
        (&["--key", "no = 1"], "public.notes has no column no"),
        (&["--key", "tenant = 'acme'", "--reading-url", "URL"], "several rows have this key"),
        (&["--row", "[]"], "not a JSON object of the columns of public.notes"),
        (&["--row", r#"{"no":1}"#], "not a JSON object of the columns of public.notes"),
        (&["--key", "id=1", "--claims", "{"], "not a JSON object"),
        (&["--key", "id=1", "--claims", r#"{"role":"postgres"}"#], "a role that is not allowed"),
        (&["--key", "id=1", "--token", "/nowhere"], "cannot read /nowhere"),
        (&["--key", "id=1", "--table", "other"], "cannot be used multiple times"),
    ] {
        let url = support::shared_server().connection_string(&asked.name);
        let arguments: Vec<&str> =
            arguments.iter().map(|it| if *it == "URL" { url.as_str() } else { it }).collect();
        let output = asked.command(&arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        assert!(printed(&output).contains(message), "{arguments:?}: {}", printed(&output));
    }
}
