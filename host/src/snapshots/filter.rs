//! containerd's filter language (`filters/filter.go` documents it): which snapshots a list is to hold.
//!
//! ```text
//! filter    := selector (',' selector)*          all of them must hold
//! selector  := field ('.' field)* (operator value)?
//! operator  := '==' | '!=' | '~='
//! field     := quoted | [A-Za-z] [A-Za-z0-9_]*
//! value     := quoted | [^\s,]+
//! quoted    := a string of Go, in double quotes; a value can also be between two '/' or two '|'
//! ```
//! A selector without an operator holds where the field is there. White space may stand before a field, an
//! operator and a value. Of several filters, one must hold.
//!
//! What follows `~=` is a regular expression of Go. One that is none matches nothing, as in containerd, which
//! says so in its log alone. A request may have few of them and little text, for they take memory and time:
//! both are bounded by constants here, for all filters of a request together.

use std::iter::Peekable;
use std::str::Chars;

use regex::Regex;

use super::error::SnapshotError;
use super::model::Snapshot;

/// The most text of all filters of a request, in bytes: one that names the longest name fits in.
const LONGEST: usize = 8192;
/// The most regular expressions of all filters of a request.
const EXPRESSIONS: usize = 16;
/// The most text of all these in bytes: without regard to case, each class of characters takes half a
/// millisecond.
const LONGEST_EXPRESSIONS: usize = 2048;
/// How much one of them may take in memory, in bytes: 1 MiB all. How long it looks at a text grows with it,
/// too.
const MEMORY: usize = 64 << 10;
/// What it may remember in bytes while it looks, which makes it faster.
const CACHE: usize = 256 << 10;

/// Filters, of which one must hold.
#[derive(Debug)]
pub struct Filters(Vec<Vec<Selector>>);

#[derive(Debug)]
struct Selector {
    field: Vec<String>,
    test: Test,
}

#[derive(Debug)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    /// None: what was given is no regular expression, and matches nothing.
    Matches(Option<Regex>),
}

impl Filters {
    /// Parses filters; none of them, or an empty one, takes everything.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Argument`], which says where.
    pub fn parse<'a>(filters: impl IntoIterator<Item = &'a str>) -> Result<Filters, SnapshotError> {
        let mut parsed = Vec::new();
        let (mut bytes, mut budget) =
            (LONGEST, Budget { expressions: EXPRESSIONS, text: LONGEST_EXPRESSIONS });
        for filter in filters {
            let wrong = |what: &str| SnapshotError::Argument(format!("filter {filter:?}: {what}"));
            let Some(left) = bytes.checked_sub(filter.len()) else {
                let what = format!("the filters are longer than {LONGEST} bytes");
                return Err(SnapshotError::Argument(what));
            };
            bytes = left;
            let mut parser = Parser { rest: filter.chars().peekable(), budget: &mut budget };
            parsed.push(parser.filter().map_err(|what| wrong(&what))?);
        }
        Ok(Filters(parsed))
    }

    /// Whether a snapshot is taken.
    pub fn take(&self, snapshot: &Snapshot) -> bool {
        self.0.is_empty()
            || self.0.iter().any(|filter| filter.iter().all(|selector| selector.holds(snapshot)))
    }
}

impl Selector {
    fn holds(&self, snapshot: &Snapshot) -> bool {
        let value = value(snapshot, &self.field);
        match &self.test {
            Test::Present => value.is_some(),
            Test::Equal(wanted) => value == Some(wanted),
            Test::NotEqual(other) => value.unwrap_or_default() != other,
            Test::Matches(expression) => {
                expression.as_ref().is_some_and(|expression| expression.is_match(value.unwrap_or_default()))
            }
        }
    }
}

/// The value of a field: `name`, `parent`, `kind`, `labels.LABEL`.
fn value<'a>(snapshot: &'a Snapshot, field: &[String]) -> Option<&'a str> {
    let (first, rest) = field.split_first()?;
    match first.as_str() {
        "name" => Some(&snapshot.name),
        "parent" => Some(snapshot.row.parent.as_deref().unwrap_or_default()),
        "kind" => Some(snapshot.row.kind.name()),
        "labels" => snapshot.row.labels.get(&rest.join(".")).map(String::as_str),
        _ => None,
    }
}

