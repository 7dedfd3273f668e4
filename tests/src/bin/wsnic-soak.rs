//! Passes many random frames through the real programs and compares each (`make soak`).
//!
//! SOAK_FRAMES says how many, SOAK_SEED which. It fails at the first frame that is lost, changed,
//! repeated or out of order.

use std::process::ExitCode;
use wsnic_tests::soak;

fn main() -> ExitCode {
    let number = |name: &str, default: u64| match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => default,
    };
    let (frames, seed) = (number("SOAK_FRAMES", 24_000_000), number("SOAK_SEED", 1));
    // A quarter without offloads.
    for (conf, frames) in [("", frames - frames / 4), ("offloads = no\n", frames / 4)] {
        let report = match soak::run(frames, conf, seed) {
            Ok(report) => report,
            Err(fault) => {
                eprintln!("{fault}");
                return ExitCode::FAILURE;
            }
        };
        let seconds = report.time.as_secs_f64();
        println!(
            "{:<14} {} frames, {:.1} GB, unharmed in {seconds:.0} s: {:.0} frames/s; {} writes of \
             the front-end",
            conf.trim(),
            report.frames,
            report.bytes as f64 / 1e9,
            report.frames as f64 / seconds,
            report.packets,
        );
    }
    ExitCode::SUCCESS
}
