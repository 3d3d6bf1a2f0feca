//! `walcast setup`, printed and run, as a DBA does it.

use std::io::Write;
use std::process::Output;
use std::process::Stdio;

use tokio_postgres::Client;

use crate::program::Folder;
use crate::program::printed;
use crate::program::run;
use crate::support;
use crate::support::Database;

/// A database with an application's tables, and names of this test's own for all that is made.
struct Fresh {
    database: Database,
    sql: Client,
    folder: Folder,
}

impl Fresh {
    async fn new() -> Fresh {
        let database = support::database().await;
        let sql = database.connect().await;
        sql.batch_execute(
            "CREATE TABLE orders (id int PRIMARY KEY, customer text); \
             ALTER TABLE orders REPLICA IDENTITY FULL; CREATE TABLE \"We Ird\" (id int)",
        )
        .await
        .unwrap();
        Fresh { database, sql, folder: Folder::new() }
    }

    fn named(&self, name: &str) -> String {
        format!("{name}_{}", self.database.name)
    }

    /// Runs the command, with names of this test's own.
    fn setup(&self, more: &[&str]) -> Output {
        let names = [
            ("--publication", "walcast".to_owned()),
            ("--slot", self.database.name.clone()),
            ("--replication-role", self.named("repl")),
            ("--asking-role", self.named("ask")),
        ];
        let mut arguments = vec!["setup"];
        arguments.extend(names.iter().flat_map(|(flag, name)| [*flag, name.as_str()]));
        arguments.extend(more);
        run(&arguments)
    }

    /// Gives a script to psql.
    fn psql(&self, script: &[u8]) -> Output {
        let mut command = std::process::Command::new("psql");
        command.args(["-X", "-q", "-d", &self.database.connection_string()]);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        child.stdin.take().unwrap().write_all(script).unwrap();
        child.wait_with_output().unwrap()
    }

