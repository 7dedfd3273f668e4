//! A short `make soak`.

use wsnic_tests::soak;

const FRAMES: u64 = 50_000;

#[test]
fn random_frames_pass_unharmed_with_offloads() {
    let report = soak::run(FRAMES, "", 3).unwrap_or_else(|fault| panic!("{fault}"));
    // Joining is what might harm them: it has to take place.
    assert!(report.packets * 4 < FRAMES * 3, "{} writes", report.packets);
}

#[test]
fn random_frames_pass_unharmed_without_offloads() {
    let report = soak::run(FRAMES, "offloads = no\n", 4).unwrap_or_else(|fault| panic!("{fault}"));
    assert!(report.packets >= FRAMES, "{} writes", report.packets);
}
