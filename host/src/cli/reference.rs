//! Texts made from the definitions of the arguments: completion scripts and the manual page.

use std::io::{self, Write};

use clap::{Arg, ArgAction, Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

use super::Outcome;
use super::arguments::Cli;
use super::output::unless_enough;

pub(super) fn completions(shell: Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "layerbox", &mut script);
    write(&script)
}

pub(super) fn man() -> Outcome {
    write(&page()?)
}

fn write(text: &[u8]) -> Outcome {
    let mut out = io::stdout().lock();
    Ok(unless_enough(out.write_all(text).and_then(|()| out.flush()))?)
}

/// What the arguments do not know.
const FILES: &str = ".SH ENVIRONMENT
.TP
LAYERBOX_ROOT
The store's directory, where \\-\\-root is not given.
.TP
LAYERBOX_CONFIG
The configuration, where \\-\\-config is not given.
.TP
LAYERBOX_DEVICES, LAYERBOX_GUEST, LAYERBOX_GUEST_SHA256, LAYERBOX_GUEST_TIME, LAYERBOX_SOCKET
What the option of that name says, where it is not given.
.TP
LAYERBOX_BACKEND
The backend of a store that is made, where \\-\\-backend is not given.
.TP
LAYERBOX_CACHE
A directory for the compiled code of components that are not built in; false: none.
.TP
NO_COLOR
No colors, unless \\-\\-color says otherwise.
.SH FILES
.TP
/etc/layerbox/config.toml
The configuration of root.
.TP
$XDG_CONFIG_HOME/layerbox/config.toml, ~/.config/layerbox/config.toml
The configuration of any other user.
.TP
/run/layerbox, $XDG_RUNTIME_DIR/layerbox
Locks and counts of users, and where a service's socket for the command line is. It is for one boot of the machine.
.TP
/var/cache/layerbox, $XDG_CACHE_HOME/layerbox, ~/.cache/layerbox
Compiled code of components that are not built in. It can be removed at any time.
.TP
/var/lib/layerbox
The store of root.
.TP
$XDG_DATA_HOME/layerbox, ~/.local/share/layerbox
The store of any other user.
";

/// One page for all commands: that of the program, and a section for each command with its own headings
/// below.
fn page() -> io::Result<Vec<u8>> {
    let root = in_full(Cli::command());
    let mut page = Vec::new();
    let man = Man::new(root.clone());
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    writeln!(page, ".SH SYNOPSIS\n{}", synopsis("layerbox", &root))?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    for command in root.get_subcommands() {
        match command.has_subcommands() {
            true => {
                for sub in command.get_subcommands() {
                    section(&mut page, &format!("{} {}", command.get_name(), sub.get_name()), sub)?;
                }
            }
            false => section(&mut page, command.get_name(), command)?,
        }
    }
    sections(&mut page, ".SH", &root)?;
    page.extend_from_slice(FILES.as_bytes());
    Ok(page)
}

/// The section of one command. What clap_mangen renders as sections becomes subsections.
fn section(page: &mut Vec<u8>, name: &str, command: &Command) -> io::Result<()> {
    writeln!(page, ".SH \"layerbox {name}\"")?;
    let command = in_full(command.clone());
    writeln!(page, ".SS SYNOPSIS\n{}", synopsis(&format!("layerbox {name}"), &command))?;
    let man = Man::new(command.clone().disable_help_flag(true));
    let mut text = Vec::new();
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    for line in String::from_utf8_lossy(&text).lines() {
        match line.strip_prefix(".SH ") {
            Some(heading) => writeln!(page, ".SS {heading}")?,
            // The definition of a string, which the top of the page has.
            None if line.starts_with(".ie ") || line.starts_with(".el ") => {}
            None => writeln!(page, "{line}")?,
        }
    }
    sections(page, ".SS", &command)
}

/// The command with the text of every option: clap_mangen leaves out one that `-h` does not show and that has
/// no longer text.
fn in_full(command: Command) -> Command {
    command.mut_args(|arg| arg.hide_short_help(false))
}

