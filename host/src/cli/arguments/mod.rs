//! What can be typed: the options that every command takes, and the values that options have. The commands
//! are in [`commands`].
//!
//! The doc comments of the fields are the help texts and the manual page; they are written for the reader of
//! those.

mod commands;
pub(super) mod values;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ColorChoice, Parser, ValueEnum};

use crate::digest::Digest;
pub(super) use commands::{ApplyDiff, Command, Diff, GuestCommand, Serve, Verify};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "layerbox",
    version,
    about = "Container layers: kept, stacked and archived, with all reading of them in a sandbox",
    long_about = "layerbox keeps container layers as directories, stacks them into one file system with a union \
        mount (aufs or overlayfs), and turns layers into archives and back. Everything that reads what a stranger \
        wrote (archives, whiteouts, layer metadata) runs in a WebAssembly component that holds no authority.",
    after_help = "layerbox COMMAND --help says more and gives an example; layerbox demo shows it all.",
    after_long_help = AFTER,
    max_term_width = 100,
    arg_required_else_help = true
)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What there is to know about all commands: a heading, and lines below it that begin with two spaces. The
/// manual page makes sections of it.
const AFTER: &str = "\
Exit status:
  0  done
  1  failed: input, output or the kernel
  2  wrong usage
  3  not found
  4  conflict: exists, busy, has children, store in use
  5  refused: hostile or malformed input, an invalid id, a component that asks
     for too much
  6  a limit was reached

Errors:
  One line on stderr, and a second one that begins with 'hint:' where there is
  something to do. With --json they are an object with error, code, layer and
  entry.

Configuration:
  The file of --config is TOML. What an option says counts, else its variable,
  else the file. A key that is not known is an error. The keys:
    root          LAYERBOX_ROOT          the directory of the store
    backend       LAYERBOX_BACKEND       auto, aufs or overlay, for stores that
                                         are made
    devices       LAYERBOX_DEVICES       allow or refuse
    guest         LAYERBOX_GUEST         the component, as --guest
    guest-sha256  LAYERBOX_GUEST_SHA256  its digest, as --guest-sha256
    cache         LAYERBOX_CACHE         where compiled code of other components
                                         is kept: a directory, true (default)
                                         or false
    [limits]      what one call may use:
      memory      bytes, or a string such as '256 MiB'
      guest-time  LAYERBOX_GUEST_TIME     seconds, or a string such as '5m'
      handles, entries, bytes, expansion, stall-time, total-time
  Paths in the file begin with /.

Trusted files:
  The configuration and the component decide what runs as you. They, each
  directory on the way to them, and symbolic links must belong to root or to
  you, and nobody else may write them; else they are refused. A group may that
  has your own number (for root: group 0), and a directory that others can
  write may be on the way if it is sticky, such as /tmp.

Names of files:
  Names are bytes. In text, each byte that is not printable UTF-8, and the
  backslash, is written \\xNN. In JSON a name is an exact string; where the
  bytes are not UTF-8, the string is that text form and the exact bytes stand
  beside it in hexadecimal, under the same key with _hex: path_hex, entry_hex.

Examples:
  layerbox create base
  layerbox apply-diff base debian.tar.zst
  layerbox create app --parent base
  cd \"$(layerbox get app)\"";

/// The heading of the options that every command takes.
const GLOBAL: &str = "Options of all commands";

