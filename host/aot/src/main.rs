//! `layerbox-aot IN.wasm OUT.cwasm`: compiles a component ahead of time. A tool of the build; it is not
//! installed.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [input, output] = arguments.as_slice() else {
        eprintln!("usage: layerbox-aot IN.wasm OUT.cwasm");
        return ExitCode::from(2);
    };
    let compile = || -> Result<(), String> {
        let component = std::fs::read(input).map_err(|e| format!("{}: {e}", input.display()))?;
        let engine = layerbox_aot::engine().map_err(|e| format!("engine: {e:#}"))?;
        let compiled =
            layerbox_aot::compile(&engine, &component).map_err(|e| format!("{}: {e:#}", input.display()))?;
        std::fs::write(output, compiled).map_err(|e| format!("{}: {e}", output.display()))
    };
    match compile() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("layerbox-aot: {message}");
            ExitCode::FAILURE
        }
    }
}