/// A regular expression of Go (regexp/syntax documents them) in the form of ours.
///
/// Go's `\d`, `\s`, `\w` and `\b` are about ASCII alone. Between `\Q` and `\E`, or up to the end, all
/// characters stand for themselves. Brackets have no brackets in them but those of `[:alpha:]`, and no
/// operators.
fn translated(expression: &str) -> String {
    let (mut ours, mut rest, mut in_brackets) = (String::new(), expression, false);
    while let Some(character) = rest.chars().next() {
        let mut length = character.len_utf8();
        match character {
            '\\' => {
                let escaped = rest[1..].chars().next();
                length += escaped.map_or(0, char::len_utf8);
                match escaped {
                    Some('Q') => {
                        let quoted = &rest[length..];
                        let end = quoted.find("\\E").unwrap_or(quoted.len());
                        ours.push_str(&regex::escape(&quoted[..end]));
                        length = rest.len().min(length + end + "\\E".len());
                    }
                    // Not by (?-u:\W) and its like, which would also match halves of characters.
                    Some('d') => ours.push_str("[0-9]"),
                    Some('D') => ours.push_str("[^0-9]"),
                    Some('s') => ours.push_str(r"[\t\n\f\r\x20]"),
                    Some('S') => ours.push_str(r"[^\t\n\f\r\x20]"),
                    Some('w') => ours.push_str("[0-9A-Za-z_]"),
                    Some('W') => ours.push_str("[^0-9A-Za-z_]"),
                    Some('b') if !in_brackets => ours.push_str(r"(?-u:\b)"),
                    Some('B') if !in_brackets => ours.push_str(r"(?-u:\B)"),
                    _ => ours.push_str(&rest[..length]),
                }
            }
            '[' if !in_brackets => {
                in_brackets = true;
                // One that stands first is no end.
                length =
                    ["[^]", "[]", "[^"].iter().find(|start| rest.starts_with(**start)).map_or(1, |s| s.len());
                ours.push_str(&rest[..length].replace(']', "\\]"));
            }
            '[' if rest.starts_with("[:") && rest.contains(":]") => {
                length = rest.find(":]").map_or(1, |end| end + ":]".len());
                ours.push_str(&rest[..length]);
            }
            '[' | '&' | '~' if in_brackets => ours.extend(['\\', character]),
            _ => {
                in_brackets &= character != ']';
                ours.push(character);
            }
        }
        rest = &rest[length..];
    }
    ours
}

/// What the filters of a request may have yet.
struct Budget {
    /// Regular expressions.
    expressions: usize,
    /// Bytes of these.
    text: usize,
}

struct Parser<'a> {
    rest: Peekable<Chars<'a>>,
    budget: &'a mut Budget,
}

