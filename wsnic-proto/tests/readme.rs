//! The README's table of options is the one that the code makes.

use wsnic_proto::options::markdown_table;

const BEGIN: &str = "<!-- options: begin, made from wsnic-proto/src/options/table.rs -->\n";
const END: &str = "<!-- options: end -->\n";

/// Set to write the table into the README instead of comparing.
const UPDATE: &str = "WSNIC_UPDATE_README";

#[test]
fn the_readme_has_the_table_of_options() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let readme = std::fs::read_to_string(path).expect("the README is there");
    let (before, rest) = readme.split_once(BEGIN).expect("the README marks where the table begins");
    let (table, after) = rest.split_once(END).expect("the README marks where the table ends");
    let wanted = format!("\n{}\n", markdown_table());
    if std::env::var_os(UPDATE).is_some() {
        let text = format!("{before}{BEGIN}{wanted}{END}{after}");
        std::fs::write(path, text).expect("the README can be written");
        return;
    }
    assert!(
        table == wanted,
        "the README's table of options differs from the code's; write it anew with\n\
         {UPDATE}=1 cargo test -p wsnic-proto --test readme"
    );
}
