//! LIKE patterns, and the regular expressions that are no more than that.
//!
//! A pattern is compiled into runs of characters between `%`. Matching takes the leftmost place for
//! each run, so it needs no way back and costs at most the text's length times the run's.

use crate::rule::value::Fault;

/// A run's length times a text's length that one row may cost.
const WORK_MAX: usize = 1 << 22;

/// A pattern, ready to match.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::rule) struct Compiled {
    /// Any of them may match; more than one only for a regular expression with `|`.
    alternatives: Box<[Runs]>,
    /// ASCII letters match in both cases.
    fold: bool,
}

/// The runs between `%`. The first begins the text, the last ends it.
type Runs = Box<[Box<[Step]>]>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// One byte.
    Byte(u8),
    /// One character.
    Any,
}

/// Collects runs.
#[derive(Default)]
struct Builder {
    runs: Vec<Box<[Step]>>,
    run: Vec<Step>,
}

impl Builder {
    fn literal(&mut self, character: char) {
        let mut bytes = [0; 4];
        self.run.extend(character.encode_utf8(&mut bytes).bytes().map(Step::Byte));
    }

    fn many(&mut self) {
        self.runs.push(std::mem::take(&mut self.run).into());
    }

    fn finish(mut self) -> Runs {
        self.many();
        self.runs.into()
    }
}

/// Compiles a LIKE pattern; `None` where it ends in the escape character.
pub(in crate::rule) fn like(pattern: &str, fold: bool) -> Option<Compiled> {
    let mut builder = Builder::default();
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match character {
            '%' => builder.many(),
            '_' => builder.run.push(Step::Any),
            '\\' => builder.literal(characters.next()?),
            plain => builder.literal(plain),
        }
    }
    let mut alternatives = vec![builder.finish()];
    if fold {
        fold_case(&mut alternatives);
    }
    Some(Compiled { alternatives: alternatives.into(), fold })
}

/// Compiles a regular expression of characters, `.`, `.*`, `.+`, escaped punctuation, `^` and `$`
/// at the ends, and `|` at the top or in one group around all of it; `None` for all others.
pub(in crate::rule) fn regex(pattern: &str, fold: bool) -> Option<Compiled> {
    let grouped = pattern
        .strip_prefix("^(")
        .and_then(|rest| rest.strip_suffix(")$"))
        .filter(|inner| !inner.ends_with('\\'));
    let (body, whole) = match grouped {
        Some(inner) => (inner, true),
        None => (pattern, false),
    };
    if body.starts_with('*') || body.is_empty() {
        return None;
    }
    let mut alternatives = Vec::new();
    for branch in branches(body)? {
        alternatives.push(regex_branch(branch, whole)?);
    }
    if fold {
        fold_case(&mut alternatives);
    }
    Some(Compiled { alternatives: alternatives.into(), fold })
}

/// Splits at each `|` that is not escaped.
fn branches(body: &str) -> Option<Vec<&str>> {
    let mut branches = Vec::new();
    let mut from = 0;
    let mut escaped = false;
    for (at, character) in body.char_indices() {
        if character == '|' && !escaped {
            branches.push(body.get(from..at)?);
            from = at + 1;
        }
        escaped = character == '\\' && !escaped;
    }
    branches.push(body.get(from..)?);
    Some(branches)
}

fn regex_branch(branch: &str, whole: bool) -> Option<Runs> {
    let (start, rest) = match branch.strip_prefix('^') {
        Some(rest) if !whole => (true, rest),
        _ => (whole, branch),
    };
    let mut builder = Builder::default();
    if !start {
        builder.many();
    }
    let mut end = whole;
    let mut characters = rest.chars().peekable();
    let mut atoms = 0;
    while let Some(character) = characters.next() {
        atoms += 1;
        match character {
            '.' => match characters.next_if(|next| matches!(next, '*' | '+')) {
                Some('*') => builder.many(),
                Some(_) => {
                    builder.run.push(Step::Any);
                    builder.many();
                }
                None => builder.run.push(Step::Any),
            },
            '$' if !whole && characters.peek().is_none() => end = true,
            '\\' => match characters.next()? {
                escaped if escaped.is_ascii_punctuation() => builder.literal(escaped),
                _ => return None,
            },
            '^' | '$' | '(' | ')' | '[' | ']' | '{' | '}' | '*' | '+' | '?' | '|' => return None,
            plain => builder.literal(plain),
        }
        // A quantifier would apply to what was just taken.
        if matches!(characters.peek(), Some('*' | '+' | '?' | '{')) {
            return None;
        }
    }
    if atoms == 0 {
        return None;
    }
    if !end {
        builder.many();
    }
    Some(builder.finish())
}

fn fold_case(alternatives: &mut [Runs]) {
    for step in alternatives.iter_mut().flatten().flatten() {
        if let Step::Byte(byte) = step {
            byte.make_ascii_lowercase();
        }
    }
}

