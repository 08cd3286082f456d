//! containerd's content store, where blobs come from and go to: reached on the engine's own socket, by a
//! connection a call.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use layerbox_containerd::connect::{Channel, origin};
use layerbox_containerd::services::content::v1::content_client::ContentClient;
use layerbox_containerd::services::content::v1::{
    AbortRequest, Info, ReadContentRequest, ReadContentResponse, UpdateRequest,
};
use layerbox_containerd::services::leases::v1::leases_client::LeasesClient;
use layerbox_containerd::services::leases::v1::{AddResourceRequest, CreateRequest, Resource};
use prost_types::FieldMask;
use tonic::Streaming;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

use super::NAMESPACE;
use crate::serve::calls::CallError;

/// The longest message that is taken, in bytes.
const LONGEST: usize = 16 << 20;

/// The header that names the lease that a call is made under.
const LEASE: &str = "containerd-lease";

/// The label of a lease that says when it ends (containerd, docs/garbage-collection.md).
const EXPIRES: &str = "containerd.io/gc.expire";

/// How long what is written is kept from the collector: the time that its client has to refer to it.
const KEPT: Duration = Duration::from_secs(600);

/// The way to an engine's content store.
#[derive(Debug, Clone)]
pub(super) struct Content {
    /// The engine's socket.
    pub(super) address: PathBuf,
    /// The namespace whose blobs are meant.
    pub(super) namespace: Option<String>,
    /// What is written is kept by this lease; none: by nothing.
    pub(super) lease: Option<MetadataValue<Ascii>>,
}

impl Content {
    /// For a call with these headers, in this namespace.
    pub(super) fn of_call(address: PathBuf, namespace: Option<String>, headers: &MetadataMap) -> Content {
        Content { address, namespace, lease: headers.get(LEASE).cloned() }
    }

    /// The same store, and this namespace where none is named: containerd names none when it calls a differ
    /// that is a proxy.
    pub(super) fn or_in(mut self, namespace: Option<String>) -> Content {
        self.namespace = self.namespace.or(namespace);
        self
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// [`CallError::Engine`].
    pub(super) async fn connect(&self) -> Result<ContentClient<Channel>, CallError> {
        let client = ContentClient::with_origin(self.channel().await?, origin());
        Ok(client.max_decoding_message_size(LONGEST))
    }

    async fn leases(&self) -> Result<LeasesClient<Channel>, CallError> {
        Ok(LeasesClient::with_origin(self.channel().await?, origin()))
    }

    async fn channel(&self) -> Result<Channel, CallError> {
        let address = self.address.display();
        let failed =
            |error: String| CallError::Engine(format!("containerd does not answer at {address}: {error}"));
        Channel::connect(&self.address).await.map_err(|e| failed(e.to_string()))
    }

    /// Has what is written from now on kept for some minutes, where no lease does that already: containerd
    /// does not tell a differ that is a proxy of its caller's lease, and what nothing refers to yet is gone
    /// with the next collection.
    ///
    /// # Errors
    ///
    /// [`CallError::Engine`], [`CallError::Refusal`].
    pub(super) async fn keep(&mut self) -> Result<(), CallError> {
        if self.lease.is_some() {
            return Ok(());
        }
        let end = prost_types::Timestamp::from(SystemTime::now() + KEPT);
        let labels = HashMap::from([(EXPIRES.to_owned(), end.to_string())]);
        // The engine chooses the name.
        let request = self.request(CreateRequest { id: String::new(), labels })?;
        let answer = self.leases().await?.create(request).await;
        let lease = answer.map_err(|status| engine(&status))?.into_inner().lease.unwrap_or_default();
        let no_text = |_| CallError::Engine("containerd's lease has a name that is no plain text".to_owned());
        self.lease = Some(lease.id.parse().map_err(no_text)?);
        Ok(())
    }

    /// Keeps a blob that was there before as if it had been written: by the lease of the call, and with a
    /// label where there is one to set.
    ///
    /// # Errors
    ///
    /// [`CallError::Engine`], [`CallError::Refusal`].
    pub(super) async fn adopt(&self, digest: &str, label: Option<(&str, String)>) -> Result<(), CallError> {
        if let Some(lease) = self.lease.as_ref().and_then(|lease| lease.to_str().ok()) {
            let resource = Resource { id: digest.to_owned(), r#type: "content".to_owned() };
            let request = AddResourceRequest { id: lease.to_owned(), resource: Some(resource) };
            let added = self.leases().await?.add_resource(self.request(request)?).await;
            added.map_err(|status| engine(&status))?;
        }
        if let Some((name, value)) = label {
            let labels = HashMap::from([(name.to_owned(), value)]);
            let request = UpdateRequest {
                info: Some(Info { digest: digest.to_owned(), labels }),
                update_mask: Some(FieldMask { paths: vec![format!("labels.{name}")] }),
            };
            let updated = self.connect().await?.update(self.request(request)?).await;
            updated.map_err(|status| engine(&status))?;
        }
        Ok(())
    }

    /// Ends a writing that came to nothing.
    ///
    /// # Errors
    ///
    /// [`CallError::Engine`], [`CallError::Refusal`].
    pub(super) async fn abort(&self, reference: &str) -> Result<(), CallError> {
        let request = self.request(AbortRequest { r#ref: reference.to_owned() })?;
        let aborted = self.connect().await?.abort(request).await;
        aborted.map(drop).map_err(|status| engine(&status))
    }

    /// A request in the namespace.
    ///
    /// # Errors
    ///
    /// [`CallError::Request`] for a namespace that is no plain text.
    pub(super) fn request<T>(&self, message: T) -> Result<tonic::Request<T>, CallError> {
        let mut request = tonic::Request::new(message);
        if let Some(namespace) = &self.namespace {
            let value: MetadataValue<Ascii> = namespace
                .parse()
                .map_err(|_| CallError::Request("the namespace is no plain text".to_owned()))?;
            request.metadata_mut().insert(NAMESPACE, value);
        }
        if let Some(lease) = &self.lease {
            request.metadata_mut().insert(LEASE, lease.clone());
        }
        Ok(request)
    }

    /// Begins to read a blob.
    ///
    /// # Errors
    ///
    /// [`CallError::Engine`], [`CallError::Refusal`].
    pub(super) async fn read(&self, digest: &str) -> Result<Streaming<ReadContentResponse>, CallError> {
        let request = self.request(ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 })?;
        let answer = self.connect().await?.read(request).await;
        Ok(answer.map_err(|status| engine(&status))?.into_inner())
    }
}

/// The engine's own error, with its code: containerd tells a blob that is missing from one that cannot be
/// read.
pub(super) fn engine(status: &tonic::Status) -> CallError {
    CallError::Refusal(status.code(), format!("containerd's content store: {}", status.message()))
}
