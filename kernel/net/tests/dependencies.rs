//! What this room takes from smoltcp: packet formats, and nothing else.

use std::path::Path;

fn sources(dir: &Path, each: &mut impl FnMut(&Path, &str)) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, each);
        } else {
            each(&path, &std::fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn only_wire_of_smoltcp_is_used() {
    let mut uses = 0;
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    sources(Path::new(source), &mut |path, text| {
        for (at, _) in text.match_indices("smoltcp::") {
            uses += 1;
            assert!(
                text[at..].starts_with("smoltcp::wire"),
                "{}",
                path.display()
            );
        }
    });
    assert!(
        uses > 0,
        "smoltcp is not used any more: take it out of Cargo.toml"
    );
}
