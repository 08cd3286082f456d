//! containerd's part in its conversation with the service: calls of the snapshots service, and mounts as
//! containerd makes them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use layerbox_containerd::connect::{Channel, origin};
use layerbox_containerd::services::diff::v1::diff_client::DiffClient;
use layerbox_containerd::services::diff::v1::{ApplyRequest, DiffRequest};
use layerbox_containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use layerbox_containerd::services::snapshots::v1::{
    CleanupRequest, CommitSnapshotRequest, Info, ListSnapshotsRequest, MountsRequest, PrepareSnapshotRequest,
    RemoveSnapshotRequest, StatSnapshotRequest, UpdateSnapshotRequest, UsageRequest, ViewSnapshotRequest,
};
use layerbox_containerd::types::{Descriptor, Mount};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use prost_types::FieldMask;
use tonic::{Code, Request, Status};

use crate::scratch::{Place, unmount};
use crate::service::Service;
use crate::store::bare;

/// Labels.
pub type Labels = HashMap<String, String>;

/// What a call answers.
pub type Answer<T> = std::result::Result<T, Status>;

/// Labels from pairs.
pub fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// A service that answers containerd, in a directory of its own.
///
/// # Errors
///
/// It does not become ready.
pub fn serve(place: &Place) -> Result<Service> {
    serve_with(place, &[])
}

/// As [`serve`], with these further arguments.
///
/// # Errors
///
/// It does not become ready.
pub fn serve_with(place: &Place, arguments: &[&str]) -> Result<Service> {
    let mut command = bare();
    command.arg("--root").arg(place.join("root")).arg("serve");
    command.arg("--containerd").arg(place.join("containerd.sock"));
    command.arg("--containerd-address").arg(place.join("engine.sock"));
    command.arg("--admin").arg(place.join("admin.sock")).args(arguments);
    Service::spawn(place, command)
}

/// A connection to the service, as one snapshotter of one namespace.
#[derive(Debug)]
pub struct Snapshotter {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
    /// The name that the engine's configuration has for it.
    pub name: String,
    /// containerd's namespace; none where a call names none.
    pub namespace: Option<String>,
}

impl Snapshotter {
    /// Connects to the service of a place.
    ///
    /// # Errors
    ///
    /// Nobody listens.
    pub fn connect(place: &Place) -> Result<Snapshotter> {
        Snapshotter::connect_to(&place.join("containerd.sock"))
    }

