//! Names and paths are bytes, and JSON has text only.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Bytes: a string where they are UTF-8, as most are, and else an array of numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Bytes {
    /// They are UTF-8.
    Text(String),
    /// They are not.
    Raw(Vec<u8>),
}

impl Bytes {
    /// As they are.
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Bytes::Text(text) => text.as_bytes(),
            Bytes::Raw(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Bytes {
        match String::from_utf8(bytes) {
            Ok(text) => Bytes::Text(text),
            Err(error) => Bytes::Raw(error.into_bytes()),
        }
    }
}

impl From<Bytes> for Vec<u8> {
    fn from(bytes: Bytes) -> Vec<u8> {
        match bytes {
            Bytes::Text(text) => text.into_bytes(),
            Bytes::Raw(bytes) => bytes,
        }
    }
}

impl From<PathBuf> for Bytes {
    fn from(path: PathBuf) -> Bytes {
        Bytes::from(path.into_os_string().into_vec())
    }
}

impl From<Bytes> for PathBuf {
    fn from(bytes: Bytes) -> PathBuf {
        PathBuf::from(OsString::from_vec(bytes.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_cross_as_they_are() {
        let rows: [(&[u8], &str); 4] = [
            (b"", "\"\""),
            (b"etc/motd", "\"etc/motd\""),
            (b"a\n\"b\\", r#""a\n\"b\\""#),
            (b"a\xff", "[97,255]"),
        ];
        for (bytes, json) in rows {
            let sent = Bytes::from(bytes.to_vec());
            assert_eq!(serde_json::to_string(&sent).unwrap(), json);
            let received: Bytes = serde_json::from_str(json).unwrap();
            assert_eq!(Vec::from(received), bytes);
        }
    }
}
