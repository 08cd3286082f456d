//! The types of a component as WIT: the contract that it was built for, as an auditor reads it.
//!
//! It comes from the component's own types, which the engine checks when it links, and from no text that the
//! component carries beside them.

use wit_component::{DecodedWasm, WitPrinter};

use super::inspect;
use crate::error::Failure;

/// Prints the world of a component, with every interface that it imports or exports.
///
/// # Errors
///
/// [`Failure::GuestRefused`] where the bytes are no component.
pub(crate) fn text(bytes: &[u8]) -> Result<String, Failure> {
    inspect::sniff(bytes)?;
    let print = || -> anyhow::Result<String> {
        let (resolve, world) = match wit_component::decode(bytes)? {
            DecodedWasm::Component(resolve, world) => (resolve, world),
            DecodedWasm::WitPackage(..) => anyhow::bail!("it is a WIT package in binary form"),
        };
        let package = resolve.worlds[world].package;
        let package = package.ok_or_else(|| anyhow::anyhow!("its world belongs to no package"))?;
        let others: Vec<_> = resolve.packages.iter().map(|(id, _)| id).filter(|id| *id != package).collect();
        let mut printer = WitPrinter::default();
        printer.print(&resolve, package, &others)?;
        Ok(printer.output.to_string())
    };
    print().map_err(|error| Failure::GuestRefused(format!("it is no component: {}", error.root_cause())))
}
