//! The commands and the options of their own.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use clap_complete::Shell;

use super::values;

/// A command.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Make an empty layer
    ///
    /// With a parent it lies over that layer and all below it. The store itself is made when its directory is
    /// missing or empty. Fill the layer with apply-diff, or mount it with get and write to it.
    #[command(after_long_help = "Examples:\n  layerbox create base\n  layerbox create app --parent base")]
    Create {
        /// The id: 1 to 128 of A-Z a-z 0-9 _ . - beginning with a letter or a digit
        #[arg(value_parser = values::id())]
        id: String,
        /// The layer that it lies over
        #[arg(long, value_name = "ID", value_parser = values::id())]
        parent: Option<String>,
    },

    /// Fill an empty layer from an archive, and print its size in bytes
    ///
    /// The archive is a tar file as OCI images have it, plain or compressed with gzip or zstd, which is told
    /// by its first bytes. All or nothing: when it is refused or cut short, the layer is as empty as before.
    #[command(
        after_long_help = "Examples:\n  layerbox apply-diff base debian.tar.zst\n  tar -C rootfs -c . | layerbox apply-diff base"
    )]
    ApplyDiff(ApplyDiff),

    /// Write a layer as an archive
    ///
    /// The archive holds what is in the layer itself, and whiteouts in the form of OCI images for what it
    /// hides of its parent. It is sorted and without dates of today: the same layer gives the same bytes.
    #[command(
        after_long_help = "Examples:\n  layerbox diff app -o app.tar\n  layerbox diff app | zstd > app.tar.zst"
    )]
    Diff(Diff),

    /// List what a layer changes: A /added, C /changed, D /deleted
    ///
    /// One line a change, sorted by path. In a path, each byte that is not printable UTF-8, and the
    /// backslash, is written \xNN. JSON: an array of objects with kind (added, modified, deleted) and path.
    #[command(after_long_help = "Example:\n  layerbox changes app")]
    Changes {
        /// The layer
        #[arg(value_parser = values::id())]
        id: String,
        /// Compare with this layer instead of the parent
        #[arg(long, value_name = "ID", value_parser = values::id())]
        parent: Option<String>,
    },

    /// Print the size of a layer in bytes
    ///
    /// The sizes of the layer's own regular files added up, each file once however many names it has.
    #[command(after_long_help = "Example:\n  layerbox diff-size app")]
    DiffSize {
        /// The layer
        #[arg(value_parser = values::id())]
        id: String,
        /// A layer that must exist; it changes nothing, as the size is of the layer's own files
        #[arg(long, value_name = "ID", value_parser = values::id())]
        parent: Option<String>,
    },

    /// Mount a layer over its parents, and print the path
    ///
    /// The first get mounts, further ones count; each wants its put. A layer without a parent needs no mount:
    /// the path is that of its own directory.
    #[command(after_long_help = "Example:\n  ls \"$(layerbox get app)\"\n  layerbox put app")]
    Get {
        /// The layer
        #[arg(value_parser = values::id())]
        id: String,
        /// The SELinux label of the mount
        #[arg(long, value_name = "LABEL")]
        label: Option<String>,
    },

    /// Give back what get gave; the last put unmounts
    ///
    /// A put too many is no error and changes nothing.
    #[command(after_long_help = "Example:\n  layerbox put app")]
    Put {
        /// The layer
        #[arg(value_parser = values::id())]
        id: String,
    },

    /// Remove layers
    ///
    /// A layer with children, or one that is mounted, stays. All are tried, in the order given; the exit
    /// status is that of the first that failed.
    #[command(after_long_help = "Example:\n  layerbox remove app base")]
    Remove {
        /// The layers, children before their parents
        #[arg(required = true, value_name = "ID", value_parser = values::id())]
        ids: Vec<String>,
        /// Unmount them first, whoever uses them
        #[arg(long)]
        force: bool,
    },

    /// Tell by the exit status whether there is such a layer: 0 or 3
    ///
    /// Prints nothing. JSON: an object with exists.
    #[command(after_long_help = "Example:\n  layerbox exists app || layerbox create app --parent base")]
    Exists {
        /// The layer
        #[arg(value_parser = values::id())]
        id: String,
    },

    /// List the layers: id, parent, size, mounts, state
    ///
    /// Sizes are in bytes, and on a terminal in KiB, MiB and so on; - where the size is not known without
    /// counting.
    #[command(after_long_help = "Examples:\n  layerbox list\n  layerbox list --tree")]
    List {
        /// Draw which layer lies on which
        #[arg(long)]
        tree: bool,
    },

    /// Show the store: where it is, on what, with which backend
    ///
    /// One 'Key: value' line each. JSON: an object with the same keys.
    #[command(after_long_help = "Example:\n  layerbox status")]
    Status,

    /// Show a layer: directories, ancestors, size, entries, state
    ///
    /// One 'Key: value' line each; ancestors nearest first.
    #[command(after_long_help = "Example:\n  layerbox metadata app")]
    Metadata {
        /// The layer
        #[arg(value_parser = values::id())]
        id: String,
    },

    /// Unmount all layers of the store
    ///
    /// For the end of a service or before the store is moved; the layers themselves stay.
    #[command(after_long_help = "Example:\n  layerbox cleanup")]
    Cleanup,

    /// Check the store: findings, one a line
    ///
    /// Compares the records with the directories and the mounts. What an interrupted call left is taken away
    /// whenever a store is opened, and told here. Exit status 1 when something is wrong and was not repaired;
    /// what another call works on all the time cannot be looked at for certain, and is told without that. A
    /// repair deletes nothing that a layer could hold: what belongs to no layer, and layers whose content or
    /// ancestors are lost, are moved to lost+found/ in the root. A layerbox.json that is lost or damaged is
    /// written anew, for the backend that the layers are of, or that of --backend where they do not show it.
    #[command(
        after_long_help = "Examples:\n  layerbox check\n  layerbox check --deep\n  layerbox check --repair\n  layerbox check --purge"
    )]
    Check {
        /// Repair what can be
        #[arg(long)]
        repair: bool,
        /// Look into the layers too: sizes, and deletions in the form of the other backend
        #[arg(long)]
        deep: bool,
        /// Delete what repairs have moved to lost+found/
        #[arg(long)]
        purge: bool,
    },

    /// Rewrite the store for the other backend: an old aufs store for overlay, and back
    ///
    /// What differs on disk is how deletions are written down, and that is rewritten in all layers;
    /// afterwards the store mounts with the other file system. Without --backend it becomes overlay's; one
    /// that is of that backend already stays as it is. Nobody may use the store meanwhile, and no layer may
    /// be mounted. A layer that holds what would be a deletion in the other form is refused before anything
    /// is changed (exit status 5). It can be killed at any time: until it was called again, and went on or
    /// turned back (with --backend), no other command opens the store. What aufs keeps in layers for itself
    /// lies in aufs/ in the root, for the way back. JSON: an object with from, to, layers, deletions.
    #[command(after_long_help = "Examples:\n  layerbox convert\n  layerbox convert --backend aufs")]
    Convert,

    /// Serve container engines and command lines over sockets
    ///
    /// Answers until it is asked to end by SIGTERM or Ctrl-C; then calls under way come to their end, and
    /// mounts stay as they are. Prints a ready line, and tells systemd; takes over sockets that systemd
    /// opened (named docker, containerd, admin or control). Each Docker engine names its own store when it
    /// starts; --root is that of containerd and of clients that name none. Commands find the service through
    /// its store, whatever it listens on; --socket names a socket for them. Writes a line on stderr for each
    /// call (--quiet: only for those that failed).
    #[command(
        after_long_help = "Examples:\n  layerbox serve --docker /run/docker/plugins/layerbox.sock\n  layerbox serve --containerd /run/layerbox/containerd.sock\n  layerbox serve --docker D --admin A & curl --unix-socket A http://admin/metrics"
    )]
    Serve(Serve),

    /// Look at the component that does the reading
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Guest {
        #[command(subcommand)]
        command: GuestCommand,
    },

    /// Build, mount, change, archive and compare a small stack of layers
    ///
    /// Works in a temporary directory that is removed at the end, also after a failure or Ctrl-C. The base
    /// layer comes from ARCHIVE; without one from debootstrap where that is installed and works, else from a
    /// part of this machine's /usr. Exit status 1 when anything did not hold.
    #[command(after_long_help = "Examples:\n  layerbox demo\n  layerbox demo debian.tar.gz")]
    Demo {
        /// The archive of a root file system
        archive: Option<PathBuf>,
    },

    /// Print the completion script of a shell
    #[command(
        long_about = "Print the completion script of a shell.",
        after_long_help = "Example:\n  layerbox completions bash > /etc/bash_completion.d/layerbox"
    )]
    Completions {
        /// The shell
        shell: Shell,
    },

    /// Print the manual page
    #[command(
        long_about = "Print the manual page, layerbox(1), in roff.",
        after_long_help = "Example:\n  layerbox man | man -l -"
    )]
    Man,
}

