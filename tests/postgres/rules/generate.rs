//! Random rules and filters over the table of samples.
#![expect(
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a test may panic, and shows its seed"
)]

use crate::random::Random;
use crate::rules::table::SAMPLES;
use crate::rules::table::Sample;
use crate::rules::table::quoted;

const ORDER: &[&str] = &["=", "<>", "<", "<=", ">", ">="];
const EQUALITY: &[&str] = &["=", "<>"];
const PATTERNS: &[&str] = &[
    "", "%", "a%", "%b", "%a%", "_", "__", "a_%", "\\%", "a\\\\b", "%é%", "a%b", "ok", "_b",
    "%\\_%", "%  ", "ab    ",
];
const REGEXES: &[&str] = &[
    "a",
    "^a",
    "b$",
    "^ab$",
    "a.b",
    "a.*b",
    "^(a|ok|open)$",
    "a|7",
    "\\.",
    "^.$",
    "^..$",
    "é",
    "^$",
    ".+",
    "a$|^b",
];
const TEXTS: &[&str] = &["tx", "tc", "vc", "bp", "nm"];
const NUMBERS: &[&str] = &["i2", "i4", "i8", "f4", "f8", "n"];
const LITERALS: &[&str] = &[
    "0",
    "1",
    "-1",
    "7",
    "1.5",
    "1.50",
    "0.1",
    "100",
    "2147483648",
    "-2147483648",
    "9007199254740993",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "1e3",
    "1e-3",
    ".5",
    "123456789012345678901234567890.123456789",
];
const MOMENTS: &[&str] = &["d", "ts", "tt"];
const CLAIMS: &[&str] = &[
    "i8 = (claims ->> 'sub')::bigint",
    "i4 < (claims ->> 'n')::int",
    "n = (claims ->> 'neg')::numeric",
    "u = (claims ->> 'uid')::uuid",
    "tx = claims ->> 'role'",
    "tc = claims ->> 'role'",
    "nm = claims ->> 'role'",
    "bp = claims ->> 'role'",
    "vc = claims ->> 'exp'",
    "e = (claims ->> 'role')::mood",
    "d = (claims ->> 'day')::date",
    "b = (claims ->> 'flag')::boolean",
    "claims -> 'tags' ? tx",
    "claims -> 'tags' @> j",
    "j <@ (claims -> 'o')",
    "claims #>> '{o,k,0}' = i4::text",
    "i4 = (claims ->> 'bad')::int",
    "(claims ->> 'absent') IS NULL",
    "tx = claims ->> 'o'",
    "claims #>> '{o,k,1}' = '{\"c\": null}'",
    "claims ->> 'null' = tx",
    "i8 = (claims -> 'o' -> 'k' ->> 0)::int8",
    "claims ? tc",
    "claims ?| array['sub','x'] AND b",
    "claims ?& '{sub,n}' OR b",
    "f8 = (claims ->> 'neg')::float8",
    "coalesce(claims ->> 'absent', 'ok') = tx",
    "i8 = coalesce((claims ->> 'absent')::int8, 7)",
    "tx = (claims ->> 'tags')",
];

/// The values of a column.
fn values(name: &str) -> &'static [&'static str] {
    SAMPLES.iter().find(|sample| sample.name == name).unwrap().values
}