impl Compiled {
    /// Whether the UTF-8 `text` matches.
    pub(in crate::rule) fn matches(&self, text: &[u8]) -> Result<bool, Fault> {
        for runs in &self.alternatives {
            if self.matches_runs(runs, text)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn matches_runs(&self, runs: &Runs, text: &[u8]) -> Result<bool, Fault> {
        let Some((first, later)) = runs.split_first() else { return Ok(false) };
        let Some(mut rest) = self.begin(first, text) else { return Ok(false) };
        let Some((last, middle)) = later.split_last() else { return Ok(rest.is_empty()) };
        for run in middle {
            if run.len().saturating_mul(rest.len()) > WORK_MAX {
                return Err(Fault::TooCostly);
            }
            match starts(rest).find_map(|from| self.begin(run, from)) {
                None => return Ok(false),
                Some(after) => rest = after,
            }
        }
        if last.is_empty() {
            return Ok(true);
        }
        if last.len().saturating_mul(rest.len()) > WORK_MAX {
            return Err(Fault::TooCostly);
        }
        Ok(starts(rest).any(|from| self.begin(last, from).is_some_and(<[u8]>::is_empty)))
    }

    /// What follows `run` where `text` begins with it.
    fn begin<'a>(&self, run: &[Step], text: &'a [u8]) -> Option<&'a [u8]> {
        let mut rest = text;
        for step in run {
            let (byte, after) = rest.split_first()?;
            match step {
                Step::Byte(wanted) => {
                    let byte = if self.fold { byte.to_ascii_lowercase() } else { *byte };
                    (byte == *wanted).then_some(())?;
                    rest = after;
                }
                Step::Any => rest = after_character(rest),
            }
        }
        Some(rest)
    }
}

/// The text without its first character.
fn after_character(text: &[u8]) -> &[u8] {
    let rest = text.get(1..).unwrap_or_default();
    let continued = rest.iter().take_while(|byte| **byte & 0xc0 == 0x80).count();
    rest.get(continued..).unwrap_or_default()
}

/// The text from each of its characters on, and the empty rest.
fn starts(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(text), |rest| (!rest.is_empty()).then(|| after_character(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn like_matches(pattern: &str, text: &str) -> bool {
        like(pattern, false).unwrap().matches(text.as_bytes()).unwrap()
    }

    #[test]
    fn like_is_about_the_whole_text() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("%", "", true),
            ("a%", "ab", true),
            ("%b", "ab", true),
            ("%a%", "xax", true),
            ("_", "é", true),
            ("_", "", false),
            ("a_c", "aéc", true),
            ("100\\%", "100%", true),
            ("100\\%", "1000", false),
            ("%aab", "aaab", true),
            ("a%b%c", "abbc", true),
            ("a%a", "a", false),
            ("%_%", "é", true),
            ("%__", "é", false),
        ] {
            assert_eq!(like_matches(pattern, text), expected, "{text:?} LIKE {pattern:?}");
        }
        assert_eq!(like("a\\", false), None);
    }

    #[test]
    fn only_simple_regular_expressions_are_taken() {
        for (pattern, text, expected) in [
            ("b", "abc", true),
            ("^b", "abc", false),
            ("^a.c$", "abc", true),
            ("a.*c", "xabbcx", true),
            ("a.+c", "ac", false),
            ("^(live|open)$", "open", true),
            ("^(live|open)$", "opened", false),
            ("live|open", "reopened", true),
            ("a\\.b", "a.b", true),
            ("a\\.b", "axb", false),
            ("^a|b$", "xb", true),
        ] {
            let compiled = regex(pattern, false).unwrap();
            assert_eq!(
                compiled.matches(text.as_bytes()).unwrap(),
                expected,
                "{text:?} ~ {pattern:?}"
            );
        }
        for pattern in [
            "",
            "*a",
            "a*",
            "a+",
            "(a)",
            "[a-z]",
            "\\d",
            "a{2}",
            "a||b",
            "|",
            "^",
            "(?i)a",
            "a\\",
            "a^b",
            ".**",
            ".*?",
            "***=a",
            "^(a)|(b)$",
            "^()$",
            "a$b",
        ] {
            assert_eq!(regex(pattern, false), None, "{pattern:?}");
        }
    }

    /// The definition, with its way back.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('%', rest)) => (0..=text.len()).any(|from| naive(rest, &text[from..])),
            Some(('_', rest)) => !text.is_empty() && naive(rest, &text[1..]),
            Some((wanted, rest)) => text.first() == Some(wanted) && naive(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn like_agrees_with_its_definition(pattern in "[ab_%é]{0,8}", text in "[abé]{0,8}") {
            let characters = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(like_matches(&pattern, &text), naive(&characters(&pattern), &characters(&text)));
        }
    }
}
