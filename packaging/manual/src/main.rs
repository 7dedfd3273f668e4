//! Makes man pages, completions and the commented wsnic.conf from the programs' own command lines and the table of options.
//!
//! `wsnic-manual FOLDER DATE` writes what belongs below /usr/share, where man and the shells look for
//! it; DATE stands in the pages. The folders of zsh and fish are those for packages.
#![forbid(unsafe_code)]

mod completions;
mod pages;
mod roff;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, date] = arguments.as_slice() else {
        eprintln!("usage: wsnic-manual FOLDER DATE");
        return ExitCode::from(2);
    };
    match write(Path::new(folder), date) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wsnic-manual: cannot write below {folder}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(folder: &Path, date: &str) -> io::Result<()> {
    let pages = pages::all().into_iter().map(|page| {
        let path = format!("man/man{}/{}.{}", page.section, page.name, page.section);
        (PathBuf::from(path), page.render(date))
    });
    let template = (PathBuf::from("doc/wsnic/wsnic.conf"), wsnic_proto::options::template());
    for (path, text) in pages.chain(completions::all()).chain([template]) {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, text)?;
    }
    Ok(())
}
