//! The requests and answers of Docker's graph driver plugins, as real engines send them.
//! <https://docs.docker.com/engine/extend/plugin_graphdriver/>

use std::collections::BTreeMap;

use bytes::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::driver::{ChangeKind, IdMaps, IdRange, Metadata};
use crate::error::Failure;
use crate::serve::http::Content;

/// The media type of every JSON answer.
const MEDIA_TYPE: &str = "application/vnd.docker.plugins.v1.2+json";

/// An operation of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `Plugin.Activate`.
    Activate,
    /// `GraphDriver.Init`.
    Init,
    /// `GraphDriver.Create`.
    Create,
    /// `GraphDriver.CreateReadWrite`.
    CreateReadWrite,
    /// `GraphDriver.Remove`.
    Remove,
    /// `GraphDriver.Get`.
    Get,
    /// `GraphDriver.Put`.
    Put,
    /// `GraphDriver.Exists`.
    Exists,
    /// `GraphDriver.Status`.
    Status,
    /// `GraphDriver.GetMetadata`.
    GetMetadata,
    /// `GraphDriver.Changes`.
    Changes,
    /// `GraphDriver.DiffSize`.
    DiffSize,
    /// `GraphDriver.Diff`.
    Diff,
    /// `GraphDriver.ApplyDiff`.
    ApplyDiff,
    /// `GraphDriver.Cleanup`.
    Cleanup,
    /// `GraphDriver.Capabilities`.
    Capabilities,
}

/// Every operation: its path, and its name in the log and the metrics.
const OPERATIONS: [(Operation, &str, &str); 16] = [
    (Operation::Activate, "/Plugin.Activate", "activate"),
    (Operation::Init, "/GraphDriver.Init", "init"),
    (Operation::Create, "/GraphDriver.Create", "create"),
    (Operation::CreateReadWrite, "/GraphDriver.CreateReadWrite", "create-read-write"),
    (Operation::Remove, "/GraphDriver.Remove", "remove"),
    (Operation::Get, "/GraphDriver.Get", "get"),
    (Operation::Put, "/GraphDriver.Put", "put"),
    (Operation::Exists, "/GraphDriver.Exists", "exists"),
    (Operation::Status, "/GraphDriver.Status", "status"),
    (Operation::GetMetadata, "/GraphDriver.GetMetadata", "metadata"),
    (Operation::Changes, "/GraphDriver.Changes", "changes"),
    (Operation::DiffSize, "/GraphDriver.DiffSize", "diff-size"),
    (Operation::Diff, "/GraphDriver.Diff", "diff"),
    (Operation::ApplyDiff, "/GraphDriver.ApplyDiff", "apply-diff"),
    (Operation::Cleanup, "/GraphDriver.Cleanup", "cleanup"),
    (Operation::Capabilities, "/GraphDriver.Capabilities", "capabilities"),
];

impl Operation {
    /// The operation of a path.
    pub fn of(path: &str) -> Option<Operation> {
        OPERATIONS.iter().find(|(_, known, _)| *known == path).map(|(operation, ..)| *operation)
    }

    /// Its name in the log and the metrics.
    pub fn name(self) -> &'static str {
        OPERATIONS.iter().find(|(operation, ..)| *operation == self).map_or("unknown", |(.., name)| name)
    }

    /// Whether a request without a body is one. dockerd sends a request again without its body when the
    /// connection breaks; that must have no effect.
    pub fn takes_nothing(self) -> bool {
        matches!(self, Operation::Activate | Operation::Status | Operation::Capabilities)
    }
}

/// The body of `Init`. Go leaves out nothing: what is not set is null.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct InitRequest {
    /// The root of the store.
    pub home: Option<String>,
    /// `--storage-opt`.
    pub opts: Option<Vec<String>>,
    /// The users' map.
    #[serde(rename = "UIDMaps")]
    pub uid_maps: Option<Vec<MapEntry>>,
    /// The groups' map.
    #[serde(rename = "GIDMaps")]
    pub gid_maps: Option<Vec<MapEntry>>,
}

/// An entry of an id map. The documentation and dockerd spell it differently.
#[derive(Debug, Deserialize)]
pub struct MapEntry {
    #[serde(alias = "ContainerID")]
    container_id: i64,
    #[serde(alias = "HostID")]
    host_id: i64,
    #[serde(alias = "Size")]
    size: i64,
}

