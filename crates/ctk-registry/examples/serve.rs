//! Serves a directory until its standard input ends: `serve 127.0.0.1:5000 DIRECTORY`. Prints the address it took.

use std::io::Read;
use std::time::Duration;

use ctk_registry::{ServeOptions, serve};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, directory] = arguments.as_slice() else { return Err("expected ADDRESS DIRECTORY".into()) };
    let server = serve(ServeOptions::new(listen.parse()?, directory))?;
    println!("{}", server.local_addr());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    server.shutdown(Duration::from_secs(10));
    Ok(())
}
