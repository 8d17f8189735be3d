//! Moves an image between a registry and a store, or from registry to registry, and says how long it took:
//!
//! ```text
//! transfer pull REFERENCE STORE
//! transfer push REFERENCE STORE DIGEST
//! transfer copy FROM TO
//! ```

use std::path::Path;
use std::time::Instant;

use ctk_client::{Client, ClientOptions, PushOptions};
use ctk_oci::Descriptor;
use ctk_plan::Cancel;
use ctk_store::{Depth, Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let client = Client::new(ClientOptions::from_environment(|name| std::env::var(name).ok()));
    let (started, cancel) = (Instant::now(), Cancel::new());
    match arguments.as_slice() {
        ["pull", reference, store] => {
            let store = Store::open(Path::new(store))?;
            let root = client.pull(&reference.parse()?, None, Depth::Layers, &store, None, &cancel)?;
            println!("{}", root.digest);
        }
        ["push", reference, store, digest] => {
            let store = Store::open(Path::new(store))?;
            let digest = digest.parse()?;
            let size = store.size(&digest)?.ok_or("no such manifest in the store")?;
            let root = Descriptor::new(ctk_oci::media_type::MANIFEST, digest, size);
            let pushed = client.push(&reference.parse()?, &root, &store, &PushOptions::default(), None, &cancel)?;
            println!("{pushed:?}");
        }
        ["copy", from, to] => {
            let root = client.copy(&from.parse()?, &to.parse()?, None, None, &cancel)?;
            println!("{}", root.digest);
        }
        _ => return Err("expected pull REFERENCE STORE, push REFERENCE STORE DIGEST, or copy FROM TO".into()),
    }
    eprintln!("{} ms", started.elapsed().as_millis());
    Ok(())
}