impl Parser<'_> {
    fn filter(&mut self) -> Result<Vec<Selector>, String> {
        let mut selectors = Vec::new();
        if self.rest.peek().is_none() {
            return Ok(selectors);
        }
        loop {
            selectors.push(self.selector()?);
            match self.rest.next() {
                None => return Ok(selectors),
                Some(',') => {}
                Some(other) => return Err(format!("expected a comma instead of {other:?}")),
            }
        }
    }

    fn selector(&mut self) -> Result<Selector, String> {
        let mut field = vec![self.field()?];
        while self.rest.next_if_eq(&'.').is_some() {
            field.push(self.field()?);
        }
        let spaced = self.space();
        let Some(operator) = self.rest.next_if(|c| "=!~".contains(*c)) else {
            return if spaced {
                Err("expected an operator".to_owned())
            } else {
                Ok(Selector { field, test: Test::Present })
            };
        };
        if self.rest.next() != Some('=') {
            return Err(format!("expected = after {operator}"));
        }
        let value = self.value()?;
        let test = match operator {
            '=' => Test::Equal(value),
            '!' => Test::NotEqual(value),
            _ => Test::Matches(self.expression(&value)?),
        };
        Ok(Selector { field, test })
    }

    /// Compiles a regular expression; none where it is none.
    fn expression(&mut self, text: &str) -> Result<Option<Regex>, String> {
        let too_many = || {
            format!(
                "more than {EXPRESSIONS} regular expressions, or more than {LONGEST_EXPRESSIONS} bytes of them"
            )
        };
        self.budget.expressions = self.budget.expressions.checked_sub(1).ok_or_else(too_many)?;
        self.budget.text = self.budget.text.checked_sub(text.len()).ok_or_else(too_many)?;
        let mut builder = regex::RegexBuilder::new(&translated(text));
        match builder.size_limit(MEMORY).dfa_size_limit(CACHE).build() {
            Ok(expression) => Ok(Some(expression)),
            Err(regex::Error::Syntax(_)) => Ok(None),
            Err(error) => Err(format!("a regular expression: {error}")),
        }
    }

    /// Skips white space, and says whether there was any.
    fn space(&mut self) -> bool {
        let mut any = false;
        while self.rest.next_if(|c| c.is_whitespace()).is_some() {
            any = true;
        }
        any
    }

    fn field(&mut self) -> Result<String, String> {
        self.space();
        if self.rest.next_if_eq(&'"').is_some() {
            return self.quoted('"');
        }
        let mut field = String::new();
        while let Some(c) = self.rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
            field.push(c);
        }
        if field.starts_with(|c: char| c.is_ascii_alphabetic()) {
            Ok(field)
        } else {
            Err("expected a field".to_owned())
        }
    }

    fn value(&mut self) -> Result<String, String> {
        self.space();
        if let Some(quote) = self.rest.next_if(|c| "\"/|".contains(*c)) {
            return self.quoted(quote);
        }
        let mut value = String::new();
        while let Some(c) = self.rest.next_if(|c| !c.is_whitespace() && *c != ',') {
            value.push(c);
        }
        if value.is_empty() { Err("expected a value".to_owned()) } else { Ok(value) }
    }

    /// The rest of a quoted text. Between `/` or `|`, a backslash stands for itself, but before the quote.
    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let cut_off = || "a quoted text has no end".to_owned();
        let mut text = String::new();
        loop {
            match self.rest.next().ok_or_else(cut_off)? {
                end if end == quote => return Ok(text),
                '\\' if quote == '"' => text.push(self.escape()?),
                '\\' if self.rest.peek() == Some(&quote) => text.extend(self.rest.next()),
                other => text.push(other),
            }
        }
    }

    /// What follows a backslash in a string of Go.
    fn escape(&mut self) -> Result<char, String> {
        let kind = self.rest.next().ok_or("a quoted text has no end")?;
        let digits = match kind {
            'a' => return Ok('\u{7}'),
            'b' => return Ok('\u{8}'),
            'f' => return Ok('\u{c}'),
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            'v' => return Ok('\u{b}'),
            '\\' | '"' => return Ok(kind),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            other => return Err(format!("unknown escape \\{other}")),
        };
        let text: String = self.rest.by_ref().take(digits).collect();
        let code = u32::from_str_radix(&text, 16).ok().filter(|_| text.len() == digits);
        code.and_then(char::from_u32).ok_or_else(|| format!("no character: \\{kind}{text}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshots::model::{Kind, Row, Time};

    fn snapshot() -> Snapshot {
        let time = Time { seconds: 0, nanos: 0 };
        let labels = [("a", "b"), ("containerd.io/gc.root", "x y"), ("odd", "q\"/|")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let row = Row {
            layer: "l".to_owned(),
            kind: Kind::Active,
            parent: Some("p1".to_owned()),
            labels,
            created: time,
            updated: time,
            usage: None,
        };
        Snapshot { name: "default/1/one".to_owned(), row }
    }

    #[test]
    fn takes() {
        for (filter, expected) in [
            ("", true),
            ("name", true),
            ("nonsense", false),
            ("name==default/1/one", true),
            ("name==one", false),
            ("name~=one$", true),
            ("name~=/^default/", true),
            ("name~=|^default/1/o|", true),
            (r"name~=/^default\/1\/one$/", true),
            ("kind==active,parent==p1", true),
            ("kind==active,parent==p2", false),
            ("kind!=committed", true),
            ("labels.a", true),
            ("labels.b", false),
            ("labels.b!=x", true),
            ("labels", false),
            (r#"labels."containerd.io/gc.root"=="x y""#, true),
            (r#"labels."containerd.io/gc.root"=="x\x20y""#, true),
            (r#"labels.odd=="q\"/|""#, true),
            (r"labels.a~=^(b|c)$", true),
            ("labels.none~=^$", true),
            (" kind == active, parent ==p1", true),
            ("kind== active,\tlabels. a", true),
            ("labels.\"containerd.io/gc.root\" == \"x y\"", true),
            ("name ~= /^default/", true),
            ("name~=(?i)^DEFAULT", true),
            ("kind~=/(?i)ACTIVE/", true),
            (r"name~=^\pL+/\p{Nd}/\p{Ll}+$", true),
            (r"name~=^\p{Greek}", false),
            (r"name~=^\Qdefault/1\E/.ne$", true),
            (r"name~=\Q/one", true),
            (r"name~=\Q.ne\E$", false),
            (r"name~=\Qdef\E.*\Qone\E$", true),
            (r"labels.odd~=^\Qq\E\W.\|$", true),
            (r"name~=\\Q", false),
            (r"name~=one\", false),
            ("name~=(", false),
            ("name~=[", false),
            ("kind==active,name~=*", false),
        ] {
            let filters = Filters::parse([filter]).unwrap_or_else(|e| panic!("{filter}: {e}"));
            assert_eq!(filters.take(&snapshot()), expected, "{filter}");
        }
    }

    #[test]
    fn refuses() {
        for filter in [
            "name=",
            "name==",
            "name=x",
            "name==a b",
            "name,",
            ",name",
            "1name",
            "name.",
            r"name~=(\pL{999}){99}",
            r"name~=\pL{200}",
            "name==\"x",
            r#"name=="\q""#,
            r#"name=="\xZZ""#,
            "name== ",
            "name= =x",
            "name ,kind",
            "name==x ,kind",
            "kind==active ",
            " ",
        ] {
            let error = Filters::parse([filter]).expect_err(filter);
            assert!(matches!(error, SnapshotError::Argument(_)), "{filter}: {error}");
        }
    }

    #[test]
    fn expressions_mean_what_they_mean_in_go() {
        for (expression, text, expected) in [
            (r"^\w+$", "a_9", true),
            (r"^\w$", "\u{e9}", false),
            (r"^\W$", "\u{e9}", true),
            (r"^\d$", "\u{663}", false),
            (r"^[\d]$", "7", true),
            (r"^\D$", "\u{663}", true),
            (r"^\s$", " ", true),
            (r"^\s$", "\u{b}", false),
            (r"^\s$", "\u{a0}", false),
            (r"^[^\s]$", "\u{a0}", true),
            (r"^\S$", "\u{6f22}", true),
            (r"^[\W\d]+$", "\u{e9}5", true),
            (r"^[^\w-]$", "-", false),
            (r"^[\w-]+$", "a-b", true),
            (r"^(?i)\w$", "\u{17f}", true),
            (r"a\b\x{e9}", "a\u{e9}", true),
            (r"a\B\x{e9}", "a\u{e9}", false),
            (r"[\b]", "b", false),
            (r"^[[a]+$", "[a", true),
            (r"^[]a]+$", "]a", true),
            (r"^[^]a]$", "]", false),
            (r"^[a&&b~~c]+$", "a&b~c", true),
            (r"^[[:alpha:]\d]+$", "a1", true),
            (r"^[[:^alpha:]]$", "\u{e9}", true),
            (r"^\\w$", r"\w", true),
            (r"^\[\w\]$", "[a]", true),
            (r"\Q[\E\w", "[a", true),
            (r"\", "", false),
        ] {
            let regex = Regex::new(&translated(expression));
            let matches = regex.is_ok_and(|regex| regex.is_match(text));
            assert_eq!(matches, expected, "{expression} on {text:?}: {}", translated(expression));
        }
    }

    #[test]
    fn what_a_request_may_cost_is_bounded() {
        let word = r"name~=\w{200}";
        let many = |count, filter: &str| vec![filter.to_owned(); count];
        let rows = [
            ("as many expressions as there may be", many(EXPRESSIONS, word), true),
            ("more, a filter each", many(EXPRESSIONS + 1, word), false),
            ("more, in one filter", vec![many(60, word).join(",")], false),
            ("more, none of which is an expression", many(EXPRESSIONS + 1, "name~=("), false),
            (
                "as much text as there may be",
                many(2, &format!("name=={}", "x".repeat(LONGEST / 2 - 6))),
                true,
            ),
            ("more, a filter each", many(2, &format!("name=={}", "x".repeat(LONGEST / 2 - 5))), false),
            ("large ones", many(EXPRESSIONS, r"name~=(\pL{99}){99}"), false),
            ("long ones", many(1, &format!("name~=(?i){}", r"\PL".repeat(700))), false),
            (
                "long ones in all",
                many(2, &format!("name~={}", "x".repeat(LONGEST_EXPRESSIONS / 2 + 1))),
                false,
            ),
        ];
        let start = std::time::Instant::now();
        for (what, filters, good) in rows {
            let parsed = Filters::parse(filters.iter().map(String::as_str));
            assert_eq!(parsed.is_ok(), good, "{what}: {parsed:?}");
            if let Ok(filters) = parsed {
                filters.take(&snapshot());
            }
        }
        assert!(start.elapsed() < std::time::Duration::from_secs(5), "{:?}", start.elapsed());
    }

    #[test]
    fn one_of_several_is_enough() {
        let take = |filters: &[&str]| {
            Filters::parse(filters.iter().copied()).expect("good filters").take(&snapshot())
        };
        assert!(take(&[]) && take(&["kind==view", "kind==active"]) && !take(&["kind==view", "parent==x"]));
    }
}
