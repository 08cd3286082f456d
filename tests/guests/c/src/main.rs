//! Generates what `driver.c` includes: `driver.h`, the glue in `driver_bindings.c`, and the object file that
//! tells the linker the world.
//!
//! The same as `wit-bindgen c wit --world driver --out-dir OUT`, from the library, so that no program has to
//! be installed for it.

use std::path::PathBuf;
use std::process::ExitCode;

use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::Resolve;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(wit), Some(out), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        eprintln!(
            "usage: layerbox-guest-c WIT OUT: generates C for the world in the directory WIT, into the directory OUT"
        );
        return ExitCode::from(2);
    };
    match generate(&wit, &out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("layerbox-guest-c: {error}");
            ExitCode::FAILURE
        }
    }
}

fn generate(wit: &std::path::Path, out: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(wit)?;
    let world = resolve.select_world(&[package], Some("driver"))?;
    let mut files = Files::default();
    wit_bindgen_c::Opts::default().build().generate(&mut resolve, world, &mut files)?;
    std::fs::create_dir_all(out)?;
    for (name, bytes) in files.iter() {
        std::fs::write(out.join(name), bytes)?;
    }
    Ok(())
}