/// The options that stand before or after the command.
#[derive(Debug, Args)]
#[command(next_help_heading = GLOBAL)]
pub(super) struct Global {
    /// The store's directory [default for root: /var/lib/layerbox]
    ///
    /// For a user other than root it is $XDG_DATA_HOME/layerbox by default, which is ~/.local/share/layerbox
    /// where that variable is not set. Root of a user namespace that a user has made is that user. The
    /// variable LAYERBOX_ROOT names another.
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) root: Option<PathBuf>,

    /// The configuration [default for root: /etc/layerbox/config.toml]
    ///
    /// For a user other than root it is $XDG_CONFIG_HOME/layerbox/config.toml by default, which is in
    /// ~/.config where that variable is not set. The default one may be absent. The variable LAYERBOX_CONFIG
    /// names another.
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub(super) config: Option<PathBuf>,

    /// Use the service that listens on this socket
    ///
    /// Without it a command looks whether a service owns the store, and goes to that one; where none does, it
    /// opens the store itself. The service that is named here opens the store at --root, too, if it has not
    /// yet. For serve it is the socket to listen on. The variable LAYERBOX_SOCKET names one as well.
    #[arg(long, global = true, value_name = "PATH", hide_short_help = true)]
    pub(super) socket: Option<PathBuf>,

    /// The union file system of a store that is made now
    ///
    /// It is chosen once, when the store is made, and recorded: auto takes aufs where the kernel has it, else
    /// overlay. A store of either kind can be made, filled, read and archived on any kernel; only mounting
    /// needs the file system. The default is auto. With a store that is there the option is a test: one of
    /// another backend is an error. For convert it is the one that the store shall be of. The variable
    /// LAYERBOX_BACKEND and the configuration only say what new stores get.
    #[arg(long, global = true, value_enum, hide_short_help = true)]
    pub(super) backend: Option<Backend>,

    /// Run another component than the one that is built in
    ///
    /// It is refused, with a list, if it asks for more than the contract lends (layerbox guest inspect); and
    /// if others than root and you can write the file or a directory on the way to it.
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub(super) guest: Option<PathBuf>,

    /// Let the component compute no longer than this in a call; s, m, h [default: 5m]
    ///
    /// What the host does for it may take twelve times as long, not counting the reading and writing of
    /// bytes. The variable LAYERBOX_GUEST_TIME says it for a whole machine.
    #[arg(long, global = true, value_name = "TIME", value_parser = values::time, hide_short_help = true)]
    pub(super) guest_time: Option<Duration>,

    /// Run no component but the one with this digest
    ///
    /// 64 hexadecimal digits, with sha256: before them or not, as guest inspect prints them. It holds for the
    /// component that is built in as well.
    #[arg(long, global = true, value_name = "DIGEST", hide_short_help = true)]
    pub(super) guest_sha256: Option<Digest>,

    /// Whether an archive may hold device nodes [default: allow]
    ///
    /// Root file systems hold honest ones, so they are allowed by default. The configuration, or the variable
    /// LAYERBOX_DEVICES, says otherwise for a whole machine.
    #[arg(long, global = true, value_enum, hide_short_help = true)]
    pub(super) devices: Option<Devices>,

    /// Print JSON: what a command prints, and errors
    #[arg(long, global = true)]
    pub(super) json: bool,

    /// Say nothing but errors: no warnings, no progress
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(super) quiet: bool,

    /// Say on stderr what was done
    #[arg(short, long, global = true)]
    pub(super) verbose: bool,

    /// Colors
    ///
    /// auto: on a terminal, unless the variable NO_COLOR is set.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN", hide_short_help = true)]
    pub(super) color: Color,

    /// The form of warnings and notes on stderr
    ///
    /// json: an object a line with level, message and, where it is about one, entry.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT", hide_short_help = true)]
    pub(super) log_format: LogFormat,
}

/// `--backend`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Backend {
    /// aufs where the kernel has it, else overlay
    Auto,
    /// aufs, as Docker's driver of that name has it
    Aufs,
    /// The kernel's overlayfs
    Overlay,
}

/// `--devices`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Devices {
    /// Device nodes of an archive are made
    Allow,
    /// An archive with a device node is refused
    Refuse,
}

/// `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    /// On a terminal
    Auto,
    /// In any case
    Always,
    /// Not at all
    Never,
}

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// Lines to read
    Text,
    /// An object a line
    Json,
}

impl From<Color> for ColorChoice {
    fn from(color: Color) -> ColorChoice {
        match color {
            Color::Auto => ColorChoice::Auto,
            Color::Always => ColorChoice::Always,
            Color::Never => ColorChoice::Never,
        }
    }
}

