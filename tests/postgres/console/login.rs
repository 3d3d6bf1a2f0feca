//! Who comes in, and what for.

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Desk;
use super::psql;
use super::text;
use crate::deployment::DEADLINE;
use crate::deployment::Plan;

const ASK: [&str; 3] = ["-At", "-c", "SHOW VERSION"];

#[tokio::test]
async fn a_password_admits_whoever_has_a_level_and_nobody_else() {
    let desk = Desk::open(Plan::default()).await;
    for user in ["dba", "viewer"] {
        let output = psql(&desk.over_tcp(user), &ASK).await;
        assert!(output.status.success(), "{user}: {}", text(&output.stderr));
    }
    let refused = async |connection: String| {
        let output = psql(&connection, &ASK).await;
        assert_eq!(output.status.code(), Some(2));
        let said = text(&output.stderr);
        said.split_once("FATAL:").unwrap().1.trim().replace(char::is_whitespace, " ")
    };
    let wrong = refused(format!("{} password=wrong", desk.over_tcp("dba"))).await;
    assert_eq!(wrong, "password authentication failed for user \"dba\"");
    let unknown = refused(desk.over_tcp("stranger")).await;
    assert_eq!(unknown, "password authentication failed for user \"stranger\"");
    // Has a verifier and no level.
    let idle = refused(desk.over_tcp("nobody")).await;
    assert_eq!(idle, "password authentication failed for user \"nobody\"");
}

#[tokio::test]
async fn who_may_only_see_changes_nothing() {
    let desk = Desk::open(Plan::default()).await;
    for connection in [desk.over_tcp("viewer"), desk.over_socket("viewer")] {
        let output = psql(&connection, &["-At", "-c", "SHOW CLIENTS", "-c", "KILL 1"]).await;
        let said = text(&output.stderr);
        assert!(said.contains("viewer has the level stats and may only see"), "{said}");
        for statement in ["DRAIN", "RELOAD", "PAUSE", "CHECK", "KILL USER 'x'", "SHUTDOWN"] {
            let output = psql(&connection, &["-c", statement]).await;
            let said = text(&output.stderr);
            assert!(said.contains("may only see"), "{statement}: {said}");
        }
    }
    let output = psql(&desk.over_socket("dba"), &["-At", "-c", "SHOW STATE"]).await;
    assert!(text(&output.stdout).starts_with("streaming||"), "{}", text(&output.stdout));
}

