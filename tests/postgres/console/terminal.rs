//! psql in a terminal: Tab, and what stands after a backslash.

use std::process::Stdio;

use tokio::process::Command;
use tokio::time::timeout;

use super::Desk;
use super::PASSWORD;
use super::psql;
use super::text;
use crate::deployment::DEADLINE;
use crate::deployment::Plan;

/// Types into psql in a terminal of its own: `SHOW CLI` and Tab, `select from ord` and Tab. What
/// comes back is printed when both are complete.
const TYPIST: &str = r"
import os, pty, select, sys, time
pid, terminal = pty.fork()
if pid == 0:
    os.environ.update(TERM='dumb', PAGER='cat', PSQL_HISTORY='/dev/null', INPUTRC='/dev/null')
    os.execvp('psql', ['psql', '-X'] + sys.argv[1:])
seen = ''
def until(wanted):
    global seen
    deadline = time.monotonic() + 25
    while wanted not in seen:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([terminal], [], [], left)[0]:
            sys.exit('waited in vain for %r: %r' % (wanted, seen))
        seen += os.read(terminal, 4096).decode()
    seen = seen.split(wanted, 1)[1]
def write(keys):
    os.write(terminal, keys.encode())
until('=> ')
write('SHOW CLI\t')
until('clients ')
write(';\n')
until('(0 rows)')
until('=> ')
write('SELECT * FROM ord\t')
until('ers ')
write('\x15SHOW VERSION \\watch 0.1\n')
for _ in range(3):
    until('walcast 0.')
write('\x03')
until('=> ')
write('\\q\n')
os.waitpid(pid, 0)
print('complete')
";

#[tokio::test]
async fn tab_completes_and_watch_repeats() {
    let plan = Plan { schema: "CREATE TABLE orders (id bigint PRIMARY KEY)", ..Plan::default() };
    let desk = Desk::open(plan).await;
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", TYPIST, &desk.over_socket("root")]).kill_on_drop(true);
    command.stdin(Stdio::null()).env("PGPASSWORD", PASSWORD);
    let output = timeout(DEADLINE, command.output()).await.unwrap().unwrap();
    assert_eq!(text(&output.stdout), "complete\n", "{}", text(&output.stderr));
}

#[tokio::test]
async fn what_psql_makes_of_a_table_is_its_own_to_choose() {
    let desk = Desk::open(Plan::default()).await;
    let run = async |arguments: &[&str]| {
        let output = psql(&desk.over_socket("root"), arguments).await;
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let version = concat!("walcast ", env!("CARGO_PKG_VERSION"));
    let file = desk.folder.join("commands.sql");
    std::fs::write(&file, "SHOW VERSION \\gset its_\n\\echo :its_version\nSHOW VERSION \\gx\n")
        .unwrap();
    let (code, printed, _) = run(&["-f", &file.display().to_string()]).await;
    assert!(code == Some(0) && printed.starts_with(&format!("{version}\n")), "{printed}");
    assert!(printed.contains(&format!("version | {version}")), "{printed}");
    // Several statements of one text; an error ends the text, not the connection.
    let (code, printed, said) =
        run(&["-At", "-c", "SHOW VERSION; SELECT 1; nonsense; SHOW VERSION", "-c", "SELECT 2"])
            .await;
    assert_eq!((code, printed), (Some(0), format!("{version}\n1\n2\n")), "{said}");
    assert!(said.contains("HINT:"), "{said}");
    for (command, expected) in [("\\dt", ""), ("\\d", ""), ("\\l", "(0 rows)"), ("\\du", "")] {
        let (code, printed, said) = run(&["-c", command]).await;
        assert_eq!(code, Some(0), "{command}: {said}");
        assert!(printed.contains(expected), "{command}: {printed}");
    }
    let (_, _, said) = run(&["-c", "SELECT * FROM orders"]).await;
    assert!(said.contains("walcast's console is not a database"), "{said}");
    let (code, printed, _) = run(&["-At", "-c", "BEGIN; SHOW VERSION; COMMIT"]).await;
    assert_eq!((code, printed), (Some(0), format!("BEGIN\n{version}\nCOMMIT\n")));
}

#[tokio::test]
async fn a_statement_that_is_too_long_ends_its_connection_only() {
    let desk = Desk::open(Plan::default()).await;
    let file = desk.folder.join("one.sql");
    std::fs::write(&file, format!("SELECT '{}';\n", "x".repeat(3 << 20))).unwrap();
    let output = psql(&desk.over_socket("root"), &["-f", &file.display().to_string()]).await;
    assert_ne!(output.status.code(), Some(0));
    assert!(desk.psql("SHOW VERSION").await.starts_with("walcast"));
}
