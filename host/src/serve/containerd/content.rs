//! containerd's content store, where blobs come from and go to: reached on the engine's own socket, by a connection a call.

use std::path::PathBuf;

use layerbox_containerd::connect::{Channel, origin};
use layerbox_containerd::services::content::v1::content_client::ContentClient;
use layerbox_containerd::services::content::v1::{ReadContentRequest, ReadContentResponse};
use tonic::Streaming;
use tonic::metadata::{Ascii, MetadataValue};

use super::NAMESPACE;
use crate::serve::calls::CallError;

/// The longest message that is taken, in bytes.
const LONGEST: usize = 16 << 20;

/// The way to an engine's content store.
#[derive(Debug, Clone)]
pub(super) struct Content {
    /// The engine's socket.
    pub(super) address: PathBuf,
    /// The namespace whose blobs are meant.
    pub(super) namespace: Option<String>,
}

impl Content {
    /// The same store, and this namespace where none is named: containerd names none when it calls a differ that is a proxy.
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
        let address = self.address.display();
        let failed =
            |error: String| CallError::Engine(format!("containerd does not answer at {address}: {error}"));
        let channel = Channel::connect(&self.address).await.map_err(|e| failed(e.to_string()))?;
        let client = ContentClient::with_origin(channel, origin());
        Ok(client.max_decoding_message_size(LONGEST))
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
        Ok(request)
    }

    /// Begins to read a blob.
    ///
    /// # Errors
    ///
    /// [`CallError::Engine`].
    pub(super) async fn read(&self, digest: &str) -> Result<Streaming<ReadContentResponse>, CallError> {
        let request = self.request(ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 })?;
        let answer = self.connect().await?.read(request).await;
        Ok(answer.map_err(|status| engine(&status))?.into_inner())
    }
}

/// The engine's own error.
pub(super) fn engine(status: &tonic::Status) -> CallError {
    CallError::Engine(format!("containerd's content store: {}", status.message()))
}
