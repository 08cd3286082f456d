//! `tree`: reading the layers that were lent. The worst that a component can do is to read them; whatever name it gives, the file operations
//! below cannot leave the layer's directory.

use layerbox_privileged::layer::{Tree, WalkOptions as Options, Walker};
use wasmtime::component::Resource;

use super::driver::tree::{Detail, Host, HostTree, HostWalker, Names, Piece, WalkOptions};
use super::streams::too_long;
use super::{Answer, Failure, MOST_NODES, SinkHandle, State, convert, names as checked, types};

impl Host for State {}

impl HostTree for State {
    fn open(&mut self, id: String) -> Answer<Resource<Tree>> {
        let tree = self.lease.open_tree(&convert::layer_id(&id)?)?;
        Ok(self.table.push(tree)?)
    }

    fn dialect(&mut self, handle: Resource<Tree>) -> wasmtime::Result<types::Dialect> {
        self.table.get(&handle)?;
        Ok(self.lease.dialect())
    }

    fn walk(&mut self, handle: Resource<Tree>, options: WalkOptions) -> Answer<Resource<Walker>> {
        let options = Options {
            start: convert::name(options.start)?,
            recursive: options.recursive,
            detail: convert::detail(options.detail),
        };
        let walker = self.table.get_mut(&handle)?.walk(options)?;
        Ok(self.table.push(walker)?)
    }

    fn stat(
        &mut self,
        handle: Resource<Tree>,
        names: Vec<Vec<u8>>,
        detail: Detail,
    ) -> Answer<Vec<Option<types::Node>>> {
        let names = checked(names)?;
        let nodes = self.table.get_mut(&handle)?.stat(&names, convert::detail(detail))?;
        Ok(nodes.into_iter().map(|node| node.map(convert::node)).collect())
    }

    fn send(&mut self, handle: Resource<Tree>, pieces: Vec<Piece>, to: Resource<SinkHandle>) -> Answer<()> {
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
                    let tree = self.table.get(&handle)?;
                    tree.send(&convert::name(content.name)?, content.length, sink)?;
                }
            }
            // A piece of no bytes is work as well.
            self.in_time()?;
        }
        Ok(())
    }

    fn drop(&mut self, handle: Resource<Tree>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

impl HostWalker for State {
    fn next(&mut self, handle: Resource<Walker>, max: u32) -> Answer<Vec<types::Node>> {
        let nodes = self.table.get_mut(&handle)?.next(max.clamp(1, MOST_NODES as u32))?;
        Ok(nodes.into_iter().map(convert::node).collect())
    }

    fn names(&mut self, handle: Resource<Walker>, max: u32) -> Answer<Names> {
        let names = self.table.get_mut(&handle)?.names(max.clamp(1, MOST_NODES as u32))?;
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

    fn drop(&mut self, handle: Resource<Walker>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}