/// The commands of `guest`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum GuestCommand {
    /// Tell what a component asks for and what it is lent
    ///
    /// Prints digest, world, every import with what lends it and in which calls, and the exports. The
    /// component is not run. Exit status 5 when it asks for what the contract does not lend; the list says
    /// what.
    #[command(
        after_long_help = "Examples:\n  layerbox guest inspect\n  layerbox guest inspect my-driver.wasm\n  layerbox guest inspect --wit"
    )]
    Inspect {
        /// The component; without it that of --guest, or the one that is built in
        file: Option<PathBuf>,

        /// Print its types as WIT, and nothing else
        #[arg(long)]
        wit: bool,
    },

    /// Hold a component against the contract: a line a case
    ///
    /// Runs the conformance suite in stores of its own, in TMPDIR and in memory: real directories and real
    /// mounts, where the kernel has the file system. Prints ok, FAILED or skipped for each case, and a
    /// summary. Exit status 1 when a case failed.
    #[command(
        after_long_help = "Examples:\n  layerbox guest verify my-driver.wasm\n  layerbox guest verify --only changes/ --only @aufs\n  layerbox guest verify --only model/ --sequences 10000 --seed 1"
    )]
    Verify(Verify),
}

/// The arguments of `serve`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Serve {
    /// Speak Docker's graph driver protocol on this socket; may be given several times
    #[arg(long, value_name = "SOCKET")]
    pub(in crate::cli) docker: Vec<PathBuf>,

    /// Speak containerd's services (snapshots, diff) on this socket; may be given several times
    #[arg(long, value_name = "SOCKET")]
    pub(in crate::cli) containerd: Vec<PathBuf>,

    /// containerd's own socket: blobs to unpack are read there
    #[arg(long, value_name = "SOCKET", default_value = "/run/containerd/containerd.sock")]
    pub(in crate::cli) containerd_address: PathBuf,

    /// Answer operators on this socket: GET /metrics, GET /healthz
    #[arg(long, value_name = "SOCKET")]
    pub(in crate::cli) admin: Option<PathBuf>,

    /// How long a call without an archive may take; s, m, h
    #[arg(long, value_name = "TIME", value_parser = values::time, default_value = "10m", hide_short_help = true)]
    pub(in crate::cli) deadline: Duration,

    /// How long a call with an archive may take; s, m, h
    #[arg(long, value_name = "TIME", value_parser = values::time, default_value = "6h", hide_short_help = true)]
    pub(in crate::cli) transfer_deadline: Duration,

    /// How long a client may neither send nor take anything of an archive; s, m, h
    #[arg(long, value_name = "TIME", value_parser = values::time, default_value = "60s", hide_short_help = true)]
    pub(in crate::cli) stall_timeout: Duration,

    /// How long calls under way may go on when the service is asked to end; s, m, h
    #[arg(long, value_name = "TIME", value_parser = values::time, default_value = "10s", hide_short_help = true)]
    pub(in crate::cli) grace: Duration,
}

