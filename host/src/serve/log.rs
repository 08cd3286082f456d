//! The log of the service: a line on stderr for each call, and for what an operator should know.
//!
//! What is logged comes from strangers in part (ids, names of entries, paths), so every value is escaped and
//! stays on its line.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use crate::error::{Escaped, json_line};
use crate::sandbox::Code;

/// How lines are written.
#[derive(Debug, Clone, Copy)]
pub struct Log {
    /// An object a line instead of `key=value`.
    pub json: bool,
    /// Errors and warnings only.
    pub quiet: bool,
}

impl Log {
    /// What was done. Not written where only errors are wanted.
    pub fn info(&self, message: &str, fields: &[(&str, Value)]) {
        if !self.quiet {
            self.line("info", message, fields);
        }
    }

    /// What the operator should know.
    pub fn warn(&self, message: &str, fields: &[(&str, Value)]) {
        self.line("warning", message, fields);
    }

    /// What failed.
    pub fn error(&self, message: &str, fields: &[(&str, Value)]) {
        self.line("error", message, fields);
    }

    /// Where the component's machine code came from, as far as it is of interest.
    pub fn code(&self, code: &Code) {
        let text = |path: &std::path::Path| Value::from(path.display().to_string());
        match code {
            Code::BuiltIn | Code::Compiled => {}
            Code::Cached(file) => self.info("component loaded", &[("code", text(file))]),
            Code::Kept { file, instead } => {
                if let Some(why) = instead {
                    self.warn("compiled code not used, made anew", &[("cause", why.to_string().into())]);
                }
                self.info("component compiled", &[("code", text(file))]);
            }
            Code::NotKept { why, untrusted: true } => {
                self.warn("compiled code neither used nor kept", &[("cause", why.to_string().into())]);
            }
            Code::NotKept { why, untrusted: false } => {
                self.info("compiled code not kept", &[("cause", why.to_string().into())]);
            }
        }
    }

    fn line(&self, level: &str, message: &str, fields: &[(&str, Value)]) {
        let text = self.text(&timestamp(SystemTime::now()), level, message, fields);
        // In one write, so that lines of several threads do not mix. Where stderr is closed there is nobody
        // to tell.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }

    /// A line with its end.
    fn text(&self, time: &str, level: &str, message: &str, fields: &[(&str, Value)]) -> String {
        if self.json {
            let mut object = Map::new();
            object.insert("time".to_owned(), time.into());
            object.insert("level".to_owned(), level.into());
            object.insert("message".to_owned(), message.into());
            object.extend(fields.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
            json_line(&object)
        } else {
            let mut text = format!("time={time} level={level} message={}", Plain(message));
            for (key, value) in fields {
                // Writing to a String cannot fail.
                let _ = match value {
                    Value::String(value) => write!(text, " {key}={}", Plain(value)),
                    other => write!(text, " {key}={}", json_line(other).trim_end()),
                };
            }
            text.push('\n');
            text
        }
    }
}

/// A value of `key=value`: escaped, and in quotes where it is more than a word.
struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escaped = Escaped(self.0.as_bytes()).to_string();
        let word =
            !escaped.is_empty() && !escaped.contains(|c: char| c.is_whitespace() || c == '"' || c == '=');
        if word { f.write_str(&escaped) } else { write!(f, "\"{}\"", escaped.replace('"', "\\x22")) }
    }
}

/// A time in the form of RFC 3339, in UTC with milliseconds.
fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Howard Hinnant's days_from_civil, the other way round: eras of 400 years that begin on the first of
    // March.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let milliseconds = since.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_have_the_form_of_rfc_3339() {
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_000, "2000-02-28T23:59:59.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ];
        for (milliseconds, text) in cases {
            assert_eq!(timestamp(UNIX_EPOCH + Duration::from_millis(milliseconds)), text);
        }
    }

    #[test]
    fn what_strangers_chose_is_raw_in_neither_form() {
        for (json, text) in [
            (true, "{\"layer\":\"a\\u202eb\",\"level\":\"info\",\"message\":\"m\\u009b\",\"time\":\"t\"}\n"),
            (false, "time=t level=info message=m\\xc2\\x9b layer=a\\xe2\\x80\\xaeb\n"),
        ] {
            let log = Log { json, quiet: false };
            let line = log.text("t", "info", "m\u{9b}", &[("layer", Value::from("a\u{202e}b"))]);
            assert_eq!(line, text);
        }
    }

    #[test]
    fn values_stay_values() {
        let cases = [
            ("word", "word"),
            ("", "\"\""),
            ("two words", "\"two words\""),
            ("a=b", "\"a=b\""),
            ("a\"b", "\"a\\x22b\""),
            ("line\nlevel=error", "\"line\\x0alevel=error\""),
            ("\u{1b}[2J", "\\x1b[2J"),
        ];
        for (value, text) in cases {
            assert_eq!(Plain(value).to_string(), text);
        }
    }
}