impl InitRequest {
    /// The id maps.
    ///
    /// # Errors
    ///
    /// [`Failure::InvalidArgument`] for a number that is no id, and for maps that nothing can be mapped with.
    pub fn maps(&self) -> Result<IdMaps, Failure> {
        let number = |value: i64| {
            let what = || Failure::InvalidArgument(format!("the id maps hold {value}, which is no id"));
            u32::try_from(value).map_err(|_| what())
        };
        let ranges = |entries: &Option<Vec<MapEntry>>| {
            let range = |entry: &MapEntry| {
                let (inside, outside) = (number(entry.container_id)?, number(entry.host_id)?);
                Ok(IdRange { inside, outside, length: number(entry.size)? })
            };
            entries.iter().flatten().map(range).collect::<Result<Vec<_>, Failure>>()
        };
        let maps = IdMaps { uids: ranges(&self.uid_maps)?, gids: ranges(&self.gid_maps)? };
        maps.check()?;
        Ok(maps)
    }
}

/// The body of every call about a layer; each uses some of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct LayerRequest {
    #[serde(rename = "ID")]
    id: Option<String>,
    parent: Option<String>,
    mount_label: Option<String>,
    storage_opt: Option<BTreeMap<String, Value>>,
}

impl LayerRequest {
    /// The layer; one that is not named is the empty text, which is no id.
    pub fn id(&self) -> &str {
        self.id.as_deref().unwrap_or_default()
    }

    /// The parent; none where it is null or empty.
    pub fn parent(&self) -> Option<&str> {
        self.parent.as_deref().filter(|parent| !parent.is_empty())
    }

    /// The SELinux label of a mount; none where it is null or empty.
    pub fn label(&self) -> Option<&str> {
        self.mount_label.as_deref().filter(|label| !label.is_empty())
    }

    /// Options of a layer: there are none.
    ///
    /// # Errors
    ///
    /// [`Failure::Unsupported`] where one is asked for, which names it.
    pub fn no_options(&self) -> Result<(), Failure> {
        match self.storage_opt.iter().flatten().next() {
            None => Ok(()),
            Some((name, _)) => {
                let what =
                    format!("the storage option {name:?} of a layer: there is no quota, and no other option");
                Err(Failure::Unsupported(what))
            }
        }
    }
}

/// Reads the body of a request.
///
/// # Errors
///
/// What is wrong with it, in words.
pub fn parse<'a, T: Deserialize<'a> + Default>(body: &'a [u8], operation: Operation) -> Result<T, String> {
    if body.is_empty() {
        if operation.takes_nothing() {
            return Ok(T::default());
        }
        return Err("the request has no body".to_owned());
    }
    // serde would take an array for an object whose fields are all missing.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err("the body is no JSON object".to_owned());
    }
    serde_json::from_slice(body).map_err(|e| format!("the body is not what it should be: {e}"))
}

/// A change, as Docker numbers its kinds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ChangeAnswer {
    /// The path, from the layer's root. Bytes that are not UTF-8 become U+FFFD, as in Go's JSON: the protocol
    /// has no other way to say them.
    path: String,
    /// 0 modified, 1 added, 2 deleted.
    kind: u8,
}

impl From<(&[u8], ChangeKind)> for ChangeAnswer {
    fn from((name, kind): (&[u8], ChangeKind)) -> ChangeAnswer {
        let kind = match kind {
            ChangeKind::Modified => 0,
            ChangeKind::Added => 1,
            ChangeKind::Deleted => 2,
        };
        ChangeAnswer { path: format!("/{}", String::from_utf8_lossy(name)), kind }
    }
}

/// What `docker inspect` shows of a layer: the directories that it has. They are named as Docker's overlay
/// driver names them.
pub fn metadata(metadata: &Metadata) -> Value {
    let mut answer = json!({ "UpperDir": metadata.content.display().to_string() });
    let content_of =
        |id: &str| metadata.content.parent().unwrap_or(&metadata.content).join(id).display().to_string();
    if !metadata.ancestors.is_empty() {
        let lower: Vec<String> = metadata.ancestors.iter().map(|id| content_of(id.as_str())).collect();
        answer["LowerDir"] = lower.join(":").into();
        answer["MergedDir"] = metadata.mount_point.display().to_string().into();
        if let Some(work) = &metadata.work {
            answer["WorkDir"] = work.display().to_string().into();
        }
    }
    answer
}