/// The arguments of `guest verify`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Verify {
    /// The component; without it that of --guest, or the one that is built in
    pub(in crate::cli) file: Option<PathBuf>,

    /// Only cases whose name holds WORD; may be given several times
    #[arg(long, value_name = "WORD")]
    pub(in crate::cli) only: Vec<String>,

    /// No cases whose name holds WORD; may be given several times
    #[arg(long, value_name = "WORD")]
    pub(in crate::cli) except: Vec<String>,

    /// How many random sequences the model/ cases try; a tenth of them mounted
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub(in crate::cli) sequences: u64,

    /// The seed of the first sequence
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(in crate::cli) seed: u64,

    /// Also hold it to what the contract leaves open and the component that is built in decides
    #[arg(long)]
    pub(in crate::cli) strict: bool,

    /// Print the names of the cases, and run none
    #[arg(long)]
    pub(in crate::cli) list: bool,
}

/// The arguments of `apply-diff`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ApplyDiff {
    /// The layer, which must be empty and not mounted
    #[arg(value_parser = values::id())]
    pub(in crate::cli) id: String,

    /// The archive; - or nothing: standard input
    pub(in crate::cli) file: Option<PathBuf>,

    /// The layer that the archive is a difference to
    ///
    /// It must be the parent that create was given; named here it is checked.
    #[arg(long, value_name = "ID", value_parser = values::id())]
    pub(in crate::cli) parent: Option<String>,

    /// Do not wait until the content is on the disk
    ///
    /// Faster; a power cut soon afterwards can lose content of a layer that was reported done.
    #[arg(long)]
    pub(in crate::cli) no_sync: bool,

    /// Refuse an archive with more entries
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub(in crate::cli) max_entries: Option<u64>,

    /// Refuse an archive that unpacks to more bytes; K, M, G, T
    #[arg(long, value_name = "SIZE", value_parser = values::bytes, hide_short_help = true)]
    pub(in crate::cli) max_bytes: Option<u64>,

    /// Give the component no more memory than this; K, M, G, T
    #[arg(long, value_name = "SIZE", value_parser = values::bytes, hide_short_help = true)]
    pub(in crate::cli) max_memory: Option<u64>,

    /// Let the component compute no longer than this; s, m, h
    #[arg(long, value_name = "TIME", value_parser = values::time, hide_short_help = true)]
    pub(in crate::cli) max_time: Option<Duration>,

    /// Refuse an archive that writes more than N times its own length, beyond 64 MiB; zeros do not count
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub(in crate::cli) max_expansion: Option<u64>,

    /// Give up when nothing of the archive comes for as long as this; s, m, h
    #[arg(long, value_name = "TIME", value_parser = values::time, hide_short_help = true)]
    pub(in crate::cli) max_stall_time: Option<Duration>,

    /// Give up when the archive takes longer than this in all; s, m, h
    #[arg(long, value_name = "TIME", value_parser = values::time, hide_short_help = true)]
    pub(in crate::cli) max_total_time: Option<Duration>,
}

/// The arguments of `diff`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Diff {
    /// The layer
    #[arg(value_parser = values::id())]
    pub(in crate::cli) id: String,

    /// Write the difference to this layer instead of the parent
    #[arg(long, value_name = "ID", value_parser = values::id())]
    pub(in crate::cli) parent: Option<String>,

    /// Write to FILE, which appears when it is whole; - or nothing: standard output
    ///
    /// A file that it replaces lends it its mode and, as far as that is allowed, its owner and group. In a
    /// sticky directory that others can write, such as /tmp, links and files that belong neither to you nor
    /// to the directory's owner are refused.
    #[arg(short, long, value_name = "FILE")]
    pub(in crate::cli) output: Option<PathBuf>,
}