#[tokio::test]
async fn with_a_certificate_the_password_is_bound_to_the_connection() {
    let folder = std::env::temp_dir().join(format!("walcast-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (certificate, key) = (folder.join("console.pem"), folder.join("console.key"));
    certify(&certificate, &key).await;
    let set = [
        format!("console.tls_cert_file={}", certificate.display()),
        format!("console.tls_key_file={}", key.display()),
    ];
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    let desk = Desk::open(Plan { set: &set, ..Plan::default() }).await;
    std::fs::remove_dir_all(&folder).unwrap();
    for wish in ["sslmode=require channel_binding=require", "sslmode=disable", "sslmode=prefer"] {
        let output = psql(&format!("{} {wish}", desk.over_tcp("dba")), &ASK).await;
        assert!(output.status.success(), "{wish}: {}", text(&output.stderr));
    }
    let wrong = format!("{} sslmode=require password=wrong", desk.over_tcp("dba"));
    assert!(text(&psql(&wrong, &ASK).await.stderr).contains("password authentication failed"));
}

/// A certificate that nobody has signed but itself, by openssl.
async fn certify(certificate: &std::path::Path, key: &std::path::Path) {
    let mut command = tokio::process::Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    command.args(["-nodes", "-days", "2", "-subj", "/CN=localhost"]);
    command.arg("-keyout").arg(key).arg("-out").arg(certificate);
    let output = timeout(DEADLINE, command.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[tokio::test]
async fn a_full_way_in_says_so_and_leaves_the_other_free() {
    let set = ["console.connections_max=2"];
    let desk = Desk::open(Plan { set: &set, ..Plan::default() }).await;
    let mut silent = Vec::new();
    for _ in 0..2 {
        silent.push(greeted(desk.port()).await);
    }
    let output = psql(&desk.over_tcp("dba"), &ASK).await;
    let said = text(&output.stderr);
    assert!(said.contains("the console has too many connections already"), "{said}");
    assert!(desk.psql("SHOW VERSION").await.starts_with("walcast"));
    drop(silent);
    // A place is free when the end of a connection was seen.
    let free = async { while !psql(&desk.over_tcp("dba"), &ASK).await.status.success() {} };
    timeout(DEADLINE, free).await.unwrap();
}

/// A connection that has begun to log in, and does not go on.
async fn greeted(port: u16) -> TcpStream {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let parameters = b"\0\x03\0\0user\0dba\0\0";
    let length = u32::try_from(parameters.len() + 4).unwrap();
    socket.write_all(&[&length.to_be_bytes()[..], parameters].concat()).await.unwrap();
    assert_eq!(timeout(DEADLINE, socket.read_u8()).await.unwrap().unwrap(), b'R');
    socket
}

#[tokio::test]
async fn what_is_no_start_of_a_connection_ends_it() {
    let desk = Desk::open(Plan::default()).await;
    for sent in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"\0\0\0\x08\xff\xff\xff\xff",
        b"\x7f\xff\xff\xff\0\x03\0\0",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc",
        b"\0\0\0\x09\0\x03\0\0\0",
    ] {
        let mut socket = TcpStream::connect(("127.0.0.1", desk.port())).await.unwrap();
        socket.write_all(sent).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // A reset is an end, too.
        let _end = timeout(DEADLINE, socket.read_to_end(&mut answer)).await.unwrap();
        assert!(!answer.contains(&b'Z'), "{sent:?}: {answer:?}");
    }
    assert!(psql(&desk.over_tcp("dba"), &ASK).await.status.success());
}

/// How many logins were refused for a reason.
fn refused(desk: &Desk, reason: &str) -> u64 {
    let counted = desk.deployment.daemon.metrics().logins_refused.get();
    counted.get(reason).copied().unwrap_or(0)
}

#[tokio::test]
async fn refused_logins_are_counted_by_their_reason() {
    let desk = Desk::open(Plan { set: &["console.connections_max=1"], ..Plan::default() }).await;
    let wrong = format!("{} password=wrong", desk.over_tcp("dba"));
    assert!(!psql(&wrong, &ASK).await.status.success());
    assert_eq!(refused(&desk, "password"), 1);
    let full = async {
        let _silent = greeted(desk.port()).await;
        while refused(&desk, "full") == 0 {
            assert!(!psql(&desk.over_tcp("dba"), &ASK).await.status.success());
        }
    };
    timeout(DEADLINE, full).await.unwrap();
}

#[tokio::test]
async fn who_does_not_log_in_in_time_is_sent_away() {
    let desk = Desk::open(Plan { set: &["console.login_seconds=1"], ..Plan::default() }).await;
    let mut socket = greeted(desk.port()).await;
    let mut said = Vec::new();
    timeout(DEADLINE, socket.read_to_end(&mut said)).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("57014") && said.contains("the login took too long"), "{said:?}");
    assert_eq!(refused(&desk, "late"), 1);
}

#[tokio::test]
async fn who_asks_nothing_for_too_long_is_sent_away() {
    let desk = Desk::open(Plan { set: &["console.idle_seconds=1"], ..Plan::default() }).await;
    let (client, mut connection) =
        tokio_postgres::connect(&desk.over_socket("root"), tokio_postgres::NoTls).await.unwrap();
    let ended = timeout(DEADLINE, &mut connection).await.unwrap();
    let said = ended.unwrap_err();
    assert_eq!(said.code().unwrap().code(), "57P05", "{said:?}");
    drop(client);
    // Others come in as before.
    assert!(desk.psql("SHOW VERSION").await.starts_with("walcast"));
}

#[tokio::test]
async fn another_user_of_the_machine_needs_a_password_on_the_unix_socket() {
    let desk = Desk::open(Plan::default()).await;
    // Only root can be somebody else.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let open = |path: &std::path::Path| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    };
    let socket = desk.folder.join(".s.PGSQL.4482");
    let ask = async |password: &str, user: &str| {
        let mut command = tokio::process::Command::new("setpriv");
        command.args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "psql",
            "-X",
            &desk.over_socket(user),
        ]);
        command.args(ASK).env("PGPASSWORD", password).env("HOME", "/nonexistent");
        command.env("PGCONNECT_TIMEOUT", "20").kill_on_drop(true);
        let output = timeout(DEADLINE, command.output()).await.unwrap().unwrap();
        text(&output.stdout) + &text(&output.stderr)
    };
    // Not of the socket's group: the system keeps it out.
    let said = ask(super::PASSWORD, "dba").await;
    assert!(said.contains("Permission denied"), "{said}");
    open(&desk.folder);
    open(&socket);
    let said = ask("wrong", "root").await;
    assert!(said.contains("password authentication failed"), "{said}");
    let said = ask(super::PASSWORD, "dba").await;
    assert!(said.starts_with("walcast "), "{said}");
}
