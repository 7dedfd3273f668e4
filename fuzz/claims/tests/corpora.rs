//! Every claim on every file of its corpus and on some thousands of changed ones, the same in each
//! run: what can be had of fuzzing without a fuzzer.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use wsnic_claims::{TARGETS, Target};

#[test]
fn the_codec_takes_exactly_the_packets_that_it_makes() {
    try_all("codec", 20_000);
}

#[test]
fn settings_survive_their_text_and_errors_name_file_and_line() {
    try_all("conf", 3_000);
}

#[test]
fn dhcp_gives_no_address_to_two_and_loses_none() {
    try_all("dhcp", 3_000);
}

#[test]
fn the_helper_answers_any_messages_as_its_model_does() {
    try_all("dispatch", 2_000);
}

#[test]
fn no_frame_passes_that_a_guest_may_not_send() {
    try_all("frame", 20_000);
}

#[test]
fn a_stream_of_frames_means_the_same_however_it_is_cut() {
    try_all("framing", 3_000);
}

#[test]
fn the_verdict_on_a_head_does_not_depend_on_how_it_is_cut() {
    try_all("http_head", 2_000);
}

#[test]
fn super_frames_are_cut_as_the_model_cuts_them() {
    try_all("offload_cut", 3_000);
}

#[test]
fn frames_are_joined_exactly_as_the_model_joins_them() {
    try_all("offload_join", 1_000);
}

#[test]
fn exactly_who_shows_a_secret_of_the_token_file_comes_in() {
    try_all("token", 3_000);
}

#[test]
fn websocket_bytes_mean_the_same_however_they_are_cut() {
    try_all("websocket", 3_000);
}

#[test]
fn every_target_has_a_fuzzer_and_every_corpus_a_target() {
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    let mut corpora = names_in("corpus");
    corpora.sort_unstable();
    assert_eq!(corpora, names);
    let mut fuzzers = names_in("fuzz_targets");
    fuzzers.sort_unstable();
    assert_eq!(fuzzers, names.iter().map(|name| format!("{name}.rs")).collect::<Vec<_>>());
}

/// Panics with the input, if one breaks the claim.
fn try_all(name: &str, changed: usize) {
    let (_, target) = TARGETS.into_iter().find(|(known, _)| *known == name).unwrap();
    let files = corpus(name);
    assert!(files.len() > 5, "the corpus is missing");
    for (file, bytes) in &files {
        try_one(target, bytes, file);
    }
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for round in 0..changed {
        let bytes = dice.changed(&files);
        try_one(target, &bytes, &format!("change {round}"));
    }
}

fn try_one(target: Target, bytes: &[u8], what: &str) {
    if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| target(bytes))) {
        eprintln!("{what} breaks the claim: \"{}\"", bytes.escape_ascii());
        panic::resume_unwind(payload);
    }
}

/// Names and contents, in the order of the names.
fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let directory = fuzz().join("corpus").join(name);
    let mut names = names_in(&format!("corpus/{name}"));
    names.sort_unstable();
    let file = |name: String| {
        let bytes = fs::read(directory.join(&name)).unwrap();
        (name, bytes)
    };
    names.into_iter().map(file).collect()
}

fn names_in(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(fuzz().join(directory)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn fuzz() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// xorshift64*: the same numbers in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % sides.max(1)
    }

    /// A file of the corpus with one to eight changes.
    fn changed(&mut self, files: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = files[self.roll(files.len())].1.clone();
        for _ in 0..=self.roll(8) {
            let at = self.roll(bytes.len() + 1);
            let until = (at + self.roll(16)).min(bytes.len());
            match self.roll(7) {
                0 => bytes.insert(at, self.roll(256) as u8),
                1 => drop(bytes.drain(at..until)),
                2 => {
                    let copy = bytes[at..until].to_vec();
                    let to = self.roll(bytes.len() + 1);
                    bytes.splice(to..to, copy);
                }
                3 => {
                    // The end of another file.
                    let other = &files[self.roll(files.len())].1;
                    bytes.truncate(at);
                    bytes.extend(&other[self.roll(other.len() + 1)..]);
                }
                4 => bytes[at..until].iter_mut().for_each(|byte| *byte ^= 1 << self.roll(8)),
                5 => {
                    let value = [0, 1, 0x7f, 0x80, 0xfe, 0xff][self.roll(6)];
                    bytes[at..until].fill(value);
                }
                _ => bytes[at..until].iter_mut().for_each(|byte| *byte = self.roll(256) as u8),
            }
        }
        bytes.truncate(16 * 1024);
        bytes
    }
}