/// A JSON answer.
pub fn answer(status: StatusCode, value: &Value) -> Response<Content> {
    let mut response = Response::new(Content::Whole(Some(Bytes::from(value.to_string()))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(MEDIA_TYPE));
    response
}

/// An error. With status 200 on calls whose answer is JSON: dockerd looks into it.
pub fn error(status: StatusCode, text: &str) -> Response<Content> {
    answer(status, &json!({ "Err": text }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_its_path_and_name() {
        for (operation, path, name) in OPERATIONS {
            assert_eq!(Operation::of(path), Some(operation));
            assert_eq!(operation.name(), name);
        }
        assert_eq!(Operation::of("/GraphDriver.Destroy"), None);
        assert_eq!(Operation::of("/GraphDriver.Get/"), None);
    }

    #[test]
    fn requests_of_layers() {
        // Body, id, parent, label.
        type Row = (&'static str, Option<(&'static str, Option<&'static str>, Option<&'static str>)>);
        let cases: [Row; 10] = [
            ("{}", Some(("", None, None))),
            (r#"{"ID":"a"}"#, Some(("a", None, None))),
            (r#"{"ID":null,"Parent":null,"MountLabel":null,"StorageOpt":null}"#, Some(("", None, None))),
            (r#"{"ID":"a","Parent":"","MountLabel":""}"#, Some(("a", None, None))),
            (r#"{"ID":"a","Parent":"b","MountLabel":"c","Other":[1]}"#, Some(("a", Some("b"), Some("c")))),
            ("", None),
            ("{", None),
            ("[]", None),
            (r#"{"ID":1}"#, None),
            ("{} {}", None),
        ];
        for (body, expected) in cases {
            let parsed: Result<LayerRequest, String> = parse(body.as_bytes(), Operation::Get);
            let seen = parsed.as_ref().ok().map(|r| (r.id(), r.parent(), r.label()));
            assert_eq!(seen, expected, "{body}");
        }
        let nothing: Result<LayerRequest, String> = parse(b"", Operation::Status);
        assert!(nothing.is_ok());
    }

    #[test]
    fn options_of_layers_are_refused_by_name() {
        for (body, good) in [
            (r#"{"StorageOpt":{}}"#, true),
            (r#"{"StorageOpt":null}"#, true),
            (r#"{"StorageOpt":{"size":"10G"}}"#, false),
        ] {
            let request: LayerRequest = parse(body.as_bytes(), Operation::Create).expect("a request");
            let result = request.no_options();
            assert_eq!(result.is_ok(), good, "{body}");
            assert!(good || result.is_err_and(|failure| failure.to_string().contains("\"size\"")));
        }
    }

    #[test]
    fn id_maps_in_both_spellings() {
        let range = |inside, outside, length| IdRange { inside, outside, length };
        let cases = [
            (r#"{"Home":"/h","Opts":null,"UIDMaps":null,"GIDMaps":null}"#, Some(vec![])),
            (r#"{"UIDMaps":[{"container_id":0,"host_id":1000,"size":10}]}"#, Some(vec![range(0, 1000, 10)])),
            (r#"{"UIDMaps":[{"ContainerID":0,"HostID":7,"Size":1}]}"#, Some(vec![range(0, 7, 1)])),
            (r#"{"UIDMaps":[{"ContainerID":-1,"HostID":7,"Size":1}]}"#, None),
            (r#"{"UIDMaps":[{"ContainerID":0,"HostID":4294967296,"Size":1}]}"#, None),
            (r#"{"UIDMaps":[{"ContainerID":5,"HostID":7,"Size":1}]}"#, None),
            (r#"{"UIDMaps":[{"ContainerID":0}]}"#, None),
        ];
        for (body, expected) in cases {
            let parsed: Result<InitRequest, String> = parse(body.as_bytes(), Operation::Init);
            let maps = parsed.ok().and_then(|request| request.maps().ok()).map(|maps| maps.uids);
            assert_eq!(maps, expected, "{body}");
        }
    }

    #[test]
    fn changes_are_numbered_and_text() {
        for (name, kind, path, number) in [
            (b"etc/motd".as_slice(), ChangeKind::Modified, "/etc/motd", 0),
            (b"a\xffb", ChangeKind::Added, "/a\u{fffd}b", 1),
            (b"gone", ChangeKind::Deleted, "/gone", 2),
        ] {
            let answer = ChangeAnswer::from((name, kind));
            assert_eq!((answer.path.as_str(), answer.kind), (path, number));
        }
    }
}