/// The options that count even for the errors of the arguments themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Early {
    pub(super) json: bool,
    pub(super) color: Color,
}

/// Finds those options without understanding the rest.
pub(super) fn early(arguments: &[OsString]) -> Early {
    let mut early = Early { json: false, color: Color::Auto };
    let mut before = None;
    for argument in
        arguments.iter().skip(1).map_while(|argument| argument.to_str()).take_while(|&text| text != "--")
    {
        early.json |= argument == "--json";
        match argument.strip_prefix("--color=").or((before == Some("--color")).then_some(argument)) {
            Some("always") => early.color = Color::Always,
            Some("never") => early.color = Color::Never,
            _ => {}
        }
        before = Some(argument);
    }
    early
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, error::ErrorKind};

    use super::*;

    #[test]
    fn definitions_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    /// serde names all keys where it meets one that it does not know.
    #[test]
    fn the_help_names_every_key_of_the_configuration() {
        for text in ["unknown = 1", "[limits]\nunknown = 1"] {
            let error = toml::from_str::<super::super::config::File>(text).unwrap_err().to_string();
            let (_, keys) = error.split_once("expected one of").unwrap();
            for key in keys.split('`').skip(1).step_by(2) {
                let is_named = AFTER.contains(&format!(" {key}")) || AFTER.contains(&format!("[{key}]"));
                assert!(is_named, "{key} of: {keys}");
            }
        }
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        for line in ["layerbox --root /r --json create a", "layerbox create a --root /r --json"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.global.root, Some(PathBuf::from("/r")), "{line}");
            assert!(cli.global.json, "{line}");
        }
    }

    #[test]
    fn options_that_count_for_errors_of_arguments() {
        let cases = [
            ("layerbox list", false, Color::Auto),
            ("layerbox --json list --nonsense", true, Color::Auto),
            ("layerbox list --nonsense --color never", false, Color::Never),
            ("layerbox list --color=always", false, Color::Always),
            ("layerbox exists -- --json", false, Color::Auto),
        ];
        for (line, json, color) in cases {
            let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert_eq!(early(&arguments), Early { json, color }, "{line}");
        }
    }

    #[test]
    fn what_is_refused() {
        let cases = [
            ("layerbox", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
            ("layerbox frobnicate", ErrorKind::InvalidSubcommand),
            ("layerbox create", ErrorKind::MissingRequiredArgument),
            ("layerbox remove", ErrorKind::MissingRequiredArgument),
            ("layerbox create a b", ErrorKind::UnknownArgument),
            ("layerbox list --root", ErrorKind::InvalidValue),
            ("layerbox list --backend zfs", ErrorKind::InvalidValue),
            ("layerbox list -q -v", ErrorKind::ArgumentConflict),
            ("layerbox apply-diff a --max-bytes 5X", ErrorKind::ValueValidation),
            ("layerbox apply-diff a --max-time 0", ErrorKind::ValueValidation),
        ];
        for (line, kind) in cases {
            assert_eq!(Cli::try_parse_from(line.split(' ')).unwrap_err().kind(), kind, "{line}");
        }
    }

    #[test]
    fn short_help_fits_a_screen() {
        let mut command = Cli::command();
        command.build();
        let check = |command: &mut clap::Command| {
            let help = command.render_help().to_string();
            let name = command.get_name().to_owned();
            assert!(help.lines().count() <= 40, "{name}: {} lines", help.lines().count());
            for line in help.lines() {
                assert!(line.chars().count() <= 100, "{name}: {line}");
            }
        };
        check(&mut command);
        command.get_subcommands_mut().for_each(check);
    }

    #[test]
    fn each_command_has_an_example() {
        let command = Cli::command();
        for command in command.get_subcommands().filter(|command| !command.has_subcommands()) {
            let long = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
            assert!(long.starts_with("Example"), "{}", command.get_name());
            assert!(command.get_long_about().is_some(), "{}", command.get_name());
        }
    }
}
