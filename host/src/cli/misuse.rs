//! What clap finds wrong with the arguments, in the form that all errors have: one line with the command, the
//! layer and everything that is wrong, and a hint.

use std::error::Error as _;
use std::ffi::OsString;

use clap::CommandFactory as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::Usage;
use super::arguments::Cli;
use crate::error::Escaped;

/// What is wrong, and in which command.
pub(super) fn usage(error: &clap::Error, arguments: &[OsString]) -> Usage {
    let (operation, layer) = subject(arguments);
    let hint = suggestion(error).unwrap_or_else(|| match &operation {
        Some(operation) => format!("see layerbox {operation} --help"),
        None => "see layerbox --help".to_owned(),
    });
    Usage { operation: operation.map(Into::into), layer, message: message(error), hint: Some(hint.into()) }
}

/// The command and its layer, as far as the arguments can be understood.
fn subject(arguments: &[OsString]) -> (Option<String>, Option<String>) {
    let Ok(matches) = Cli::command().ignore_errors(true).try_get_matches_from(arguments) else {
        return (None, None);
    };
    let (mut operation, mut matches) = (String::new(), &matches);
    while let Some((name, below)) = matches.subcommand() {
        if !operation.is_empty() {
            operation.push(' ');
        }
        operation.push_str(name);
        matches = below;
    }
    let layer = matches.try_get_one::<String>("id").ok().flatten().cloned();
    ((!operation.is_empty()).then_some(operation), layer)
}

fn message(error: &clap::Error) -> String {
    known(error).unwrap_or_else(|| {
        // clap's own words: what is wrong, and a list below it.
        let text = error.to_string();
        let said = text.lines().map(str::trim).take_while(|line| !line.is_empty());
        let line = said.collect::<Vec<_>>().join(" ");
        line.strip_prefix("error: ").unwrap_or(&line).to_owned()
    })
}

/// In our words, where the kind of error has some.
fn known(error: &clap::Error) -> Option<String> {
    let argument = || text(error, ContextKind::InvalidArg).map(|argument| option(&argument).to_owned());
    let value = || text(error, ContextKind::InvalidValue);
    Some(match error.kind() {
        ErrorKind::MissingRequiredArgument => {
            let missing = texts(error, ContextKind::InvalidArg)?;
            let names: Vec<&str> = missing.iter().map(|name| bare(name)).collect();
            let noun = if names.len() == 1 { "argument" } else { "arguments" };
            format!("missing {noun}: {}", names.join(", "))
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            "missing command".to_owned()
        }
        ErrorKind::InvalidSubcommand => {
            format!("no such command: {}", text(error, ContextKind::InvalidSubcommand)?)
        }
        ErrorKind::UnknownArgument => {
            format!("unexpected argument: {}", text(error, ContextKind::InvalidArg)?)
        }
        ErrorKind::InvalidValue => match (value()?.as_str(), texts(error, ContextKind::ValidValue)) {
            ("", _) => format!("{}: its value is missing", argument()?),
            (wrong, Some(all)) => format!("{}: {wrong} is none of {}", argument()?, all.join(", ")),
            (wrong, None) => format!("{}: {wrong} is no value of it", argument()?),
        },
        ErrorKind::ValueValidation => {
            format!("{}: {} is wrong: {}", argument()?, value()?, error.source()?)
        }
        ErrorKind::ArgumentConflict => {
            let prior = texts(error, ContextKind::PriorArg)?;
            let prior: Vec<&str> = prior.iter().map(|prior| option(prior)).collect();
            match argument()? {
                same if prior == [same.as_str()] => format!("{same} is there twice"),
                one => format!("{one} cannot be used with {}", prior.join(", ")),
            }
        }
        _ => return None,
    })
}