    /// Connects to a socket of a service.
    ///
    /// # Errors
    ///
    /// Nobody listens.
    pub fn connect_to(socket: &Path) -> Result<Snapshotter> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let channel = runtime.block_on(Channel::connect(socket))?;
        let namespace = Some("test".to_owned());
        Ok(Snapshotter { runtime, channel, name: "layerbox".to_owned(), namespace })
    }

    /// The same connection, for another snapshotter or namespace.
    ///
    /// # Errors
    ///
    /// There are no threads left.
    pub fn beside(&self, name: &str, namespace: Option<&str>) -> Result<Snapshotter> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let namespace = namespace.map(str::to_owned);
        Ok(Snapshotter { runtime, channel: self.channel.clone(), name: name.to_owned(), namespace })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(value) = self.namespace.as_ref().and_then(|namespace| namespace.parse().ok()) {
            request.metadata_mut().insert("containerd-namespace", value);
        }
        request
    }

    fn client(&self) -> SnapshotsClient<Channel> {
        SnapshotsClient::with_origin(self.channel.clone(), origin())
    }

    /// Prepare, with labels.
    pub fn prepare_with(&self, key: &str, parent: &str, labels: Labels) -> Answer<Vec<Mount>> {
        let request = PrepareSnapshotRequest {
            snapshotter: self.name.clone(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels,
        };
        let mut client = self.client();
        let answer = self.runtime.block_on(client.prepare(self.request(request)));
        answer.map(|answer| answer.into_inner().mounts)
    }

    /// Prepare.
    pub fn prepare(&self, key: &str, parent: &str) -> Answer<Vec<Mount>> {
        self.prepare_with(key, parent, Labels::new())
    }

    /// View.
    pub fn view(&self, key: &str, parent: &str) -> Answer<Vec<Mount>> {
        let request = ViewSnapshotRequest {
            snapshotter: self.name.clone(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: Labels::new(),
        };
        let mut client = self.client();
        let answer = self.runtime.block_on(client.view(self.request(request)));
        answer.map(|answer| answer.into_inner().mounts)
    }

    /// Mounts.
    pub fn mounts(&self, key: &str) -> Answer<Vec<Mount>> {
        let request = MountsRequest { snapshotter: self.name.clone(), key: key.to_owned() };
        let mut client = self.client();
        let answer = self.runtime.block_on(client.mounts(self.request(request)));
        answer.map(|answer| answer.into_inner().mounts)
    }

    /// Commit, with labels.
    pub fn commit_with(&self, name: &str, key: &str, labels: Labels) -> Answer<()> {
        let request = CommitSnapshotRequest {
            snapshotter: self.name.clone(),
            name: name.to_owned(),
            key: key.to_owned(),
            labels,
        };
        let mut client = self.client();
        self.runtime.block_on(client.commit(self.request(request))).map(drop)
    }

    /// Commit.
    pub fn commit(&self, name: &str, key: &str) -> Answer<()> {
        self.commit_with(name, key, Labels::new())
    }

    /// Remove.
    pub fn remove(&self, key: &str) -> Answer<()> {
        let request = RemoveSnapshotRequest { snapshotter: self.name.clone(), key: key.to_owned() };
        let mut client = self.client();
        self.runtime.block_on(client.remove(self.request(request))).map(drop)
    }

    /// Stat.
    pub fn stat(&self, key: &str) -> Answer<Info> {
        let request = StatSnapshotRequest { snapshotter: self.name.clone(), key: key.to_owned() };
        let mut client = self.client();
        let answer = self.runtime.block_on(client.stat(self.request(request)));
        answer.map(|answer| answer.into_inner().info.unwrap_or_default())
    }

    /// Update.
    pub fn update(&self, name: &str, labels: Labels, fields: &[&str]) -> Answer<Info> {
        let paths = fields.iter().map(|&field| field.to_owned()).collect();
        let request = UpdateSnapshotRequest {
            snapshotter: self.name.clone(),
            info: Some(Info { name: name.to_owned(), labels, ..Info::default() }),
            update_mask: Some(FieldMask { paths }),
        };
        let mut client = self.client();
        let answer = self.runtime.block_on(client.update(self.request(request)));
        answer.map(|answer| answer.into_inner().info.unwrap_or_default())
    }

    /// List.
    pub fn list(&self, filters: &[&str]) -> Answer<Vec<Info>> {
        let request = ListSnapshotsRequest {
            snapshotter: self.name.clone(),
            filters: filters.iter().map(|&filter| filter.to_owned()).collect(),
        };
        let mut client = self.client();
        self.runtime.block_on(async {
            let mut stream = client.list(self.request(request)).await?.into_inner();
            let mut all = Vec::new();
            while let Some(message) = stream.message().await? {
                all.extend(message.info);
            }
            Ok(all)
        })
    }

    /// The names of a list.
    pub fn names(&self, filters: &[&str]) -> Answer<Vec<String>> {
        Ok(self.list(filters)?.into_iter().map(|info| info.name).collect())
    }

    /// Usage: bytes, and inodes.
    pub fn usage(&self, key: &str) -> Answer<(i64, i64)> {
        let request = UsageRequest { snapshotter: self.name.clone(), key: key.to_owned() };
        let mut client = self.client();
        let answer = self.runtime.block_on(client.usage(self.request(request)))?.into_inner();
        Ok((answer.size, answer.inodes))
    }

    /// Cleanup.
    pub fn cleanup(&self) -> Answer<()> {
        let request = CleanupRequest { snapshotter: self.name.clone() };
        let mut client = self.client();
        self.runtime.block_on(client.cleanup(self.request(request))).map(drop)
    }

    /// Diff, of the diff service: a blob of what differs.
    pub fn diff(&self, request: DiffRequest) -> Answer<Descriptor> {
        let mut client = DiffClient::with_origin(self.channel.clone(), origin());
        let answer = self.runtime.block_on(client.diff(self.request(request)))?;
        Ok(answer.into_inner().diff.unwrap_or_default())
    }

    /// Apply, of the diff service: unpacks a blob.
    pub fn apply(&self, request: ApplyRequest) -> Answer<Descriptor> {
        let mut client = DiffClient::with_origin(self.channel.clone(), origin());
        let answer = self.runtime.block_on(client.apply(self.request(request)))?;
        Ok(answer.into_inner().applied.unwrap_or_default())
    }

    /// Makes a committed snapshot: prepares it on a parent, mounts it, edits it, unmounts and commits it.
    ///
    /// # Errors
    ///
    /// Any of it fails.
    pub fn layer(
        &self,
        place: &Place,
        name: &str,
        parent: &str,
        edit: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let key = format!("{name}-active");
        let mounted = Mounted::new(place, &self.prepare(&key, parent)?)?;
        edit(mounted.path()).with_context(|| format!("edit {name}"))?;
        mounted.end()?;
        Ok(self.commit(name, &key)?)
    }

    /// Mounts a view of a committed snapshot. The view is left when the mount goes.
    ///
    /// # Errors
    ///
    /// Any of it fails.
    pub fn look(&self, place: &Place, name: &str) -> Result<Mounted> {
        Mounted::new(place, &self.view(&format!("{name}-view-{}", next()), name)?)
    }
}

/// Holds a call to have failed with a code.
///
/// # Errors
///
/// It has not.
pub fn refused<T: std::fmt::Debug>(answer: Answer<T>, code: Code, what: &str) -> Result<()> {
    match answer {
        Err(status) if status.code() == code => Ok(()),
        other => anyhow::bail!("{what}: expected {code:?}, got {other:?}"),
    }
}

fn next() -> usize {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Something mounted as a snapshotter said. It is unmounted when it is dropped.
#[derive(Debug)]
pub struct Mounted(PathBuf);

impl Mounted {
    /// Mounts, as containerd's own code does: a bind of what is to be read only is mounted again to be so,
    /// and long lists of lower directories are told relative to the directory that they have in common.
    ///
    /// # Errors
    ///
    /// The kernel refuses, or the mounts are not such as containerd takes.
    pub fn new(place: &Place, mounts: &[Mount]) -> Result<Mounted> {
        let [single] = mounts else { anyhow::bail!("{} mounts", mounts.len()) };
        let target = place.make(format!("mounted-{}", next()))?;
        match single.r#type.as_str() {
            "bind" => bind(single, &target)?,
            "overlay" => overlay(single, &target)?,
            other => anyhow::bail!("a mount of type {other}"),
        }
        Ok(Mounted(target))
    }

    /// Where.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Unmounts.
    ///
    /// # Errors
    ///
    /// It is in use.
    pub fn end(self) -> Result<()> {
        unmount(&self.0)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // It may be unmounted already.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn bind(single: &Mount, target: &Path) -> Result<()> {
    let read_only = single.options.iter().any(|option| option == "ro");
    ensure!(single.options.iter().any(|option| option == "rbind"), "a bind without rbind: {single:?}");
    let none = None::<&str>;
    mount(Some(single.source.as_str()), target, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
        .with_context(|| format!("bind {}", single.source))?;
    if read_only {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, target, none, flags, none).context("make it read only")?;
    }
    Ok(())
}

fn overlay(single: &Mount, target: &Path) -> Result<()> {
    let whole = single.options.join(",");
    let lower = single.options.iter().find_map(|option| option.strip_prefix("lowerdir="));
    let lower = lower.context("an overlay without lower directories")?;
    let common = Path::new(lower.split(':').next().unwrap_or_default()).parent().context("no parent")?;
    let (options, directory) = if whole.len() < 4096 - 512 {
        (whole, PathBuf::from("/"))
    } else {
        let prefix = format!("{}/", common.display());
        let short = lower.split(':').map(|path| path.strip_prefix(&prefix).context("nothing in common"));
        let short = short.collect::<Result<Vec<_>>>()?.join(":");
        (whole.replace(lower, &short), common.to_owned())
    };
    ensure!(options.len() < 4096, "the options do not fit into a page: {} bytes", options.len());
    let mounted = std::thread::scope(|scope| {
        let call = || -> nix::Result<()> {
            unshare(CloneFlags::CLONE_FS)?;
            nix::unistd::chdir(&directory)?;
            mount(Some("overlay"), target, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        };
        scope.spawn(call).join()
    });
    let mounted = mounted.map_err(|_| anyhow::anyhow!("the mounting thread panicked"))?;
    mounted.with_context(|| format!("mount with {options}"))
}
