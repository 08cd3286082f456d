//! `tree`: reading the layers that were lent. The worst that a component can do is to read them; whatever
//! name it gives, the file operations below cannot leave the layer's directory.

use std::sync::Arc;

use layerbox_privileged::layer::{Tree, WalkOptions as Options, Walker};
use wasmtime::component::Resource;

use super::driver::tree::{Detail, Host, HostTree, HostWalker, Names, Piece, WalkOptions};
use super::streams::too_long;
use super::{Answer, Failure, MOST_NODES, SinkHandle, State, convert, names as checked, types};

/// The most walks that a call may have under way: each holds up to 64 descriptors.
const MOST_WALKS: usize = 64;

/// A handle of a layer; the layer itself is in the lease as well.
#[derive(Debug)]
pub struct TreeHandle(Arc<Tree>);

/// A walk under way.
#[derive(Debug)]
pub struct WalkerHandle(Walker);

impl Host for State {}

impl HostTree for State {
    fn open(&mut self, id: String) -> Answer<Resource<TreeHandle>> {
        let tree = self.lease.open_tree(&convert::layer_id(&id)?)?;
        Ok(self.table.push(TreeHandle(tree))?)
    }

    fn dialect(&mut self, handle: Resource<TreeHandle>) -> wasmtime::Result<types::Dialect> {
        self.table.get(&handle)?;
        Ok(self.lease.dialect())
    }

    fn walk(&mut self, handle: Resource<TreeHandle>, options: WalkOptions) -> Answer<Resource<WalkerHandle>> {
        let options = Options {
            start: convert::name(options.start)?,
            recursive: options.recursive,
            detail: convert::detail(options.detail),
        };
        let tree = &self.table.get(&handle)?.0;
        if self.walks == MOST_WALKS {
            let bound = format!("walks at once ({MOST_WALKS})");
            return Err(Failure::Limit { entry: Vec::new(), bound }.into());
        }
        let walker = WalkerHandle(tree.walk(options)?);
        let handle = self.table.push(walker)?;
        self.walks += 1;
        Ok(handle)
    }

    fn stat(
        &mut self,
        handle: Resource<TreeHandle>,
        names: Vec<Vec<u8>>,
        detail: Detail,
    ) -> Answer<Vec<Option<types::Node>>> {
        let names = checked(names)?;
        let nodes = self.table.get(&handle)?.0.stat(&names, convert::detail(detail))?;
        Ok(nodes.into_iter().map(|node| node.map(convert::node)).collect())
    }

    fn send(
        &mut self,
        handle: Resource<TreeHandle>,
        pieces: Vec<Piece>,
        to: Resource<SinkHandle>,
    ) -> Answer<()> {
        self.table.get(&to)?;
        for piece in pieces {
            let Some(sink) = &mut self.lease.sink else {
                return Err(Failure::Denied("an archive to write".to_owned()).into());
            };
            let length = match &piece {
                Piece::Bytes(bytes) => bytes.len() as u64,
                Piece::Content(content) => content.length,
            };
            self.archive_room = self.archive_room.checked_sub(length).ok_or_else(too_long)?;
            match piece {
                Piece::Bytes(bytes) => sink.write(&bytes)?,
                Piece::Content(content) => {
                    let tree = &self.table.get(&handle)?.0;
                    tree.send(&convert::name(content.name)?, content.length, sink)?;
                }
            }
            // A piece of no bytes is work as well.
            self.in_time()?;
        }
        Ok(())
    }

    fn drop(&mut self, handle: Resource<TreeHandle>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

impl HostWalker for State {
    fn next(&mut self, handle: Resource<WalkerHandle>, max: u32) -> Answer<Vec<types::Node>> {
        let nodes = self.table.get_mut(&handle)?.0.next(max.clamp(1, MOST_NODES as u32))?;
        Ok(nodes.into_iter().map(convert::node).collect())
    }

    fn names(&mut self, handle: Resource<WalkerHandle>, max: u32) -> Answer<Names> {
        let names = self.table.get_mut(&handle)?.0.names(max.clamp(1, MOST_NODES as u32))?;
        let mut rest = names.bytes.as_slice();
        let entry = |(length, kind): &(usize, _)| {
            let name = rest.split_off(..*length).unwrap_or_default();
            let too_long =
                |_| Failure::Limit { entry: name.to_vec(), bound: "the length of a name".to_owned() };
            Ok((u32::try_from(*length).map_err(too_long)?, convert::class(kind)))
        };
        let entries = names.entries.iter().map(entry).collect::<Result<_, Failure>>()?;
        Ok(Names { bytes: names.bytes, entries })
    }

    fn drop(&mut self, handle: Resource<WalkerHandle>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        self.walks -= 1;
        Ok(())
    }
}