/// What clap would suggest.
fn suggestion(error: &clap::Error) -> Option<String> {
    let similar = |kind, what| {
        let names = texts(error, kind)?;
        Some(format!("a similar {what} exists: {}", names.join(", ")))
    };
    similar(ContextKind::SuggestedSubcommand, "command")
        .or_else(|| similar(ContextKind::SuggestedArg, "argument"))
        .or_else(|| similar(ContextKind::SuggestedValue, "value"))
        .or_else(|| text(error, ContextKind::Suggested))
}

/// One text of the error's context, fit for a line.
fn text(error: &clap::Error, kind: ContextKind) -> Option<String> {
    texts(error, kind)?.into_iter().next()
}

/// All texts of that kind. There is none where the list is empty.
fn texts(error: &clap::Error, kind: ContextKind) -> Option<Vec<String>> {
    let escaped = |text: &str| Escaped(text.as_bytes()).to_string();
    let texts: Vec<String> = match error.get(kind)? {
        ContextValue::String(text) => vec![escaped(text)],
        ContextValue::Strings(texts) => texts.iter().map(|text| escaped(text)).collect(),
        ContextValue::StyledStr(text) => vec![escaped(&text.to_string())],
        ContextValue::StyledStrs(texts) => texts.iter().map(|text| escaped(&text.to_string())).collect(),
        _ => Vec::new(),
    };
    (!texts.is_empty()).then_some(texts)
}

/// An argument that clap shows with its value, `--backend <BACKEND>`, without it; one that is no option
/// (`<ID>...`) by its name.
fn option(shown: &str) -> &str {
    if shown.starts_with('-') { shown.split([' ', '=', '[']).next().unwrap_or(shown) } else { bare(shown) }
}

/// The name of an argument that is no option: `ID` of `<ID>...`.
fn bare(shown: &str) -> &str {
    if shown.starts_with('-') {
        shown
    } else {
        shown.trim_end_matches('.').trim_matches(['<', '>', '[', ']'])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_wrong_is_on_one_line() {
        let see = |command: &str| format!("see layerbox {command} --help");
        let cases: &[(&str, &str, &str)] = &[
            ("create", "create: missing argument: ID", &see("create")),
            ("--json --root /r remove", "remove: missing argument: ID", &see("remove")),
            ("create a b", "create a: unexpected argument: b", &see("create")),
            ("frobnicate", "no such command: frobnicate", "see layerbox --help"),
            ("creat a", "no such command: creat", "a similar command exists: create"),
            ("guest frob", "guest: no such command: frob", &see("guest")),
            ("list --rooot x", "list: unexpected argument: --rooot", "a similar argument exists: --root"),
            ("list --root", "list: --root: its value is missing", &see("list")),
            (
                "list --backend zfs",
                "list: --backend: zfs is none of auto, aufs, overlay",
                "a similar value exists: aufs",
            ),
            (
                "completions rc",
                "completions: SHELL: rc is none of bash, elvish, fish, powershell, zsh",
                &see("completions"),
            ),
            ("list -q -v", "list: --quiet cannot be used with --verbose", &see("list")),
            ("list --root /a --root /b", "list: --root is there twice", &see("list")),
            (
                "apply-diff a --max-time 0",
                "apply-diff a: --max-time: 0 is wrong: a number of seconds above 0, or one with s, m or h after it",
                &see("apply-diff"),
            ),
            (
                "serve --deadline never",
                "serve: --deadline: never is wrong: a number of seconds above 0, or one with s, m or h after it",
                &see("serve"),
            ),
            ("get \u{1b}[31m x\n", "get \\x1b[31m: unexpected argument: x\\x0a", &see("get")),
        ];
        for (line, says, hint) in cases {
            let arguments: Vec<OsString> =
                ["layerbox"].into_iter().chain(line.split(' ')).map(Into::into).collect();
            let error = Cli::command().try_get_matches_from(&arguments).unwrap_err();
            let usage = usage(&error, &arguments);
            assert_eq!(usage.to_string(), *says, "{line}");
            assert_eq!(usage.hint.as_deref(), Some(*hint), "{line}");
        }
    }
}