/// What can be typed, in one line. clap_mangen's names neither the values of options nor what may be
/// repeated.
fn synopsis(name: &str, command: &Command) -> String {
    let (positional, options): (Vec<&Arg>, Vec<&Arg>) =
        command.get_arguments().partition(|arg| arg.is_positional());
    let mut words = vec![format!("\\fB{}\\fR", name.replace('-', "\\-"))];
    words.extend(options.into_iter().chain(positional).map(argument));
    if command.has_subcommands() {
        words.push("<\\fICOMMAND\\fR>".to_owned());
    }
    words.join(" ")
}

/// One argument of a synopsis: `[-o|--output <FILE>]`, `[FILE]`, `<ID>...`.
fn argument(arg: &Arg) -> String {
    let names =
        [arg.get_short().map(|short| format!("-{short}")), arg.get_long().map(|long| format!("--{long}"))];
    let names = names.into_iter().flatten().map(|name| format!("\\fB{}\\fR", name.replace('-', "\\-")));
    let value = arg.get_action().takes_values().then(|| {
        let value = arg.get_value_names().unwrap_or_default().join(" ");
        // A value in brackets of its own needs no others.
        if arg.is_positional() && !arg.is_required_set() {
            format!("\\fI{value}\\fR")
        } else {
            format!("<\\fI{value}\\fR>")
        }
    });
    let names = names.collect::<Vec<_>>().join("|");
    let mut text = [Some(names).filter(|names| !names.is_empty()), value]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(" ");
    if !arg.is_required_set() {
        text = format!("[{text}]");
    }
    if matches!(arg.get_action(), ArgAction::Append) {
        text.push_str("...");
    }
    text
}

/// What stands after the options: headings, and lines that are kept as they are below them.
fn sections(page: &mut Vec<u8>, macro_name: &str, command: &Command) -> io::Result<()> {
    let text = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    for line in text.lines() {
        match (line.strip_suffix(':'), line.strip_prefix("  ")) {
            (Some(heading), None) => writeln!(page, "{macro_name} \"{}\"\n.nf", heading.to_uppercase())?,
            (_, Some(kept)) => writeln!(page, "\\&{}", kept.replace('\\', "\\e").replace('-', "\\-"))?,
            (_, None) => writeln!(page, ".fi")?,
        }
    }
    writeln!(page, ".fi")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_tells_of_every_command() {
        let page = String::from_utf8(page().unwrap()).unwrap();
        assert!(page.contains(".TH layerbox 1"));
        for command in Cli::command().get_subcommands().filter(|command| !command.has_subcommands()) {
            assert!(page.contains(&format!(".SH \"layerbox {}\"", command.get_name())));
        }
        assert!(page.contains(".SH \"layerbox guest inspect\""));
        let variables = page.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for variable in variables.filter(|word| word.starts_with("LAYERBOX_")) {
            assert!(FILES.contains(variable), "{variable} is not in ENVIRONMENT");
        }
    }

    #[test]
    fn every_option_has_a_text() {
        let page = String::from_utf8(page().unwrap()).unwrap();
        let entries: Vec<&str> = page.split("\n.TP\n").skip(1).collect();
        assert!(entries.len() > 60, "{} entries", entries.len());
        for entry in entries {
            let mut lines = entry.lines();
            let (name, text) = (lines.next().unwrap(), lines.next().unwrap_or_default());
            assert!(!text.trim().is_empty() && !text.starts_with('.'), "{name} has no text");
        }
    }

    #[test]
    fn synopses_name_values_and_what_may_be_repeated() {
        let plain = |text: String| {
            text.replace("\\fB", "").replace("\\fI", "").replace("\\fR", "").replace("\\-", "-")
        };
        let cases = [
            ("create", "create [--parent <ID>] <ID>"),
            ("diff", "diff [--parent <ID>] [-o|--output <FILE>] <ID>"),
            ("remove", "remove [--force] <ID>..."),
            ("demo", "demo [ARCHIVE]"),
            ("completions", "completions <SHELL>"),
            ("man", "man"),
        ];
        let root = Cli::command();
        for (name, line) in cases {
            assert_eq!(plain(synopsis(name, root.find_subcommand(name).unwrap())), line);
        }
        assert!(plain(synopsis("layerbox", &root)).ends_with(" <COMMAND>"));
    }

    #[test]
    fn completions_are_made_for_every_shell() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "layerbox", &mut script);
            assert!(String::from_utf8(script).unwrap().contains("apply-diff"), "{shell}");
        }
    }
}
