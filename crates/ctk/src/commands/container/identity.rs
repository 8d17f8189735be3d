//! Names and numbers for things that were given none.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A number that nobody else has: the standard library's hasher is seeded at random.
fn random() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish()
}

/// 64 hexadecimal digits.
pub fn id() -> String {
    use std::io::Read;
    let mut bytes = [0_u8; 32];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    if read.is_err() {
        for part in bytes.chunks_mut(8) {
            part.copy_from_slice(random().to_ne_bytes().get(..part.len()).unwrap_or_default());
        }
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Two words for who gave no name.
pub fn name() -> String {
    const HOW: [&str; 48] = [
        "able", "agile", "amber", "azure", "bold", "brave", "brief", "bright", "brisk", "calm", "clear", "clever",
        "cool", "coral", "crisp", "deft", "eager", "early", "fair", "fast", "fine", "firm", "fond", "fresh", "gentle",
        "glad", "grand", "green", "happy", "keen", "kind", "light", "lively", "lucid", "merry", "mild", "neat",
        "noble", "plain", "proud", "quick", "quiet", "rapid", "sharp", "silent", "steady", "sunny", "warm",
    ];
    const WHO: [&str; 48] = [
        "badger", "beaver", "bison", "crane", "cricket", "deer", "dolphin", "eagle", "egret", "falcon", "ferret",
        "finch", "fox", "gecko", "goose", "hare", "hawk", "heron", "ibis", "jackdaw", "kestrel", "koala", "lark",
        "lemur", "lynx", "marten", "mole", "moose", "newt", "otter", "owl", "panda", "pelican", "plover", "puffin",
        "quail", "rabbit", "raven", "robin", "salmon", "seal", "shrew", "stork", "swan", "swift", "toad", "vole",
        "wren",
    ];
    let number = random() as usize;
    let how = HOW.get(number % HOW.len()).unwrap_or(&"plain");
    let who = WHO.get(number / HOW.len() % WHO.len()).unwrap_or(&"otter");
    format!("{how}-{who}-{:03x}", number >> 40 & 0xfff)
}

/// The host's name.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