    /// What is there of publication and roles.
    async fn made(&self) -> Vec<String> {
        let query = "SELECT tablename::text FROM pg_publication_tables WHERE pubname = 'walcast' \
                     UNION ALL SELECT rolname::text FROM pg_roles WHERE rolname LIKE '%\\_' || $1 \
                     ORDER BY 1";
        let rows = self.sql.query(query, &[&self.database.name]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Whether the event trigger is there.
    async fn fenced(&self) -> bool {
        let query = "SELECT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'walcast_fence')";
        self.sql.query_one(query, &[]).await.unwrap().get(0)
    }

    fn check(&self) -> Output {
        let server = self.database.server;
        let url = |role: &str| server.connection_string_as(&self.named(role), &self.database.name);
        let text = format!(
            "[database]\nurl = '{}'\nask_url = '{}'\nslot = '{}'\n[auth]\nroles = ['{web}']\n\
             anonymous_role = '{web}'\n[[table]]\nname = 'orders'\nopen = true\n",
            url("repl"),
            url("ask"),
            self.database.name,
            web = self.named("web"),
        );
        let file = self.folder.write("walcast.toml", text);
        run(&["check", "--online", "--config", file.to_str().unwrap()])
    }
}

#[tokio::test]
async fn what_is_printed_makes_all_that_is_needed_and_what_takes_it_away() {
    let fresh = Fresh::new().await;
    let web = fresh.named("web");
    let script = fresh.setup(&["--tables", "public.orders", "--role", &web]);
    assert!(script.status.success(), "{}", printed(&script));
    for _ in 0..2 {
        let applied = fresh.psql(&script.stdout);
        assert!(applied.status.success() && applied.stderr.is_empty(), "{}", printed(&applied));
    }
    assert!(fresh.fenced().await);
    let (ask, repl) = (fresh.named("ask"), fresh.named("repl"));
    assert_eq!(fresh.made().await, [ask, "orders".to_owned(), repl, web.clone()]);
    let report = fresh.check();
    assert!(
        printed(&report).contains("0 errors") || report.status.success(),
        "{}",
        printed(&report)
    );

    let slot = "SELECT pg_create_logical_replication_slot($1, 'pgoutput')";
    fresh.sql.execute(slot, &[&fresh.database.name]).await.unwrap();
    let removal = fresh.setup(&["--remove"]);
    for _ in 0..2 {
        let applied = fresh.psql(&removal.stdout);
        assert!(applied.status.success(), "{}", printed(&applied));
    }
    assert_eq!(fresh.made().await, [web]);
    assert!(!fresh.fenced().await);
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1";
    let row = fresh.sql.query_one(slots, &[&fresh.database.name]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 0);
}

#[tokio::test]
async fn it_is_run_as_whoever_may_and_again_and_all_or_nothing() {
    let fresh = Fresh::new().await;
    let (web, url) = (fresh.named("web"), fresh.database.connection_string());
    let apply =
        |tables: &str| fresh.setup(&["--tables", tables, "--role", &web, "--apply", "--url", &url]);
    let failed = apply("public.orders,public.nothing");
    assert_eq!(failed.status.code(), Some(1), "{}", printed(&failed));
    assert!(printed(&failed).contains("nothing was changed: "), "{}", printed(&failed));
    assert!(printed(&failed).contains("\"public.nothing\" does not exist"), "{}", printed(&failed));
    assert_eq!(fresh.made().await, [""; 0]);

    let first = apply("public.orders,\"We Ird\"");
    assert!(first.status.success(), "{}", printed(&first));
    let text = printed(&first);
    assert!(text.contains("  CREATE PUBLICATION walcast;\n"), "{text}");
    assert!(text.contains("-- \"We Ird\": UPDATE and DELETE FAIL: ALTER TABLE"), "{text}");
    assert!(text.contains("  CREATE EVENT TRIGGER walcast_fence ON "), "{text}");
    assert!(!text.contains("takes a superuser") && fresh.fenced().await, "{text}");
    let again = apply("public.orders,\"We Ird\"");
    assert!(again.status.success(), "{}", printed(&again));
    assert!(!printed(&again).contains("CREATE"), "{}", printed(&again));
    assert_eq!(fresh.made().await.len(), 5);
}

#[tokio::test]
async fn an_owner_without_superuser_makes_all_but_the_replication_role() {
    let fresh = Fresh::new().await;
    let (owner, web) = (fresh.named("owner"), fresh.named("web"));
    fresh
        .sql
        .batch_execute(&format!(
            "CREATE ROLE {owner} LOGIN CREATEROLE; ALTER DATABASE {} OWNER TO {owner}; \
             ALTER SCHEMA public OWNER TO {owner}; ALTER TABLE orders OWNER TO {owner}",
            fresh.database.name
        ))
        .await
        .unwrap();
    let url = fresh.database.server.connection_string_as(&owner, &fresh.database.name);
    let arguments = ["--tables", "orders", "--role", &web, "--apply", "--url", &url];
    let refused = fresh.setup(&arguments);
    assert_eq!(refused.status.code(), Some(1), "{}", printed(&refused));
    assert_eq!(fresh.made().await, std::slice::from_ref(&owner));
    let applied = fresh.setup(&[&arguments[..], &["--without-replication-role"]].concat());
    assert!(applied.status.success(), "{}", printed(&applied));
    assert_eq!(fresh.made().await.len(), 4);
    let text = printed(&applied);
    assert!(text.contains("walcast_fence, which takes a superuser"), "{text}");
    assert!(!fresh.fenced().await);

    // Whoever may makes it later, and check knows whether it is there.
    fresh
        .sql
        .batch_execute(
            "CREATE FUNCTION mine(text) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT $1 = current_user'; \
             ALTER TABLE orders ENABLE ROW LEVEL SECURITY; \
             CREATE POLICY p ON orders USING (mine(customer))",
        )
        .await
        .unwrap();
    let password = format!("CREATE ROLE {} LOGIN REPLICATION", fresh.named("repl"));
    fresh.sql.batch_execute(&password).await.unwrap();
    let said = printed(&fresh.check());
    assert!(said.contains("walcast_fence: is not there"), "{said}");
    let url = fresh.database.connection_string();
    let arguments = ["--tables", "orders", "--role", &web, "--apply", "--url", &url];
    let applied = fresh.setup(&arguments);
    assert!(applied.status.success() && fresh.fenced().await, "{}", printed(&applied));
    let said = printed(&fresh.check());
    assert!(said.contains("walcast_fence: is there"), "{said}");
}

#[tokio::test]
async fn the_event_trigger_is_left_out_where_nobody_wants_it() {
    let fresh = Fresh::new().await;
    let (web, url) = (fresh.named("web"), fresh.database.connection_string());
    let arguments =
        ["--tables", "orders", "--role", &web, "--apply", "--url", &url, "--without-fence"];
    let applied = fresh.setup(&arguments);
    assert!(applied.status.success() && !fresh.fenced().await, "{}", printed(&applied));
}

#[tokio::test]
async fn tables_and_names_come_from_a_configuration() {
    let fresh = Fresh::new().await;
    // Writes the configuration.
    fresh.check();
    let file = fresh.folder.path("walcast.toml");
    let output = run(&["setup", "--config", file.to_str().unwrap()]);
    let text = printed(&output);
    assert!(output.status.success(), "{text}");
    for expected in [
        "\\set tables '\"public\".\"orders\"'\n".to_owned(),
        format!("\\set roles '{}'\n", fresh.named("web")),
        format!("\\set asking_role '{}'\n", fresh.named("ask")),
    ] {
        assert!(text.contains(&expected), "{expected}: {text}");
    }
    let nothing = run(&["setup"]);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(printed(&nothing).contains("no table is named"), "{}", printed(&nothing));
}
