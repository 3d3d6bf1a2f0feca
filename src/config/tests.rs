use super::*;
use crate::auth::{Material, Verifier};
use std::path::Path;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/tokens");

/// The least that is a configuration.
const LEAST: &str = r#"
database.url = "postgres://walcast@localhost/app"
auth.anonymous_role = "visitor"
"#;

/// A folder of its own for the file, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder =
            std::env::temp_dir().join(format!("walcast-config-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn layers(environment: &[(&str, &str)], flags: &[&str]) -> Layers {
    Layers {
        file: None,
        environment: environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        credentials: None,
        allow_unknown: false,
    }
}

fn load(folder: &Folder, text: &str, above: Layers) -> Result<Config, ConfigError> {
    let file = folder.write("walcast.toml", text);
    Config::load(&Layers { file: Some(file), ..above })
}

/// The mistakes as they are printed, without the folder's name.
fn mistakes(name: &str, text: &str, above: Layers) -> String {
    let folder = Folder::new(name);
    let error = load(&folder, text, above).unwrap_err();
    error.to_string().replace(&format!("{}/", folder.0.display()), "")
}

#[test]
fn the_least_configuration_has_the_documented_defaults() {
    let folder = Folder::new("least");
    let config = load(&folder, LEAST, Layers::default()).unwrap();
    assert_eq!(config.window, Window { bytes: 64 << 20, age: Duration::from_secs(60) });
    assert_eq!(config.ring, Ring { bytes_max: 128 << 20, age_max: Duration::from_secs(600) });
    assert_eq!(config.listen.address, "127.0.0.1:4480".parse().unwrap());
    assert_eq!(config.listen.shards, None);
    assert_eq!(config.database.slot, "walcast");
    assert_eq!(config.database.ask_url, config.database.url);
    assert!(config.database.create_slot);
    assert_eq!(config.limits.silence, Duration::from_secs(45));
    let defaults = auth::Settings::default();
    assert_eq!(
        config.auth,
        auth::Settings { anonymous_role: Some("visitor".to_owned()), ..defaults }
    );
}

#[test]
fn every_mistake_is_reported_at_once_with_its_place() {
    let text = r#"
[database]
url = "postgres://walcast:hunter2@localhost/app"
slot = "Walcast-1"
create_slot = "yes"

[window]
byte = 12
seconds = 100000

[ring]
bytes_max = "64MB"
seconds_max = -1
slot = "x"

[listen]
adress = "0.0.0.0:4480"
address = "localhost"
shards = 1.5
origins = ["https://app.example.com", "app.example.com/"]

[limits]
ping_seconds = 60

[auth]
roles = ["customer", ""]
role_claim = []

[[auth.keys]]
algorithm = "none"
secret_file = "missing.txt"

[[auth.keys]]
algorithm = "RS256"

[[table]]
name = "public.orders"
policy = "true"
open = true

[[table]]
name = "a.b.c"
polcy = "true"

[quux]
corge = 1
"#;
    let environment =
        [("WALCAST__WINDOW__SECONDZ", "1"), ("WALCAST__LIMITS__REQUEST_BYTES_MAX", "1")];
    let above = layers(&environment, &["limits.outbox_bytes_max", "ring=2"]);
    insta::assert_snapshot!(mistakes("all", text, above), @r#"
    27 mistakes in the configuration
      walcast.toml:3:1: database.url: a password does not belong here; put it into a file, database.password_file
      walcast.toml:4:1: database.slot = "Walcast-1": expected at most 63 of a-z, 0-9 and _
      walcast.toml:5:1: database.create_slot = "yes": expected true or false
      walcast.toml:8:1: window.byte: unknown key (did you mean window.bytes?)
      walcast.toml:9:1: window.seconds = 100000: expected a whole number of seconds from 0 to 86400
      walcast.toml:12:1: ring.bytes_max = "64MB": expected a whole number of bytes from 1048576 to 1099511627776
      walcast.toml:13:1: ring.seconds_max = -1: expected a whole number of seconds from 1 to 86400
      walcast.toml:14:1: ring.slot: unknown key (did you mean database.slot?)
      walcast.toml:17:1: listen.adress: unknown key (did you mean listen.address?)
      walcast.toml:18:1: listen.address = "localhost": expected an address and a port, as in 127.0.0.1:4480 or [::]:4480
      walcast.toml:19:1: listen.shards = (float): expected a whole number of shards from 0 to 256
      walcast.toml:20:1: listen.origins = ["https://app.example.com", "app.example.com/"]: expected origins, as in https://app.example.com, or *
      walcast.toml:26:1: auth.roles = ["customer", ""]: expected a list of texts that are not empty
      walcast.toml:27:1: auth.role_claim = []: expected a claim's name, or a list of names
      walcast.toml:30:1: auth.keys.0.algorithm = "none": expected HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA
      walcast.toml:31:1: auth.keys.0.secret_file = "missing.txt": cannot be read: No such file or directory (os error 2)
      walcast.toml:39:1: table.0.open = true: a table has a policy or is open, not both
      walcast.toml:42:1: table.1.name = "a.b.c": expected schema.table, or table in the schema public
      walcast.toml:43:1: table.1.polcy: unknown key (did you mean table[].policy?)
      walcast.toml:46:1: quux.corge: unknown key (docs/configuration.md lists all of them)
      environment variable WALCAST__LIMITS__REQUEST_BYTES_MAX: limits.request_bytes_max = "1": expected a whole number of bytes from 1024 to 16777216
      environment variable WALCAST__WINDOW__SECONDZ: window.secondz: unknown key (did you mean window.seconds?)
      --set: limits.outbox_bytes_max: expected section.key=value
      --set: ring: unknown key (docs/configuration.md lists all of them)
      auth.keys.1.pem_file: missing: the key has to come from a file
      limits.silence_seconds: expected more than limits.ping_seconds, which is 60
      table.1.policy: missing; say who sees which rows, or open = true for everybody
    "#);
}

#[test]
fn a_file_that_is_not_toml_says_where() {
    let text = "[database]\nurl = \"x\nslot == 3\n";
    insta::assert_snapshot!(mistakes("toml", text, Layers::default()), @r#"
    3 mistakes in the configuration
      walcast.toml:3:7: not TOML: extra `=`, expected nothing
      walcast.toml:3:9: not TOML: unexpected key or value, expected newline, `#`
      walcast.toml:2:9: not TOML: invalid basic string, expected `"`
    "#);
}

#[test]
fn an_empty_configuration_says_what_is_needed() {
    let error = Config::load(&Layers::default()).unwrap_err();
    insta::assert_snapshot!(error.to_string(), @r#"
    2 mistakes in the configuration
      database.url: missing; it is needed, as in "postgres://walcast@localhost/app"
      auth.keys.0.algorithm: missing, and auth.anonymous_role is too, so that nobody could connect; add [[auth.keys]] with algorithm and secret_file or pem_file, or [[auth.jwks]]
    "#);
}

#[test]
fn a_section_that_may_be_repeated_must_be_written_so() {
    let text = format!("{LEAST}\n[table]\nname = \"public.orders\"\nopen = true\n");
    insta::assert_snapshot!(mistakes("table", &text, Layers::default()), @r"
    2 mistakes in the configuration
      walcast.toml:6:1: table.name: unknown key (the section is written [[table]])
      walcast.toml:7:1: table.open: unknown key (the section is written [[table]])
    ");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let file = Some(PathBuf::from("/nonexistent/walcast.toml"));
    let error = Config::load(&Layers { file, ..Layers::default() }).unwrap_err();
    assert_eq!(error.to_string(), "cannot read /nonexistent/walcast.toml");
}

#[test]
fn the_command_line_is_over_the_environment_and_that_is_over_the_file() {
    let folder = Folder::new("layers");
    let text = format!("{LEAST}\n[window]\nbytes = 1\nseconds = 1\n[ring]\nseconds_max = 1\n");
    let environment = [
        ("WALCAST__WINDOW__BYTES", "2"),
        ("WALCAST__WINDOW__SECONDS", "2"),
        ("WALCAST__LISTEN__SHARDS", ""),
        ("WALCAST__AUTH__ROLES", "customer, driver"),
        ("PATH", "/bin"),
    ];
    let config =
        load(&folder, &text, layers(&environment, &["window.bytes=3_000", "listen.shards=4"]));
    let config = config.unwrap();
    assert_eq!(config.window, Window { bytes: 3000, age: Duration::from_secs(2) });
    assert_eq!(config.ring.age_max, Duration::from_secs(1));
    assert_eq!(config.listen.shards, Some(4));
    assert_eq!(config.auth.roles, ["customer", "driver"]);
}

#[test]
fn everything_can_be_given_without_a_file() {
    let secret = format!("{FIXTURES}/secret.txt");
    let environment = [
        ("WALCAST__DATABASE__URL", "host=/run/postgresql user=walcast dbname=app"),
        ("WALCAST__AUTH__KEYS__0__ALGORITHM", "HS256"),
        ("WALCAST__AUTH__KEYS__0__SECRET_FILE", secret.as_str()),
        ("WALCAST__AUTH__ROLES", "customer"),
        ("WALCAST__TABLE__0__NAME", "sales.orders"),
        ("WALCAST__TABLE__0__OPEN", "true"),
    ];
    let config = Config::load(&layers(&environment, &[])).unwrap();
    assert_eq!(config.auth.keys.len(), 1);
    let orders = TablePolicy {
        schema: "sales".to_owned(),
        name: "orders".to_owned(),
        access: Access::Open,
        undecided: None,
    };
    assert_eq!(config.tables, [orders]);
    Verifier::new(config.auth).unwrap();
}

#[test]
fn files_are_beside_the_configuration_or_systemd_credentials() {
    let folder = Folder::new("files");
    let credentials = Folder::new("credentials");
    folder.write("db", "hunter2\n");
    credentials.write("jwt", "0123456789abcdef0123456789abcdef\r\n");
    let text = r#"
database.url = "postgres://walcast@localhost/app"
database.password_file = "db"
auth.roles = "customer"
[[auth.keys]]
algorithm = "HS256"
secret_file = "credential:jwt"
"#;
    let above = Layers { credentials: Some(credentials.0.clone()), ..Layers::default() };
    let config = load(&folder, text, above).unwrap();
    assert_eq!(config.database.password, Some(Secret::new(b"hunter2".to_vec())));
    assert_eq!(config.database.ask_password, config.database.password);
    let secret = Secret::new(b"0123456789abcdef0123456789abcdef".to_vec());
    let expected = Material::Secret(secret);
    assert_eq!(config.auth.keys.first().map(|key| &key.material), Some(&expected));

    let shown = format!("{config:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("104, 117"), "{shown}");
    assert!(!shown.contains("abcdef") && !shown.contains("97, 98, 99"), "{shown}");

    let missing = mistakes("no-credentials", text, Layers::default());
    assert!(missing.contains("$CREDENTIALS_DIRECTORY is not set"), "{missing}");
    for name in ["credential:", "credential:../x", "credential:.."] {
        let text = text.replace("credential:jwt", name);
        let above = Layers { credentials: Some(credentials.0.clone()), ..Layers::default() };
        let error = mistakes("credential", &text, above);
        assert!(error.contains("expected credential:NAME"), "{error}");
    }
}

#[test]
fn a_password_is_never_shown() {
    for url in [
        "postgres://walcast:hunter2@localhost/app",
        "host=localhost user=walcast password=hunter2",
        "host=localhost passwort=hunter2",
        "postgres://walcast:hunter2@[::1/app",
    ] {
        let text = format!("{LEAST}\n").replace("postgres://walcast@localhost/app", url);
        let error = mistakes("password", &text, Layers::default());
        assert!(!error.contains("hunter2"), "{error}");
        let error = load(&Folder::new("password-debug"), &text, Layers::default()).unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

#[test]
fn a_bad_key_is_reported_where_it_is_named() {
    let text = format!(
        "{LEAST}\nauth.roles = \"x\"\n[[auth.keys]]\nalgorithm = \"RS256\"\npem_file = \"{FIXTURES}/rsa.key.pem\"\n"
    );
    let error = mistakes("bad-key", &text, Layers::default()).replace(FIXTURES, "KEYS");
    insta::assert_snapshot!(error, @r#"
    one mistake in the configuration
      walcast.toml:8:1: auth.keys.0.pem_file = "KEYS/rsa.key.pem": this is a private key; give the public one (openssl pkey -in KEY -pubout)
    "#);
}

#[test]
fn table_names_are_the_catalogues() {
    let folder = Folder::new("tables");
    let named = |name: &str| {
        let text = format!("{LEAST}\n[[table]]\nname = '{name}'\nopen = true\n");
        let table = load(&folder, &text, Layers::default()).ok()?.tables.into_iter().next()?;
        Some(format!("{}|{}", table.schema, table.name))
    };
    assert_eq!(named("orders").as_deref(), Some("public|orders"));
    assert_eq!(named("Sales.Orders").as_deref(), Some("Sales|Orders"));
    assert_eq!(named(r#""my.schema"."a ""b""""#).as_deref(), Some(r#"my.schema|a "b""#));
    for name in [".", "a.", ".b", "a.b.c", r#""a"#, r#""".b"#] {
        assert_eq!(named(name), None, "{name}");
    }
}

#[test]
fn each_default_is_a_value_that_its_key_takes() {
    for key in keys::KEYS.iter().filter(|key| !key.name.contains("[]")) {
        let Some(default) = key.default else { continue };
        let flag = format!("{}={default}", key.name);
        let least = ["database.url=postgres://w@h/d", "auth.anonymous_role=v", flag.as_str()];
        Config::load(&layers(&[], &least)).unwrap();
    }
}

#[test]
fn a_secret_that_everybody_can_read_is_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("exposed");
    let path = folder.write("db", "hunter2");
    let text = format!("{LEAST}\ndatabase.password_file = \"db\"\n");
    let warned = |mode: u32| {
        fs::set_permissions(Path::new(&path), fs::Permissions::from_mode(mode)).unwrap();
        let config = load(&folder, &text, Layers::default()).unwrap();
        config.warnings.iter().any(|warning| warning.contains("read by everybody"))
    };
    assert!(warned(0o644));
    assert!(!warned(0o640));
}

#[test]
fn drop_ins_go_over_the_file_in_the_order_of_their_names_and_add_to_what_repeats() {
    let folder = Folder::new("drop-ins");
    fs::create_dir_all(folder.0.join("conf.d")).unwrap();
    folder
        .write("conf.d/20-b.toml", "[window]\nseconds = 20\n[[table]]\nname = 'c'\nopen = true\n");
    folder
        .write("conf.d/10-a.toml", "[window]\nseconds = 10\n[[table]]\nname = 'b'\nopen = true\n");
    folder.write("conf.d/30-c.toml.off", "[window]\nseconds = 30\n");
    let text = format!("{LEAST}\n[[table]]\nname = 'a'\nopen = true\n");
    let config = load(&folder, &text, Layers::default()).unwrap();
    assert_eq!(config.window.age.as_secs(), 20);
    let names: Vec<&str> = config.tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let window = config.values.settings.iter().find(|it| it.name == "window.seconds").unwrap();
    assert!(window.source.ends_with("conf.d/20-b.toml:2"), "{}", window.source);

    folder.write("conf.d/20-b.toml", "[window]\nsecond = 20\n");
    let error = load(&folder, &text, Layers::default()).unwrap_err().to_string();
    assert!(error.contains("conf.d/20-b.toml:2:1: window.second: unknown key"), "{error}");
    let lenient = Layers { allow_unknown: true, ..Layers::default() };
    let config = load(&folder, &text, lenient).unwrap();
    assert_eq!(config.window.age.as_secs(), 10);
    assert!(config.warnings.iter().any(|warning| warning.contains("did you mean window.seconds?")));
}

#[test]
fn traces_take_a_program_that_was_built_for_them() {
    let text = format!("{LEAST}otlp.endpoint = 'collector:4318'\n");
    let mistakes = mistakes("otlp", &text, Layers::default());
    let expected = if cfg!(feature = "otlp") { "of scheme http" } else { "the feature otlp" };
    assert!(mistakes.contains(expected), "{mistakes}");
}