impl Random {
    /// Seeded by `WALCAST_SEED`, or from the clock; prints which.
    pub(crate) fn seeded() -> Random {
        let given =
            std::env::var_os("WALCAST_SEED").map(|seed| seed.to_str().unwrap().parse().unwrap());
        let state = given.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            now.as_secs() * 1_000_000 + u64::from(now.subsec_micros())
        });
        println!("WALCAST_SEED={state}");
        Random::new(state)
    }

    fn sample(&mut self) -> &'static Sample {
        &SAMPLES[self.below(SAMPLES.len())]
    }

    fn literal(&mut self, sample: &Sample) -> String {
        if self.one_in(12) {
            return "NULL".to_owned();
        }
        let value = self.pick(sample.values);
        if self.one_in(6) && !sample.sql.starts_with("char") && !sample.sql.contains(' ') {
            return format!("{}::{}", quoted(value), sample.sql);
        }
        quoted(value)
    }

    fn literals(&mut self, sample: &Sample) -> String {
        let count = 1 + self.below(4);
        let all: Vec<String> = (0..count).map(|_| self.literal(sample)).collect();
        all.join(", ")
    }

    /// The comparisons that a type has here.
    fn op(&mut self, sample: &Sample) -> &'static str {
        let equality =
            matches!(sample.name, "tx" | "vc" | "bp" | "j") || sample.sql.ends_with("[]");
        self.pick(if equality { EQUALITY } else { ORDER })
    }

    /// A well-typed rule (nearly always), `depth` levels of AND and OR at most.
    pub(crate) fn rule(&mut self, depth: usize) -> String {
        if depth > 0 && self.one_in(2) {
            let (left, right) = (self.rule(depth - 1), self.rule(depth - 1));
            return match self.below(6) {
                0 | 1 => format!("({left}) AND ({right})"),
                2 | 3 => format!("({left}) OR ({right})"),
                4 => format!("NOT ({left}) OR ({right})"),
                _ => {
                    let known = self.pick(&[
                        "TRUE",
                        "NOT TRUE",
                        "FALSE",
                        "NOT FALSE",
                        "UNKNOWN",
                        "NOT UNKNOWN",
                    ]);
                    format!("({left}) IS {known}")
                }
            };
        }
        let rule = self.leaf();
        if self.one_in(5) { format!("NOT ({rule})") } else { rule }
    }

    fn leaf(&mut self) -> String {
        let sample = self.sample();
        let name = sample.name;
        match self.below(16) {
            0..=2 => format!("{name} {} {}", self.op(sample), self.literal(sample)),
            3 => format!("{} {} {name}", self.literal(sample), self.op(sample)),
            4 => {
                let not = self.pick(&["", "NOT "]);
                format!("{name} {not}IN ({})", self.literals(sample))
            }
            5 => format!("{name} IS {}NULL", self.pick(&["", "NOT "])),
            6 => {
                let not = self.pick(&["", "NOT "]);
                format!("{name} IS {not}DISTINCT FROM {}", self.literal(sample))
            }
            7 => self.number(),
            8 => self.text(),
            9 => self.json(),
            10 => self.array(),
            11 => (self.pick(CLAIMS)).to_owned(),
            12 => self.choice(),
            13 => self.cast(),
            14 => self.precedence(),
            _ => self.between(),
        }
    }

    fn between(&mut self) -> String {
        loop {
            let sample = self.sample();
            if self.op(sample) != "=" && !matches!(self.op(sample), "=" | "<>") {
                let not = self.pick(&["", "NOT "]);
                let (low, high) = (self.literal(sample), self.literal(sample));
                return format!("{} {not}BETWEEN {low} AND {high}", sample.name);
            }
        }
    }

    fn number(&mut self) -> String {
        let (left, right) = (self.pick(NUMBERS), self.pick(NUMBERS));
        let op = self.pick(ORDER);
        let literal = self.pick(LITERALS);
        match self.below(8) {
            0 | 1 => format!("{left} {op} {literal}"),
            2 => format!("{left} {op} {right}"),
            3 => format!("{left} IN ({literal}, {}, {})", self.pick(LITERALS), self.pick(LITERALS)),
            4 => {
                let (integer, other) = (
                    self.pick(&["i2", "i4", "i8"]),
                    self.pick(&["i2", "i4", "i8", "1", "100", "-1"]),
                );
                let arithmetic = self.pick(&["+", "-", "*"]);
                format!("{integer} {arithmetic} {other} {op} {}", self.pick(LITERALS))
            }
            5 => format!("{left} IS DISTINCT FROM {right}"),
            6 => format!("o {op} {}", self.pick(&["0", "7", "4294967295", "1"])),
            _ => format!(
                "{left} = ANY (ARRAY[{}, {}])",
                self.pick(&["1", "7", "0"]),
                self.pick(&["-1", "100"])
            ),
        }
    }

    fn text(&mut self) -> String {
        let column = self.pick(TEXTS);
        let other = self.pick(TEXTS);
        let pattern = quoted(self.pick(PATTERNS));
        let regex = quoted(self.pick(REGEXES));
        let not = self.pick(&["", "NOT "]);
        let value = quoted(self.pick(values("tx")));
        match self.below(13) {
            0 | 1 => format!("{column} {not}LIKE {pattern}"),
            2 => format!("tc {not}ILIKE {pattern}"),
            3 => format!("{column} COLLATE \"C\" {not}ILIKE {pattern}"),
            4 => format!("{column} {} {regex}", self.pick(&["~", "!~"])),
            5 => format!("tc {} {regex}", self.pick(&["~*", "!~*"])),
            6 => format!("{column} COLLATE \"C\" {} {value}", self.pick(ORDER)),
            7 => format!("{}(tc) = {value}", self.pick(&["lower", "upper"])),
            8 => format!("length({column}) {} {}", self.pick(ORDER), self.below(5)),
            9 => format!("{column} || {value} = {other}"),
            10 => format!("{column} {} {other}", self.pick(EQUALITY)),
            11 => format!("char_length({column} || {other}) > {}", self.below(6)),
            _ => format!("{column}::text {} {value}::varchar", self.pick(EQUALITY)),
        }
    }

    fn json(&mut self) -> String {
        let literal = quoted(self.pick(values("j")));
        let key = self.pick(&["'a'", "'b'", "'k'", "'aa'", "0", "-1", "1", "NULL"]);
        let text =
            quoted(self.pick(&["a", "1", "x", "é", "7", "[1, 2]", "{\"b\": \"x\"}", "true", ""]));
        match self.below(11) {
            0 => format!("j = {literal}"),
            1 => format!("j @> {literal}"),
            2 => format!("j <@ {literal}"),
            3 => format!("j ->> {key} = {text}"),
            4 => format!("j -> {key} = {literal}"),
            5 => format!("j #>> '{{a,b}}' = {text}"),
            6 => format!(
                "j #> {} = {literal}",
                quoted(self.pick(&["{}", "{a}", "{0}", "{-1,b}", "{b,1}", "{NULL}"]))
            ),
            7 => format!("j ? {}", self.pick(&["'a'", "'k'", "''", "tx"])),
            8 => format!(
                "j {} {}",
                self.pick(&["?|", "?&"]),
                self.pick(&["'{a,b}'", "array['a','k']", "'{}'", "'{a,NULL}'"])
            ),
            9 => {
                format!("(j ->> {key})::{} = 1", self.pick(&["int4", "numeric", "int8", "float8"]))
            }
            _ => format!("j::text = {literal}"),
        }
    }

    fn array(&mut self) -> String {
        let arrays: Vec<&Sample> =
            SAMPLES.iter().filter(|sample| sample.sql.ends_with("[]")).collect();
        let sample = self.pick(&arrays);
        let element = match sample.name {
            "ia" => self.pick(&["i4", "1", "i2", "i8", "n", "NULL", "'7'"]),
            "la" => self.pick(&["i4", "1", "i8", "'1'"]),
            "ta" => self.pick(&["tx", "vc", "'a'", "''", "NULL"]),
            _ => self.pick(&["e", "'ok'"]),
        };
        let quantifier = self.pick(&["ANY", "ALL", "SOME"]);
        let literal = self.literal(sample);
        match self.below(6) {
            0 | 1 => format!("{element} {} {quantifier} ({})", self.pick(EQUALITY), sample.name),
            2 => format!("{} {} {literal}", sample.name, self.pick(&["@>", "<@", "&&"])),
            3 => format!("{element} {} {quantifier} ({literal})", self.pick(EQUALITY)),
            4 => format!(
                "i8 {} {quantifier} ({})",
                self.pick(ORDER),
                self.pick(&["ia", "la", "'{1,7}'", "ARRAY[1,7]", "ARRAY[1,7]::int8[]"])
            ),
            _ => format!(
                "ta {} {}",
                self.pick(&["&&", "@>"]),
                self.pick(&["ARRAY['a','b']", "ARRAY['é',NULL]", "ta"])
            ),
        }
    }

    fn choice(&mut self) -> String {
        let sample = self.sample();
        let (name, one, two) = (sample.name, self.literal(sample), self.literal(sample));
        let condition = self.leaf();
        match self.below(5) {
            0 => format!("coalesce({name}, {one}) = {two}"),
            1 => format!("nullif({name}, {one}) = {two}"),
            2 => format!("CASE WHEN {condition} THEN {name} ELSE {one} END = {two}"),
            3 => format!("CASE {name} WHEN {one} THEN 1 WHEN {two} THEN 2 END = 1"),
            _ => format!("CASE WHEN {condition} THEN b WHEN b THEN NULL ELSE true END"),
        }
    }

    fn cast(&mut self) -> String {
        let sample = self.sample();
        let op = self.pick(ORDER);
        match self.below(10) {
            0 => format!("{}::text = {}", sample.name, quoted(self.pick(sample.values))),
            1 => format!(
                "{}::{} {op} {}",
                self.pick(&["i2", "i4", "i8"]),
                self.pick(&["int8", "numeric", "float8", "int4", "int2"]),
                self.pick(LITERALS)
            ),
            2 => format!("tx::{} {op} 7", self.pick(&["int4", "numeric", "float8", "int8"])),
            3 => "cast(tx AS boolean) = b".to_owned(),
            4 => format!(
                "{}::{} {op} {}",
                self.pick(MOMENTS),
                self.pick(&["date", "timestamp", "timestamptz"]),
                self.pick(MOMENTS)
            ),
            5 => format!("{} {op} {}", self.pick(MOMENTS), self.pick(MOMENTS)),
            6 => format!("{} {op} date '2000-01-01'", self.pick(MOMENTS)),
            7 => format!("tx::mood {op} e"),
            8 => "e::text = tx".to_owned(),
            _ => format!("iv {op} interval '1 mon'"),
        }
    }

    /// Operators without parentheses.
    fn precedence(&mut self) -> String {
        let pool = [
            "NOT b OR i4 = 1 AND i8 > 0",
            "i4 = 1 IS NULL",
            "NOT i4 = 1 IS TRUE",
            "i4 + 1 * 2 = 3",
            "i4 - 1 - 2 < i8",
            "tx || 'a' = 'aa'",
            "bp::text LIKE 'a_'",
            "i4::text LIKE '1%'",
            "e::text ~ '^o'",
            "coalesce(bp, 'ok')::text = 'ok'",
            "tx || 'a' LIKE 'a%'",
            "NOT tx LIKE 'a%' AND b",
            "j ->> 'a' = '1' OR b IS NULL",
            "b IS NOT TRUE AND NOT b IS NULL",
            "i4::text || '1' = '71'",
            "i4 BETWEEN -1 AND 7 AND b",
            "i4 NOT BETWEEN 0 AND 5 OR b",
            "i4 = ANY (ia) AND b",
            "tx = 'a' IS DISTINCT FROM b",
            "b = (i4 > 1)",
            "NOT NOT b",
            "i4 IN (1, 7) = b",
            "i4 >-1 and i8<-1",
            "j -> 'a' ->> 'b' || 'y' = 'xy'",
            "tx NOT IN ('a', 'b') AND NOT b",
            "i4 ISNULL OR b NOTNULL",
            "b AND b IS TRUE OR i4 = 7 AND NOT b",
            "CASE WHEN b THEN i4 ELSE 0 END + 1 = 8",
            "b < (i4 > 0)",
            "b",
            "b > false",
        ];
        (self.pick(&pool)).to_owned()
    }

    /// Anything between anything: often ill-typed.
    pub(crate) fn nonsense(&mut self) -> String {
        let mut operand = || {
            let sample = self.sample();
            match self.below(8) {
                0..=2 => sample.name.to_owned(),
                3 => self.literal(sample),
                4 => (self.pick(LITERALS)).to_owned(),
                5 => format!(
                    "{}::{}",
                    sample.name,
                    self.pick(&[
                        "text", "int8", "numeric", "date", "uuid", "jsonb", "bool", "mood",
                        "float8"
                    ])
                ),
                6 => format!(
                    "{}({})",
                    self.pick(&["lower", "upper", "length", "coalesce"]),
                    sample.name
                ),
                _ => format!("ARRAY[{}]", self.literals(sample)),
            }
        };
        let (left, right, third) = (operand(), operand(), operand());
        let op = self.pick(&[
            "=",
            "<>",
            "<",
            ">=",
            "+",
            "-",
            "*",
            "||",
            "->",
            "->>",
            "#>>",
            "@>",
            "<@",
            "?",
            "&&",
            "~",
            "LIKE",
            "IS DISTINCT FROM",
        ]);
        match self.below(6) {
            0 => format!("{left} {op} {right}"),
            1 => format!("{left} {op} {right} = {third}"),
            2 => format!("{left} IN ({right}, {third})"),
            3 => format!("{left} {} ANY ({right})", self.pick(ORDER)),
            4 => format!("coalesce({left}, {right}) = {third}"),
            _ => format!("{left} BETWEEN {right} AND {third}"),
        }
    }

    /// A filter string, and what it means in SQL.
    pub(crate) fn filter(&mut self) -> (String, String) {
        let count = 1 + self.below(2);
        let mut all = Vec::new();
        for _ in 0..count {
            if self.one_in(3) {
                let group = self.group(2);
                all.push((format!("{}={}", group.0, group.1), group.2));
            } else {
                let (name, condition, sql) = self.condition();
                all.push((format!("{name}={condition}"), sql));
            }
        }
        let (texts, sqls): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        (texts.join(","), format!("({})", sqls.join(") AND (")))
    }

    /// The word, the parenthesis, and the SQL of `or(…)` or `and(…)`.
    fn group(&mut self, depth: usize) -> (String, String, String) {
        let (word, join) = self.pick(&[("or", ") OR ("), ("and", ") AND (")]);
        let mut texts = Vec::new();
        let mut sqls = Vec::new();
        for _ in 0..=self.below(3) {
            if depth > 0 && self.one_in(4) {
                let (word, inner, sql) = self.group(depth - 1);
                texts.push(format!("{word}{inner}"));
                sqls.push(sql);
            } else {
                let (name, condition, sql) = self.condition();
                texts.push(format!("{name}.{condition}"));
                sqls.push(sql);
            }
        }
        let (inner, sql) = (format!("({})", texts.join(",")), format!("({})", sqls.join(join)));
        if self.one_in(4) {
            (format!("not.{word}"), inner, format!("NOT ({sql})"))
        } else {
            (word.to_owned(), inner, sql)
        }
    }

    fn condition(&mut self) -> (&'static str, String, String) {
        let sample = self.sample();
        let name = sample.name;
        let value = self.pick(sample.values);
        let escaped = format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
        let special = value.is_empty()
            || value.contains([',', '"', '\\', '(', ')', ' ', '{', '}'])
            || value.eq_ignore_ascii_case("null");
        let written = if special || self.one_in(4) { escaped } else { value.to_owned() };
        let (word, op) = self.pick(&[
            ("eq", "="),
            ("neq", "<>"),
            ("lt", "<"),
            ("lte", "<="),
            ("gt", ">"),
            ("gte", ">="),
        ]);
        let (condition, sql) = match self.below(8) {
            0 => {
                let null = self.one_in(4);
                let (more, sql) = if null { (",NULL", ", NULL") } else { ("", "") };
                (format!("in.({written}{more})"), format!("{name} IN ({}{sql})", quoted(value)))
            }
            1 => ("is.null".to_owned(), format!("{name} IS NULL")),
            2 => (
                format!("isdistinct.{written}"),
                format!("{name} IS DISTINCT FROM {}", quoted(value)),
            ),
            3 => {
                let known = self.pick(&["true", "false", "unknown"]);
                return ("b", format!("is.{known}"), format!("b IS {known}"));
            }
            4 => {
                let pattern = self.pick(&["a%", "%b", "_", "%é%", "%"]);
                let column = self.pick(TEXTS);
                return (
                    column,
                    format!("like.{pattern}"),
                    format!("{column} LIKE {}", quoted(pattern)),
                );
            }
            _ => {
                let equality = self.op(sample);
                let (word, op) = match equality {
                    "=" => ("eq", "="),
                    "<>" => ("neq", "<>"),
                    _ => (word, op),
                };
                (format!("{word}.{written}"), format!("{name} {op} {}", quoted(value)))
            }
        };
        if self.one_in(5) {
            (name, format!("not.{condition}"), format!("NOT ({sql})"))
        } else {
            (name, condition, sql)
        }
    }
}
